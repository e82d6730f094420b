"""The files that pass between the steps of deduplicate: mapped into memory, so that a step touches what it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.manifests import Part
from storage.outputs import SCRATCH, PartWriter, local_file

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """The documents of a part have the numbers from `start` to below `end`."""

    stem: str
    generation: int
    start: int
    rows: int

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.start + self.rows


def add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds up what was counted."""
    from data_quality.duplicates_statistics import add_statistics

    add_statistics(total, more)


def write(writer: PartWriter, name: str, table: Any) -> None:
    writer.ipc(f"{SCRATCH}/{name}", table, table.schema)


def opened(writer: PartWriter, part: Part) -> Any:
    from storage.arrow_files import read_ipc

    return read_ipc(local_file(writer.store, part))


def column(table: Any, name: str) -> Any:
    """A column without nulls as an array that lies where the file is mapped."""
    column = table.column(name)
    return column.chunk(0).to_numpy(zero_copy_only=False) if column.num_chunks == 1 else column.to_numpy()


def joined_arrays(arrays: list[Any], dtype: Any) -> Any:
    import numpy as np

    return np.concatenate([np.empty(0, dtype=dtype), *arrays])


def write_buckets(writer: PartWriter, name: str, found: Any) -> None:
    import pyarrow as pa

    write(writer, name, pa.table({"number": found.members, "first": found.first}))


def read_buckets(writer: PartWriter, part: Part) -> Any:
    return as_buckets(opened(writer, part))


def as_buckets(table: Any) -> Any:
    from data_quality.bands import Buckets

    return Buckets(table.column("number").to_numpy(), table.column("first").to_numpy())


def between(numbers: Any, place: Place) -> slice:
    """Where the numbers of a part lie among sorted ones."""
    import numpy as np

    start, end = np.searchsorted(numbers, [place.start, place.end])
    return slice(int(start), int(end))


@dataclass(frozen=True)
class Copies:
    """Texts that stand several times in a generation: by part, the first in π of each; of those, the first of all.

    `known`, by part, are the documents whose text earlier generations have, and what is said of them.
    """

    same: Mapping[str, Part]
    leaders: Sequence[Part]
    known: Mapping[str, Part]

    def of(self, writer: PartWriter, place: Place) -> tuple[Any, Any, Any]:
        """The documents of a part whose text stands several times (ascending), their leaders, and how often it does."""
        import numpy as np

        table = opened(writer, self.same[place.stem])
        tables = [opened(writer, part) for part in self.leaders]
        inside = [between(column(some, "number"), place) for some in tables]
        number, leader, copies = (
            joined_arrays([column(t, name)[some] for t, some in zip(tables, inside, strict=True)], np.int64)
            for name in ("number", "leader", "copies")
        )
        order = np.argsort(number)
        at = order[np.searchsorted(number[order], column(table, "leader"))]
        return column(table, "number"), leader[at], copies[at]

    def seen(self, writer: PartWriter, place: Place) -> Any:
        """The documents of a part (ascending) whose text earlier generations have."""
        return column(opened(writer, self.known[place.stem]), "number")

    def later(self, writer: PartWriter, place: Place) -> Any:
        """Which rows of a part have a text that another document stands for."""
        import numpy as np

        later = np.zeros(place.rows, dtype=bool)
        numbers, leaders, _ = self.of(writer, place)
        later[numbers[numbers != leaders] - place.start] = True
        later[self.seen(writer, place) - place.start] = True
        return later


def of_places(places: Sequence[Place], numbers: Any) -> Iterator[tuple[Place, slice]]:
    """The parts that sorted numbers belong to, and where those of each lie."""
    for place in places:
        inside = between(numbers, place)
        if inside.stop > inside.start:
            yield place, inside
