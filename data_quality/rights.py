"""What a document's own metadata says of rights: its licence, and whether its publisher opts out of training on it.

Evidence for rules, no legal judgement. Read from `meta`, whose fields a source keeps by `meta_fields`; names of fields
are compared without case, and with - and _ alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

RIGHTS_VERSION = 1
"""Raised when the same metadata gives other values."""

RIGHTS_COLUMNS: dict[str, pa.DataType] = {
    "licence": pa.string(),
    "licence_class": pa.string(),
    "ai_opt_out": pa.int64(),
    "noindex": pa.int64(),
}

_CC_CLASSES = {"by": "permissive", "by-sa": "copyleft"}
"""Creative Commons licences with NC or ND are restricted."""

_CC = re.compile(r"\b(?:cc|creative commons)[ -]+(by(?:[ -](?:nc|sa|nd))*)(?:[ -](\d(?:\.\d)?))?(?![\w])")
_CC_URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?")
_CC_WORDS = (
    ("attribution", "by"),
    ("noncommercial", "nc"),
    ("non commercial", "nc"),
    ("sharealike", "sa"),
    ("share alike", "sa"),
    ("noderivatives", "nd"),
    ("no derivatives", "nd"),
    ("noderivs", "nd"),
    ("no derivs", "nd"),
)
_URLS = (
    (re.compile(r"opensource\.org/licen[sc]es?/([\w.+-]+)"), None),
    (re.compile(r"spdx\.org/licenses/([\w.+-]+?)(?:\.html|\.json)?(?:$|[\s/?#])"), None),
    (re.compile(r"apache\.org/licenses/license-(\d\.\d)"), "apache {}"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?(a?l?gpl|fdl)(?:-(\d\.\d))?"), "{} {}"),
    (re.compile(r"mozilla\.org/(?:en-us/)?mpl/(\d\.\d)"), "mpl {}"),
    (re.compile(r"unlicense\.org"), "unlicense"),
    (re.compile(r"nationalarchives\.gov\.uk/doc/open-government-licence/version/(\d)"), "ogl {}.0"),
    (re.compile(r"opendatacommons\.org/licenses/(odbl|by|pddl)"), "odc {}"),
)
# How the plain form of a name comes about: what is replaced, in this order.
_PLAIN = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"[()\"',_]|-", " "),
        (r"\b(?:the|gnu|licen[sc]ed?|licen[sc]es|under|version|ver|v)\b", " "),
        (r"(?<![a-z])v(?=\d)|(?<=gpl)v(?=\d)", " "),
        (r"\bgeneral\s+public\b", "gpl"),
        (r"\b(?:lesser|library)\s+gpl\b", "lgpl"),
        (r"\baffero\s+gpl\b", "agpl"),
        (r"\bfree\s+documentation\b", "gfdl"),
        (r"\bmozilla\s+public\b", "mpl"),
        (r"\s*(?:\bor\s+(?:any\s+)?later\b|\+)", "+"),
        (r"\bonly\b", " "),
        (r"(?<=\d)(?:\.0)+(?=\+|\s|$)", ""),
        (r"[^\w.+]+", " "),
    )
)
_EITHER = re.compile(r"\s+or\s+|\s*/\s*|\s*\|\s*", re.IGNORECASE)

LICENCE_FIELDS = (
    "license", "licence", "licenses", "licences", "license_id", "spdx", "spdx_license_id", "license_url", "licence_url",
    "max_stars_repo_licenses", "detected_licenses", "dc.rights", "dcterms.license", "rights", "copyright",
)  # fmt: skip
"""Fields of `meta` that may state a licence; the first that does counts. Of nested fields the last name counts."""
ROBOTS_FIELDS = ("robots", "x_robots_tag", "http.x_robots_tag")
RESERVATION_FIELDS = ("tdm_reservation", "http.tdm_reservation")

_OPT_OUTS = frozenset({"noai", "noml"})
_TRAINERS = frozenset(
    (
        *("ai2bot", "amazonbot", "anthropic-ai", "applebot-extended", "bytespider", "ccbot", "claudebot", "claude-web"),
        *("cohere-ai", "diffbot", "facebookbot", "google-extended", "gptbot", "meta-externalagent", "omgili"),
    )
)
"""Names of crawlers that gather text for training; a directive for one of them is an opt-out (X-Robots-Tag)."""


class Rights(NamedTuple):
    """What one document's metadata says; None where it says nothing."""

    licence: str | None
    licence_class: str
    ai_opt_out: bool | None
    noindex: bool | None


