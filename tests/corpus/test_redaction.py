"""Redaction: what is personal goes, what only looks like it stays, and twice is once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, RedactConfig, SourceConfig
from corpus.documents import read_unit
from corpus.inventory import plan_units, take_inventory
from corpus.redaction import PLACEHOLDERS, Redactor, luhn

ALL = Redactor(RedactConfig(kinds=("email", "ip", "phone", "credit-card", "iban")))

# Published examples: RFC 5737 and 3849 for addresses, card networks' test numbers, the IBAN registry's examples,
# numbers reserved for fiction (555-01xx in North America, Ofcom's drama numbers, Bundesnetzagentur's).
FOUND = {
    "email": [
        "ann@example.org", "a.b+c@mail.example.co.uk", "x_y-z%1@example.museum", "j\u00f6rg@b\u00fccher.example",
        "o'neil@example.com", "1@example.com", "name@sub.domain-with-hyphen.example",
    ],
    "ip": ["192.0.2.1", "198.51.100.255", "203.0.113.7", "10.1.2.3", "8.8.8.8", "2001:db8::ff00:42:8329",
           "2001:0db8:0000:0000:0000:ff00:0042:8329"],
    "phone": [
        "+1 202-555-0143", "+44 20 7946 0958", "+49 30 23125 014", "(202) 555-0143", "202-555-0143", "+12025550143",
        "020 7946 0958", "+33 1 99 00 12 34", "0044 20 7946 0958", "+86 138 0013 8000", "030/23125 014",
    ],
    "credit-card": [
        "4111 1111 1111 1111", "4012-8888-8888-1881", "5555555555554444", "378282246310005", "6011 1111 1111 1117",
        "3530111333300000", "30569309025904", "2223003122003222",
    ],
    "iban": [
        "GB29 NWBK 6016 1331 9268 19", "DE89370400440532013000", "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "SA03 8000 0000 6080 1016 7519", "BE68 5390 0754 7034",
    ],
}  # fmt: skip
KEPT = [
    "@property", "user@host", "git@", "a @ b", "decorator@1.5", "x@y.z1",
    "version 1.2.3.4", "v1.2.3.4", "1.2.3.4.5", "999.1.1.1", "127.0.0.1", "0.0.0.0", "255.255.255.0", "12:30:45",
    "std::vector::size", "::1",
    "2024-01-31", "31.12.2024", "1234567890", "12345678", "3.14159265", "1,234,567", "978-3-16-148410-0", "12-34",
    "10 000 000", "1999-2004", "page 1001-1023", "0.5-1.5", "00101101", "ISO 8601", "192 000",
    "4111 1111 1111 1112", "1234567812345670", "0000 0000 0000 0000", "deadbeef4111111111111111",
    "GB29 NWBK 6016 1331 9268 18", "XX29 NWBK 6016 1331 9268 19", "DE8937040044053201300",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "example"), [(kind, example) for kind in FOUND for example in FOUND[kind]])
@pytest.mark.parametrize("frame", ["{}", "call {} now", "({})", "{}.", "{}, and", "is:\n{}\n", '"{}"'])
def test_what_is_personal_is_replaced(kind: str, example: str, frame: str) -> None:
    text, counts = ALL.text(frame.format(example))
    assert text == frame.format(PLACEHOLDERS[kind])
    assert counts == {kind: 1}
    alone = Redactor(RedactConfig(kinds=(kind,)))  # type: ignore[arg-type]
    assert alone.text(frame.format(example)) == (text, counts)
    assert ALL.text(text) == (text, {})


@pytest.mark.parametrize("example", KEPT)
@pytest.mark.parametrize("frame", ["{}", "see {} there", "({})"])
def test_what_only_looks_like_it_stays(example: str, frame: str) -> None:
    assert ALL.text(frame.format(example)) == (frame.format(example), {})


def test_nothing_is_replaced_that_was_not_asked_for() -> None:
    everything = " ; ".join(example for examples in FOUND.values() for example in examples)
    assert Redactor(RedactConfig()).text(everything) == (everything, {})
    _, counts = ALL.text(everything)
    assert counts == {kind: len(examples) for kind, examples in FOUND.items()}


@settings(max_examples=200, deadline=None)
@given(
    before=st.text(st.characters(exclude_categories=("Cs", "Nd", "Nl", "No")), max_size=30),
    after=st.text(st.characters(exclude_categories=("Cs", "Nd", "Nl", "No")), max_size=30),
    kind=st.sampled_from(sorted(FOUND)),
    index=st.integers(0, 20),
)
def test_it_is_found_in_any_surroundings_and_redacting_twice_changes_nothing(
    before: str, after: str, kind: str, index: int
) -> None:
    example = FOUND[kind][index % len(FOUND[kind])]
    text, counts = ALL.text(f"{before} {example} {after}")
    assert counts.get(kind, 0) >= 1
    assert example not in text
    assert ALL.text(text)[0] == text


@given(text=st.text(st.characters(exclude_categories=("Cs", "Nd"), exclude_characters="@")))
def test_text_without_digits_and_at_signs_is_never_touched(text: str) -> None:
    assert ALL.text(text) == (text, {})


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_any_text_is_settled_after_once(text: str) -> None:
    once, _ = ALL.text(text)
    assert ALL.text(once)[0] == once


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")


def test_real_news_loses_next_to_nothing(shared_data: Path) -> None:
    data = gzip.decompress((shared_data / "text" / "wikipedia_en_30_articles.txt.gz").read_bytes()).decode()
    _, counts = ALL.text(data)
    assert sum(counts.values()) <= 5, counts


def test_what_must_not_be_stored_is_nowhere_in_the_output(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": "write to ann@example.org",
            "url": "http://x/?mail=ann@example.org",
            "to": {"all": ["ann@example.org"]},
        },
        {"text": 5, "note": "ann@example.org"},
        {"text": "call 202-555-0143"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = SourceConfig(name="s", kind="jsonl", path=str(tmp_path), meta_fields=("to",))
    config = IngestConfig(sources=(source,), redact=RedactConfig(kinds=("email",)))
    [unit] = plan_units(take_inventory(config), config)
    [batch] = read_unit(config, unit)
    assert batch.documents["text"].to_pylist() == ["write to <EMAIL>", "call 202-555-0143"]
    assert "ann" not in str(batch.documents.to_pylist()) + str(batch.quarantine.to_pylist())
    assert batch.normalised == {"redact email": 1}
