"""Units of work: a function of the files alone, and one file more or less touches one unit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, SourceConfig
from corpus.inventory import IngestUnit, Inventory, plan_units, take_inventory
from corpus.sources import InputFile


def config(kind: str = "text", part_bytes: int = 1 << 20) -> IngestConfig:
    return IngestConfig(sources=(SourceConfig(name="s", kind=kind, path="x"),), part_bytes=part_bytes)  # type: ignore[arg-type]


def inventory(files: list[InputFile]) -> Inventory:
    return Inventory(tuple(sorted(files, key=lambda file: (file.source, file.uri))))


def some_files(count: int, seed: int, size: int = 1000) -> list[InputFile]:
    generator = random.Random(seed)
    return [InputFile("s", f"{generator.getrandbits(64):x}.txt", generator.randrange(size), "1") for _ in range(count)]


def contents(units: list[IngestUnit]) -> set[tuple[str, tuple[InputFile, ...]]]:
    return {(unit.stem, unit.files) for unit in units}


def test_a_file_of_records_is_a_unit_of_its_own() -> None:
    units = plan_units(inventory(some_files(1500, seed=1)), config("jsonl"))
    assert all(len(unit.files) == 1 for unit in units)
    assert len({unit.stem for unit in units}) == 1500


@pytest.mark.parametrize(("count", "kind"), [(5000, "text"), (20_000, "python-docs"), (9000, "jsonl")])
def test_small_files_are_grouped_and_every_file_is_in_one_unit(count: int, kind: str) -> None:
    files = some_files(count, seed=2)
    units = plan_units(inventory(files), config(kind))
    assert sorted(file.uri for unit in units for file in unit.files) == sorted(file.uri for file in files)
    group = 1024 if kind == "jsonl" else 64
    assert count / group < 3 * len(units) * 2
    assert len(units) < count / 2


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 900),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["text", "jsonl"]),
    part_bytes=st.sampled_from([1024, 20_000, 1 << 20]),
    size=st.integers(0, 200_000),
)
def test_one_file_more_changes_at_most_one_existing_unit(
    count: int, seed: int, kind: str, part_bytes: int, size: int
) -> None:
    files = some_files(count + 1, seed)
    new, old = InputFile("s", files[0].uri, size, "1"), files[1:]
    group = 1024 if kind == "jsonl" else 64
    if (count + 1) // group and ((count + 1) // group).bit_length() != max(1, count // group).bit_length():
        return  # k steps: every group may change
    before = contents(plan_units(inventory(old), config(kind, part_bytes)))
    after = contents(plan_units(inventory([new, *old]), config(kind, part_bytes)))
    assert len(before - after) <= 1
    changed = dict(after - before)
    assert sum(len(members) for members in changed.values()) <= 1 + max((len(m) for _, m in before), default=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_units_do_not_depend_on_the_order_of_listing(seed: int, order: random.Random) -> None:
    files = some_files(300, seed)
    shuffled = files[:]
    order.shuffle(shuffled)
    assert plan_units(inventory(files), config()) == plan_units(inventory(shuffled), config())
    assert inventory(files).digest == inventory(shuffled).digest


def test_a_large_file_ends_its_group_whatever_its_name() -> None:
    files = some_files(4000, seed=3, size=100_000)
    units = plan_units(inventory(files), config("text", part_bytes=80_000))
    assert all(file.bytes < 80_000 for unit in units for file in unit.files[:-1])
    assert sum(len(unit.files) for unit in units) == 4000


def test_one_file_more_never_lets_other_groups_merge() -> None:
    # A new boundary once made halves of a divided group small enough to be joined again: two units changed.
    files = some_files(409, seed=447)
    new, old = InputFile("s", files[0].uri, 0, "1"), files[1:]
    before = contents(plan_units(inventory(old), config("text", 1024)))
    after = contents(plan_units(inventory([new, *old]), config("text", 1024)))
    assert len(before - after) <= 1


def test_the_digest_sees_every_change(tmp_path: Path) -> None:
    files = some_files(3, seed=4)
    digest = inventory(files).digest
    assert digest.startswith("blake2b:")
    first = files[0]
    for changed in (
        InputFile("s", first.uri + "x", first.bytes, "1"),
        InputFile("s", first.uri, first.bytes + 1, "1"),
        InputFile("s", first.uri, first.bytes, "2"),
        InputFile("t", first.uri, first.bytes, "1"),
    ):
        assert inventory([changed, *files[1:]]).digest != digest


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    source = SourceConfig(name="s", kind="text", path=str(tmp_path))
    with pytest.raises(ValueError, match="two are called 's'"):
        take_inventory(IngestConfig(sources=(source, source)))


def test_sources_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    one, two = (SourceConfig(name=name, kind="text", path=str(tmp_path)) for name in ("one", "two"))
    forth = take_inventory(IngestConfig(sources=(one, two)))
    back = take_inventory(IngestConfig(sources=(two, one)))
    assert forth == back
    assert [unit.source for unit in plan_units(forth, IngestConfig(sources=(two, one)))] == ["one", "two"]
    [unit, _] = plan_units(forth, IngestConfig(sources=(one, two)))
    assert unit.material == [("a.txt", 1, unit.files[0].etag)]
    assert unit.part_name(7) == f"{unit.stem}-00007"
