"""The files that pass between the steps of deduplicate: mapped into memory, so that a step touches what it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    from data_quality.duplicates import add_statistics

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


def repeated_rows(writer: PartWriter, files: list[Part], place: Place) -> tuple[Any, Any]:
    """Which rows of a part have a text that stands several times, and which of them do not stand for the others."""
    import numpy as np

    repeated, later = np.zeros(place.rows, dtype=bool), np.zeros(place.rows, dtype=bool)
    for part in files:
        table = opened(writer, part)
        inside = between(column(table, "number"), place)
        rows = column(table, "number")[inside] - place.start
        repeated[rows] = True
        later[rows] = ~column(table, "first")[inside]
    return repeated, later


def of_places(places: list[Place], numbers: Any) -> Iterator[tuple[Place, slice]]:
    """The parts that sorted numbers belong to, and where those of each lie."""
    for place in places:
        inside = between(numbers, place)
        if inside.stop > inside.start:
            yield place, inside
