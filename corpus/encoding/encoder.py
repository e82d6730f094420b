"""Text to token ids, the same ones as `tokenizers` gives, by compiled loops where these are proven to be exact.

Text repeats itself: a piece between two splits is tokenised once, then found in a table of fixed size. What the loops
do not know (see `patterns`) goes to the library: whole tokenisers, and single texts that hold the text of added tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer, pre_tokenizers

from corpus.buffers import buffers
from corpus.encoding.patterns import compiled_pattern

# One call to the library: enough to keep its threads busy, little enough to bound memory.
_LIBRARY_BYTES = 2 << 20
# One call to the loops.
_CALL_BYTES = 8 << 20

ADDED_TOKEN, NORMALISED = "text of an added token", "not in the normal form of the tokeniser"
"""Why single texts go to the library."""

Integers = npt.NDArray[np.int64]


@dataclass
class Encoded:
    """Tokens of many texts: text i has `tokens[offsets[i]:offsets[i + 1]]`."""

    tokens: npt.NDArray[np.unsignedinteger]
    offsets: Integers


@dataclass
class EncoderCounts:
    """What an encoder did: texts by the way they took, pieces of the compiled way and how many were not in a table."""

    compiled: int = 0
    library: Counter[str] = field(default_factory=Counter)
    pieces: int = 0
    merged: int = 0
    merged_bytes: int = 0

    def copy(self) -> EncoderCounts:
        """What it is now."""
        return replace(self, library=self.library.copy())

    def __sub__(self, other: EncoderCounts) -> EncoderCounts:
        return EncoderCounts(
            self.compiled - other.compiled,
            self.library - other.library,
            self.pieces - other.pieces,
            self.merged - other.merged,
            self.merged_bytes - other.merged_bytes,
        )


class Encoder:
    """Encodes many texts with one tokeniser; for one thread at a time.

    Attributes
    ----------
    pattern
        Name of the way of splitting, "" where all texts go to the library.
    reason
        Why they do, else "".
    vocabulary_size
        One more than the highest id, added tokens included.
    counts
        What was done so far.
    """

    SHORT_ENTRIES = 1 << 17  # 64 bytes each
    LONG_ENTRIES = 1 << 13  # 256 bytes each

    def __init__(self, tokenizer: Tokenizer, *, compiled: bool = True) -> None:
        self.tokenizer = tokenizer
        self.vocabulary_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.counts = EncoderCounts()
        description = json.loads(tokenizer.to_str())
        self.pattern, self.reason = compiled_pattern(description) if compiled else ("", "asked for")
        if self.pattern:
            self.reason = self._prepare(description)
            self.pattern = "" if self.reason else self.pattern

    def _prepare(self, description: dict[str, Any]) -> str:
        """Make the tables of the model; a reason if they cannot be made."""
        from corpus.encoding import kernels
        from corpus.encoding.automata import automaton, character_symbols
        from corpus.encoding.characters import CODE_POINTS

        model = description["model"]
        vocabulary: dict[str, int] = model["vocab"]
        alphabet = byte_alphabet()
        if missing := [byte for byte, character in enumerate(alphabet) if character not in vocabulary]:
            return f"{len(missing)} of the 256 bytes are not in its vocabulary"
        spelled = spellings(vocabulary)
        byte_ids = np.array([vocabulary[character] for character in alphabet], np.uint32)
        merges: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, pair in enumerate(model["merges"]):
            left, right = pair if isinstance(pair, list) else pair.split(" ")
            merges[vocabulary[left], vocabulary[right]] = rank, vocabulary[left + right]
        if any(new not in spelled for _, new in merges.values()):
            return "some of its tokens are not written in the characters that stand for bytes"
        keys = np.array([left << 32 | right for left, right in merges], np.uint64)
        pairs = np.empty((2 * _slots(len(keys)), 2), np.uint64)  # most pairs are not there: found out at once
        kernels.fill_pairs(pairs, keys, np.array([rank << 32 | new for rank, new in merges.values()], np.uint64))
        self._room = np.empty((5, kernels.SHORT_MERGE), np.uint64)
        words = _words(spelled if model.get("ignore_merges") else {})
        none = np.full(CODE_POINTS, kernels.NO_TOKEN, np.uint32), np.zeros(1 << 16, np.uint8)
        self._model = (byte_ids, pairs, *none, *words)
        if _in_order(merges):
            self._model = (byte_ids, pairs, *self._characters(spelled, merges), *words)
        self._splitter = (character_symbols(), *automaton(self.pattern))
        self._normalises = bool(description.get("normalizer"))
        self._phrases = _phrases(self.tokenizer)
        self._short = _aligned(self.SHORT_ENTRIES + kernels.WAYS, kernels.ENTRY_WORDS)
        self._long = _aligned(self.LONG_ENTRIES + kernels.WAYS, kernels.LONG_ENTRY_WORDS)
        return ""

    def _characters(
        self, spelled: dict[int, bytes], merges: dict[tuple[int, int], tuple[int, int]]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """Characters that merging may begin with instead of their bytes, and between which bytes it may not.

        With merges in order (see `_in_order`) they happen by ascending rank, each everywhere in a piece. As long as no
        token joins some bytes of a character with bytes of its neighbours, its bytes merge as they do alone, and what
        joins whole characters has a higher rank than all that makes them: they may as well be made first.
        """
        from corpus.encoding import kernels
        from corpus.encoding.characters import CODE_POINTS

        unsafe = np.zeros(1 << 16, np.uint8)
        characters = []
        for token in sorted({new for _, new in merges.values()}):
            text = spelled[token]
            starts = [at for at, byte in enumerate(text) if byte & 0xC0 != 0x80]
            if starts and starts[0] > 0:  # the token begins inside a character
                unsafe[text[starts[0] - 1] << 8 | text[starts[0]]] |= kernels.UNSAFE_BEFORE
            if not starts:
                continue
            last = text[starts[-1] :]
            if len(last) == _width(last[0]):
                if len(starts) == 1 and starts[0] == 0 and _is_character(text):
                    characters.append(token)
            elif starts[-1] > 0:  # the token ends inside a character
                unsafe[text[starts[-1] - 1] << 8 | last[0]] |= kernels.UNSAFE_AFTER
        data = b"".join(spelled[token] for token in characters)
        offsets = np.cumsum([0, *(len(spelled[token]) for token in characters)], dtype=np.int64)
        alone = np.empty(len(characters), np.uint32)
        kernels.merge_alone(np.frombuffer(data, np.uint8), offsets, self._model, self._room, alone)
        ids = np.full(CODE_POINTS, kernels.NO_TOKEN, np.uint32)
        ids[[ord(spelled[token].decode()) for token in characters]] = alone
        return ids, unsafe

    def encode(self, texts: pa.LargeStringArray, end_token: int | None, dtype: npt.DTypeLike) -> Encoded:
        """The tokens of `tokenizer.encode(text, add_special_tokens=False)`, each text closed by `end_token`.

        Parameters
        ----------
        texts
            Without nulls, valid UTF-8.
        end_token
            None for none.
        dtype
            uint16 or uint32.
        """
        pieces, offsets = [], np.zeros(len(texts) + 1, np.int64)
        for begin, end in _calls(texts, _CALL_BYTES):
            part = texts.slice(begin, end - begin)
            encoded = self._compiled(part, end_token) if self.pattern else self._library(part, end_token, self.reason)
            offsets[begin + 1 : end + 1] = encoded.offsets[1:] + offsets[begin]
            pieces.append(encoded.tokens.astype(dtype))
        return Encoded(_joined(pieces, dtype), offsets)

    def _compiled(self, texts: pa.LargeStringArray, end_token: int | None) -> Encoded:
        from corpus.encoding import kernels

        skip, reasons = self._exceptions(texts)
        offsets, data = buffers(texts)
        out = np.empty(int(offsets[-1] - offsets[0]) + len(texts) + 2, np.uint32)
        out_offsets = np.empty(len(texts) + 1, np.int64)
        counts = np.zeros(3, np.int64)
        number = kernels.encode(
            data, offsets, skip, self._splitter, self._model, self._short, self._long, self._room,
            -1 if end_token is None else end_token, out, out_offsets, counts,
        )  # fmt: skip
        self.counts.compiled += len(texts) - int(skip.sum())
        self.counts.pieces += int(counts[0])
        self.counts.merged += int(counts[1])
        self.counts.merged_bytes += int(counts[2])
        if not reasons:
            return Encoded(out[:number], out_offsets)
        rows = np.flatnonzero(skip)
        others = self._library(texts.take(pa.array(rows)), end_token, None)
        self.counts.library.update(reasons.values())
        return _spliced(Encoded(out[:number], out_offsets), rows, others)

    def _exceptions(self, texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.bool_], dict[int, str]]:
        """Which texts the loops must not encode, and why."""
        from corpus.encoding import kernels
        from corpus.encoding.characters import COMPOSES, character_bits

        offsets, data = buffers(texts)
        skip = np.zeros(len(texts), np.bool_)
        kernels.mark_texts(data, offsets, *self._phrases, skip)
        reasons = dict.fromkeys(np.flatnonzero(skip).tolist(), ADDED_TOKEN)
        if self._normalises:
            unsure = np.zeros(len(texts), np.bool_)
            kernels.mark_characters(data, offsets, character_bits(), COMPOSES, unsure)
            for row in np.flatnonzero(unsure & ~skip).tolist():
                text = texts[row].as_py()
                if self.tokenizer.normalizer.normalize_str(text) != text:
                    skip[row], reasons[row] = True, NORMALISED
        return skip, reasons

    def _library(self, texts: pa.LargeStringArray, end_token: int | None, reason: str | None) -> Encoded:
        """The same by `tokenizers`; counted under `reason`, if there is one."""
        end = [] if end_token is None else [end_token]
        offsets = np.zeros(len(texts) + 1, np.int64)
        pieces, row = [], 0
        for begin, stop in _calls(texts, _LIBRARY_BYTES):
            gathered: list[int] = []
            batch = texts.slice(begin, stop - begin).to_pylist()
            for encoding in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                gathered += encoding.ids
                gathered += end
                row += 1
                offsets[row] = offsets[begin] + len(gathered)
            pieces.append(np.array(gathered, np.uint32))
        if reason is not None:
            self.counts.library[reason] += len(texts)
        return Encoded(_joined(pieces, np.uint32), offsets)


def _joined(pieces: list[Any], dtype: npt.DTypeLike) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty(0, dtype)


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in the vocabulary of a byte-level tokeniser, by byte."""
    # GPT-2's: printable Latin-1 stands for itself, the others follow from U+0100 on.
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    found = [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]
    assert set(found) == set(pre_tokenizers.ByteLevel.alphabet())
    return found


