"""How fast is text that stands in several documents found? Repeated lines, and runs of 50 words, to spans to cut.

Documents that were deduplicated before (Jaccard .8), in four parts: all rounds of `repeats` in memory, and the stage
with its files, receipts and manifest, beside plain Python sets of lines and of windows of words, a suffix array with
its common prefixes over the bytes of all texts (`pydivsufsort`, which wraps divsufsort; 300 bytes are about 50 words),
and datatrove's sentence deduplication in its three steps from a Parquet file (spans of three sentences, or single
lines, found again anywhere, by hash; all but one go). One thread each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.datatrove import peers, version
from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main
from data_quality.repeats_config import RepeatsConfig

PARTS = 4
LINES = RepeatsConfig()
WORDS = RepeatsConfig(line_documents=None, substring_words=50)
BYTES = 300


def prepare(documents: Any, folder: Path) -> None:
    """The documents that `deduplicate` keeps, sorted by id, so that a document's number says whose text stays."""
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.duplicates import deduplicate
    from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
    from data_quality.sketch import sketch

    texts = documents.column("text").combine_chunks()
    table = pl.from_arrow(documents.select(["id", "source", "uri", "record", "date"]))
    assert isinstance(table, pl.DataFrame)
    signatures = pl.from_arrow(sketch(texts, SketchConfig()))
    assert isinstance(signatures, pl.DataFrame)
    rows = pl.int_range(table.height, dtype=pl.Int64, eager=True)
    table = table.hstack(signatures).with_columns(
        bytes=pl.Series(pc.binary_length(texts).to_numpy()), part=pl.lit(0, pl.Int32), row=rows
    )
    decided, _ = deduplicate(table, lambda _, wanted: texts.take(pa.array(wanted)), DeduplicateConfig(), SketchConfig())
    kept = documents.take(pa.array(np.flatnonzero(~decided["dropped"].to_numpy())))
    save_documents(kept.sort_by("id"), folder)


