"""repeats: lines, paragraphs and runs of words that stand in many of the kept documents, marked to be cut.

Parts: `cuts/<stem>`, row for row with `documents/<stem>`; `about/repeats`, what was found; and of the rounds before it
`fragments/<stem>`, `holders/<stem>`, `candidates/<stem>`, `places/<stem>`, `texts/<stem>`, `repeated/<stem>`
(`data_quality/repeats.py`). A part is done again only if what is repeated in it changed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from data_quality.repeats_config import RepeatsConfig
from stages.base import Context, Inputs, Stage, StageError, Unit, part_units
from stages.config import RunConfig
from storage.filesystem import Store
from storage.fingerprint import canonical, hash_of
from storage.manifests import Part
from storage.outputs import SCRATCH, PartWriter, Receipt, local_file
from storage.schemas import CUTS

ROW_BYTES = {"candidates": 80, "repeated": 144}
"""What a row of FRAGMENTS, or of PLACES, takes while it is merged, should all of them be repeated."""
HASHES = 1 << 64
SHOWN = 50
SHOWN_CHARACTERS = 200

Rounds = Generator[list[Unit], list[Receipt], None]


class Repeats(Stage[RepeatsConfig]):
    """Three rounds over the parts: hashes of all passages, texts of those that may be repeated, cuts.

    Between them, what all parts made is gone through by ranges of hashes, each of which `memory` bytes hold, and
    divided among the parts again.
    """

    name = "repeats"
    version = 2
    needs = ("ingest", "deduplicate")

    def __init__(self, config: RepeatsConfig, memory: int) -> None:
        super().__init__(config)
        self.memory = memory

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        config = self.config
        hashed = {
            "line": config.line_documents and config.shortest_line,
            "paragraph": config.paragraph_documents and config.shortest_paragraph,
            "words": config.substring_words,
            "seed": config.seed,
        }
        units = part_units(self, inputs, extra=("deduplicate:decisions",), parameters=hashed)
        return [replace(unit, payload={**unit.payload, "step": "fragments"}) for unit in units]

    def rounds(self, inputs: Inputs, started: Receipt, done: Callable[[str], bool]) -> Rounds:
        """Hashes of every part, what they have in common, texts of that in every part, what is repeated, cuts."""
        first = self.units(inputs, started)
        receipts = yield first
        wanted = self.config.counted_sources
        counted = [not wanted or receipt.notes["source"] in wanted for receipt in receipts]
        fragments, holders = _made(receipts, "fragments"), _made(receipts, "holders")
        receipts = yield from self._merging("candidates", fragments, counted, done)
        found = [*zip(fragments, holders, _made(receipts, "candidates"), strict=True)]
        receipts = yield [
            self._unit(unit, "places", {"candidates": [parts[-1]]}, parts)
            for unit, parts in zip(first, found, strict=True)
        ]
        texts = _made(receipts, "texts")
        receipts = yield from self._merging("repeated", _made(receipts, "places"), counted, done)
        used_by_part = [used for receipt in receipts for used in receipt.notes["used"]]
        yield [
            self._unit(unit, "cuts", {"repeated": [part], "texts": [texts[number] for number in used]}, parts)
            for unit, parts, part, used in zip(first, found, _made(receipts, "repeated"), used_by_part, strict=True)
        ]

    def _unit(self, first: Unit, step: str, reads: dict[str, list[Part]], found: Sequence[Part]) -> Unit:
        """A unit of a later round: its key holds the content of what it reads, its payload where that lies.

        `found` (fragments, holders, candidates) only tells which documents need not be looked at.
        """
        digests = {name: [part.digest for part in parts] for name, parts in reads.items()}
        paths = {name: [part.path for part in parts] for name, parts in reads.items()}
        keep = self.config.substring_keep if step == "cuts" else None
        key = self.unit_key(first=first.key, step=step, digests=digests, keep=keep)
        payload = {"stem": first.name, "step": step, "found": [part.path for part in found], **paths}
        return replace(first, key=key, payload=payload)

    def _merging(
        self, kind: str, parts: list[Part], counted: list[bool], done: Callable[[str], bool]
    ) -> Generator[list[Unit], list[Receipt], list[Receipt]]:
        """Two rounds: ranges of hashes of all parts, into scratch files; then the parts, each with what is its own."""
        # Which parts are counted stands in `counted`, however they were named.
        config = canonical(replace(self.config, counted_sources=(), substring_keep="first"), self.name)
        stems = [part.stem for part in parts]
        digests = [part.digest for part in parts]
        state = hash_of({"parameters": config, "counted": counted, "stems": stems, kind: digests})
        number = max(1, -(-sum(part.rows for part in parts) * ROW_BYTES[kind] // self.memory))
        weight = sum(part.bytes for part in parts) // (2 * number)
        paths = [part.path for part in parts]

        def units(step: str, ends: list[int], **shared: Any) -> list[Unit]:
            return [
                Unit(
                    f"{kind}-{step}-{i:05d}",
                    self.unit_key(step=step, state=state, range=[f"{end:x}" for end in ends[i : i + 2]]),
                    {"step": step, "kind": kind, "number": i, "range": ends[i : i + 2], **shared},
                    weight,
                )
                for i in range(len(ends) - 1)
            ]

        of_parts = sorted({i * len(parts) // number for i in range(number + 1)})
        given = units("divide", of_parts)
        if not all(done(unit.key) for unit in given):
            hashes = [i * HASHES // number for i in range(number + 1)]
            receipts = yield units("merge", hashes, paths=paths, counted=counted)
            merged = [part for receipt in receipts for part in receipt.parts]
            given = units("divide", of_parts, stems=stems, merged=merged)
        return (yield given)

    def _merge(self, unit: Unit, writer: PartWriter) -> None:
        """Whatever is repeated in a range of hashes, for all parts."""
        from data_quality.repeats import CANDIDATES, REPEATED, merge

        payload = unit.payload
        held = [_between(writer.store, path, *payload["range"]) for path in payload["paths"]]
        schema = CANDIDATES if payload["kind"] == "candidates" else REPEATED
        table = merge(held, payload["counted"], schema, self.config)
        writer.ipc(f"{SCRATCH}/{payload['kind']}-{payload['number']:05d}", table, table.schema)

    def _divide(self, unit: Unit, writer: PartWriter) -> None:
        """For every part a table of what is repeated in it, sorted by hash.

        Notes say which parts the texts stand in that it is compared with: the column `part` counts these.
        """
        import numpy as np
        import pyarrow as pa

        from data_quality.repeats import CANDIDATES, REPEATED, of_part
        from storage.arrow_files import read_ipc

        kind, payload, uses = unit.payload["kind"], unit.payload, []
        schema = CANDIDATES if kind == "candidates" else REPEATED
        merged = [read_ipc(local_file(writer.store, part)) for part in payload["merged"]]
        for number in range(*payload["range"]):
            table = pa.concat_tables([of_part(some, number) for some in merged]).combine_chunks()
            if kind == "repeated":
                used, local = np.unique(table.column("part").to_numpy(), return_inverse=True)
                field = REPEATED.field("part")
                table = table.set_column(REPEATED.get_field_index("part"), field, pa.array(local, field.type))
                uses.append(used.tolist())
            writer.parquet(f"{kind}/{payload['stems'][number]}", table, schema)
        writer.notes["used"] = uses

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        from data_quality.identifiers import id_words
        from data_quality.repeats import FRAGMENTS, HOLDERS, PLACES, TEXTS, count_fragments, find_holders, find_places
        from storage.arrow_files import read_parquet, read_rows

        step = unit.payload["step"]
        if step == "merge":
            return self._merge(unit, writer)
        if step == "divide":
            return self._divide(unit, writer)
        stem = unit.payload["stem"]
        dropped_by = inputs["deduplicate"].read(f"decisions/{stem}", ["dropped_by"]).column("dropped_by")
        kept = dropped_by.is_null().to_numpy().nonzero()[0]
        if step == "fragments":
            documents = inputs["ingest"].read(f"documents/{stem}", ["text", "source"])
            texts = documents.column("text").take(kept).combine_chunks()
            fragments, holders = count_fragments(texts, self.config)
            writer.parquet(f"fragments/{stem}", fragments, FRAGMENTS)
            writer.parquet(f"holders/{stem}", holders, HOLDERS)
            writer.notes["source"] = documents.column("source")[0].as_py() if documents.num_rows else ""
            return None
        fragments, holders, table = (read_parquet(writer.store, path) for path in unit.payload["found"])
        candidates = table.column("hash").to_numpy()
        rows = kept[find_holders(fragments, holders, candidates)]
        path = inputs["ingest"].part(f"documents/{stem}").path
        documents = read_rows(inputs["ingest"].store, path, ["id", "text"], rows)
        texts, owners = documents.column("text").combine_chunks(), id_words(documents.column("id").combine_chunks())[0]
        if step == "places":
            places, found = find_places(texts, owners, candidates, self.config)
            writer.parquet(f"places/{stem}", places, PLACES)
            writer.parquet(f"texts/{stem}", found, TEXTS)
            return None
        ids = inputs["ingest"].read(f"documents/{stem}", ["id"]).column("id").combine_chunks()
        return self._cut(unit, ids, texts, owners, rows, writer)

    def _cut(self, unit: Unit, ids: Any, texts: Any, owners: Any, numbers: Any, writer: PartWriter) -> None:
        """Cuts of a part with these `ids`; `texts`, `owners` and `numbers` (rows) are of what may have any."""
        import numpy as np
        import pyarrow as pa

        from corpus.joined_cuts import spans_of
        from data_quality.repeats import KINDS, REASONS, mark_lines, mark_words
        from storage.arrow_files import read_parquet

        [path] = unit.payload["repeated"]
        repeated = read_parquet(writer.store, path)
        compared, rows = _compared(writer.store, repeated, unit.payload["texts"])
        kinds = repeated.column("hash").to_numpy() & np.uint64(3)
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
            spans.append((numbers[marked.rows], marked.starts, marked.ends))
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


def _between(store: Store, path: str, low: int, high: int) -> dict[str, Any]:
    """The columns of the rows of a range of hashes, in a file sorted by them; other row groups are not read."""
    import numpy as np

    from storage.arrow_files import open_parquet

    with open_parquet(store, path) as file:
        ranges = [file.metadata.row_group(i).column(0).statistics for i in range(file.num_row_groups)]
        groups = [i for i, found in enumerate(ranges) if found is not None and found.max >= low and found.min < high]
        table = file.read_row_groups(groups, use_threads=store.is_local)
    hashes = table.column("hash").to_numpy()
    begin = int(np.searchsorted(hashes, np.uint64(low)))
    end = hashes.size if high == HASHES else int(np.searchsorted(hashes, np.uint64(high)))
    # Copies, so that what lies beside them in their row groups need not stay in memory.
    return {name: table.column(name).to_numpy()[begin:end].copy() for name in table.column_names}


def _compared(store: Store, repeated: Any, paths: Sequence[str]) -> tuple[Any, Any]:
    """The texts that repeated passages are compared with, each once, and which of them each row of `repeated` is."""
    import numpy as np
    import pyarrow as pa

    from storage.arrow_files import read_parquet

    part, text = (repeated.column(name).to_numpy() for name in ("part", "text"))
    rows = np.zeros(part.size, np.int64)
    texts = []
    before = 0
    for number, path in enumerate(paths):
        own = np.flatnonzero(part == number)
        used, rows[own] = np.unique(text[own], return_inverse=True)
        rows[own] += before
        before += used.size
        texts.append(read_parquet(store, path).column("text").take(pa.array(used)).combine_chunks())
    return (pa.concat_arrays(texts) if texts else pa.array([], pa.large_string())), rows


def make(config: RunConfig) -> Repeats:
    """The stage of a run."""
    assert config.repeats is not None
    return Repeats(config.repeats, config.how.memory_megabytes << 20)
