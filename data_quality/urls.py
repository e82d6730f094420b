"""What a document's URL says of where it came from: host, registered domain, depth. Nothing is looked up in a network.

Registered domains follow the Public Suffix List as it lies inside the installed package `tld`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

from data_quality.feature_table import FEATURES, URL

URL_COLUMNS = pa.schema([pa.field(feature.name, feature.type) for feature in FEATURES if feature.view == URL])


class Host(NamedTuple):
    """What a host says, in the order of the features."""

    domain: str | None
    suffix: str | None
    digit_share: float
    is_ip: int


def url_features(urls: pa.Array | pa.ChunkedArray) -> dict[str, pa.Array]:
    """The URL features of every document, by name; all null where there is no URL or no host can be read in it.

    A URL without a scheme is read as if it had one ("example.org/page").
    """
    if urls.null_count == len(urls):
        return {field.name: pa.nulls(len(urls), field.type) for field in URL_COLUMNS}
    rows = [_features(url) if url else (None,) * len(URL_COLUMNS) for url in urls.to_pylist()]
    columns = zip(*rows, strict=True)
    return {field.name: pa.array(column, field.type) for field, column in zip(URL_COLUMNS, columns, strict=True)}


def _features(url: str) -> tuple[Any, ...]:
    try:
        parts = urlsplit(url if "://" in url or url.startswith("//") else f"//{url}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:  # brackets that hold no address
        host = ""
    if not host:
        return (None,) * len(URL_COLUMNS)
    found = _host(host)
    depth = sum(map(bool, parts.path.split("/")))
    return host, found.domain, found.suffix, depth, found.digit_share, found.is_ip


@lru_cache(maxsize=1 << 16)
def _host(host: str) -> Host:
    from tld import get_tld

    digits = sum(character in "0123456789" for character in host) / len(host)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found: Any = get_tld(f"http://{host}", as_object=True, fail_silently=True)
        # A host that is a suffix itself has no domain: tld gives the suffix.
        domain = found.fld if found and found.fld != found.tld else None
        return Host(domain, found.tld if found else None, digits, 0)
    return Host(None, None, digits, 1)


def suffix_list() -> str:
    """The package whose Public Suffix List is used, and its version, for manifests."""
    return f"tld {version('tld')}"
