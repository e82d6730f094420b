"""Documents become rows of token ids, of the smallest type that holds the vocabulary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.encoding.encoder import Encoder
from corpus.tokenizer import TokenizerError, sample_mask
from storage.schemas import token_schema, token_type

# Of what the compiled way encoded, about this share is encoded by `tokenizers` too, at most so many bytes a call.
CHECKED_SHARE = 1 / 512
CHECKED_BYTES = 256 << 10


def encode_documents(
    encoder: Encoder,
    ids: pa.Array | pa.ChunkedArray,
    texts: pa.LargeStringArray | pa.ChunkedArray,
    end_id: int | None,
    dtype: pa.DataType,
) -> pa.Table:
    """Encodes documents.

    The tokens of a text are those of `tokenizer.encode(text, add_special_tokens=False)` with `encode_special_tokens`
    set: special tokens written out in a text are text, nothing is added, truncated or padded.

    Parameters
    ----------
    encoder
        Of a tokeniser from `corpus.tokenizer`.
    ids, texts
        Ids (16 bytes) and texts (`large_string`, no nulls) of the same rows.
    end_id
        Token that is appended to every document; None for none.
    dtype
        Type of a token, as `storage.schemas.token_type` says for the vocabulary.

    Returns
    -------
    Table of schema `token_schema(dtype)`, rows in the order given.

    Raises
    ------
    TokenizerError
        If the vocabulary, or `end_id`, does not fit `dtype`, or the tokeniser is set to something else than above.
    """
    tokenizer = encoder.tokenizer
    size = encoder.vocabulary_size
    if dtype != token_type(size):
        raise TokenizerError(f"tokens of a vocabulary of {size} are {token_type(size)}, not {dtype}")
    if end_id is not None and not 0 <= end_id < size:
        raise TokenizerError(f"end token {end_id} is outside of the vocabulary of {size} tokens")
    if not tokenizer.encode_special_tokens or tokenizer.truncation is not None or tokenizer.padding is not None:
        raise TokenizerError("the tokeniser truncates, pads or reads special tokens out of text: see as_plain_text")
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if len(ids) != len(texts) or texts.null_count:
        raise ValueError(f"{len(ids)} ids for {len(texts)} texts, {texts.null_count} of them null")
    texts.validate(full=True)  # the loops rely on UTF-8

    encoded = encoder.encode(texts, end_id, dtype.to_pandas_dtype())
    schema = token_schema(dtype)
    tokens = pa.LargeListArray.from_arrays(
        pa.array(encoded.offsets), pa.array(encoded.tokens, dtype), type=schema.field("tokens").type
    )
    return pa.Table.from_arrays([ids, tokens], schema=schema)


def check_documents(encoder: Encoder, texts: pa.LargeStringArray, table: pa.Table, end_id: int | None) -> int:
    """Encodes a sample of documents, chosen by their ids, with `tokenizers` and compares.

    Parameters
    ----------
    encoder, texts, end_id
        As given to `encode_documents`.
    table
        What it gave.

    Returns
    -------
    The number of documents that were compared; none where all are encoded by `tokenizers` anyhow.

    Raises
    ------
    TokenizerError
        If one has other tokens.
    """
    if not encoder.pattern or not len(texts):
        return 0
    ids = table.column("id").combine_chunks()
    sizes = np.asarray(pc.binary_length(texts))
    rows = checked_rows(ids, sizes)
    batch = texts.take(pa.array(rows)).to_pylist()
    end = [] if end_id is None else [end_id]
    tokens = table.column("tokens").take(pa.array(rows)).to_pylist()
    for row, found, encoding in zip(
        rows, tokens, encoder.tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True
    ):
        wanted = encoding.ids + end
        if found != wanted:
            at = next((at for at, (own, other) in enumerate(zip(found, wanted, strict=False)) if own != other), -1)
            raise TokenizerError(
                f"document {ids[int(row)].as_py().hex()}: the compiled way of encoding ({encoder.pattern}) gave other "
                f"tokens than the library tokenizers: token {at} is {found[at : at + 1]}, not {wanted[at : at + 1]}. "
                "This is a defect; set tokenize.encoder to 'library' until it is mended"
            )
    return len(rows)


def checked_rows(ids: pa.Array, sizes: npt.NDArray[np.integer]) -> list[int]:
    """Which documents are compared: the first, and a share chosen by id, as long as all have `CHECKED_BYTES`.

    Longer ones than a quarter of that are passed over.
    """
    short = np.flatnonzero(sizes <= CHECKED_BYTES // 4)
    chosen = sample_mask(ids, CHECKED_SHARE)[short]
    chosen[:1] = True
    rows = short[chosen]
    fits = np.cumsum(sizes[rows]) <= CHECKED_BYTES
    return [int(row) for row in rows[fits]]
