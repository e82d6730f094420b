"""Documents become rows of token ids, of the smallest type that holds the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from corpus.tokenizer import TokenizerError, vocabulary_size
from storage.schemas import token_schema, token_type

# One call to the tokeniser: enough to keep its threads busy, little enough to bound memory.
_CALL_BYTES = 2 << 20


def encode_documents(
    tokenizer: Tokenizer,
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
    tokenizer
        From `corpus.tokenizer`.
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
    size = vocabulary_size(tokenizer)
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

    kind = np.dtype(dtype.to_pandas_dtype())
    end = [] if end_id is None else [end_id]
    rows: list[npt.NDArray[np.unsignedinteger]] = []
    offsets = np.zeros(len(texts) + 1, np.int64)
    row = 0
    for batch in _calls(texts):
        gathered: list[int] = []
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            gathered += encoding.ids
            gathered += end
            row += 1
            offsets[row] = len(gathered)
        offsets[row - len(batch) + 1 : row + 1] += offsets[row - len(batch)]
        rows.append(np.array(gathered, kind))
    values = pa.array(np.concatenate(rows) if rows else np.empty(0, kind), dtype)
    schema = token_schema(dtype)
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), values, type=schema.field("tokens").type)
    return pa.Table.from_arrays([ids, tokens], schema=schema)


def _calls(texts: pa.LargeStringArray) -> Iterator[list[str]]:
    """Lists of texts of about `_CALL_BYTES` together; a longer text comes alone."""
    if not len(texts):
        return
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    begin = 0
    while begin < len(texts):
        end = int(np.searchsorted(offsets, offsets[begin] + _CALL_BYTES, side="right")) - 1
        end = min(max(end, begin + 1), len(texts), begin + 4096)
        yield texts.slice(begin, end - begin).to_pylist()
        begin = end
