"""The last steps of deduplicate: decisions as files of the parts, and what a later generation is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.base import Context, Inputs
from stages.duplicate_files import Payload, Place, add, between, column, joined_arrays, opened
from storage.manifests import Part
from storage.outputs import PartWriter

if TYPE_CHECKING:
    from stages.deduplicate import Deduplicate

REASONS = {"exact": "exact-duplicate", "near": "near-duplicate"}
DUPLICATED = "duplicated"
"""Why mode drop-all drops a document that others are duplicates of."""


def decisions(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """What was decided, as two files of the rows of a part."""
    import numpy as np
    import polars as pl

    from data_quality.duplicates import DECIDED, fates, with_dropped
    from data_quality.duplicates_statistics import count_fates
    from data_quality.rules import count_reasons
    from stages.selected import side_by_side
    from storage.schemas import DECISIONS, NEIGHBOURS

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
    again = pl.DataFrame(pl.from_arrow(opened(writer, payload["copies"].known[place.stem])))
    again = again.with_columns(cluster_size=pl.lit(0, pl.Int64))
    said = _of_part(writer, payload["decided"], place, elsewhere)
    told = [some.cast(pl.Schema(DECIDED)) for some in said]
    decided = pl.concat([pl.DataFrame(schema=DECIDED), *told, again], how="diagonal")
    if added := _of_part(writer, payload["added"], place):
        more = pl.concat(added).group_by("number").agg(pl.col("added").sum())
        decided = decided.join(more, on="number", how="left", maintain_order="left").with_columns(
            pl.col("cluster_size") + pl.col("added").fill_null(0)
        )
    joined = with_dropped(fates(frame, decided), stage.config)
    eligible = pl.col("dropped_by").is_null()
    method = pl.col("method")
    reason = (
        pl.when(method == "near")
        .then(pl.lit(REASONS["near"]))
        .when(method == "exact")
        .then(pl.lit(REASONS["exact"]))
        .otherwise(pl.lit(DUPLICATED))
    )
    hit = pl.when(eligible).then(pl.when("dropped").then(reason)).otherwise(pl.lit(_earlier()))
    table = _decisions(joined, hit, pl.when(method.is_not_null()).then(reason))
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


def _of_part(writer: PartWriter, files: Sequence[Part], place: Place, others: Any = None) -> list[Any]:
    """The rows of a part's documents in files sorted by number, and those of some other numbers (ascending)."""
    import numpy as np
    import polars as pl

    found = []
    for file in files:
        table = opened(writer, file)
        numbers = column(table, "number")
        inside = between(numbers, place)
        some = [table.slice(inside.start, inside.stop - inside.start)]
        if others is not None:
            at = np.searchsorted(numbers, others)
            some.append(table.take(at[np.append(numbers, -1)[at] == others]))
        found += [pl.DataFrame(pl.from_arrow(rows)) for rows in some if rows.num_rows]
    return found


def _decisions(documents: Any, dropped_by: Any, told: Any) -> Any:
    """`DECISIONS` of documents with their fates; the only hit is why one is dropped or, if it is not, what it is."""
    import numpy as np
    import polars as pl
    import pyarrow as pa

    from storage.schemas import DECISIONS

    names = ["id", "keeper", "similarity", "method"]
    said = documents.select(*names, dropped_by=dropped_by, hit=pl.coalesce(dropped_by, told)).to_arrow()
    hit = said.column("hit").combine_chunks().cast(pa.string())
    ends = np.append(0, np.cumsum(hit.is_valid().to_numpy(zero_copy_only=False)))
    columns = {
        **{name: said.column(name) for name in (*names, "dropped_by")},
        "hits": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), hit.drop_null()),
        **{name: pa.nulls(said.num_rows, DECISIONS.field(name).type) for name in ("split", "repeats")},
    }
    return pa.table({name: columns[name] for name in DECISIONS.names})


def growth(stage: Deduplicate, payload: Payload, inputs: Inputs, writer: PartWriter, context: Context) -> None:
    """How many documents a generation removed for those of earlier ones, of one range of ids; what else was counted."""
    import numpy as np
    import polars as pl

    from data_quality.identifiers import id_words
    from storage.schemas import GROWTH

    (ids,) = payload["ranges"]
    frames = [pl.DataFrame(schema={"id": pl.Binary, "added": pl.Int64})]

    def take(found: pl.DataFrame) -> None:
        high, _ = id_words(found["id"])
        inside = found.filter((high >= np.uint64(ids.low)) & (high <= np.uint64(ids.high - 1)))
        frames.append(inside.group_by("id").agg(pl.col("added").sum().cast(pl.Int64)))

    for part in payload["growth"]:
        take(pl.DataFrame(pl.from_arrow(opened(writer, part))))
    for part in payload["known"]:
        keepers = pl.DataFrame(pl.from_arrow(opened(writer, part)))["keeper"]
        take(pl.DataFrame({"id": keepers}).with_columns(added=pl.lit(1, pl.Int64)))
    total = pl.concat(frames).group_by("id").agg(pl.col("added").sum()).sort("id")
    writer.parquet(f"growth/{payload['name']}", total.to_arrow(), GROWTH)
    counted = {"exact": 0, "near": 0, "candidates": 0, "verified": 0, "capped": 0}
    add(counted, payload["counted"])
    writer.notes["statistics"] = counted


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

    from data_quality.bands import runs
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
    order, begins = runs(keys)
    once = order[begins]
    fate = pa.concat_tables(fates).take(pa.array(once))
    table = pa.table([pa.array(keys[0][once]), pa.array(keys[1][once]), *fate.columns], schema=ID_INDEX_OF_DECISIONS)
    writer.ipc(f"index/{payload['name']}", table, ID_INDEX_OF_DECISIONS)


def _earlier() -> str:
    from stages.deduplicate import EARLIER

    return EARLIER
