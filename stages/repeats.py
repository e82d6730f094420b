"""repeats: lines, paragraphs and runs of words that stand in many of the kept documents, marked to be cut.

Parts: `cuts/<stem>`, row for row with `documents/<stem>`; `about/repeats`, what was found; and of the rounds before it
`fragments/<stem>`, `candidates/<stem>`, `places/<stem>`, `texts/<stem>`, `repeated/<stem>` (`data_quality/repeats.py`).
A part is done again only if what is repeated in it changed.
"""

from __future__ import annotations

import heapq
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_quality.repeats_config import RepeatsConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import RunConfig
from storage.filesystem import Store
from storage.fingerprint import canonical
from storage.manifests import Part
from storage.outputs import PartWriter, Receipt
from storage.schemas import CUTS

FRAGMENTS_ROUND, CANDIDATES_ROUND, PLACES_ROUND, REPEATED_ROUND, CUTS_ROUND = range(1, 6)

MERGED_ROWS = 1 << 25
"""Hashes of all parts that are held in memory together (about 100 bytes each)."""
SHOWN = 50
SHOWN_CHARACTERS = 200


class Repeats(Stage[RepeatsConfig]):
    """Three rounds over the parts: hashes of all passages, texts of those that may be repeated, cuts; between them, one
    unit goes through what all parts made."""

    name = "repeats"
    version = 1
    needs = ("ingest", "deduplicate")

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        config = self.config
        hashed = {
            "line": config.line_documents and config.shortest_line,
            "paragraph": config.paragraph_documents and config.shortest_paragraph,
            "words": config.substring_words,
            "seed": config.seed,
        }
        units = part_units(self, inputs, extra=("deduplicate:decisions",), parameters=hashed)
        return [replace(unit, payload={**unit.payload, "round": FRAGMENTS_ROUND}) for unit in units]

    def rounds(
        self, inputs: Inputs, started: Receipt, done: Callable[[str], bool]
    ) -> Generator[list[Unit], list[Receipt], None]:
        """Hashes of every part, what they have in common, texts of that in every part, what is repeated, cuts."""
        first = self.units(inputs, started)
        receipts = yield first
        wanted = self.config.counted_sources
        counted = [not wanted or receipt.notes["source"] in wanted for receipt in receipts]
        stems = [unit.name for unit in first]
        [merged] = yield [self._merging(CANDIDATES_ROUND, stems, counted, {"fragments": _made(receipts, "fragments")})]
        candidates = _made([merged], "candidates")
        receipts = yield [
            self._unit(unit, PLACES_ROUND, {"candidates": [part]}) for unit, part in zip(first, candidates, strict=True)
        ]
        texts = _made(receipts, "texts")
        [merged] = yield [self._merging(REPEATED_ROUND, stems, counted, {"places": _made(receipts, "places")})]
        yield [
            self._unit(unit, CUTS_ROUND, {"repeated": [part], "texts": [texts[number] for number in used]})
            for unit, part, used in zip(first, _made([merged], "repeated"), merged.notes["used"], strict=True)
        ]

    def _unit(self, first: Unit, number: int, reads: dict[str, list[Part]]) -> Unit:
        """A unit of a later round: its key holds the content of what it reads, its payload where that lies."""
        digests = {name: [part.digest for part in parts] for name, parts in reads.items()}
        paths = {name: [part.path for part in parts] for name, parts in reads.items()}
        keep = self.config.substring_keep if number == CUTS_ROUND else None
        key = self.unit_key(first=first.key, round=number, digests=digests, keep=keep)
        return replace(first, key=key, payload={"stem": first.name, "round": number, **paths})

    def _merging(self, number: int, stems: list[str], counted: list[bool], reads: dict[str, list[Part]]) -> Unit:
        """The one unit of a round that goes through what all parts made."""
        [(name, parts)] = reads.items()
        # Which parts are counted stands in `counted`, however they were named.
        config = canonical(replace(self.config, counted_sources=(), substring_keep="first"), self.name)
        digests = [part.digest for part in parts]
        key = self.unit_key(parameters=config, round=number, stems=stems, counted=counted, digests=digests)
        paths, rows = [part.path for part in parts], sum(part.rows for part in parts)
        payload = {"round": number, "stems": stems, "counted": counted, "rows": rows, name: paths}
        return Unit(f"{name} of all parts", key, payload, sum(part.bytes for part in parts))

    def _candidates(self, unit: Unit, writer: PartWriter) -> None:
        from data_quality.repeats import CANDIDATES

        payload = unit.payload
        merged = _merge(
            writer.store, payload["fragments"], payload["counted"], payload["rows"], self.config, CANDIDATES
        )
        for stem, table in zip(payload["stems"], merged, strict=True):
            writer.parquet(f"candidates/{stem}", table, CANDIDATES)

    def _repeated(self, unit: Unit, writer: PartWriter) -> None:
        """The repeated passages of every part; notes say which parts their texts stand in, by the column `part`."""
        import numpy as np
        import pyarrow as pa

        from data_quality.repeats import REPEATED

        payload, uses = unit.payload, []
        merged = _merge(writer.store, payload["places"], payload["counted"], payload["rows"], self.config, REPEATED)
        for stem, table in zip(payload["stems"], merged, strict=True):
            used, local = np.unique(table.column("part").to_numpy(), return_inverse=True)
            table = table.set_column(REPEATED.get_field_index("part"), REPEATED.field("part"), pa.array(local))
            writer.parquet(f"repeated/{stem}", table, REPEATED)
            uses.append(used.tolist())
        writer.notes["used"] = uses

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        import pyarrow.compute as pc

        from data_quality.repeats import FRAGMENTS, PLACES, TEXTS, count_fragments, find_places

        number = unit.payload["round"]
        if number == CANDIDATES_ROUND:
            return self._candidates(unit, writer)
        if number == REPEATED_ROUND:
            return self._repeated(unit, writer)
        stem = unit.payload["stem"]
        kept = pc.indices_nonzero(
            pc.is_null(inputs["deduplicate"].read(f"decisions/{stem}", ["dropped_by"]).column("dropped_by"))
        )
        documents = inputs["ingest"].read(f"documents/{stem}", ["id", "text", "source"])
        ids, texts = documents.column("id").combine_chunks(), documents.column("text").take(kept).combine_chunks()
        if number == FRAGMENTS_ROUND:
            writer.parquet(f"fragments/{stem}", count_fragments(texts, self.config), FRAGMENTS)
            source = documents.column("source")
            writer.notes["source"] = source[0].as_py() if len(source) else ""
        elif number == PLACES_ROUND:
            [path] = unit.payload["candidates"]
            candidates = _read(writer.store, path).column("hash").to_numpy()
            places, found = find_places(texts, _beginnings(ids.take(kept)), candidates, self.config)
            writer.parquet(f"places/{stem}", places, PLACES)
            writer.parquet(f"texts/{stem}", found, TEXTS)
        else:
            self._cut(unit, ids, texts, kept.to_numpy().astype("int64"), writer)

    def _cut(self, unit: Unit, ids: Any, texts: Any, kept: Any, writer: PartWriter) -> None:
        import numpy as np
        import pyarrow as pa

        from corpus.joined_cuts import spans_of
        from data_quality.repeats import KINDS, REASONS, mark_lines, mark_words

        [path] = unit.payload["repeated"]
        repeated = _read(writer.store, path)
        compared, rows = _compared(writer.store, repeated, unit.payload["texts"])
        kinds = repeated.column("hash").to_numpy() & np.uint64(3)
        owners = _beginnings(ids.take(pa.array(kept)))
        spans: list[tuple[Any, Any, Any]] = []
        reasons: list[str] = []
        totals, collisions, shown = {}, [], []
        for kind, name in enumerate(KINDS):
            own = np.flatnonzero(kinds == kind)
            if not own.size:
                continue
            table, of = repeated.take(pa.array(own)), rows[own]
            if name == "words":
                marked = mark_words(texts, owners, table, compared, of, self.config)
            else:
                marked = mark_lines(texts, kind, table, compared.take(pa.array(of)), self.config)
            spans.append((kept[marked.rows], marked.starts, marked.ends))
            reasons += [REASONS[name]] * marked.rows.size
            totals[name] = {
                "spans": marked.rows.size,
                "documents": int(np.unique(marked.rows).size),
                "bytes": int((marked.ends - marked.starts).sum()),
            }
            hashes, counts = (table.column(column).to_numpy() for column in ("hash", "documents"))
            which, times = np.unique(marked.collisions, return_counts=True)
            collisions += [
                [str(hashes[row]), int(counts[row]), kind, int(number)]
                for row, number in zip(which.tolist(), times.tolist(), strict=True)
            ]
            if name != "words":
                most = np.argsort(-counts, kind="stable")[:SHOWN]
                shown += [
                    [name, int(counts[row]), compared[of[row]].as_py()[:SHOWN_CHARACTERS]] for row in most.tolist()
                ]
        empty = np.zeros(0, np.int64)
        at, starts, ends = (np.concatenate([empty, *(column[i] for column in spans)]) for i in range(3))
        cuts = spans_of(
            len(ids), at, starts, ends, pa.array([""] * len(reasons), pa.string()), pa.array(reasons, pa.string())
        )
        writer.parquet(f"cuts/{unit.name}", pa.table([ids, cuts], schema=CUTS), CUTS)
        writer.count(read=len(ids), kept=len(ids))
        writer.notes |= {"totals": totals, "collisions": collisions, "shown": shown}

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        from data_quality.repeats import limits

        totals: dict[str, dict[str, int]] = {}
        different: dict[str, list[int]] = {}
        shown: dict[tuple[str, str], int] = {}
        for receipt in receipts:
            for kind, values in receipt.notes.get("totals", {}).items():
                total = totals.setdefault(kind, dict.fromkeys(values, 0))
                for name, value in values.items():
                    total[name] += value
            for value, documents, kind, number in receipt.notes.get("collisions", []):
                different.setdefault(value, [documents, kind, 0])[2] += number
            for kind, documents, text in receipt.notes.get("shown", []):
                shown[kind, text] = max(documents, shown.get((kind, text), 0))
        for value, (documents, kind, number) in different.items():
            most = int(limits(self.config)[kind])
            if documents - number <= most or number > most:
                raise StageError(
                    f"repeats: different passages have the hash {value}, and what is repeated cannot be told from it: "
                    f"set repeats.seed to another number than {self.config.seed}"
                )
        top = heapq.nsmallest(SHOWN, shown, key=lambda entry: (-shown[entry], entry))
        writer.json(
            "about/repeats",
            {
                "totals": totals,
                "hash_collisions": len(different),
                "most": [{"kind": kind, "text": text, "documents": shown[kind, text]} for kind, text in top],
            },
        )


