"""Which documents deduplicate has to decide together: connected components, packed into groups, range after range.

Documents are cut into ranges of numbers that fit the memory of a unit; `data_quality/components.py` says how components
across ranges are found. Scheduling only: who stays does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.base import Context, Inputs
from stages.duplicate_files import Payload, column, joined_arrays, of_places, opened, write
from storage.manifests import Part
from storage.outputs import PartWriter

if TYPE_CHECKING:
    import numpy.typing as npt

    from stages.deduplicate import Deduplicate

EDGES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Grouping:
    """Where the group of a document stands: its root by range of its number, that one's group by range of the root."""

    width: int
    roots: Sequence[Part]
    packed: Sequence[Part]
    first_group: Sequence[int]
    large: frozenset[int]
    """The groups that are too large for one unit."""

    def of(self, writer: PartWriter, numbers: npt.NDArray[Any]) -> Any:
        """The groups (int32) of documents that stand in buckets."""
        import numpy as np

        roots = _looked_up(writer, self.roots, self.width, numbers, ("number", "root"))
        groups = _looked_up(writer, self.packed, self.width, roots, ("root", "group"))
        return (groups + np.asarray(self.first_group)[roots // self.width]).astype(np.int32)

    def between(self, writer: PartWriter, start: int, end: int) -> Any:
        """The numbers (ascending) of the documents from `start` to below `end` that stand in buckets."""
        found = []
        for part in self.roots[start // self.width : -(-end // self.width)]:
            numbers = column(opened(writer, part), "number")
            found.append(numbers[_range_of(numbers, start, end)])
        return joined_arrays(found, "int64")


def _looked_up(
    writer: PartWriter, files: Sequence[Part], width: int, keys: npt.NDArray[Any], names: tuple[str, str]
) -> npt.NDArray[Any]:
    """The values (int64) of keys in sorted files, each of which has the keys of one range."""
    import numpy as np

    found = np.empty(keys.size, dtype=np.int64)
    ranges = keys // width
    for number in np.unique(ranges).tolist():
        some = np.flatnonzero(ranges == number)
        key, value = (column(opened(writer, files[number]), name) for name in names)
        if some.size < key.size:
            found[some] = value[np.searchsorted(key, keys[some])]
        else:
            by_key = np.empty(key[-1] - key[0] + 1, dtype=np.int64)
            by_key[key - key[0]] = value
            found[some] = by_key[keys[some] - key[0]]
    return found


def _range_of(numbers: npt.NDArray[Any], low: int, high: int) -> slice:
    import numpy as np

    start, end = np.searchsorted(numbers, [low, high])
    return slice(int(start), int(end))


def write_edges(writer: PartWriter, name: str, found: Any) -> None:
    """The edges of buckets, for `components`."""
    import pyarrow as pa

    from data_quality.components import edges_of

    numbers, others = edges_of(found)
    write(writer, f"edges-{name}", pa.table({"number": numbers, "root": others}))


def components(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Joins all edges from documents of one range; what ties smaller documents together goes on to their ranges."""
    import numpy as np
    import pyarrow as pa

    from data_quality.components import Forest

    low, high = payload["range"]
    forest = Forest(low, high, EDGES_AT_ONCE)
    ranges: list[list[int]] = []

    def hand_on(edges: Iterator[tuple[Any, Any]]) -> None:
        for numbers, others in edges:
            name = f"edges-{payload['name']}-{len(ranges):04d}"
            write(writer, name, pa.table({"number": numbers, "root": others}))
            ranges.append(np.unique(numbers // payload["width"]).tolist())

    for part in payload["edges"]:
        table = opened(writer, part)
        numbers, roots = column(table, "number"), column(table, "root")
        some = _range_of(numbers, low, high)
        hand_on(forest.join(numbers[some], roots[some]))
    hand_on(forest.rest())
    numbers, roots = forest.known()
    write(writer, f"roots-{payload['name']}", pa.table({"number": numbers, "root": roots}))
    writer.notes["lower"] = ranges
    writer.notes["outside"] = bool((roots < low).any())


def jump(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Puts the root of the root in the place of roots outside the range."""
    import numpy as np
    import pyarrow as pa

    low, width = payload["range"][0], payload["width"]
    table = opened(writer, payload["roots"][low // width])
    roots = column(table, "root").copy()
    outside = np.flatnonzero(roots < low)
    further = _looked_up(writer, payload["roots"], width, roots[outside], ("number", "root"))
    writer.notes["outside"] = bool((further != roots[outside]).any())
    roots[outside] = further
    write(writer, f"roots-{payload['name']}", pa.table({"number": column(table, "number"), "root": roots}))


def weigh(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """How much memory the documents of one range take that belong to one root."""
    import numpy as np
    import pyarrow as pa

    from data_quality.bands import RECORD

    low, _ = payload["range"]
    table = opened(writer, payload["roots"][low // payload["width"]])
    numbers = column(table, "number")
    weights = np.full(numbers.size, RECORD, dtype=np.int64)
    older = []
    for place, some in of_places(payload["places"], numbers):
        rows = numbers[some] - place.start
        shingles = inputs["sketch"].read(f"signatures/{place.stem}", ["shingles"]).column("shingles").to_numpy()
        weights[some] += shingles[rows]
        if place.generation < payload["generation"]:
            older.append(place.stem)
    roots = column(table, "root")
    order = np.argsort(roots, kind="stable")
    ascending = roots[order]
    begins = np.flatnonzero(np.diff(ascending, prepend=-1))
    sums = np.add.reduceat(weights[order], begins) if begins.size else weights
    write(writer, f"weights-{payload['name']}", pa.table({"root": ascending[begins], "weight": sums}))
    writer.notes["older"] = older


def pack(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Puts the components whose roots lie in one range together in groups that fit the memory of a unit."""
    import numpy as np
    import pyarrow as pa

    from data_quality import duplicates_kernels

    low, high = payload["range"]
    weights = np.zeros(high - low, dtype=np.int64)
    for part in payload["weights"]:
        table = opened(writer, part)
        roots = column(table, "root")
        some = _range_of(roots, low, high)
        weights[roots[some] - low] += column(table, "weight")[some]
    roots = np.flatnonzero(weights)
    group = np.zeros(roots.size, dtype=np.int32)
    count = duplicates_kernels.fill_groups(weights[roots], stage.packed_weight, group)
    write(writer, f"packed-{payload['name']}", pa.table({"root": roots + low, "group": group}))
    writer.notes["count"] = count
    writer.notes["large"] = group[weights[roots] > stage.group_weight].tolist()
