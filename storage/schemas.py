"""The Arrow schemas of everything that passes between stages: the only place where rooms meet.

Text is `large_string` everywhere, so that a column may exceed 2 GiB. Ids are 16 bytes (blake2b of the text as written).
"""

from __future__ import annotations

import pyarrow as pa

ID_BYTES = 16
ID_FIELD = pa.field("id", pa.binary(ID_BYTES), nullable=False)

DOCUMENTS = pa.schema(
    [
        ID_FIELD,
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),
        pa.field("meta", pa.string()),
    ]
)
"""One row a document, in input order. `uri` is relative to the source's root, `record` counts from 0 in the file."""

ID_INDEX = pa.schema(
    [ID_FIELD, pa.field("part", pa.string(), nullable=False), pa.field("row", pa.int64(), nullable=False)]
)
"""Where every document lies, sorted by id, so that exact copies are neighbours."""

QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
    ]
)
"""What could not be read: `error` is a short kind that is counted, `message` says what happened."""

LEDGER = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("written", pa.int64(), nullable=False),
        pa.field("duplicates", pa.int64(), nullable=False),
        pa.field("skipped", pa.int64(), nullable=False),
        pa.field("quarantined", pa.int64(), nullable=False),
        pa.field("reasons", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
    ]
)
"""One row an input file: `records = written + skipped + quarantined`; what is skipped is by its kind no document.

`duplicates` are those of the written documents whose text stands earlier too (in the order of part names and rows);
`reasons` is JSON, reason of skipping or quarantine -> records; `sha256` ("sha256:hex") is of the file as it lies there.
`status` is "read", "adopted" (taken as it was), "tombstone" (the file was there in the generation before and is gone)
or "takedown" (left out on request); the counts of the last two are those of the generation that read it and enter no
sum.
"""

SPAN = pa.struct(
    [
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("replacement", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
CUTS = pa.schema([ID_FIELD, pa.field("spans", pa.list_(SPAN), nullable=False)])
"""Byte spans of the UTF-8 text (start inclusive, end exclusive), sorted and disjoint, applied where text leaves."""

OVERLAPS = pa.schema(
    [
        ID_FIELD,
        pa.field("eval_set", pa.string(), nullable=False),
        pa.field("eval_item", pa.string(), nullable=False),
        pa.field("overlap", pa.float32(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
    ]
)
"""One row a document and evaluation item that share text; `overlap` is the share of the item's n-grams found."""

DECISIONS = pa.schema(
    [
        ID_FIELD,
        pa.field("dropped_by", pa.string()),
        pa.field("hits", pa.list_(pa.string()), nullable=False),
        pa.field("keeper", pa.binary(ID_BYTES)),
        pa.field("similarity", pa.float64()),
        pa.field("method", pa.string()),
        pa.field("split", pa.string()),
        pa.field("repeats", pa.int32()),
    ]
)
"""One row a document of the part, same order. `dropped_by` is null for what is kept; `hits` are all reasons."""


NEIGHBOURS = pa.schema(
    [
        ID_FIELD,
        pa.field("cluster_size", pa.int64(), nullable=False),
        pa.field("containment", pa.float64()),
        pa.field("container", pa.binary(ID_BYTES)),
        pa.field("capped", pa.bool_(), nullable=False),
        pa.field("order", pa.int32(), nullable=False),
    ]
)
"""One row a document of the part, same order: what `deduplicate` saw beside what it decided.

`cluster_size` counts the documents of its generation that it stands for, itself included; 0 for what does not stay.
`containment` is the largest share of its shingles found in one document it was compared with (`container`), null if
nothing was. `capped`: kept ones of a full bucket were passed over. `order`: its place in the survivor order among the
documents it is connected with through buckets.
"""

GROWTH = pa.schema([ID_FIELD, pa.field("added", pa.int64(), nullable=False)])
"""How many documents a generation removed for kept ones of earlier generations, whose `cluster_size` stands."""

BAND_ENTRIES = pa.schema([pa.field("hash", pa.uint64(), nullable=False), pa.field("row", pa.uint32(), nullable=False)])
"""The bands of all eligible documents of a part that have words: as many rows a band, each sorted by hash."""

ID_ENTRIES = pa.schema(
    [
        pa.field("high", pa.uint64(), nullable=False),
        pa.field("low", pa.uint64(), nullable=False),
        pa.field("row", pa.uint32(), nullable=False),
    ]
)
"""The ids of all eligible documents of a part as two big-endian words, sorted."""

BAND_INDEX = pa.schema(
    [
        pa.field("band", pa.uint16(), nullable=False),
        pa.field("hash", pa.uint64(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
    ]
)
"""The kept documents of a generation by band and hash, at most bucket_limit + 1 of a bucket, in the survivor order."""

ID_INDEX_OF_DECISIONS = pa.schema(
    [
        pa.field("high", pa.uint64(), nullable=False),
        pa.field("low", pa.uint64(), nullable=False),
        pa.field("keeper", pa.binary(ID_BYTES)),
        pa.field("similarity", pa.float64()),
        pa.field("containment", pa.float64()),
        pa.field("container", pa.binary(ID_BYTES)),
    ]
)
"""Every text of a generation once, sorted by id; `keeper` and `similarity` where it was removed as similar."""

FATE = pa.schema([ID_INDEX_OF_DECISIONS.field(name) for name in ("keeper", "similarity", "containment", "container")])
"""What a later copy of a text shares with it."""

KNOWN = pa.schema(
    [*(ID_ENTRIES.field(name) for name in ("high", "low")), *FATE, pa.field("method", pa.string(), nullable=False)]
)
"""Texts that earlier generations have, by id, with what is said of their copies: a kept text is their keeper."""


def signature_schema(permutations: int, scheme: str = "affine32") -> pa.Schema:
    """MinHash signatures: little-endian uint32 (affine32) or uint64 (affine64) numbers, one after the other.

    A null signature stands for a document without words. As bytes, since Parquet takes lists apart number by number.
    """
    return pa.schema(
        [
            ID_FIELD,
            pa.field("signature", pa.binary({"affine32": 4, "affine64": 8}[scheme] * permutations)),
            pa.field("shingles", pa.int32(), nullable=False),
        ]
    )


def token_type(vocabulary_size: int) -> pa.DataType:
    """The smallest unsigned type that holds every id of a vocabulary (added tokens counted)."""
    if not 0 < vocabulary_size <= 1 << 32:
        raise ValueError(f"a vocabulary of {vocabulary_size} tokens does not fit 32-bit ids")
    return pa.uint16() if vocabulary_size <= 1 << 16 else pa.uint32()


def token_schema(dtype: pa.DataType) -> pa.Schema:
    """Token shards: one row a document."""
    return pa.schema(
        [ID_FIELD, pa.field("tokens", pa.large_list(pa.field("item", dtype, nullable=False)), nullable=False)]
    )