def _made(receipts: Sequence[Receipt], kind: str) -> list[Part]:
    """The parts of a kind, in the order of the receipts."""
    return [part for receipt in receipts for part in receipt.parts if part.kind == kind]


def _merge(
    store: Store, paths: list[str], counted: list[bool], rows: int, config: RepeatsConfig, schema: Any
) -> Iterator[Any]:
    """For every part a table of what is repeated in it, sorted by hash; what was merged waits in files."""
    import numpy as np
    import pyarrow as pa

    from data_quality.repeats import merge

    record = np.dtype([(field.name, field.type.to_pandas_dtype()) for field in schema])

    def read(part: int, low: int, high: int) -> dict[str, Any]:
        table = _read(store, paths[part], low, high)
        return {name: table.column(name).to_numpy() for name in table.column_names}

    folder = Path(tempfile.mkdtemp(prefix="repeats-", dir=store.scratch()))
    try:
        for part, columns in merge(len(paths), read, counted, rows, config, MERGED_ROWS):
            piece = np.empty(columns["hash"].size, record)
            for name in schema.names:
                piece[name] = columns[name]
            with (folder / str(part)).open("ab") as stream:
                stream.write(piece.tobytes())
        for part in range(len(paths)):
            file = folder / str(part)
            piece = np.fromfile(file, record) if file.exists() else np.zeros(0, record)
            yield pa.table([pa.array(np.ascontiguousarray(piece[name])) for name in schema.names], schema=schema)
    finally:
        shutil.rmtree(folder)


