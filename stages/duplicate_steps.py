"""The steps of deduplicate: what each unit of work reads, computes with `data_quality`, and writes.

Between steps go Arrow files that are mapped into memory, so that a unit touches only the ranges it asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import Context, Inputs
from stages.duplicate_blocks import samples
from stages.duplicate_files import (
    Payload,
    Place,
    as_buckets,
    column,
    joined_arrays,
    opened,
    read_buckets,
    write,
    write_buckets,
)
from stages.duplicate_groups import Grouping, write_edges
from storage.manifests import Part
from storage.outputs import SCRATCH, PartWriter

if TYPE_CHECKING:
    from stages.deduplicate import Deduplicate


def entries(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """The bands and ids of the eligible documents of a part, sorted."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.bands import band_entries, sorted_places
    from data_quality.identifiers import id_words
    from data_quality.sketch import signature_matrix
    from storage.schemas import BAND_ENTRIES, ID_ENTRIES

    stem = payload["stem"]
    eligible = pc.is_null(inputs["filter"].read(f"decisions/{stem}", ["dropped_by"]).column("dropped_by"))
    sketched = inputs["sketch"].read(f"signatures/{stem}", ["id", "signature"])
    rows = pc.indices_nonzero(eligible).to_numpy().astype(np.uint32)
    high, low = id_words(sketched.column("id").filter(eligible).combine_chunks())
    order = sorted_places(high, low)
    table = pa.table({"high": high[order], "low": low[order], "row": rows[order]})
    writer.ipc(f"ids/{stem}", table, ID_ENTRIES)
    worded = pc.and_(eligible, pc.is_valid(sketched.column("signature")))
    signatures = sketched.column("signature").combine_chunks()
    rows = pc.indices_nonzero(worded).to_numpy().astype(np.uint32)
    hashes, places = band_entries(signature_matrix(signatures, stage.sketch), rows, stage.config)
    writer.ipc(f"bands/{stem}", pa.table({"hash": hashes, "row": places}), BAND_ENTRIES)


