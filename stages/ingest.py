"""ingest: input files become immutable document parts; what cannot be read is put aside with its reason.

Parts: `documents/<stem>-<k>`, `quarantine/<stem>-<k>` (only where there is something), `index/ids`, and for people
`about/ledger` and `about/normalised`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corpus.config import IngestConfig, SourceConfig
from stages.base import Context, Inputs, Stage, Unit
from stages.config import RunConfig
from storage.fingerprint import canonical
from storage.manifests import ManifestError
from storage.outputs import PartWriter, Receipt
from storage.schemas import DOCUMENTS, ID_INDEX, LEDGER, QUARANTINE

_CHOOSING = ("path", "include", "exclude", "packages", "exclude_packages", "max_bytes")


class Ingest(Stage[IngestConfig]):
    """Reads every source, in parts that depend on the files alone."""

    name = "ingest"
    version = 1

    def __init__(self, config: IngestConfig) -> None:
        super().__init__(config)
        self._inventory: Any = None

    def inventory(self) -> Any:
        """The input files, listed once for the life of this object."""
        if self._inventory is None:
            from corpus.inventory import take_inventory

            self._inventory = take_inventory(self.config)
        return self._inventory

    def __reduce__(self) -> tuple[type[Ingest], tuple[IngestConfig]]:
        # Workers get their files in the unit; the inventory of a large source is not worth sending along.
        return Ingest, (self.config,)

    def parameters(self) -> Any:
        inventory = self.inventory()
        return {
            **canonical(self.config, self.name),
            "inventory": {"digest": inventory.digest, "files": len(inventory.files), "bytes": inventory.bytes},
        }

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        from corpus.inventory import plan_units
        from corpus.normalise import NORMALISE_VERSION

        sources = {source.name: _reading(source) for source in self.config.sources}
        shared = {
            "normalise": {**canonical(self.config.normalise), "version": NORMALISE_VERSION},
            "part_bytes": self.config.part_bytes,
            "max_record_bytes": self.config.max_record_bytes,
        }
        return [
            Unit(
                unit.stem,
                # Only what this unit's documents depend on: another source or file leaves its key as it is.
                self.unit_key(**shared, source=sources[unit.source], stem=unit.stem, files=canonical(unit.material)),
                {"unit": unit},
                unit.bytes,
            )
            for unit in plan_units(self.inventory(), self.config)
        ]

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from corpus.documents import read_unit

        files = unit.payload["unit"]
        for number, batch in enumerate(read_unit(self.config, files)):
            context.check()
            if writer.committed(number):
                continue
            name = files.part_name(number)
            if batch.documents.num_rows:
                writer.parquet(f"documents/{name}", batch.documents, DOCUMENTS)
            if batch.quarantine.num_rows:
                writer.parquet(f"quarantine/{name}", batch.quarantine, QUARANTINE)
            counts = batch.counts
            writer.count(read=counts.read, kept=counts.kept, dropped=counts.skipped, quarantined=counts.quarantined)
            writer.commit(number, {"ledger": batch.ledger.to_pylist(), "normalised": [batch.normalised]})

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        import pyarrow as pa

        from corpus.documents import id_index
        from storage.arrow_files import read_parquet

        rows = [
            {**row, "unit": unit.name}
            for unit, receipt in zip(self.units(inputs, receipts[0]), receipts, strict=True)
            for row in receipt.notes.get("ledger", [])
        ]
        for row in rows:
            if row["records"] != row["written"] + row["skipped"] + row["quarantined"]:
                raise ManifestError(
                    f"ingest: {row['source']}:{row['uri']} does not add up: read {row['records']}, written "
                    f"{row['written']}, skipped {row['skipped']}, quarantined {row['quarantined']}"
                )
        listed = {(file.source, file.uri) for file in self.inventory().files}
        found = {(row["source"], row["uri"]) for row in rows}
        if listed != found:
            lost = sorted(listed ^ found)[:3]
            raise ManifestError(f"ingest: files without a line in the ledger, or the other way round: {lost}")
        # The unit says which parts hold a file, so that a record is found without looking through all of them.
        schema = LEDGER.append(pa.field("unit", pa.string(), nullable=False))
        writer.parquet("about/ledger", pa.Table.from_pylist(rows, schema=schema), schema)
        normalised: dict[str, int] = {}
        for receipt in receipts:
            for steps in receipt.notes.get("normalised", []):
                for step, number in steps.items():
                    normalised[step] = normalised.get(step, 0) + number
        writer.json("about/normalised", normalised)
        parts = [part for receipt in receipts for part in receipt.parts if part.kind == "documents"]
        ids = [(part.name, read_parquet(writer.store, part.path, ["id"]).column("id")) for part in parts]
        writer.parquet("index/ids", id_index(ids), ID_INDEX)


def _reading(source: SourceConfig) -> dict[str, Any]:
    """What of a source decides how a file is read, as against which files are read and where they lie."""
    return {name: value for name, value in canonical(source).items() if name not in _CHOOSING}


def make(config: RunConfig) -> Ingest:
    """The stage of a run."""
    return Ingest(config.ingest)
