"""Groups that do not fit the memory of a unit, decided block after block of the survivor order π.

A document depends only on documents before it in π. So the documents of a group are cut by π into blocks that fit; one
block is decided after the other, beside the kept documents of earlier blocks that stand in its buckets: as a new
generation is beside older ones, and with the same result as all at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.base import Context, Inputs
from stages.duplicate_files import Payload, Place, column, joined_arrays, of_places, opened, write
from storage.manifests import Part
from storage.outputs import PartWriter

if TYPE_CHECKING:
    import numpy.typing as npt

    from data_quality.duplicate_members import Members
    from stages.deduplicate import Deduplicate

SAMPLES = 32
"""Documents a block that show where π is to be cut."""
PIECES = 16
"""Units that compare a block with those before it: what is kept in the buckets of a piece has to fit a unit."""
BLOCK = 1 << 32
"""Blocks are named group · BLOCK + number."""


def samples(stage: Deduplicate, table: Any, large: frozenset[int]) -> list[list[Any]]:
    """Documents of large groups that are chosen by their id, the more likely the more they hold: group and π."""
    import polars as pl
    import pyarrow.compute as pc

    from data_quality.bands import RECORD
    from data_quality.duplicate_members import survivor_order
    from data_quality.identifiers import id_words

    frame = pl.DataFrame(pl.from_arrow(table.drop_columns(["shingles"]))).with_columns(
        weight=pl.Series(pc.list_value_length(table.column("shingles"))) + RECORD
    )
    frame = frame.filter(pl.col("group").is_in(sorted(large)))
    chance = frame["weight"].to_numpy() * (SAMPLES / stage.block_weight)
    chosen = frame.filter(pl.Series(id_words(frame["id"])[0] / 2.0**64 < chance, dtype=pl.Boolean))
    keys = survivor_order(stage.config)
    return [[*row[:-1], row[-1].hex()] for row in chosen.select("group", *keys).iter_rows()]


def cuts(found: Sequence[list[Any]], large: frozenset[int]) -> dict[int, list[tuple[Any, ...]]]:
    """Where π is cut in every large group, from the samples of all parts."""
    ordered: dict[int, list[tuple[Any, ...]]] = {group: [] for group in sorted(large)}
    for group, *key in found:
        ordered[group].append((*key[:-1], bytes.fromhex(key[-1])))
    return {group: sorted(keys)[SAMPLES::SAMPLES] for group, keys in ordered.items()}


def arrange(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """The block of every document of a part that is in a large group, and its row among the members of the part."""
    import numpy as np
    import pyarrow as pa

    from data_quality.duplicate_members import survivor_order

    members = opened(writer, payload["members"])
    keys = [members.column(name) for name in survivor_order(stage.config)]
    rows, blocks = [], []
    for group, edges in payload["cuts"].items():
        start, end = np.searchsorted(column(members, "group"), [group, group + 1]).tolist()
        within = range(start, end)
        ends = [bisect_left(within, edge, key=lambda row: tuple(k[row].as_py() for k in keys)) for edge in edges]
        rows.append(np.arange(start, end))
        blocks.append(np.repeat(group * BLOCK + np.arange(len(edges) + 1), np.diff([0, *ends, end - start])))
    row, block = joined_arrays(rows, np.int64), joined_arrays(blocks, np.int64)
    number = column(members, "number")[row]
    order = np.argsort(number)
    write(writer, f"arranged-{payload['name']}", pa.table({"number": number, "row": row, "block": block}).take(order))


@dataclass(frozen=True)
class Arranged:
    """Where the documents of large groups stand: by part, what `arrange` wrote and the members."""

    places: Sequence[Place]
    files: Mapping[str, Part]
    members: Mapping[str, Part]

    def blocks(self, writer: PartWriter, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The blocks of documents (ascending)."""
        import numpy as np

        found = np.empty(numbers.size, dtype=np.int64)
        for place, some in of_places(self.places, numbers):
            table = opened(writer, self.files[place.stem])
            found[some] = column(table, "block")[np.searchsorted(column(table, "number"), numbers[some])]
        return found

    def block(self, writer: PartWriter, block: int) -> list[Members]:
        """The documents of a block."""
        import numpy as np

        from data_quality.duplicate_members import Members

        found = []
        for place in self.places:
            table = opened(writer, self.files[place.stem])
            rows = column(table, "row")[np.flatnonzero(column(table, "block") == block)]
            if rows.size:  # within a group members are sorted by π
                found.append(Members.of(opened(writer, self.members[place.stem]).slice(rows.min(), rows.size)))
        return found

    def some(self, writer: PartWriter, numbers: npt.NDArray[Any]) -> list[Members]:
        """Some documents (ascending numbers)."""
        import numpy as np

        from data_quality.duplicate_members import Members

        found = []
        for place, some in of_places(self.places, numbers):
            table = opened(writer, self.files[place.stem])
            rows = column(table, "row")[np.searchsorted(column(table, "number"), numbers[some])]
            found.append(Members.of(opened(writer, self.members[place.stem])).some(np.sort(rows)))
        return found