def copies(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """The ids of one range that stand several times, and those that earlier generations have (`KNOWN`).

    Of every part each id is taken once: of one text there may be more copies than memory holds.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.bands import find_pairs, first_of_equal, runs
    from data_quality.identifiers import ids_of
    from storage.schemas import FATE, KNOWN

    (ids,) = payload["ranges"]
    high, low, counts = [], [], []
    for _, files in payload["parts"]:
        table = opened(writer, files["ids"][0])
        some = ids.of(column(table, "high"), table.num_rows)
        first, second = column(table, "high")[some], column(table, "low")[some]
        begins = np.flatnonzero(first_of_equal((first, second)))
        high.append(first[begins])
        low.append(second[begins])
        counts.append(np.diff(begins, append=first.size))
    order, begins = runs((joined_arrays(high, np.uint64), joined_arrays(low, np.uint64)))
    once = order[begins]
    keys = joined_arrays(high, np.uint64)[once], joined_arrays(low, np.uint64)[once]
    often = np.add.reduceat(joined_arrays(counts, np.int64)[order], begins) if begins.size else begins
    known = np.zeros(often.size, dtype=bool)
    tables = [KNOWN.empty_table()]
    for part in payload["index"]:
        table = opened(writer, part)
        some = ids.of(column(table, "high"), table.num_rows)
        mine, theirs = find_pairs(keys, (column(table, "high")[some], column(table, "low")[some]))
        new = ~known[mine]  # of several generations that have the text the first has decided
        mine, theirs = mine[new], theirs[new]
        known[mine] = True
        fate = table.slice(some.start, some.stop - some.start).take(pa.array(theirs)).select(FATE.names)
        removed = fate.column("keeper").is_valid()
        said = {
            **{name: fate.column(name) for name in FATE.names},
            "high": keys[0][mine],
            "low": keys[1][mine],
            "keeper": pc.coalesce(fate.column("keeper"), ids_of(keys[0][mine], keys[1][mine])),
            "similarity": pc.fill_null(fate.column("similarity"), 1.0),
            "method": pc.if_else(removed, "near", "exact"),
        }
        tables.append(pa.table({name: said[name] for name in KNOWN.names}).cast(KNOWN))
    told = pa.concat_tables(tables).sort_by([("high", "ascending"), ("low", "ascending")])
    again = (often > 1) & ~known
    write(writer, f"repeated-{payload['name']}", pa.table({"high": keys[0][again], "low": keys[1][again]}))
    write(writer, f"known-{payload['name']}", told)


def claims(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Of the texts of a part that stand several times, in any part, the first in π, and what it is measured by.

    And of those that earlier generations have what is said of them.
    """
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from data_quality.duplicate_members import survivor_priority
    from data_quality.duplicates import with_leaders
    from data_quality.identifiers import id_words
    from storage.schemas import KNOWN

    place: Place = payload["place"]
    own = opened(writer, payload["ids"])
    numbers = place.start + column(own, "row").astype(np.int64)
    told = [pa.schema([pa.field("number", pa.int64()), *KNOWN]).empty_table()]
    for part in payload["known"]:
        known = opened(writer, part)
        mine, theirs = _matched(own, known)
        told.append(known.take(pa.array(theirs)).add_column(0, "number", pa.array(numbers[mine])))
    write(writer, f"known-{place.stem}", pa.concat_tables(told).drop_columns(["high", "low"]).sort_by("number"))
    repeated = [numbers[_matched(own, opened(writer, part))[0]] for part in payload["repeated"]]
    numbers = np.sort(joined_arrays(repeated, np.int64))
    frame, _ = _documents(stage, place, numbers, inputs, writer, ["id", "source", "uri", "record"])
    priority = survivor_priority(frame, stage.config)
    frame = frame.select("number", "generation", "id", "source", "uri", "record", copies=pl.lit(1, pl.Int64))
    frame = with_leaders(frame.hstack(priority), stage.config)
    write(writer, f"same-{place.stem}", frame.select("number", "leader").sort("number").to_arrow())
    first = frame.filter(pl.col("number") == pl.col("leader")).drop("leader")
    high = pl.Series("high", id_words(first["id"])[0], pl.UInt64)
    write(writer, f"claims-{place.stem}", first.with_columns(high).to_arrow())


def _matched(ids: Any, among: Any) -> tuple[Any, Any]:
    """Rows of ids (`ID_ENTRIES`) and of a table of distinct ones (`high`, `low`, sorted) where they are the same."""
    import numpy as np

    from data_quality.bands import find_pairs

    high, low = column(among, "high"), column(among, "low")
    mine = column(ids, "high"), column(ids, "low")
    start, end = (
        (np.searchsorted(mine[0], high[0]), np.searchsorted(mine[0], high[-1], side="right")) if high.size else (0, 0)
    )
    rows, others = find_pairs((mine[0][start:end], mine[1][start:end]), (high, low))
    return start + rows, others


def leaders(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Of the texts of one range of ids the first in π of all parts, who stands for copies, and how many they are."""
    import polars as pl

    from data_quality.duplicates import with_leaders

    (ids,) = payload["ranges"]
    frames = []
    for part in payload["claims"]:
        table = opened(writer, part)
        some = ids.of(column(table, "high"), table.num_rows)
        frames.append(pl.DataFrame(pl.from_arrow(table.slice(some.start, some.stop - some.start))))
    found = with_leaders(pl.concat(frames), stage.config).select("number", "leader", "copies")
    write(writer, f"leaders-{payload['name']}", found.sort("number").to_arrow())


def buckets(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Documents that share a band, of some ranges of hashes; of copies only one stands in buckets."""
    import numpy as np

    from data_quality.bands import Buckets, joined, matching

    ranges = payload["ranges"]
    hashes: list[list[Any]] = [[] for _ in ranges]
    numbers: list[list[Any]] = [[] for _ in ranges]
    for place, files in payload["parts"]:
        table = opened(writer, files["bands"][0])
        later = payload["copies"].later(writer, place)
        for some, of_hashes, of_numbers in zip(ranges, hashes, numbers, strict=True):
            inside = some.of(column(table, "hash"), table.num_rows // stage.config.bands)
            rows = column(table, "row")[inside]
            stays = ~later[rows]
            of_hashes.append(column(table, "hash")[inside][stays])
            of_numbers.append(place.start + rows[stays].astype(np.int64))
    new = [np.unique(joined_arrays(of_hashes, np.uint64)) for of_hashes in hashes] if payload["index"] else []
    for part in payload["index"]:
        table = opened(writer, part)
        for some, wanted, of_hashes, of_numbers in zip(ranges, new, hashes, numbers, strict=True):
            start, end = np.searchsorted(column(table, "band"), [some.band, some.band + 1])
            old = column(table, "hash")[start:end]
            at = matching(wanted, old)
            of_hashes.append(old[at])
            of_numbers.append(column(table, "number")[start:end][at])
    found = [
        Buckets.of((joined_arrays(of_hashes, np.uint64),), joined_arrays(of_numbers, np.int64))
        for of_hashes, of_numbers in zip(hashes, numbers, strict=True)
    ]
    whole = joined(found)
    pairs = whole.distinct_pairs()
    write_buckets(writer, f"buckets-{payload['name']}", pairs)
    write_edges(writer, f"buckets-{payload['name']}", pairs)
    writer.notes["counted"] = {"buckets": whole.histogram().tolist()}


def members(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """The shingles and the survivor priority of the documents of a part that share buckets, sorted by group.

    That copies are copies is checked on the way.
    """
    import numpy as np
    import polars as pl

    from data_quality.duplicate_members import check_ids, member_schema
    from data_quality.duplicate_members import members as decided_by
    from storage.arrow_files import read_rows

    place: Place = payload["place"]
    grouping: Grouping = payload["grouping"]
    copied = repeated = often = np.empty(0, dtype=np.int64)
    if place.generation == payload["generation"]:
        repeated, _, often = payload["copies"].of(writer, place)
        copied = np.concatenate([repeated, payload["copies"].seen(writer, place)])
    numbers = grouping.between(writer, place.start, place.end)
    wanted = np.union1d(numbers, copied)
    where = f"documents/{place.stem}"
    frame, texts = _documents(stage, place, wanted, inputs, writer, ["id", "text"])
    some = frame.filter(pl.Series(np.isin(wanted, copied)))
    check_ids(some["id"], texts.take(some["place"].to_arrow()), some["row"], where)
    chosen = pl.Series(np.isin(wanted, numbers))
    signatures = inputs["sketch"].part(f"signatures/{place.stem}").path
    shingles = read_rows(writer.store, signatures, ["shingles"], numbers - place.start)
    copies = np.ones(numbers.size, dtype=np.int64)
    inside = np.isin(repeated, numbers)
    copies[np.searchsorted(numbers, repeated[inside])] = often[inside]
    frame = frame.filter(chosen).with_columns(
        pl.Series("group", grouping.of(writer, numbers)),
        pl.Series("copies", copies),
        pl.Series("shingles", shingles.column(0)),
    )
    table = decided_by(frame, texts, stage.config, stage.sketch, where)
    writer.ipc(f"{SCRATCH}/members-{place.stem}", table, member_schema(stage.config))
    writer.notes["samples"] = samples(stage, table, grouping.large) if grouping.large else []


def _documents(
    stage: Deduplicate, place: Place, numbers: Any, inputs: Inputs, writer: PartWriter, names: list[str]
) -> Any:
    """Some documents of a part as a frame: what is asked for, what the survivor priority goes by.

    `place` says where the text of each stands among the texts beside it, which are those of whole row groups.
    """
    import polars as pl

    from storage.arrow_files import read_row_groups, read_rows

    rows = numbers - place.start
    needed = [("source-order", "source"), ("newest", "date"), ("oldest", "date")]
    names = list(dict.fromkeys([*names, *(name for rule, name in needed if rule in stage.config.priority)]))
    features = _features(stage, inputs, place.stem)
    measured = read_rows(writer.store, inputs["quality"].part(f"features/{place.stem}").path, features, rows)
    documents, at = read_row_groups(writer.store, inputs["ingest"].part(f"documents/{place.stem}").path, names, rows)
    texts = documents.column("text").combine_chunks() if "text" in names else None
    facts = documents.select([name for name in names if name != "text"]).take(at)
    frame = pl.DataFrame(pl.from_arrow(facts)).with_columns(
        pl.Series("number", numbers),
        pl.Series("row", rows),
        pl.Series("place", at.to_numpy()),
        pl.Series("bytes", measured.column("bytes")),
        generation=pl.lit(place.generation, pl.Int32),
    )
    if stage.config.score is not None:
        frame = frame.with_columns(pl.Series("score", measured.column(stage.config.score)).cast(pl.Float64))
    return frame, texts


def _features(stage: Deduplicate, inputs: Inputs, stem: str) -> list[str]:
    """The features that priorities go by; StageError if the score is none of them."""
    import difflib

    import pyarrow as pa

    from stages.base import StageError
    from storage.arrow_files import open_parquet

    score = stage.config.score
    if score is None or score == "bytes":
        return ["bytes"]
    with open_parquet(inputs["quality"].store, inputs["quality"].part(f"features/{stem}").path) as file:
        schema = file.schema_arrow
    names = schema.names
    if score not in names:
        near = difflib.get_close_matches(score, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StageError(f"deduplicate.score: there is no feature {score!r}{hint} Features are: {', '.join(names)}")
    kind = schema.field(score).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise StageError(f"deduplicate.score: the feature {score!r} is no number but {kind}: name another one")
    return ["bytes", score]


def regroup(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """A file of buckets in the order of groups."""
    import numpy as np
    import pyarrow as pa

    some = read_buckets(writer, payload["buckets"])
    group = payload["grouping"].of(writer, some.members)
    order = np.argsort(group, kind="stable")
    columns = {"group": group[order], "number": some.members[order], "first": some.first[order]}
    write(writer, f"regrouped-{payload['name']}", pa.table(columns))


def decide(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Decides one group."""
    import numpy as np
    import pyarrow as pa

    from data_quality.bands import joined
    from data_quality.duplicate_members import Members
    from data_quality.duplicates import decide as decided_together

    def of_group(part: Part) -> pa.Table:
        table = opened(writer, part)
        start, end = np.searchsorted(column(table, "group"), [payload["group"], payload["group"] + 1])
        return table.slice(start, end - start)

    documents = Members.joined([Members.of(of_group(part)) for part in payload["members"]])
    inside = joined([as_buckets(of_group(part)) for part in payload["buckets"]]).distinct_pairs()
    decided, growth, _, counted = decided_together(documents, inside, stage.config, generation=payload["generation"])
    write(writer, f"decided-{payload['name']}", decided.to_arrow())
    write(writer, f"growth-{payload['name']}", growth.select("id", "added").to_arrow())
    writer.notes["counted"] = counted
