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
    add,
    as_buckets,
    between,
    column,
    joined_arrays,
    of_places,
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

REASONS = {"exact": "exact-duplicate", "near": "near-duplicate"}
DUPLICATED = "duplicated"
"""Why mode drop-all drops a document that others are duplicates of."""


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
    signatures = sketched.column("signature").filter(worded).combine_chunks()
    rows = pc.indices_nonzero(worded).to_numpy().astype(np.uint32)
    hashes, places = band_entries(signature_matrix(signatures, stage.sketch), rows, stage.config)
    writer.ipc(f"bands/{stem}", pa.table({"hash": hashes, "row": places}), BAND_ENTRIES)


def copies(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Texts of one range of ids that stand several times, and those that earlier generations have."""
    import numpy as np
    import pyarrow as pa

    from data_quality.bands import Buckets, find_pairs
    from storage.schemas import FATE

    (ids,) = payload["ranges"]
    high, low, numbers = [], [], []
    for place, files in payload["parts"]:
        table = opened(writer, files["ids"][0])
        some = ids.of(column(table, "high"), table.num_rows)
        high.append(column(table, "high")[some])
        low.append(column(table, "low")[some])
        numbers.append(place.start + column(table, "row")[some].astype(np.int64))
    keys = (joined_arrays(high, np.uint64), joined_arrays(low, np.uint64))
    number = joined_arrays(numbers, np.int64)
    known = np.zeros(number.size, dtype=bool)
    tables = []
    for part in payload["index"]:
        table = opened(writer, part)
        some = ids.of(column(table, "high"), table.num_rows)
        mine, theirs = find_pairs(keys, (column(table, "high")[some], column(table, "low")[some]))
        new = ~known[mine]  # of several generations that have the text the first has decided
        mine, theirs = mine[new], theirs[new]
        known[mine] = True
        fate = table.slice(some.start, some.stop - some.start).take(pa.array(theirs)).select(FATE.names)
        tables.append(fate.add_column(0, "number", pa.array(number[mine])))
    found = Buckets.of((keys[0][~known], keys[1][~known]), number[~known])
    schema = pa.schema([pa.field("number", pa.int64()), *FATE])
    told = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)]).sort_by("number")
    write(writer, f"repeated-{payload['name']}", pa.table({"number": np.sort(found.members)}))
    write(writer, f"known-{payload['name']}", told)


def claims(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Of the texts of a part that stand several times, in any part, the first in π, and what it is measured by."""
    import numpy as np
    import polars as pl

    from data_quality.duplicate_members import survivor_priority
    from data_quality.duplicates import with_leaders
    from data_quality.identifiers import id_words

    place: Place = payload["place"]
    found = [column(opened(writer, part), "number") for part in payload["repeated"]]
    numbers = np.sort(joined_arrays([some[between(some, place)] for some in found], np.int64))
    frame, _ = _documents(stage, place, numbers, inputs, writer, ["id", "source", "uri", "record"])
    priority = survivor_priority(frame, stage.config)
    frame = frame.select("number", "generation", "id", "source", "uri", "record", copies=pl.lit(1, pl.Int64))
    frame = with_leaders(frame.hstack(priority), stage.config)
    write(writer, f"same-{place.stem}", frame.select("number", "leader").sort("number").to_arrow())
    first = frame.filter(pl.col("number") == pl.col("leader")).drop("leader")
    high = pl.Series("high", id_words(first["id"])[0], pl.UInt64)
    write(writer, f"claims-{place.stem}", first.with_columns(high).to_arrow())


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

    from stages.base import StageError
    from storage.arrow_files import open_parquet

    score = stage.config.score
    if score is None or score == "bytes":
        return ["bytes"]
    with open_parquet(inputs["quality"].store, inputs["quality"].part(f"features/{stem}").path) as file:
        names = file.schema_arrow.names
    if score not in names:
        near = difflib.get_close_matches(score, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StageError(f"deduplicate.score: there is no feature {score!r}{hint} Features are: {', '.join(names)}")
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


def decisions(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """What was decided, as two files of the rows of a part."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from data_quality.duplicates import DECIDED, fates, with_dropped
    from data_quality.duplicates_statistics import count_fates
    from data_quality.rules import count_reasons
    from stages.selected import side_by_side
    from storage.schemas import DECISIONS, FATE, NEIGHBOURS

    place: Place = payload["place"]
    frame = side_by_side(
        inputs,
        ("sketch", f"signatures/{place.stem}", ["id", "shingles"]),
        ("filter", f"decisions/{place.stem}", ["dropped_by"]),
    ).with_columns(number=pl.int_range(place.start, place.end, dtype=pl.Int64))
    leader, copies = np.arange(place.start, place.end), np.ones(place.rows, dtype=np.int64)
    repeated, first, often = payload["copies"].of(writer, place)
    leader[repeated - place.start], copies[repeated - place.start] = first, often
    frame = frame.with_columns(pl.Series("leader", leader), pl.Series("copies", copies))
    elsewhere = np.unique(first[(first < place.start) | (first >= place.end)])
    said = [pl.DataFrame(schema=DECIDED)]
    for part in payload["decided"]:
        table = opened(writer, part)
        numbers = column(table, "number")
        at = np.searchsorted(numbers, elsewhere)
        at = at[(np.append(numbers, -1)[at] == elsewhere)]
        inside = between(numbers, place)
        said.append(pl.DataFrame(pl.from_arrow(table.slice(inside.start, inside.stop - inside.start))))
        said.append(pl.DataFrame(pl.from_arrow(table.take(pa.array(at)))))
    known = [pl.DataFrame(schema={name: kind for name, kind in DECIDED.items() if name in ("number", *FATE.names)})]
    for part in payload["copies"].known:
        table = opened(writer, part)
        inside = between(column(table, "number"), place)
        known.append(pl.DataFrame(pl.from_arrow(table.slice(inside.start, inside.stop - inside.start))))
    again = pl.concat(known, how="diagonal").join(
        frame.select("number", "id"), on="number", how="left", maintain_order="left"
    )
    again = again.select(
        "number",
        keeper=pl.coalesce("keeper", "id"),
        similarity=pl.col("similarity").fill_null(1.0),
        method=pl.when(pl.col("keeper").is_null()).then(pl.lit("exact")).otherwise(pl.lit("near")),
        cluster_size=pl.lit(0, pl.Int64),
        containment="containment",
        container="container",
    )
    decided = pl.concat([*(some.cast(pl.Schema(DECIDED)) for some in said), again], how="diagonal")
    added = [pl.DataFrame(schema={"number": pl.Int64, "added": pl.Int64})]
    for part in payload["added"]:
        table = opened(writer, part)
        inside = between(column(table, "number"), place)
        added.append(pl.DataFrame(pl.from_arrow(table.slice(inside.start, inside.stop - inside.start))))
    more = pl.concat(added).group_by("number").agg(pl.col("added").sum())
    decided = decided.join(more, on="number", how="left", maintain_order="left").with_columns(
        pl.col("cluster_size") + pl.col("added").fill_null(0)
    )
    joined = with_dropped(fates(frame, decided), stage.config)
    eligible = pl.col("dropped_by").is_null()
    reason = pl.col("method").replace_strict(REASONS, default=DUPLICATED, return_dtype=pl.String)
    hit = pl.when(eligible).then(pl.when("dropped").then(reason)).otherwise(pl.lit(_earlier()))
    told = pl.when(pl.col("method").is_not_null()).then(reason)
    said = joined.select("id", "keeper", "similarity", "method", dropped_by=hit, hit=pl.coalesce(hit, told)).to_arrow()
    hits = said.column("hit").combine_chunks().cast(pa.string())
    ends = np.append(0, np.cumsum(hits.is_valid().to_numpy(zero_copy_only=False)))
    told_of = {
        **{name: said.column(name) for name in ("id", "dropped_by", "keeper", "similarity", "method")},
        "hits": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), hits.drop_null()),
        **{name: pa.nulls(place.rows, DECISIONS.field(name).type) for name in ("split", "repeats")},
    }
    table = pa.table({name: told_of[name] for name in DECISIONS.names})
    writer.parquet(f"decisions/{place.stem}", table, DECISIONS)
    neighbours = joined.select(
        "id",
        cluster_size=pl.when(eligible).then("cluster_size").otherwise(pl.lit(0, pl.Int64)),
        containment="containment",
        container="container",
        capped="capped",
        order="order",
    )
    writer.parquet(f"neighbours/{place.stem}", neighbours.to_arrow(), NEIGHBOURS)
    dropped = count_reasons(table)
    writer.count(read=place.rows, kept=place.rows - sum(dropped.values()), dropped=dropped)
    compared = joined.filter(eligible)
    writer.notes["statistics"] = {
        **count_fates(compared, again["number"].to_numpy()),
        "documents": compared.height,
        "without_words": int((compared["shingles"] == 0).sum()),
    }


def growth(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """How many documents a generation removed for those of earlier ones, and what was counted on the way."""
    import polars as pl

    from storage.schemas import GROWTH

    frames = [pl.DataFrame(schema={"id": pl.Binary, "added": pl.Int64})]
    frames += [pl.DataFrame(pl.from_arrow(opened(writer, part))) for part in payload["growth"]]
    counted = {"exact": 0, "near": 0, "candidates": 0, "verified": 0, "capped": 0}
    add(counted, payload["counted"])
    for part in payload["known"]:
        known = pl.DataFrame(pl.from_arrow(opened(writer, part)))
        if known.height:
            frames.append(_own_ids(inputs, stage, known).select("id", added=pl.lit(1, pl.Int64)))
    total = pl.concat(frames).group_by("id").agg(pl.col("added").sum()).sort("id")
    writer.parquet(f"growth/{payload['generation']}", total.to_arrow(), GROWTH)
    writer.notes["statistics"] = counted


def _own_ids(inputs: Inputs, stage: Deduplicate, known: Any) -> Any:
    """The keepers of copies of earlier texts: their own ids where the earlier one was kept."""
    import polars as pl

    found = []
    for place, some in of_places(stage.places(inputs), known["number"].to_numpy()):
        rows = known[some]
        ids = pl.Series(pl.from_arrow(inputs["sketch"].read(f"signatures/{place.stem}", ["id"]).column("id")))
        found.append(rows.select(id=pl.coalesce("keeper", ids.gather(rows["number"] - place.start))))
    return pl.concat(found)


def index_bands(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """The kept documents of a generation by band and hash, at most bucket_limit + 1 of a bucket."""
    import numpy as np
    import pyarrow as pa

    from data_quality.bands import first_of_each
    from storage.arrow_files import read_parquet
    from storage.schemas import BAND_INDEX

    ranges = payload["ranges"]
    found: list[tuple[list[Any], list[Any], list[Any]]] = [([], [], []) for _ in ranges]
    for place, files in payload["parts"]:
        table = opened(writer, files["bands"][0])
        said = read_parquet(writer.store, files["neighbours"][0].path, ["cluster_size", "order"])
        kept, order = said.column("cluster_size").to_numpy() > 0, said.column("order").to_numpy()
        for some, (hashes, numbers, orders) in zip(ranges, found, strict=True):
            inside = some.of(column(table, "hash"), table.num_rows // stage.config.bands)
            rows = column(table, "row")[inside]
            stays = kept[rows]
            hashes.append(column(table, "hash")[inside][stays])
            numbers.append(place.start + rows[stays].astype(np.int64))
            orders.append(order[rows[stays]])
    tables = []
    for some, (hashes, numbers, orders) in zip(ranges, found, strict=True):
        hashed, number = joined_arrays(hashes, np.uint64), joined_arrays(numbers, np.int64)
        chosen = first_of_each(hashed, joined_arrays(orders, np.int32), stage.config.bucket_limit + 1)
        band = np.full(chosen.size, some.band, dtype=np.uint16)
        tables.append(pa.table({"band": band, "hash": hashed[chosen], "number": number[chosen]}))
    writer.ipc(f"index/{payload['name']}", pa.concat_tables(tables), BAND_INDEX)


def index_ids(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Every text of a generation, by id, and for whom it was removed if it was."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.bands import distinct
    from storage.arrow_files import read_parquet
    from storage.schemas import FATE, ID_INDEX_OF_DECISIONS

    (ids,) = payload["ranges"]
    high, low, fates = [], [], [FATE.empty_table()]
    for _, files in payload["parts"]:
        table = opened(writer, files["ids"][0])
        some = ids.of(column(table, "high"), table.num_rows)
        high.append(column(table, "high")[some])
        low.append(column(table, "low")[some])
        rows = pa.array(column(table, "row")[some])
        said = read_parquet(writer.store, files["decisions"][0].path, ["keeper", "similarity", "method"]).take(rows)
        beside = read_parquet(writer.store, files["neighbours"][0].path, ["containment", "container"]).take(rows)
        # Copies of a kept text have its own id as their keeper: the text was not removed.
        near = pc.fill_null(pc.equal(said.column("method"), "near"), False)
        keeper, similarity = (
            pc.if_else(near, said.column(name), pa.scalar(None, FATE.field(name).type)) for name in FATE.names[:2]
        )
        fates.append(pa.table([keeper, similarity, *beside.columns], schema=FATE))
    keys = (joined_arrays(high, np.uint64), joined_arrays(low, np.uint64))
    once = distinct(keys)
    fate = pa.concat_tables(fates).take(pa.array(once))
    table = pa.table([pa.array(keys[0][once]), pa.array(keys[1][once]), *fate.columns], schema=ID_INDEX_OF_DECISIONS)
    writer.ipc(f"index/{payload['name']}", table, ID_INDEX_OF_DECISIONS)


def _earlier() -> str:
    from stages.deduplicate import EARLIER

    return EARLIER
