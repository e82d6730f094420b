"""ingest: input files become immutable document parts; what cannot be read is put aside with its reason.

Parts: `documents/<stem>-<k>`, `quarantine/<stem>-<k>` (only where there is something), `index/ids`, and for people
`about/ledger`, `about/normalised` and, where there is need, `about/spans` (how large files are divided) and
`about/verified` (files whose etag was replaced because of their content).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple
from functools import cached_property, partial
from typing import Any

from corpus.config import IngestConfig, SourceConfig
from stages.base import Context, Inputs, SettingError, Stage, Unit
from stages.config import RunConfig
from storage.fingerprint import canonical, hash_of
from storage.manifests import ManifestError
from storage.outputs import Output, PartWriter, Receipt
from storage.schemas import DOCUMENTS, ID_INDEX, QUARANTINE

_CHOOSING = ("path", "include", "exclude", "packages", "exclude_packages", "max_bytes")


class Ingest(Stage[IngestConfig]):
    """Reads every source, in parts that depend on the files alone."""

    name = "ingest"
    version = 3

    def __init__(self, config: IngestConfig, *, verify: bool = False) -> None:
        super().__init__(config)
        self._verify = verify
        self._inventory: Any = None
        self._find_previous: Callable[[], Output | None] = lambda: None

    def inventory(self) -> Any:
        """The input files, listed once for the life of this object."""
        if self._inventory is None:
            self._inventory = list_inputs(self.config, "ingest.sources")
            if self._verify and self._previous is not None:
                from corpus.ledger import verify_inventory

                before = self._previous.read("about/ledger").to_pylist()
                self._inventory = verify_inventory(self._inventory, self.config, before)
            elif self._previous is not None and self._previous.has("about/verified"):
                self._inventory = self._inventory.as_verified(self._previous.read_json("about/verified"))
        return self._inventory

    @cached_property
    def _previous(self) -> Output | None:
        return self._find_previous()

    def __reduce__(self) -> tuple[type[Ingest], tuple[IngestConfig]]:
        # Workers get their files in the unit; the inventory of a large source is not worth sending along.
        return Ingest, (self.config,)

    def follow(self, previous: Callable[[], Output | None]) -> None:
        self._find_previous = previous

    def parameters(self) -> Any:
        inventory, parameters = self.inventory(), canonical(self.config, self.name)
        del parameters["empty_sources"]  # a gate judges the result, it does not make it
        taken_down = parameters["takedown"]
        return {
            **parameters,
            "takedown": {"entries": len(taken_down), "digest": hash_of(taken_down)},
            "inventory": {"digest": inventory.digest, "files": len(inventory.files), "bytes": inventory.bytes},
        }

    def starts(self) -> bool:
        from corpus.inventory import large_files

        return bool(large_files(self.inventory(), self.config))

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        """Finds where large files are divided."""
        if not self.starts():
            return
        from corpus.inventory import Span
        from corpus.sources.base import InputFile
        from corpus.spans import find_spans

        size = self.config.part_bytes
        before = self._previous.read_json("about/spans") if self._previous and self._previous.has("about/spans") else {}
        known = (
            {InputFile(*file): [Span(*span) for span in spans] for file, spans in before["files"]}
            if before.get("part_bytes") == size
            else {}
        )
        found = find_spans(self.inventory(), self.config, known)
        files = [[_stored(file), [list(astuple(span)) for span in spans]] for file, spans in found.items()]
        writer.json("about/spans", {"part_bytes": size, "files": files})
        writer.notes["spans"] = files

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        from corpus.inventory import Span, plan_units
        from corpus.normalise import NORMALISE_VERSION
        from corpus.redaction import REDACTION_VERSION

        spans = {
            (file[0], file[1]): [Span(*span) for span in spans]
            for file, spans in started.notes.get("spans", [])
            if len(spans) > 1
        }
        sources = {source.name: source for source in self.config.sources}
        shared = {
            "normalise": {**canonical(self.config.normalise), "version": NORMALISE_VERSION},
            "redact": {**canonical(self.config.redact), "version": REDACTION_VERSION},
            "part_bytes": self.config.part_bytes,
            "max_record_bytes": self.config.max_record_bytes,
            "checksums": self.config.checksums,
        }
        reading = {name: _reading(source) for name, source in sources.items()}
        taken_down: dict[tuple[str, str], list[Any]] = {}
        for down in self.config.takedown:
            taken_down.setdefault((down.source, down.uri.partition("!/")[0]), []).append(canonical(down))
        units = []
        for unit in plan_units(self.inventory(), self.config, spans):
            # Only what this unit's documents depend on: another source or file leaves its key as it is.
            material = {**shared, "source": reading[unit.source], "stem": unit.stem, "files": canonical(unit.material)}
            if unit.span is not None:
                material["span"] = list(astuple(unit.span))
            if entries := [entry for file in unit.files for entry in taken_down.get((unit.source, file.uri), ())]:
                material["takedown"] = entries
            units.append(Unit(unit.stem, self.unit_key(**material), {"unit": unit}, unit.bytes))
        return units

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from corpus.adoption import adopt
        from corpus.documents import read_unit
        from corpus.parts import Position

        files = unit.payload["unit"]
        if (adopted := adopt(self.config, files)) is not None:
            path, row = adopted
            writer.link(f"documents/{files.part_name(0)}", path, row["records"])
            writer.count(read=row["records"], kept=row["written"])
            writer.notes["ledger"] = [{**row, "unit": unit.name}]
            return
        position, number, batches = Position(), 0, None
        while not position.done:
            context.check()
            if writer.committed(number):
                # What an earlier attempt finished is passed over: reading goes on where it ended.
                position, batches = Position(**writer.notes["position"]), None
                number += 1
                continue
            if batches is None:
                batches = read_unit(self.config, files, position, partial(context.advanced, unit))
            batch = next(batches)
            name = files.part_name(number)
            if batch.documents.num_rows:
                writer.parquet(f"documents/{name}", batch.documents, DOCUMENTS)
            if batch.quarantine.num_rows:
                writer.parquet(f"quarantine/{name}", batch.quarantine, QUARANTINE)
            counts = batch.counts
            writer.count(read=counts.read, kept=counts.kept, dropped=counts.dropped, quarantined=counts.quarantined)
            ledger = [{**row, "unit": unit.name} for row in batch.ledger.to_pylist()]
            position = batch.next
            notes = {"ledger": ledger, "normalised": [batch.normalised], "position": asdict(position)}
            writer.commit(number, notes)
            number += 1
            del batch  # or it would be held while the next one grows

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        import pyarrow as pa

        from corpus.documents import id_index
        from corpus.ledger import LEDGER_WITH_UNITS, LedgerError, count_duplicates, gone_since, join_rows
        from storage.arrow_files import read_parquet

        parts = [part for receipt in receipts for part in receipt.parts if part.kind == "documents"]
        index = id_index([(part.name, read_parquet(writer.store, part.path, ["id"]).column("id")) for part in parts])
        try:
            rows = join_rows(row for receipt in receipts for row in receipt.notes.get("ledger", []))
            listed = {(file.source, file.uri) for file in self.inventory().files}
            if listed != rows.keys():
                lost = sorted(listed ^ rows.keys())[:3]
                raise LedgerError(f"files without a line in the ledger, or the other way round: {lost}")
            read = partial(read_parquet, writer.store, columns=["source", "uri"])
            count_duplicates(rows, index, {part.name: partial(read, part.path) for part in parts})
        except LedgerError as error:
            raise ManifestError(f"ingest: {error}") from error
        ordered = [rows[file.source, file.uri] for file in self.inventory().files]
        if self._previous is not None:
            before = self._previous.read("about/ledger").to_pylist()
            ordered += gone_since(rows, before, self.config.takedown)
        writer.parquet("about/ledger", pa.Table.from_pylist(ordered, schema=LEDGER_WITH_UNITS), LEDGER_WITH_UNITS)
        normalised: dict[str, int] = {}
        for receipt in receipts:
            for steps in receipt.notes.get("normalised", []):
                for step, number in steps.items():
                    normalised[step] = normalised.get(step, 0) + number
        writer.json("about/normalised", normalised)
        if verified := [_stored(file) for file in self.inventory().files if file.seen]:
            writer.json("about/verified", verified)
        writer.parquet("index/ids", index, ID_INDEX)

    def gate(self, output: Output) -> list[str]:
        read: dict[str, int] = {}
        written: dict[str, int] = {}
        why: dict[str, Counter[str]] = {}
        ledger = output.read("about/ledger", ["source", "records", "written", "reasons", "status"])
        for row in ledger.to_pylist() if self.config.empty_sources == "stop" else ():
            if row["status"] in ("read", "adopted"):
                name = row["source"]
                read[name] = read.get(name, 0) + row["records"]
                written[name] = written.get(name, 0) + row["written"]
                why.setdefault(name, Counter()).update(json.loads(row["reasons"]))
        return [
            f"source {name!r}: not one of its {read[name]:,} records became a document "
            f"({', '.join(f'{reason} {number:,}' for reason, number in why[name].most_common())}). "
            "`gristmill show ingest` shows what was wrong with them; is text_field right? "
            "(ingest.empty_sources: allow goes on without it.)"
            for name in sorted(read)
            if read[name] > why[name]["takedown"] and not written[name]
        ]


def _stored(file: Any) -> list[Any]:
    """An input file as it is written down: without its true path, where names are redacted."""
    return list(astuple(file))[:5]


def list_inputs(config: IngestConfig, setting: str) -> Any:
    """The inventory of all sources, which stand in the configuration under `setting`.

    Raises
    ------
    SettingError
        If a source is not there or cannot be what the configuration says.
    OSError
        If a place cannot be reached now.
    """
    from corpus.inventory import take_inventory

    try:
        return take_inventory(config)
    except ValueError as error:
        raise SettingError(f"{setting}: {error}") from error


def _reading(source: SourceConfig) -> dict[str, Any]:
    """What of a source decides how a file is read, as against which files are read and where they lie."""
    return {name: value for name, value in canonical(source).items() if name not in _CHOOSING}


def make(config: RunConfig) -> Ingest:
    """The stage of a run."""
    return Ingest(config.ingest, verify=config.how.verify_inputs)
