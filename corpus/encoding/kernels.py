"""The compiled loops behind `corpus.encoding.encoder`: splitting text, looking pieces up, merging what is new.

One file, because a cached kernel does not see what changed in another. Bytes are those of valid UTF-8 throughout.
Numbers are little-endian: eight bytes of text are read as one 64-bit integer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from corpus.encoding.automata import END_OF_TEXT, FIRST_STOP, STOP, STOP_1, STOP_NOTED

Array = Any  # numba compiles by dtype; the docstrings name it
Number = Any  # signed and unsigned, of Python and NumPy

# An entry of the table of short pieces: 24 bytes of text, their number and that of their tokens, up to 8 tokens.
KEY_WORDS, ENTRY_WORDS = 3, 8
KEY_BYTES, ENTRY_TOKENS = 8 * KEY_WORDS, 8
# The same for long pieces.
LONG_KEY_WORDS, LONG_ENTRY_WORDS = 15, 32
LONG_KEY_BYTES, LONG_ENTRY_TOKENS = 8 * LONG_KEY_WORDS, 32
WAYS = 4
SHORT_MERGE = 256  # bytes; from here on a heap finds the next pair
UNSAFE_AFTER, UNSAFE_BEFORE = np.uint8(1), np.uint8(2)
NO_PAIR = np.uint64(0xFFFFFFFFFFFFFFFF)
_RANK, _ID = np.uint64(0xFFFFFFFF00000000), np.uint64(0xFFFFFFFF)  # the halves of what `_pair` says
NO_TOKEN = _NO_RANK = np.uint32(0xFFFFFFFF)

_K1, _K2, _K3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_EACH, _HIGHEST = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_MASKS = np.array(
    [[(1 << 8 * min(8, max(0, size - 8 * word))) - 1 for word in range(KEY_WORDS)] for size in range(KEY_BYTES + 1)],
    np.uint64,
)


def _load64_code(typing: Any, data: Any, index: Any) -> Any:
    """Eight bytes of a uint8 array from `index` on as uint64; they must lie inside."""
    signature = types.uint64(data, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        pointer = builder.bitcast(pointer, ir.IntType(64).as_pointer())
        loaded = builder.load(pointer)
        loaded.align = 1
        return loaded

    return signature, generate


_load64: Any = intrinsic(_load64_code)


@njit(cache=True, nogil=True, forceinline=True)
def _word(data: Array, start: Number, end: Number) -> Any:
    """At most eight bytes [start, end) as uint64, zeros behind them."""
    if start + 8 <= len(data):
        word = _load64(data, start)
        if end - start < 8:
            word &= (np.uint64(1) << np.uint64(8 * (end - start))) - np.uint64(1)
        return word
    word = np.uint64(0)
    for index in range(start, min(end, start + 8)):
        word |= np.uint64(data[index]) << np.uint64(8 * (index - start))
    return word


@njit(cache=True, nogil=True, forceinline=True)
def _code(data: Array, index: Number) -> Any:
    """(code point, its bytes) of the character at `index`."""
    byte = np.int64(data[index])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(data[index + 1]) & 0x3F, 2
    second = np.int64(data[index + 1]) & 0x3F
    third = np.int64(data[index + 2]) & 0x3F
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | second << 6 | third, 3
    return (byte & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[index + 3]) & 0x3F, 4


@njit(cache=True, nogil=True, forceinline=True)
def piece_end(
    data: Array, index: Number, limit: Number, symbols: Array, moves: Array, start: Number, notes: Number
) -> Number:
    """End of the piece that begins at `index`, by an automaton of `corpus.encoding.automata`."""
    state, before, noted = np.int64(start), index, index
    while True:
        width, symbol = 1, np.int64(END_OF_TEXT)
        if index < limit:
            symbol = np.int64(data[index])
            if symbol >= 0x80:
                code, width = _code(data, index)
                symbol = np.int64(symbols[np.uint64(code)])
        state = np.int64(moves[np.uint64(state << 8 | symbol)])
        if state >= FIRST_STOP:
            break
        before = index
        index += width
        if state < notes:
            noted = index
    if state == STOP:
        return index
    if state == STOP_1:
        return before
    return noted if state == STOP_NOTED else index - 2


@njit(cache=True, nogil=True)
def split(data: Array, offsets: Array, splitter: Any) -> Any:
    """int64: the ends of all pieces of many texts (buffers of a `large_string` array), one after the other."""
    symbols, moves, start, notes = splitter
    ends = np.empty(offsets[-1] - offsets[0], np.int64)
    number = 0
    for row in range(len(offsets) - 1):
        index, limit = offsets[row], offsets[row + 1]
        while index < limit:
            index = piece_end(data, index, limit, symbols, moves, start, notes)
            ends[number] = index
            number += 1
    return ends[:number]


@njit(cache=True, nogil=True, forceinline=True)
def _hash(key: Any) -> Any:
    key ^= key >> np.uint64(32)
    key *= _K1
    return key ^ key >> np.uint64(29)


@njit(cache=True, nogil=True)
def fill_pairs(pairs: Array, keys: Array, values: Array) -> None:
    """Fill the empty uint64 (slots, 2) hash table `pairs`, slots a power of two, with distinct keys, none `NO_PAIR`."""
    mask = np.uint64(len(pairs) - 1)
    pairs[:, 0] = NO_PAIR
    for row in range(len(keys)):
        slot = _hash(keys[row]) & mask
        while pairs[slot, 0] != NO_PAIR:
            slot = (slot + np.uint64(1)) & mask
        pairs[slot, 0], pairs[slot, 1] = keys[row], values[row]


@njit(cache=True, nogil=True, forceinline=True)
def _pair(pairs: Array, left: Any, right: Any) -> Any:
    """rank << 32 | new id of two neighbouring ids, `NO_PAIR` if they do not merge."""
    key = np.uint64(left) << np.uint64(32) | np.uint64(right)
    mask = np.uint64(len(pairs) - 1)
    slot = _hash(key) & mask
    while True:
        found = pairs[slot, 0]
        if found == key:
            return pairs[slot, 1]
        if found == NO_PAIR:
            return NO_PAIR
        slot = (slot + np.uint64(1)) & mask


@njit(cache=True, nogil=True)
def fill_words(words: Array, data: Array, offsets: Array) -> None:
    """Fill the int32 hash table `words` (slots a power of two, all -1) with the rows of distinct byte strings."""
    mask = np.uint64(len(words) - 1)
    for row in range(len(offsets) - 1):
        if offsets[row] == offsets[row + 1]:
            continue
        slot = _hash_bytes(data, offsets[row], offsets[row + 1]) & mask
        while words[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        words[slot] = row


@njit(cache=True, nogil=True)
def _hash_bytes(data: Array, start: Number, end: Number) -> Any:
    hashed = np.uint64(end - start)
    while start < end:
        hashed = _hash(hashed ^ _word(data, start, min(end, start + 8)) * _K2)
        start += 8
    return hashed


@njit(cache=True, nogil=True)
def _find_word(words: Array, word_data: Array, word_offsets: Array, data: Array, start: Number, end: Number) -> Number:
    """The row of the byte string [start, end) of `data`, -1 if it is none."""
    mask = np.uint64(len(words) - 1)
    slot = _hash_bytes(data, start, end) & mask
    while words[slot] >= 0:
        row = words[slot]
        first = word_offsets[row]
        if word_offsets[row + 1] - first == end - start:
            index = 0
            while index < end - start and word_data[first + index] == data[start + index]:
                index += 1
            if index == end - start:
                return row
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def _symbols(data: Array, start: Number, end: Number, model: Any, ids: Array) -> Number:
    """Write what merging begins with to `ids`, a number for every byte or whole character; how many."""
    byte_ids, character_ids, unsafe = model[0], model[2], model[3]
    size, index = 0, start
    while index < end:
        byte = data[index]
        if byte >= 0xC2:
            code, width = _code(data, index)
            stop = index + width
            if (
                character_ids[code] != NO_TOKEN
                and not (index > start and unsafe[np.int64(data[index - 1]) << 8 | np.int64(byte)] & UNSAFE_AFTER)
                and not (stop < end and unsafe[np.int64(data[stop - 1]) << 8 | np.int64(data[stop])] & UNSAFE_BEFORE)
            ):
                ids[size] = character_ids[code]
                size += 1
                index = stop
                continue
        ids[size] = byte_ids[byte]
        size += 1
        index += 1
    return size


@njit(cache=True, nogil=True)
def _merge_short(data: Array, start: Number, end: Number, model: Any, room: Array) -> Number:
    """Merge a piece of at most SHORT_MERGE bytes: the pair of the lowest rank first, the leftmost of equals.

    The tokens are in `room[0]` afterwards, their number is returned.
    """
    pairs, ids, order, news, before, after = model[1], room[0], room[1], room[2], room[3], room[4]
    size = np.uint64(_symbols(data, start, end, model, ids))
    one = np.uint64(1)
    for index in range(size):
        # order: rank << 32 | place of the pair that begins here. Places stay, so that all loops have one length.
        before[index], after[index], order[index] = np.uint64(index) - one, np.uint64(index) + one, NO_PAIR
    for index in range(size - one):
        found = _pair(pairs, ids[index], ids[index + one])
        order[index], news[index] = found & _RANK | np.uint64(index), found & _ID
    left = size
    while True:
        best = NO_PAIR
        for index in range(size):
            best = min(best, order[index])
        if best >= _RANK:
            break
        at = best & _ID
        gone = after[at]
        following, previous = after[gone], before[at]
        ids[at], after[at], order[at], order[gone] = news[at], following, NO_PAIR, NO_PAIR
        left -= one
        if following < size:
            before[following] = at
            found = _pair(pairs, ids[at], ids[following])
            order[at], news[at] = found & _RANK | at, found & _ID
        if previous < size:
            found = _pair(pairs, ids[previous], ids[at])
            order[previous], news[previous] = found & _RANK | previous, found & _ID
    at = np.uint64(0)
    for index in range(left):
        ids[index] = ids[at]
        at = after[at]
    return left


@njit(cache=True, nogil=True)
def merge_alone(data: Array, offsets: Array, model: Any, room: Array, found: Array) -> None:
    """Set `found` (uint32) to the one token of each byte string (of at most SHORT_MERGE), NO_TOKEN if it has more."""
    for row in range(len(offsets) - 1):
        size = _merge_short(data, offsets[row], offsets[row + 1], model, room)
        found[row] = np.uint32(room[0, 0]) if size == 1 else NO_TOKEN


@njit(cache=True, nogil=True)
def _push(heap: Array, size: Number, value: Any) -> None:
    """Put a value into a binary heap of `size` values, the least on top."""
    child = size
    while child:
        parent = (child - 1) >> 1
        if heap[parent] <= value:
            break
        heap[child] = heap[parent]
        child = parent
    heap[child] = value


@njit(cache=True, nogil=True)
def _pop(heap: Array, size: Number) -> None:
    """Take the least of `size` values off the top."""
    value = heap[size - 1]
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and heap[child + 1] < heap[child]:
            child += 1
        if value <= heap[child]:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = value


@njit(cache=True, nogil=True)
def _merge_long(data: Array, start: Number, end: Number, model: Any) -> Any:
    """As `_merge_short` for a piece of any length, in n log n: uint32, the tokens."""
    pairs, ids = model[1], np.empty(end - start, np.uint32)
    size = _symbols(data, start, end, model, ids)
    ranks, news = np.empty(size, np.uint32), np.empty(size, np.uint32)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap = np.empty(3 * size, np.uint64)  # rank << 32 | position; one entry a pair at first, two a merge at most
    waiting = 0
    for index in range(size):
        before[index], after[index] = index - 1, index + 1
        ranks[index] = _NO_RANK
        if index + 1 < size:
            found = _pair(pairs, ids[index], ids[index + 1])
            ranks[index], news[index] = np.uint32(found >> np.uint64(32)), np.uint32(found)
            if found != NO_PAIR:
                _push(heap, waiting, np.uint64(ranks[index]) << np.uint64(32) | np.uint64(index))
                waiting += 1
    number = size
    while waiting:
        top = heap[0]
        _pop(heap, waiting)
        waiting -= 1
        at = np.int64(top & np.uint64(0xFFFFFFFF))
        if ranks[at] != np.uint32(top >> np.uint64(32)):
            continue  # one of the two was merged with another in the meantime
        ids[at] = news[at]
        gone = np.int64(after[at])
        following = np.int64(after[gone])
        ranks[gone] = _NO_RANK
        after[at] = following
        number -= 1
        ranks[at] = _NO_RANK
        if following < size:
            before[following] = at
        for left in (np.int64(before[at]), at):
            if left < 0 or after[left] >= size:
                continue
            found = _pair(pairs, ids[left], ids[after[left]])
            ranks[left], news[left] = np.uint32(found >> np.uint64(32)), np.uint32(found)
            if found != NO_PAIR:
                _push(heap, waiting, np.uint64(ranks[left]) << np.uint64(32) | np.uint64(left))
                waiting += 1
    tokens = np.empty(number, np.uint32)
    place: Number = 0
    for index in range(number):
        tokens[index] = ids[place]
        place = after[place]
    return tokens


@njit(cache=True, nogil=True)
def _tokenise(data: Array, start: Number, end: Number, model: Any, room: Array, out: Array, number: Number) -> Number:
    """Write the tokens of a piece that no table knows to `out` from `number` on; the number behind them."""
    if len(model[4]):  # ignore_merges: a piece that is a token is that token
        row = _find_word(model[4], model[5], model[6], data, start, end)
        if row >= 0:
            out[number] = row
            return number + 1
    if end - start == 1:
        out[number] = model[0][data[start]]
        return number + 1
    if end - start <= SHORT_MERGE:
        size = _merge_short(data, start, end, model, room)
        for index in range(size):
            out[number + index] = np.uint32(room[0, index])
        return number + size
    tokens = _merge_long(data, start, end, model)
    out[number : number + len(tokens)] = tokens
    return number + len(tokens)


@njit(cache=True, nogil=True)
def _long_piece(
    data: Array, start: Number, end: Number, model: Any, long: Array, room: Array, out: Array, number: Number
) -> Number:  # fmt: skip
    """As `_tokenise` for a piece of more than KEY_BYTES, by the table if it is there; negative if it was not."""
    if end - start > LONG_KEY_BYTES:
        return -_tokenise(data, start, end, model, room, out, number)
    hashed = _hash_bytes(data, start, end)
    home = np.int64((hashed >> np.uint64(8)) & np.uint64(len(long) - WAYS - 1))
    at = home
    while at < home + WAYS and not _same(long, at, data, start, end):
        at += 1
    if at < home + WAYS:
        length = np.int64(long[at, LONG_KEY_WORDS] >> np.uint64(8))
        for token in range(length):
            two = long[at, LONG_KEY_WORDS + 1 + (token >> 1)]
            out[number + token] = np.uint32(two >> np.uint64(32 * (token & 1)))
        return number + length
    before = number
    number = _tokenise(data, start, end, model, room, out, number)
    if number - before <= LONG_ENTRY_TOKENS:
        at = home
        while at < home + WAYS and long[at, LONG_KEY_WORDS]:
            at += 1
        if at == home + WAYS:
            at = home + np.int64(hashed & np.uint64(WAYS - 1))
        for word in range(LONG_KEY_WORDS):
            begin = start + 8 * word
            long[at, word] = _word(data, begin, max(begin, min(begin + 8, end)))
        long[at, LONG_KEY_WORDS] = np.uint64(end - start) | np.uint64(number - before) << np.uint64(8)
        _keep(long, at, LONG_KEY_WORDS + 1, out, before, number)
    return -number


@njit(cache=True, nogil=True)
def encode(
    data: Array, offsets: Array, skip: Array, splitter: Any, model: Any, short: Array, long: Array,
    room: Array, end_token: Number, out: Array, out_offsets: Array, counts: Array,
) -> Number:  # fmt: skip
    """Encode many texts.

    Parameters
    ----------
    data, offsets
        uint8 and int64: the buffers of a `large_string` array.
    skip
        bool: texts that get no tokens here, not even the end token.
    splitter
        uint8 (0x110000,) of `automata.character_symbols`, and what `automata.automaton` gives.
    model
        uint32 (256,) ids of the bytes; uint64 (slots, 2) of `fill_pairs`; uint32 (0x110000,) ids of whole characters
        or NO_TOKEN; uint8 (65536,) where two bytes meet at the border of characters, whether the character behind
        (UNSAFE_AFTER) or before (UNSAFE_BEFORE) it must be merged byte by byte; int32, uint8, int64 of `fill_words`,
        the first empty unless whole tokens come before merges.
    short, long
        uint64 (entries, ENTRY_WORDS) and (entries, LONG_ENTRY_WORDS), entries powers of two: what was tokenised
        before. All zeros at first; what they hold changes how long this takes, never what comes out.
    room
        uint64 (5, SHORT_MERGE).
    end_token
        Written behind every text; negative for none.
    out, out_offsets
        uint32 of one element for every byte and every text and 2 more, int64 (texts + 1,): written.
    counts
        int64 (3,): to these are added pieces, pieces that were merged, bytes of pieces that were merged.

    Returns
    -------
    The number of tokens.
    """
    symbols, moves, first_state, notes = splitter
    number: Number = 0
    out_offsets[0] = 0
    short_mask = np.uint64(len(short) - WAYS - 1)
    pieces, merged, merged_bytes = 0, 0, 0
    for row in range(len(offsets) - 1):
        index, limit = offsets[row], offsets[row + 1]
        if skip[row]:
            out_offsets[row + 1] = number
            continue
        while index < limit:
            start = index
            index = piece_end(data, start, limit, symbols, moves, first_state, notes)
            size = index - start
            pieces += 1
            if size > KEY_BYTES:
                before = number
                number = _long_piece(data, start, index, model, long, room, out, number)
                if number < 0:
                    number = -number
                    merged += 1
                    merged_bytes += size
                continue
            if start + KEY_BYTES <= len(data):
                first = _load64(data, start) & _MASKS[size, 0]
                second = _load64(data, start + 8) & _MASKS[size, 1]
                third = _load64(data, start + 16) & _MASKS[size, 2]
            else:
                first = _word(data, start, index)
                second = _word(data, start + 8, max(index, start + 8))
                third = _word(data, start + 16, max(index, start + 16))
            hashed = _hash(first ^ second * _K2 ^ third * _K3)
            home = np.int64((hashed >> np.uint64(8)) & short_mask)
            at = home
            while at < home + WAYS:
                differs = short[at, 0] ^ first | short[at, 1] ^ second | short[at, 2] ^ third
                if differs | (short[at, 3] & np.uint64(0xFF)) ^ np.uint64(size) == 0:
                    break
                at += 1
            if at < home + WAYS:
                length = np.int64(short[at, 3] >> np.uint64(8))
                two = short[at, 4]
                out[number] = np.uint32(two)
                out[number + 1] = np.uint32(two >> np.uint64(32))
                for token in range(2, length):
                    two = short[at, 4 + (token >> 1)]
                    out[number + token] = np.uint32(two >> np.uint64(32 * (token & 1)))
                number += length
                continue
            before = number
            number = _tokenise(data, start, index, model, room, out, number)
            merged += 1
            merged_bytes += size
            if number - before <= ENTRY_TOKENS:
                at = home
                while at < home + WAYS and short[at, 3]:
                    at += 1
                if at == home + WAYS:
                    at = home + np.int64(hashed & np.uint64(WAYS - 1))
                short[at, 0], short[at, 1], short[at, 2] = first, second, third
                short[at, 3] = np.uint64(size) | np.uint64(number - before) << np.uint64(8)
                _keep(short, at, KEY_WORDS + 1, out, before, number)
        if end_token >= 0:
            out[number] = end_token
            number += 1
        out_offsets[row + 1] = number
    counts[0] += pieces
    counts[1] += merged
    counts[2] += merged_bytes
    return number


@njit(cache=True, nogil=True)
def _same(long: Array, at: Number, data: Array, start: Number, end: Number) -> bool:
    """Whether the entry `at` of the table of long pieces is of [start, end)."""
    if long[at, LONG_KEY_WORDS] & np.uint64(0xFF) != np.uint64(end - start):
        return False
    word = 0
    while start < end:
        if long[at, word] != _word(data, start, min(end, start + 8)):
            return False
        start += 8
        word += 1
    return True


@njit(cache=True, nogil=True)
def _keep(table: Array, at: Number, word: Number, out: Array, first: Number, last: Number) -> None:
    """Write the tokens [first, last) into an entry, two a word from `word` on."""
    for token in range(first, last, 2):
        two = np.uint64(out[token])
        if token + 1 < last:
            two |= np.uint64(out[token + 1]) << np.uint64(32)
        table[at, word] = two
        word += 1


@njit(cache=True, nogil=True)
def mark_texts(
    data: Array, offsets: Array, first_bytes: Array, phrases: Array, phrase_offsets: Array, found: Array
) -> None:
    """Set `found` (bool, a row a text) where one of the phrases stands in a text.

    Parameters
    ----------
    data, offsets
        uint8 and int64: the buffers of a `large_string` array.
    first_bytes
        int64 (257,): the phrases that begin with byte b are those from `first_bytes[b]` to `first_bytes[b + 1]`.
    phrases, phrase_offsets
        uint8 and int64: the phrases, none empty, sorted.
    """
    begins = np.empty(256, np.bool_)
    firsts = np.empty(256, np.uint64)
    number = 0
    for byte in range(256):
        begins[byte] = first_bytes[byte + 1] > first_bytes[byte]
        if begins[byte]:
            firsts[number] = np.uint64(byte) * _EACH
            number += 1
    for row in range(len(offsets) - 1):
        index, limit = offsets[row], offsets[row + 1]
        while index < limit:
            if number <= 4 and index + 8 <= limit:
                word, hits = _load64(data, index), np.uint64(0)
                for first in range(number):
                    other = word ^ firsts[first]
                    hits |= (other - _EACH) & ~other & _HIGHEST
                if not hits:
                    index += 8
                    continue
            stop = min(index + 8, limit)
            while index < stop and not found[row]:
                if begins[data[index]] and _phrase_at(data, index, limit, first_bytes, phrases, phrase_offsets):
                    found[row] = True
                index += 1
            if found[row]:
                break


@njit(cache=True, nogil=True)
def _phrase_at(data: Array, index: Number, limit: Number, first_bytes: Array, phrases: Array, offsets: Array) -> bool:
    for phrase in range(first_bytes[data[index]], first_bytes[data[index] + 1]):
        begin, size = offsets[phrase], offsets[phrase + 1] - offsets[phrase]
        if index + size > limit:
            continue
        at = 1
        while at < size and data[index + at] == phrases[begin + at]:
            at += 1
        if at == size:
            return True
    return False


@njit(cache=True, nogil=True)
def mark_characters(data: Array, offsets: Array, bits: Array, wanted: Any, found: Array) -> None:
    """Set `found` (bool, a row a text) where a text has a character with one of the `wanted` bits."""
    for row in range(len(offsets) - 1):
        index, limit = offsets[row], offsets[row + 1]
        while index < limit:
            code, width = _code(data, index)
            if bits[code] & wanted:
                found[row] = True
                break
            index += width