def rights_columns(documents: pa.Table) -> dict[str, pa.Array]:
    """RIGHTS_COLUMNS of documents (column `meta` is read), row for row.

    licence
        SPDX identifier where it is recognised (several joined by " AND "), "other" where something unknown stands,
        null where nothing is stated.
    licence_class
        public-domain, permissive, copyleft, restricted (non-commercial, no derivatives, all rights reserved), other,
        or none; of several licences the strictest. Never null.
    ai_opt_out
        1 if robots directives say noai or noml, or address a training crawler, or text and data mining is reserved
        (TDMRep: tdm-reservation 1), else 0; null where the metadata has no such field.
    noindex
        1 if robots directives for all crawlers say noindex or none, else 0; null without such directives.
    """
    encoded = documents.column("meta").combine_chunks().dictionary_encode()
    known = [read_rights(text) for text in encoded.dictionary.to_pylist()]
    nothing = len(known)
    known.append(Rights(None, "none", None, None))
    rows = encoded.indices.fill_null(nothing)
    return {
        name: pa.array([getattr(rights, name) for rights in known]).cast(kind).take(rows)
        for name, kind in RIGHTS_COLUMNS.items()
    }


def read_rights(meta: str) -> Rights:
    """What one `meta` (canonical JSON) says."""
    try:
        fields = dict(_fields(orjson.loads(meta)))
    except orjson.JSONDecodeError:
        return Rights(None, "none", None, None)
    stated = next((found for name in LICENCE_FIELDS for found in [_texts(fields.get(_key(name)))] if found), [])
    licences = sorted({normal_licence(text) for text in stated})
    classes = [licence_class(licence) for licence in licences]
    directives = [
        line for name in ROBOTS_FIELDS for text in _texts(fields.get(_key(name))) for line in text.splitlines()
    ]
    reservations = [text for name in RESERVATION_FIELDS for text in _texts(fields.get(_key(name)))]
    opt_out = noindex = None
    if directives:
        found = [_directives(text) for text in directives]
        opt_out, noindex = any(pair[0] for pair in found), any(pair[1] for pair in found)
    if reservations:
        opt_out = bool(opt_out) or any(text.strip() == "1" for text in reservations)
    return Rights(
        " AND ".join(licences) or None,
        max(classes, key=_STRICTNESS.index, default="none"),
        opt_out,
        noindex,
    )


_STRICTNESS = ("none", "public-domain", "permissive", "copyleft", "other", "restricted")


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _fields(value: Any) -> Iterable[tuple[str, Any]]:
    """Every field by its name, those inside other objects after these, the first of a name first."""
    if not isinstance(value, Mapping):
        return
    seen: dict[str, Any] = {}
    level = [value]
    while level:
        deeper = []
        for fields in level:
            for name, found in fields.items():
                seen.setdefault(_key(name), found)
                if "." in name and not name.lower().startswith(("http.", "dc.", "dcterms.")):
                    seen.setdefault(_key(name.rpartition(".")[2]), found)
                if isinstance(found, Mapping):
                    deeper.append(found)
        level = deeper
    yield from seen.items()


