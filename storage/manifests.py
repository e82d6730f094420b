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
_FIELDS = (
    "schema_version",
    "stage",
    "version",
    "fingerprint",
    "parameters",
    "inputs",
    "parts",
    "counts",
    "numerics",
    "timings",
    "software",
    "git",
)


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

    def check(self, where: str) -> None:
        """Raise ManifestError naming `where` unless the sums hold and nothing is negative."""
        numbers = [self.read, self.kept, *self.dropped.values(), *self.quarantined.values()]
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ManifestError(f"{where}: counts must be whole numbers that are not negative: {self}")
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
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise ManifestError(
            f"{where}: schema_version {manifest['schema_version']!r} where this version reads {SCHEMA_VERSION}"
        )
    try:
        parts = [Part(**part) for part in manifest["parts"]]
        counts = Counts(**manifest["counts"])
    except (TypeError, AttributeError) as error:
        raise ManifestError(f"{where}: malformed parts or counts: {error}") from error
    counts.check(where)
    names: set[str] = set()
    for part in parts:
        if part.name in names:
            raise ManifestError(f"{where}: the part {part.name} stands twice")
        names.add(part.name)
        if "/" not in part.name or not part.path or part.rows < 0 or part.bytes < 0:
            raise ManifestError(f"{where}: malformed part {part}")
        if not _DIGEST.fullmatch(part.digest):
            raise ManifestError(f"{where}: the digest of {part.name} is not 'algorithm:hex': {part.digest!r}")


def parts_of(manifest: Mapping[str, Any]) -> list[Part]:
    """The parts of a manifest, in its order."""
    return [Part(**part) for part in manifest["parts"]]


def read(store: Store, folder: str) -> dict[str, Any]:
    """The checked manifest of an output folder; FileNotFoundError if there is none, ManifestError if it is bad."""
    manifest = store.read_json(f"{folder}/{MANIFEST}")
    check(manifest, f"{store.url}/{folder}/{MANIFEST}")
    return manifest  # type: ignore[no-any-return]
