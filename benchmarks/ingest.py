"""How fast do JSON lines become document parts? `corpus` beside datatrove, a plain loop and Polars, which do less.

One .jsonl.gz file, or Parquet, to Parquet (zstd). Polars uses all cores, the others one thread. "3 kB" are the same
texts joined to documents of about that size. datatrove is left out where it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.documents import amounts, write_json_lines
from benchmarks.timing import Benchmark, Result, Work, main
from corpus.config import IngestConfig, Kind, NormaliseConfig, SourceConfig

Convert = Callable[[Path, Path], None]


_LONG_CHARACTERS = 2800


def prepare(documents: pa.Table, folder: Path) -> None:
    """A gzipped file of JSON lines and a Parquet file of the documents, of long ones, and of a few to warm up with."""
    texts, urls = documents.column("text").to_pylist(), documents.column("uri").to_pylist()
    long = _joined(texts)
    for name, some in (("input", texts), ("long", long), ("warm", texts[:100])):
        (folder / name).mkdir()
        write_json_lines(some, urls[: len(some)], folder / name / "all.jsonl.gz")
        table = pa.table({"text": pa.array(some, pa.large_string()), "url": urls[: len(some)]})
        pq.write_table(table, folder / name / "all.parquet")


def _joined(texts: list[str]) -> list[str]:
    joined, gathered, size = [], list[str](), 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= _LONG_CHARACTERS:
            joined.append("\n\n".join(gathered))
            gathered, size = [], 0
    return joined


def peer(folder: Path, convert: Convert, name: str = "input") -> Work:
    """Turns the small file into Parquet, then, on the clock, the large one."""
    total = amounts(pq.read_table(folder / name / "all.parquet", columns=["text"]).column("text").combine_chunks())
    warm, output = Path(mkdtemp(dir=folder)), Path(mkdtemp(dir=folder))
    convert(folder / "warm", warm)

    def work() -> Result:
        convert(folder / name, output)
        return Result(total, lambda: _facts(output))

    return work


def gristmill(source: Path, output: Path, normalise: bool = True, kind: Kind = "jsonl") -> None:
    """Inventory, reading, normalising, ids, the part files; not receipts, ledger, id index and manifest."""
    from corpus.documents import read_unit
    from corpus.inventory import plan_units, take_inventory
    from storage.arrow_files import write_parquet
    from storage.schemas import DOCUMENTS

    repairs = NormaliseConfig(**{repair.name: normalise for repair in fields(NormaliseConfig)})
    config = IngestConfig(sources=(SourceConfig(name="data", kind=kind, path=str(source)),), normalise=repairs)
    for unit in plan_units(take_inventory(config), config):
        for number, batch in enumerate(read_unit(config, unit)):
            write_parquet(output / f"{unit.part_name(number)}.parquet", batch.documents, DOCUMENTS)


def datatrove(source: Path, output: Path) -> None:
    """Its JSON lines reader and its Parquet writer, one task in this process."""
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    logger.remove()
    reader = JsonlReader(str(source), glob_pattern="*.jsonl.gz", doc_progress=False, file_progress=False)
    writer = ParquetWriter(str(output), compression="zstd")
    for _ in writer.run(reader.run()):
        pass


def orjson_loop(source: Path, output: Path) -> None:
    """What one writes in ten lines: gzip, orjson, lists, pyarrow."""
    import gzip

    import orjson

    texts, urls = [], []
    with gzip.open(source / "all.jsonl.gz") as lines:
        for line in lines:
            record = orjson.loads(line)
            texts.append(record["text"])
            urls.append(record.get("url"))
    table = pa.table({"text": pa.array(texts, pa.large_string()), "url": urls})
    pq.write_table(table, output / "all.parquet", compression="zstd", compression_level=1)


def polars_stream(source: Path, output: Path) -> None:
    """`scan_ndjson` to `sink_parquet`, all threads."""
    import polars as pl

    lines = pl.scan_ndjson(source / "all.jsonl.gz", schema={"text": pl.String, "url": pl.String})
    lines.sink_parquet(output / "all.parquet", compression="zstd", compression_level=1)


def _facts(output: Path) -> list[float]:
    files = list(output.iterdir())
    return [sum(pq.read_metadata(file).num_rows for file in files), sum(file.stat().st_size for file in files) / 1e6]


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What came out, and what each leaves out."""
    left_out = {
        "gristmill": "inventory, repairs of the text, checks, quarantine, content ids, all columns; no manifest",
        "gristmill, no repairs": "as above without repairs of the text",
        "gristmill, from Parquet": "as the first",
        "gristmill, 3 kB": "as the first",
        "gristmill, from Parquet, 3 kB": "as the first",
        "datatrove, 3 kB": "as datatrove",
        "datatrove": "no repairs, no record of lines that cannot be read; ids by position",
        "orjson loop": "no repairs, checks, quarantine, ids; one bad line ends it; all text in memory",
        "Polars": "no repairs, checks, quarantine, ids; one bad line ends it",
    }
    return {name: f"{outcomes[name][0]:,} rows, {outcomes[name][1]:.1f} MB; {left_out[name]}" for name in outcomes}


if __name__ == "__main__":
    main(
        Benchmark(
            "a first small file (imports, starting threads).",
            prepare,
            {
                "gristmill": partial(peer, convert=gristmill),
                "gristmill, no repairs": partial(peer, convert=partial(gristmill, normalise=False)),
                "gristmill, from Parquet": partial(peer, convert=partial(gristmill, kind="parquet")),
                "gristmill, 3 kB": partial(peer, convert=gristmill, name="long"),
                "gristmill, from Parquet, 3 kB": partial(peer, convert=partial(gristmill, kind="parquet"), name="long"),
                **(
                    {
                        "datatrove": partial(peer, convert=datatrove),
                        "datatrove, 3 kB": partial(peer, convert=datatrove, name="long"),
                    }
                    if find_spec("datatrove")
                    else {}
                ),
                "orjson loop": partial(peer, convert=orjson_loop),
                "Polars": partial(peer, convert=polars_stream),
            },
            judge,
            packages=(
                "polars",
                "pyarrow",
                "orjson",
                "isal",
                "ftfy",
                *(("datatrove",) if find_spec("datatrove") else ()),
            ),
        )
    )