def _texts(value: Any) -> list[str]:
    """The strings in a value: itself, the items of a list, the name or address in an object."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [str(value)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, Mapping):
        return next(
            (found for key in ("spdx_id", "spdx", "id", "name", "url") if (found := _texts(value.get(key)))), []
        )
    return []


def _directives(text: str) -> tuple[bool, bool]:
    """Whether robots directives opt out of training, and whether all crawlers are told not to index.

    `agent: a, b` is for one crawler until the next agent (Google's description of X-Robots-Tag).
    """
    opt_out = noindex = False
    agent = ""
    for piece in text.lower().split(","):
        name, colon, rest = piece.partition(":")
        if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
            agent, piece = name.strip(), rest
        directive = piece.strip()
        if directive in _OPT_OUTS:
            opt_out = True
        elif directive in ("noindex", "none"):
            if agent in _TRAINERS:
                opt_out = True
            elif agent in ("", "*", "robots"):
                noindex = True
    return opt_out, noindex


# ------------------------------------------------------------------------------------------------ licences


@lru_cache(maxsize=1 << 14)
def normal_licence(text: str) -> str:
    """The SPDX identifier of a licence as people write it: an identifier, a name, an address; else "other".

    >>> normal_licence("https://creativecommons.org/licenses/by-sa/4.0/")
    'CC-BY-SA-4.0'
    >>> normal_licence("Apache License, Version 2.0")
    'Apache-2.0'
    """
    low = " ".join(text.lower().split())
    address = _CC_URL.search(low)
    if address:
        kind, name, version = address.groups()
        if kind == "publicdomain":
            return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}.get(name, "Public-Domain")
        return _creative_commons(name.split("-"), version)
    for pattern, form in _URLS:
        found = pattern.search(low)
        if found:
            low = found[1] if form is None else form.format(*(group or "" for group in found.groups()))
            break
    plain = _plain(low)
    if plain in _names():
        return _names()[plain]
    short = _CC.search(low.replace("_", "-"))
    if short:
        return _creative_commons(re.split("[ -]", short[1]), short[2])
    if "creative commons" in low or low.startswith(("attribution", "cc attribution")):
        words = low.replace("-", " ")
        parts = [part for word, part in _CC_WORDS if word in words]
        version = re.search(r"\d\.\d", low)
        if "by" in parts:
            return _creative_commons(parts, version[0] if version else None)
    if "all rights reserved" in low:
        return "Proprietary"
    pieces = [piece for piece in _EITHER.split(text.strip("() ")) if piece]
    choices = {normal_licence(piece) for piece in pieces} if len(pieces) > 1 else {"other"}
    return "other" if "other" in choices else " OR ".join(sorted(choices))


def _creative_commons(parts: Iterable[str], version: str | None) -> str:
    known = set(parts)
    if not known <= {"by", "nc", "sa", "nd"} or "by" not in known:
        return "other"
    name = "-".join(part for part in ("by", "nc", "nd", "sa") if part in known)
    number = f"{version}.0" if version and "." not in version else version
    return f"CC-{name.upper()}" + (f"-{number}" if number else "")


def licence_class(licence: str) -> str:
    """The class of what `normal_licence` gives; of a choice the laxest."""
    if " OR " in licence:
        return min((licence_class(choice) for choice in licence.split(" OR ")), key=_STRICTNESS.index)
    if licence.startswith("CC-BY"):
        name = re.sub(r"-\d.*", "", licence.removeprefix("CC-")).lower()
        return _CC_CLASSES.get(name, "restricted")
    return _classes().get(licence, "other")


def _plain(text: str) -> str:
    """A name without case, punctuation and what says nothing, GNU's names short, versions without .0 at the end."""
    text = text.lower()
    for pattern, by in _PLAIN:
        text = pattern.sub(by, text)
    return " ".join(dict.fromkeys(text.split()))  # "MIT License (MIT)"


@lru_cache(maxsize=1)
def licence_table() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Identifier, class and other names of every licence that is known."""
    rows = []
    for line in Path(__file__).with_name("licences.txt").read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            identifier, kind, *rest = line.split(maxsplit=2)
            names = tuple(name.strip() for name in "".join(rest).split("|") if name.strip())
            rows.append((identifier, kind, names))
    return tuple(rows)


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Every way of writing a licence, in the plain form."""
    return {_plain(name): identifier for identifier, _, names in licence_table() for name in (*names, identifier)}


@lru_cache(maxsize=1)
def _classes() -> dict[str, str]:
    return {identifier: kind for identifier, kind, _ in licence_table()}
