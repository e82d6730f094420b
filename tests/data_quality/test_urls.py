"""URL features: hosts of every kind, domains by the Public Suffix List, and nulls where there is nothing."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_quality.urls import URL_COLUMNS, suffix_list, url_features


def features(url: str | None) -> tuple[Any, ...]:
    found = url_features(pa.array([url], pa.string()))
    return tuple(found[name].to_pylist()[0] for name in URL_COLUMNS.names)


NOTHING = (None,) * 6


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://WWW.Example.CO.UK/a/b//c?x=/y#/z", ("www.example.co.uk", "example.co.uk", "co.uk", 3, 0.0, 0)),
        ("https://user:secret@example.com.:8080", ("example.com", "example.com", "com", 0, 0.0, 0)),
        ("http://me.github.io/", ("me.github.io", "me.github.io", "github.io", 0, 0.0, 0)),
        ("http://co.uk/", ("co.uk", None, "co.uk", 0, 0.0, 0)),
        ("http://münchen.de/x", ("münchen.de", "münchen.de", "de", 1, 0.0, 0)),
        ("example.org/page", ("example.org", "example.org", "org", 1, 0.0, 0)),
        ("//a.example.org/page", ("a.example.org", "example.org", "org", 1, 0.0, 0)),
        ("http://news24.example.com", ("news24.example.com", "example.com", "com", 0, 2 / 18, 0)),
        ("http://192.168.0.1/a", ("192.168.0.1", None, None, 1, 8 / 11, 1)),
        ("http://[2001:db8::1]:80/a", ("2001:db8::1", None, None, 1, 6 / 11, 1)),
        ("http://localhost/", ("localhost", None, None, 0, 0.0, 0)),
        ("http://[broken/", NOTHING),
        ("http:///path", NOTHING),
        ("", NOTHING),
        (None, NOTHING),
    ],
)
def test_what_a_url_says(url: str | None, wanted: tuple[Any, ...]) -> None:
    assert features(url) == wanted


@given(st.lists(st.one_of(st.none(), st.text(max_size=30), st.from_regex(r"https?://[a-z0-9.\[\]:%-]{0,20}/.*"))))
def test_anything_may_stand_there(urls: list[str | None]) -> None:
    clean = [url and url.encode("utf-8", "replace").decode() for url in urls]
    found = url_features(pa.array(clean, pa.string()))
    assert all(len(column) == len(urls) for column in found.values())


def test_the_list_says_its_version() -> None:
    assert suffix_list().startswith("tld 0.")