def gristmill(folder: Path, config: RepeatsConfig) -> Work:
    """All rounds over parts in memory."""
    import numpy as np
    import pyarrow as pa

    from data_quality.repeats import (
        CANDIDATES,
        REPEATED,
        count_fragments,
        find_holders,
        find_places,
        mark_lines,
        mark_words,
        merge,
        of_part,
    )

    whole = load_texts(folder)
    size = -(-len(whole) // PARTS)
    texts = [whole.slice(part * size, size) for part in range(PARTS)]
    owners = [np.arange(part * size, part * size + len(some)).astype(np.uint64) for part, some in enumerate(texts)]

    def merged(tables: list[Any], schema: Any) -> list[Any]:
        columns = [{name: table.column(name).to_numpy() for name in table.column_names} for table in tables]
        found = merge(columns, [True] * PARTS, schema, config)
        return [of_part(found, part) for part in range(PARTS)]

    def rounds(texts: list[Any], owners: list[Any]) -> list[tuple[int, int, int]]:
        counts = [count_fragments(some, config) for some in texts]
        found = merged([fragments for fragments, _ in counts], CANDIDATES)
        candidates = [table.column("hash").to_numpy() for table in found]
        held = [find_holders(*count, hashes) for count, hashes in zip(counts, candidates, strict=True)]
        texts = [some.take(pa.array(rows)) for some, rows in zip(texts, held, strict=True)]
        owners = [some[rows] for some, rows in zip(owners, held, strict=True)]
        places = [find_places(*row, config) for row in zip(texts, owners, candidates, strict=True)]
        spans: list[tuple[int, int, int]] = []
        for part, repeated in enumerate(merged([table for table, _ in places], REPEATED)):
            held_in, text = (repeated.column(name).to_numpy() for name in ("part", "text"))
            keys, rows = np.unique(held_in << 40 | text, return_inverse=True)
            compared = pa.concat_arrays(
                [
                    table.column("text").combine_chunks().take(pa.array(keys[keys >> 40 == other] & ((1 << 40) - 1)))
                    for other, (_, table) in enumerate(places)
                ]
            )
            if config.substring_words:
                marked = mark_words(texts[part], owners[part], repeated, compared, rows, config)
            else:
                marked = mark_lines(texts[part], 0, repeated, compared.take(pa.array(rows)), config)
            numbers = (held[part][marked.rows] + part * size).tolist()
            spans += zip(numbers, marked.starts.tolist(), marked.ends.tolist(), strict=True)
        return spans

    rounds([some.slice(0, 200) for some in texts], [some[:200] for some in owners])

    def work() -> Result:
        spans = rounds(texts, owners)
        return Result(amounts(whole), lambda: spans)

    return work


def stage(folder: Path, config: RepeatsConfig) -> Work:
    """From the parts of `ingest` and `deduplicate` to a complete output."""
    import pyarrow.parquet as pq

    from benchmarks.outputs import run, save_outputs
    from stages.repeats import Repeats

    documents = pq.read_table(folder / "documents.parquet").combine_chunks()
    total = amounts(load_texts(folder))
    run(Repeats(config, 512 << 20), *save_outputs(folder, documents.slice(0, 200), PARTS))
    store, outputs = save_outputs(folder, documents, PARTS)

    def work() -> Result:
        output = run(Repeats(config, 512 << 20), store, outputs)
        return Result(total, lambda: output.read_json("about/repeats")["totals"])

    return work


def plain_lines(folder: Path) -> Work:
    """A dictionary from lines to the number of documents, then a second look at every line."""
    texts = load_texts(folder)
    strings = texts.to_pylist()
    assert LINES.line_documents is not None
    most = LINES.line_documents

    def work() -> Result:
        holders: defaultdict[str, int] = defaultdict(int)
        for text in strings:
            for line in {stripped for line in text.split("\n") if (stripped := line.strip(" \t\r\v\f"))}:
                holders[line] += 1
        repeated = {
            line for line, number in holders.items() if number > most and len(line.encode()) >= LINES.shortest_line
        }
        spans = []
        for number, text in enumerate(strings):
            position = 0
            for line in text.split("\n"):
                end = position + len(line.encode()) + 1
                if line.strip(" \t\r\v\f") in repeated:
                    spans.append((number, position, end))
                position = end
        return Result(amounts(texts), lambda: spans)

    return work


def plain_words(folder: Path) -> Work:
    r"""Sets of windows of 50 words, words found by `\w+` in the lower-cased text; windows are kept as hashes."""
    import re

    word = re.compile(r"\w+")
    texts = load_texts(folder)
    strings = texts.to_pylist()
    assert WORDS.substring_words is not None
    width = WORDS.substring_words

    def work() -> Result:
        first: dict[int, int] = {}
        spans = []
        for number, text in enumerate(strings):
            words = word.findall(text.lower())
            for i in range(len(words) - width + 1):
                if first.setdefault(hash(tuple(words[i : i + width])), number) != number:
                    spans.append((number, i, i + width))
        return Result(amounts(texts), lambda: spans)

    return work


def suffix_array(folder: Path) -> Work:
    """The suffixes of all texts in order, and where two neighbours share 300 bytes."""
    import numpy as np
    from pydivsufsort import divsufsort, kasai  # type: ignore[import-not-found,unused-ignore]

    texts = load_texts(folder)
    data = np.frombuffer("\0".join(texts.to_pylist()).encode(), np.uint8).copy()

    def work() -> Result:
        suffixes = divsufsort(data)
        shared = kasai(data, suffixes)
        repeated = np.flatnonzero(shared >= BYTES)
        return Result(amounts(texts), lambda: [int(repeated.size)])

    return work


def _sizes(folder: Path) -> tuple[Any, Any]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    documents = pq.read_table(folder / "documents.parquet", columns=["id", "text"])
    return documents.column("id"), pc.binary_length(documents.column("text"))


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What was found, and how far the plain definitions agree."""
    lines, plain = ({tuple(span[:2]) for span in outcomes[name]} for name in ("gristmill lines", "plain lines"))
    words = {span[0] for span in outcomes["gristmill"]}
    theirs = {span[0] for span in outcomes["plain words"]}
    cut = sum(end - start for _, start, end in outcomes["gristmill"])
    sizes = {
        int.from_bytes(name, "big"): size
        for name, size in zip(*(column.to_pylist() for column in _sizes(folder)), strict=True)
    }
    notes = {}
    for name, kind in (("gristmill, stage", "words"), ("gristmill lines, stage", "line")):
        found = outcomes[name][kind]
        notes[name] = f"{found['spans']:,} spans, {found['bytes']:,} bytes in {found['documents']:,} documents"
    for name in outcomes:
        if name.startswith("datatrove"):
            left = {int(number): size for number, size in outcomes[name]}
            less = [size - left.get(number, 0) for number, size in sizes.items() if left.get(number, 0) < size]
            notes[name] = f"{version()}; {sum(less):,} bytes fewer in {len(less):,} documents"
    return notes | {
        "gristmill": f"runs of 50 words: {cut:,} bytes in {len(words):,} documents, compared word by word",
        "plain words": f"{len(theirs):,} documents, {len(words & theirs):,} of them the same; hashes, not words",
        "suffix array": f"{outcomes['suffix array'][0]:,} positions share {BYTES} bytes with a neighbour; no spans",
        "gristmill lines": f"{len(lines):,} lines in more than 6 documents, compared byte by byte",
        "plain lines": f"{len(plain):,} lines, {len(lines & plain):,} of them the same",
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, compiling, loading spaCy; for those without files, reading the texts and turning them into "
            "Python strings or one array of bytes.",
            prepare,
            {
                "gristmill": partial(gristmill, config=WORDS),
                "gristmill, stage": partial(stage, config=WORDS),
                "plain words": plain_words,
                "suffix array": suffix_array,
                "gristmill lines": partial(gristmill, config=LINES),
                "gristmill lines, stage": partial(stage, config=LINES),
                "plain lines": plain_lines,
                **peers(
                    "spans", {"datatrove, sentences": {"sentences": True}, "datatrove, lines": {"sentences": False}}
                ),
            },
            judge,
            packages=("numba", "numpy", "pyarrow", "pydivsufsort"),
            repetitions=3,
        )
    )
