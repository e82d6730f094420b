"""What a document's own metadata says of rights: its licence, and whether its publisher opts out of training on it.

Evidence for rules, no legal judgement. Read from `meta`, whose fields a source keeps by `meta_fields`; names of fields
are compared without case, and with - and _ alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

RIGHTS_VERSION = 1
"""Raised when the same metadata gives other values."""

RIGHTS_COLUMNS: dict[str, pa.DataType] = {
    "licence": pa.string(),
    "licence_class": pa.string(),
    "ai_opt_out": pa.bool_(),
    "noindex": pa.bool_(),
}

# The SPDX identifier (ours where SPDX has none: BSD, Public-Domain, Proprietary), its class, and how else it is written,
# without case, punctuation, "the", "license" and "version".
_LICENCES = """
CC0-1.0            public-domain   cc0 | cc zero | cc0 10 | cc0 10 universal | creative commons zero | creative commons zero 10 universal
CC-PDM-1.0         public-domain   public domain mark | public domain mark 10 | cc pdm | pdm 10
Public-Domain      public-domain   public domain | publicdomain | pd | us public domain | no known copyright | us government work
Unlicense          public-domain   unlicense | unlicence
WTFPL              public-domain   do what the fuck you want to public | wtfpl 2
0BSD               permissive      bsd zero clause | zero clause bsd
MIT                permissive      expat | mit expat
MIT-0              permissive      mit no attribution
Apache-2.0         permissive      apache | apache 20 | apache 2 | apache software | apache software 20 | asl 20
Apache-1.1         permissive      apache 11 | apache software 11
BSD-2-Clause       permissive      bsd 2 | simplified bsd | freebsd | bsd 2 clause simplified
BSD                permissive      bsd style
BSD-3-Clause       permissive      bsd 3 | new bsd | modified bsd | bsd new | revised bsd | bsd 3 clause new or revised
BSD-4-Clause       permissive      bsd 4 | original bsd
ISC                permissive
Zlib               permissive
BSL-1.0            permissive      boost software | boost | boost software 10 | bsl
PSF-2.0            permissive      python software foundation | psf | psfl
Python-2.0         permissive      python
PostgreSQL         permissive
X11                permissive
NCSA               permissive      university of illinois ncsa open source
AFL-3.0            permissive      academic free 30
Artistic-2.0       permissive      artistic 20
BlueOak-1.0.0      permissive      blue oak model 100
MS-PL              permissive      microsoft public
UPL-1.0            permissive      universal permissive | universal permissive 10
Unicode-DFS-2016   permissive      unicode
ODC-By-1.0         permissive      odc by | open data commons attribution | odc by 10
PDDL-1.0           public-domain   odc pddl | pddl | public domain dedication and
CDLA-Permissive-2.0  permissive    cdla permissive | cdla permissive 20
OGL-UK-3.0         permissive      open government | open government 30 | ogl | ogl 30 | uk open government 30
etalab-2.0         permissive      licence ouverte | licence ouverte 20 | etalab | open 20
GPL-2.0-only       copyleft        gpl 2 | gpl 20 | gplv2 | gnu gpl 2 | gnu gpl 20 | gnu general public 2 | gnu general public 20 | gnu gplv2 | gpl 2 only
GPL-2.0-or-later   copyleft        gpl 2+ | gpl 20+ | gplv2+ | gnu gpl 2+ | gnu gplv2+ | gnu general public 2 or later
GPL-1.0-or-later   copyleft        gpl | gnu gpl | gnu general public
GPL-3.0-only       copyleft        gpl 3 | gpl 30 | gplv3 | gnu gpl 3 | gnu gpl 30 | gnu general public 3 | gnu general public 30 | gnu gplv3 | gnu general public 30 only
GPL-3.0-or-later   copyleft        gpl 3+ | gpl 30+ | gplv3+ | gnu gpl 3+ | gnu gplv3+ | gnu general public 3 or later | gnu general public 30 or later
LGPL-2.1-only      copyleft        lgpl 21 | lgplv21 | gnu lesser general public 21 | gnu lgplv21
LGPL-2.1-or-later  copyleft        lgpl 21+ | lgplv21+ | gnu lesser general public 21 or later
LGPL-2.0-or-later  copyleft        lgpl | gnu lgpl | gnu lesser general public
LGPL-3.0-only      copyleft        lgpl 3 | lgpl 30 | lgplv3 | gnu lesser general public 3 | gnu lesser general public 30 | gnu lgplv3
LGPL-3.0-or-later  copyleft        lgpl 3+ | lgpl 30+ | lgplv3+ | gnu lesser general public 30 or later
AGPL-3.0-only      copyleft        agpl 3 | agpl 30 | agplv3 | gnu affero general public 3 | gnu affero general public 30 | gnu agplv3
AGPL-1.0-or-later  copyleft        agpl | gnu agpl | gnu affero general public
AGPL-3.0-or-later  copyleft        agpl 3+ | agpl 30+ | agplv3+ | gnu affero general public 30 or later
GFDL-1.2-or-later  copyleft        gfdl 12+ | gfdl 12 or later
GFDL-1.3-or-later  copyleft        gfdl | gnu free documentation | gfdl 13 | fdl | fdl 13 | gfdl 13+ | gfdl 13 or later | gnu free documentation 13
MPL-1.1            copyleft        mpl 11 | mozilla public 11
MPL-2.0            copyleft        mpl | mpl 2 | mpl 20 | mozilla public | mozilla public 20
EPL-1.0            copyleft        epl 10 | eclipse public 10
EPL-2.0            copyleft        epl | epl 20 | eclipse public | eclipse public 20
EUPL-1.2           copyleft        eupl | eupl 12 | european union public | european union public 12
CDDL-1.0           copyleft        cddl | common development and distribution
ODbL-1.0           copyleft        odbl | open database | odbl 10 | open data commons open database
OSL-3.0            copyleft        open software 30
CeCILL-2.1         copyleft        cecill | cecill 21
Proprietary        restricted      all rights reserved | copyright | copyrighted | proprietary
"""
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
_NOISE = re.compile(r"\b(?:(?:the|licen[sc]ed?|licen[sc]es|under|version|ver|v)\b|v(?=\d))")
_EITHER = re.compile(r"\s+or\s+|\s*/\s*|\s*\|\s*", re.IGNORECASE)

LICENCE_FIELDS = (
    "license", "licence", "licenses", "licences", "license_id", "spdx", "spdx_license_id", "license_url", "licence_url",
    "max_stars_repo_licenses", "detected_licenses", "dc.rights", "dcterms.license", "rights", "copyright",
)  # fmt: skip
"""Fields of `meta` that may state a licence; the first that states one counts. Fields inside others count by last name."""
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
        Whether robots directives say noai or noml, or address a training crawler, or text and data mining is reserved
        (TDMRep: tdm-reservation 1); null where the metadata has no such field.
    noindex
        Whether robots directives for all crawlers say noindex or none; null without such directives.
    """
    encoded = documents.column("meta").combine_chunks().dictionary_encode()
    known = [read_rights(text) for text in encoded.dictionary.to_pylist()]
    nothing = len(known)
    known.append(Rights(None, "none", None, None))
    rows = encoded.indices.fill_null(nothing)
    return {
        name: pa.array([getattr(rights, name) for rights in known], kind).take(rows)
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
    directives = [text for name in ROBOTS_FIELDS for text in _texts(fields.get(_key(name)))]
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
    text = _NOISE.sub(" ", text.replace("(", " ").replace(")", " ").replace('"', " "))
    text = re.sub(r"(?<=\d)\.(?=\d)", "", text)
    return " ".join(dict.fromkeys(re.sub(r"[^\w+]+", " ", text).split()))  # "MIT License (MIT)"


@lru_cache(maxsize=1)
def _rows() -> list[tuple[str, str, list[str]]]:
    rows = []
    for line in _LICENCES.strip().splitlines():
        identifier, kind, names = (line.split(maxsplit=2) + [""])[:3]
        rows.append((identifier, kind, [name.strip() for name in names.split("|") if name.strip()]))
    return rows


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Every way of writing a licence, in the plain form."""
    return {_plain(name.lower()): identifier for identifier, _, names in _rows() for name in (*names, identifier)}


@lru_cache(maxsize=1)
def _classes() -> dict[str, str]:
    return {identifier: kind for identifier, kind, _ in _rows()}