def spread(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """A file of buckets of large groups by block: `bucket` numbers those of all files."""
    import numpy as np
    import pyarrow as pa

    table = opened(writer, payload["buckets"])
    groups = column(table, "group")
    bucket = np.cumsum(column(table, "first")) + payload["first_bucket"]
    ends = [np.searchsorted(groups, [group, group + 1]) for group in payload["large"]]
    some = joined_arrays([np.arange(start, end) for start, end in ends], np.int64)
    bucket, number = bucket[some], column(table, "number")[some]
    by_number = np.argsort(number, kind="stable")
    block = np.empty(number.size, dtype=np.int64)
    block[by_number] = payload["arranged"].blocks(writer, number[by_number])
    order = np.lexsort((bucket, block))
    columns = {"block": block[order], "bucket": bucket[order], "number": number[order]}
    write(writer, f"spread-{payload['name']}", pa.table(columns))


def _entries(writer: PartWriter, payload: Payload, documents: Any = None) -> tuple[Any, Any]:
    """Buckets and documents of the entries of a block, or of some documents of it."""
    import numpy as np

    block, buckets, numbers = payload["block"], [], []
    wanted = None if documents is None else documents.facts.column("number").to_numpy()
    for part in payload["buckets"]:
        table = opened(writer, part)
        inside = slice(*np.searchsorted(column(table, "block"), [block, block + 1]))
        number = column(table, "number")[inside]
        some = slice(None) if wanted is None else np.isin(number, wanted)
        buckets.append(column(table, "bucket")[inside][some])
        numbers.append(number[some])
    return joined_arrays(buckets, np.int64), joined_arrays(numbers, np.int64)


def _kept_before(writer: PartWriter, payload: Payload, touched: npt.NDArray[Any]) -> Iterator[tuple[Any, Any]]:
    """Of every block before, the buckets among those touched that kept documents stand in, and the documents."""
    from data_quality.bands import matching

    for part in payload["kept"]:
        table = opened(writer, part)
        at = matching(touched, column(table, "bucket"))
        yield column(table, "bucket")[at], column(table, "number")[at]


def _buckets(bucket: npt.NDArray[Any], number: npt.NDArray[Any]) -> Any:
    """Buckets of entries in the order of `bucket`, the first entries first."""
    import numpy as np

    from data_quality.bands import Buckets

    order = np.argsort(bucket, kind="stable")
    return Buckets(number[order], np.diff(bucket[order], prepend=-1) != 0)


def against(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Compares a piece of a block with what was kept of the blocks before it."""
    import numpy as np

    from data_quality.duplicate_members import Members
    from data_quality.duplicates import compare_with_settled

    arranged, piece = payload["arranged"], payload["piece"]
    whole = Members.joined(arranged.block(writer, payload["block"]))
    documents = whole.some(np.arange(*(edge * len(whole) // PIECES for edge in (piece, piece + 1))))
    bucket, number = _entries(writer, payload, documents)
    before = list(_kept_before(writer, payload, np.unique(bucket)))
    kept = joined_arrays([numbers for _, numbers in before], np.int64)
    buckets = _buckets(np.concatenate([*(some for some, _ in before), bucket]), np.append(kept, number))
    settled = np.unique(kept)
    documents = Members.joined([documents, *arranged.some(writer, settled)])
    found, counted = compare_with_settled(documents, buckets, stage.config, settled=settled)
    write(writer, f"earlier-{payload['name']}", found.to_arrow())
    writer.notes["counted"] = counted


def decide_block(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Decides one block of a large group, those before it being decided."""
    import numpy as np
    import polars as pl

    from data_quality.duplicate_members import Members
    from data_quality.duplicates import decide

    arranged = payload["arranged"]
    documents = arranged.block(writer, payload["block"])
    rows = sum(map(len, documents))
    bucket, number = _entries(writer, payload)
    touched = np.unique(bucket)
    already = np.zeros(touched.size, dtype=np.int64)
    for some, _ in _kept_before(writer, payload, touched):
        already += np.bincount(np.searchsorted(touched, some), minlength=touched.size)
    earlier = [pl.DataFrame(pl.from_arrow(opened(writer, part))) for part in payload["earlier"]]
    named = [some[name].to_numpy() for some in earlier for name in ("keeper", "container")]
    settled = np.unique(joined_arrays(named, np.int64))
    settled = settled[settled >= 0]
    before = [some.without_shingles() for some in arranged.some(writer, settled)]
    decided, growth, stays, counted = decide(
        Members.joined([*documents, *before]), _buckets(bucket, number), stage.config,
        generation=payload["generation"], settled=settled, earlier=pl.concat(earlier) if earlier else None,
        already=already, before=payload["before"],
    )  # fmt: skip
    name = payload["name"]
    write(writer, f"kept-{name}", _kept(bucket, number, stays, already, stage.config.bucket_limit))
    write(writer, f"decided-{name}", decided.to_arrow())
    old = pl.col("generation") < payload["generation"]
    write(writer, f"growth-{name}", growth.filter(old).select("id", "added").to_arrow())
    write(writer, f"added-{name}", growth.filter(~old).select("number", "added").sort("number").to_arrow())
    writer.notes["counted"] = counted
    writer.notes["rows"] = rows


def _kept(
    bucket: npt.NDArray[Any], number: npt.NDArray[Any], stays: npt.NDArray[Any], already: npt.NDArray[Any], limit: int
) -> Any:
    """Which kept documents of a block later ones may be compared with: with those before, limit + 1 of a bucket."""
    import numpy as np
    import pyarrow as pa

    here = np.flatnonzero(np.isin(number, stays))
    by_number = np.argsort(stays)
    rank = by_number[np.searchsorted(stays, number[here], sorter=by_number)]
    here = here[np.lexsort((rank, bucket[here]))]
    begins = np.flatnonzero(np.diff(bucket[here], prepend=-1))
    in_bucket = np.arange(here.size) - np.repeat(begins, np.diff(begins, append=here.size))
    in_bucket += already[np.searchsorted(np.unique(bucket), bucket[here])]
    here = here[in_bucket <= limit]
    return pa.table({"bucket": bucket[here], "number": number[here]})