def spellings(vocabulary: dict[str, int]) -> dict[int, bytes]:
    """The bytes of every token that is made of the characters which stand for bytes."""
    value = {character: byte for byte, character in enumerate(byte_alphabet())}
    return {
        number: bytes(value[character] for character in token)
        for token, number in vocabulary.items()
        if all(character in value for character in token)  # no text has another
    }


def _in_order(merges: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether every merge has a higher rank than all that make its halves."""
    made: dict[int, int] = {}
    for rank, new in merges.values():
        made[new] = max(rank, made.get(new, -1))
    return all(made.get(left, -1) < rank and made.get(right, -1) < rank for (left, right), (rank, _) in merges.items())


def _is_character(text: bytes) -> bool:
    """Whether bytes are valid UTF-8: of a given vocabulary that is not certain."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _width(lead: int) -> int:
    """Bytes of a character by its first one."""
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _words(spelled: dict[int, bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], Integers]:
    """Hash table, bytes and offsets of tokens by id, for `fill_words`; all empty for no tokens."""
    from corpus.encoding import kernels

    rows = [spelled.get(number, b"") for number in range(max(spelled, default=-1) + 1)]
    data = np.frombuffer(b"".join(rows), np.uint8)
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    words = np.full(_slots(len(rows)) if rows else 0, -1, np.int32)
    if rows:
        kernels.fill_words(words, data, offsets)
    return words, data, offsets


def _phrases(tokenizer: Tokenizer) -> tuple[Integers, npt.NDArray[np.uint8], Integers]:
    """Texts of the added tokens, as they are and normalised, for `mark_texts`: first of each byte, bytes, offsets."""
    texts = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if tokenizer.normalizer is not None:
        texts |= {tokenizer.normalizer.normalize_str(text) for text in texts}
    phrases = sorted(text.encode() for text in texts if text)
    firsts = np.array([phrase[0] for phrase in phrases], np.int64)
    return (
        np.searchsorted(firsts, np.arange(257)).astype(np.int64),
        np.frombuffer(b"".join(phrases), np.uint8),
        np.cumsum([0, *map(len, phrases)], dtype=np.int64),
    )


def _slots(entries: int) -> int:
    """A power of two, at least twice the entries."""
    return 1 << max(4, (2 * entries - 1).bit_length())


def _aligned(entries: int, words: int) -> npt.NDArray[np.uint64]:
    """uint64 (entries, words), all zeros, at the beginning of a line of the processor's cache."""
    flat = np.zeros(entries * words + 8, np.uint64)
    begin = -(flat.ctypes.data // 8) % 8
    return flat[begin : begin + entries * words].reshape(entries, words)


def _calls(texts: pa.LargeStringArray, size: int) -> Iterator[tuple[int, int]]:
    """Rows [begin, end) of about `size` bytes together; a longer text comes alone."""
    offsets, _ = buffers(texts)
    begin = 0
    while begin < len(texts):
        end = int(np.searchsorted(offsets, offsets[begin] + size, side="right")) - 1
        end = min(max(end, begin + 1), len(texts))
        yield begin, end
        begin = end


def _spliced(encoded: Encoded, rows: npt.NDArray[np.intp], others: Encoded) -> Encoded:
    """`encoded`, in which `rows` are empty, with the tokens of `others` there."""
    lengths = np.diff(encoded.offsets)
    lengths[rows] = np.diff(others.offsets)
    tokens, offsets = np.empty(int(lengths.sum()), np.uint32), np.concatenate([[0], np.cumsum(lengths)])
    before = 0
    for number, row in enumerate([*rows.tolist(), len(lengths)]):
        tokens[offsets[before] : offsets[row]] = encoded.tokens[encoded.offsets[before] : encoded.offsets[row]]
        if row < len(lengths):
            own = others.tokens[others.offsets[number] : others.offsets[number + 1]]
            tokens[offsets[row] : offsets[row + 1]] = own
        before = row + 1
    return Encoded(tokens, offsets)
