"""The manifest: the one file that says a stage output is complete, what is in it, and how it came to be.

It is created last and never changed. One that does not add up cannot be written and is not believed when read.
The format is described in `docs/schemas/manifest.schema.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from storage.filesystem import Store, digest_bytes
from storage.fingerprint import canonical_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
ABOUT = "about/"
"""Files under this name tell how an output was made (ledgers, logs, metrics). They are digested and verified like all
others but are not part of the content digest, so that time stamps do not travel downstream."""

_DIGEST = re.compile(r"[a-z0-9_-]+:[0-9a-f]+")
_FIELDS: dict[str, type] = {
    "schema_version": int,
    "stage": str,
    "version": int,
    "fingerprint": str,
    "parameters": dict,
    "inputs": dict,
    "parts": list,
    "counts": dict,
    "numerics": dict,
    "timings": dict,
    "software": dict,
    "git": dict,
}


class ManifestError(ValueError):
    """A manifest that is malformed or does not add up."""


@dataclass(frozen=True)
class Part:
    """One file of a stage output.

    `name` is "<kind>/<stem>" and the same in every output that holds this part; `path` is relative to the workspace
    root and may lie in an older output; `key` names the unit of work that made it.
    """

    name: str
    path: str
    key: str
    rows: int
    bytes: int
    digest: str

    @property
    def kind(self) -> str:
        """What the file holds: "documents", "features" …"""
        return self.name.split("/", 1)[0]

    @property
    def stem(self) -> str:
        """The name without its kind: the same for all files that describe the same rows."""
        return self.name.split("/", 1)[1]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Part:
        """The part a JSON object describes; ManifestError naming `where` if it is malformed."""
        if not isinstance(value, dict) or value.keys() != _PART_FIELDS.keys():
            raise ManifestError(f"{where}: a part must have exactly {', '.join(_PART_FIELDS)}, not {value!r}")
        for name, kind in _PART_FIELDS.items():
            if type(value[name]) is not kind or (kind is int and value[name] < 0):
                raise ManifestError(f"{where}: {name} of the part {value['name']!r} is {value[name]!r}")
        part = cls(**value)
        if not part.key or not _is_relative(part.path) or not _is_relative(part.name) or "/" not in part.name:
            raise ManifestError(f"{where}: malformed key, path or name in {part}")
        if not _DIGEST.fullmatch(part.digest):
            raise ManifestError(f"{where}: the digest of {part.name} is not 'algorithm:hex': {part.digest!r}")
        return part


_PART_FIELDS: dict[str, type] = {"name": str, "path": str, "key": str, "rows": int, "bytes": int, "digest": str}


def _is_relative(path: str) -> bool:
    """Whether a path names something below the place it is relative to, in the one way to write it."""
    return path.isprintable() and all(piece not in ("", ".", "..") for piece in path.split("/"))


@dataclass
class Counts:
    """`read = kept + dropped + quarantined`, by reason and by error."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)

    def add(self, other: Counts | Mapping[str, Any]) -> None:
        """Add the counts of another piece of work to these."""
        values: Mapping[str, Any] = asdict(other) if isinstance(other, Counts) else other
        self.read += values.get("read", 0)
        self.kept += values.get("kept", 0)
        for mine, theirs in (
            (self.dropped, values.get("dropped", {})),
            (self.quarantined, values.get("quarantined", {})),
        ):
            for reason, number in theirs.items():
                if number:
                    mine[reason] = mine.get(reason, 0) + number

    @classmethod
    def from_json(cls, value: Any, where: str) -> Counts:
        """The counts a JSON object holds; ManifestError naming `where` if they are malformed."""
        if not isinstance(value, dict) or value.keys() != {"read", "kept", "dropped", "quarantined"}:
            raise ManifestError(f"{where}: counts must have exactly read, kept, dropped, quarantined, not {value!r}")
        counts = cls(value["read"], value["kept"], value["dropped"], value["quarantined"])
        counts._check_numbers(where)
        return cls(counts.read, counts.kept, dict(counts.dropped), dict(counts.quarantined))

    def _check_numbers(self, where: str) -> None:
        by_reason = (self.dropped, self.quarantined)
        if not all(
            isinstance(reasons, dict) and all(isinstance(name, str) for name in reasons) for reasons in by_reason
        ):
            raise ManifestError(f"{where}: dropped and quarantined must give a number for each reason: {self}")
        numbers = [self.read, self.kept, *self.dropped.values(), *self.quarantined.values()]
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ManifestError(f"{where}: counts must be whole numbers that are not negative: {self}")

    def check(self, where: str) -> None:
        """Raise ManifestError naming `where` unless the sums hold and nothing is negative."""
        self._check_numbers(where)
        total = self.kept + sum(self.dropped.values()) + sum(self.quarantined.values())
        if total != self.read:
            raise ManifestError(
                f"{where}: the counts do not add up: read {self.read}, but kept {self.kept} + "
                f"dropped {sum(self.dropped.values())} + quarantined {sum(self.quarantined.values())} = {total}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The counts as a manifest holds them, reasons sorted by name."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": dict(sorted(self.quarantined.items())),
        }