def _read(store: Store, path: str, low: int = 0, high: int = 1 << 64) -> Any:
    """A part sorted by hash, or the rows of a range of hashes; row groups outside of it are not read."""
    import numpy as np

    from storage.arrow_files import open_parquet, read_parquet

    if low == 0 and high == 1 << 64:
        return read_parquet(store, path)
    with open_parquet(store, path) as file:
        ranges = [file.metadata.row_group(i).column(0).statistics for i in range(file.num_row_groups)]
        groups = [i for i, found in enumerate(ranges) if found.max >= low and found.min < high]
        table = file.read_row_groups(groups, use_threads=store.is_local)
    hashes = table.column("hash").to_numpy()
    begin = int(np.searchsorted(hashes, np.uint64(low)))
    end = hashes.size if high == 1 << 64 else int(np.searchsorted(hashes, np.uint64(high)))
    return table.slice(begin, end - begin)


def _compared(store: Store, repeated: Any, paths: Sequence[str]) -> tuple[Any, Any]:
    """The texts that repeated passages are compared with, each once, and which of them each row of `repeated` is."""
    import numpy as np
    import pyarrow as pa

    part, text = (repeated.column(name).to_numpy() for name in ("part", "text"))
    rows = np.zeros(part.size, np.int64)
    texts = []
    before = 0
    for number, path in enumerate(paths):
        own = np.flatnonzero(part == number)
        used, rows[own] = np.unique(text[own], return_inverse=True)
        rows[own] += before
        before += used.size
        texts.append(_read(store, path).column("text").take(pa.array(used)).combine_chunks())
    return (pa.concat_arrays(texts) if texts else pa.array([], pa.large_string())), rows


def _beginnings(ids: Any) -> Any:
    """The first eight bytes of ids as uint64, in their order."""
    import numpy as np

    if not len(ids):
        return np.zeros(0, np.uint64)
    values = np.frombuffer(ids.buffers()[1], np.uint8).reshape(-1, ids.type.byte_width)
    return values[ids.offset : ids.offset + len(ids), :8].copy().view(">u8").ravel().astype(np.uint64)


def make(config: RunConfig) -> Repeats:
    """The stage of a run."""
    assert config.repeats is not None
    return Repeats(config.repeats)
