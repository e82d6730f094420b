"""The steps of deduplicate: what each unit of work reads, computes with `data_quality`, and writes.

Between steps go Arrow files that are mapped into memory, so that a unit touches only the ranges it asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base import Context, Inputs
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
    repeated_rows,
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
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.bands import band_entries, signature_matrix, sorted_places
    from data_quality.identifiers import id_words
    from storage.schemas import BAND_ENTRIES, ID_ENTRIES

    stem = payload["stem"]
    eligible = pc.is_null(inputs["filter"].read(f"decisions/{stem}", ["dropped_by"]).column("dropped_by"))
    sketched = inputs["sketch"].read(f"signatures/{stem}", ["id", "signature"])
    rows = pc.indices_nonzero(eligible).to_numpy().astype(np.uint32)
    high, low = id_words(pl.Series(pl.from_arrow(sketched.column("id").filter(eligible))))
    order = sorted_places(high, low)
    table = pa.table({"high": high[order], "low": low[order], "row": rows[order]})
    writer.ipc(f"ids/{stem}", table, ID_ENTRIES)
    worded = pc.and_(eligible, pc.is_valid(sketched.column("signature")))
    signatures = sketched.column("signature").filter(worded).combine_chunks()
    rows = pc.indices_nonzero(worded).to_numpy().astype(np.uint32)
    hashes, places = band_entries(signature_matrix(signatures), rows, stage.config)
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
    repeated = pa.table(
        {
            "number": np.concatenate([found.members, number[known]]),
            "first": np.concatenate([found.first, np.zeros(int(known.sum()), dtype=bool)]),
        }
    )
    schema = pa.schema([pa.field("number", pa.int64()), *FATE])
    told = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)]).sort_by("number")
    name = payload["name"]
    write_edges(writer, f"copies-{name}", found)
    write(writer, f"repeated-{name}", repeated.sort_by("number"))
    write(writer, f"known-{name}", told)


def buckets(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """Documents that share a band, of some ranges of hashes; of copies only one stands in buckets."""
    import numpy as np

    from data_quality.bands import Buckets, joined, matching

    ranges = payload["ranges"]
    hashes: list[list[Any]] = [[] for _ in ranges]
    numbers: list[list[Any]] = [[] for _ in ranges]
    for place, files in payload["parts"]:
        table = opened(writer, files["bands"][0])
        later = repeated_rows(writer, payload["repeated"], place)[1]
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
    """The shingles and the survivor priority of the documents of a part that share buckets, sorted by group."""
    import numpy as np
    import polars as pl

    from data_quality.duplicates import check_ids, member_schema
    from data_quality.duplicates import members as decided_by
    from storage.arrow_files import read_rows

    place: Place = payload["place"]
    grouping: Grouping = payload["grouping"]
    numbers = grouping.between(writer, place.start, place.end)
    group = grouping.of(writer, numbers)
    rows = numbers - place.start
    repeated, later = repeated_rows(writer, payload["repeated"], place)

    def columns(stage_name: str, part: str, names: list[str], rows: Any) -> Any:
        return read_rows(writer.store, inputs[stage_name].part(part).path, names, rows)

    where = f"documents/{place.stem}"
    config, schema = stage.config, member_schema(stage.config)
    if rows.size:
        documents = columns("ingest", where, ["id", "text", "source", "uri", "record", "date"], rows)
        features = columns("quality", f"features/{place.stem}", _features(stage, inputs, place.stem), rows)
        frame = pl.DataFrame(pl.from_arrow(documents.drop_columns(["text"]))).with_columns(
            pl.Series("number", numbers),
            pl.Series("group", group),
            pl.Series("row", rows),
            pl.Series("compared", ~later[rows]),
            pl.Series("repeated", repeated[rows]),
            pl.Series("shingles", columns("sketch", f"signatures/{place.stem}", ["shingles"], rows).column(0)),
            pl.Series("bytes", features.column("bytes")),
            generation=pl.lit(place.generation, pl.Int32),
        )
        if config.score is not None:
            frame = frame.with_columns(pl.Series("score", features.column(config.score)).cast(pl.Float64))
        texts = documents.column("text").combine_chunks()
        writer.ipc(f"{SCRATCH}/members-{place.stem}", decided_by(frame, texts, config, stage.sketch, where), schema)
    else:
        writer.ipc(f"{SCRATCH}/members-{place.stem}", schema.empty_table(), schema)
    known = np.sort(
        joined_arrays(
            [(seen := column(opened(writer, p), "number"))[between(seen, place)] for p in payload["known"]], np.int64
        )
    )
    if known.size:
        again = columns("ingest", where, ["id", "text"], known - place.start)
        ids = pl.Series(pl.from_arrow(again.column("id")))
        check_ids(ids, again.column("text").combine_chunks(), pl.Series(known - place.start), where)


def _features(stage: Deduplicate, inputs: Inputs, stem: str) -> list[str]:
    """The features that priorities go by; StageError if the score is none of them."""
    import difflib

    from stages.base import StageError

    score = stage.config.score
    if score is None or score == "bytes":
        return ["bytes"]
    names = inputs["quality"].read(f"features/{stem}", None).column_names
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
    from data_quality.duplicates import decide as decided_together

    def of_group(part: Part) -> pa.Table:
        table = opened(writer, part)
        start, end = np.searchsorted(column(table, "group"), [payload["group"], payload["group"] + 1])
        return table.slice(start, end - start)

    documents = pa.concat_tables([of_group(part) for part in payload["members"]])
    inside = joined([as_buckets(of_group(part)) for part in payload["buckets"]]).distinct_pairs()
    scratch = None
    if documents.nbytes > stage.memory:
        scratch = context.scratch / f"shingles-{context.attempt}-{payload['generation']}-{payload['name']}"
    try:
        decided, growth, counted = decided_together(
            documents, inside, stage.config, generation=payload["generation"], scratch=scratch
        )
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
    write(writer, f"decided-{payload['name']}", decided.to_arrow())
    write(writer, f"growth-{payload['name']}", growth.to_arrow())
    writer.notes["counted"] = counted


def decisions(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """What was decided, as two files of the rows of a part."""
    import polars as pl

    from data_quality.duplicates import DECIDED, with_dropped
    from data_quality.rules import count_reasons
    from stages.selected import side_by_side
    from storage.schemas import DECISIONS, FATE, NEIGHBOURS

    place: Place = payload["place"]
    frame = side_by_side(
        inputs,
        ("sketch", f"signatures/{place.stem}", ["id", "shingles"]),
        ("filter", f"decisions/{place.stem}", ["dropped_by"]),
    ).with_columns(number=pl.int_range(place.start, place.end, dtype=pl.Int64))
    said = [pl.DataFrame(schema=DECIDED)]
    for part in payload["decided"]:
        table = opened(writer, part)
        inside = between(column(table, "number"), place)
        said.append(pl.DataFrame(pl.from_arrow(table.slice(inside.start, inside.stop - inside.start))))
    known = [pl.DataFrame(schema={name: kind for name, kind in DECIDED.items() if name in ("number", *FATE.names)})]
    for part in payload["known"]:
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
    joined = with_dropped(frame.join(decided, on="number", how="left", maintain_order="left"), stage.config)
    eligible = pl.col("dropped_by").is_null()
    reason = pl.col("method").replace_strict(REASONS, default=DUPLICATED, return_dtype=pl.String)
    hit = pl.when(eligible).then(pl.when("dropped").then(reason)).otherwise(pl.lit(_earlier()))
    told = pl.when(pl.col("method").is_not_null()).then(reason)
    table = joined.select(
        "id",
        dropped_by=hit,
        hits=pl.concat_list(pl.coalesce(hit, told)).list.drop_nulls(),
        keeper="keeper",
        similarity="similarity",
        method="method",
        split=pl.lit(None, pl.String),
        repeats=pl.lit(None, pl.Int32),
    ).to_arrow()
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
        near = known["keeper"].is_not_null()
        add(counted, {"near": int(near.sum()), "exact": int((~near).sum())})
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