def content_digest(parts: Iterable[Part]) -> str:
    """The digest of an output's content: names, rows and digests of its parts, in order, files about it left out."""
    rows = [[p.name, p.rows, p.digest] for p in parts if not p.name.startswith(ABOUT)]
    return digest_bytes(canonical_json(rows))


def build(
    *,
    stage: str,
    version: int,
    fingerprint: str,
    parameters: Any,
    inputs: Mapping[str, Mapping[str, str]],
    parts: Iterable[Part],
    counts: Counts,
    numerics: Mapping[str, Any],
    timings: Mapping[str, Any],
    software: Mapping[str, str],
    git: Mapping[str, Any],
) -> dict[str, Any]:
    """A manifest as a dictionary, checked; ManifestError if it does not add up."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "version": version,
        "fingerprint": fingerprint,
        "parameters": parameters,
        "inputs": {name: dict(inputs[name]) for name in sorted(inputs)},
        "parts": [asdict(part) for part in parts],
        "counts": counts.as_dict(),
        "numerics": dict(numerics),
        "timings": dict(timings),
        "software": dict(software),
        "git": dict(git),
    }
    check(manifest, f"the manifest of {stage} {fingerprint}")
    return manifest


def check(manifest: Any, where: str) -> None:
    """Raise ManifestError naming `where` unless `manifest` is well formed and adds up."""
    if not isinstance(manifest, dict):
        raise ManifestError(f"{where}: not a JSON object")
    missing = [name for name in _FIELDS if name not in manifest]
    if missing:
        raise ManifestError(f"{where}: missing {', '.join(missing)}")
    for name, kind in _FIELDS.items():
        if type(manifest[name]) is not kind:
            raise ManifestError(f"{where}: {name} must be a {kind.__name__}, not {manifest[name]!r}")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise ManifestError(
            f"{where}: schema_version {manifest['schema_version']!r} where this version reads {SCHEMA_VERSION}"
        )
    for name in ("stage", "fingerprint"):
        if not _is_relative(manifest[name]) or "/" in manifest[name]:
            raise ManifestError(f"{where}: {name} cannot be the name of a folder: {manifest[name]!r}")
    _check_inputs(manifest["inputs"], where)
    Counts.from_json(manifest["counts"], where).check(where)
    names: set[str] = set()
    for value in manifest["parts"]:
        part = Part.from_json(value, where)
        if part.name in names:
            raise ManifestError(f"{where}: the part {part.name} stands twice")
        names.add(part.name)


def _check_inputs(inputs: dict[str, Any], where: str) -> None:
    for name, made_by in inputs.items():
        fields = made_by if isinstance(made_by, dict) else {}
        fingerprint, digest = fields.get("fingerprint"), fields.get("digest")
        if not isinstance(fingerprint, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ManifestError(f"{where}: the input {name!r} must give a fingerprint and a digest, not {made_by!r}")


def parts_of(manifest: Mapping[str, Any]) -> list[Part]:
    """The parts of a manifest, in its order."""
    return [Part(**part) for part in manifest["parts"]]


def read(store: Store, folder: str) -> dict[str, Any]:
    """The checked manifest of an output folder; FileNotFoundError if there is none, ManifestError if it is bad."""
    where = f"{store.url}/{folder}/{MANIFEST}"
    try:
        manifest: dict[str, Any] = store.read_json(f"{folder}/{MANIFEST}")
    except ValueError as error:
        raise ManifestError(str(error)) from error
    check(manifest, where)
    return manifest
