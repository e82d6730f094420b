"""Compiled loops of `blocklists.py`: an Aho-Corasick automaton over the words or the characters of whole Arrow buffers.

Aho and Corasick 1975. Symbols are numbers of words (of entries; found by their hashes) or of folded characters; 0 is
every symbol that no entry has. States are numbered breadth first, the root is 0. The first states, where a search is
nearly always, have rows of a table that leads straight on; the edges of the others stand in one hash table, so that a
list of a million entries stays compact whatever its alphabet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data_quality.byte_kernels import decode, previous
from data_quality.word_kernels import longest

SPACE, WORD, PUNCTUATION, OWN_WORD = 0, 1, 2, 3  # classes of `words.character_classes`
WHITE = 1
"""The symbol of a run of white space where symbols are characters."""

_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)
_LAST = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)
_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def _edge(keys: Any, targets: Any, state: int, symbol: int) -> int:
    """Where the edge of a state leads, -1 if it has none of that symbol."""
    mask = keys.size - 1
    key = (np.uint64(state) << _SHIFT) | np.uint64(symbol)
    slot = np.int64((key * _SEED) >> _SHIFT) & mask
    while keys[slot] != _FREE:
        if keys[slot] == key:
            return int(targets[slot])
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def _add(keys: Any, targets: Any, key: Any, target: int) -> None:
    """Enter a key that is not in a hash table yet."""
    mask = keys.size - 1
    slot = np.int64((key * _SEED) >> _SHIFT) & mask
    while keys[slot] != _FREE:
        slot = (slot + 1) & mask
    keys[slot], targets[slot] = key, target


@njit(cache=True, nogil=True)
def build_trie(symbols: Any, bounds: Any, keys: Any, targets: Any, parent: Any, by: Any, depth: Any, entry: Any) -> int:
    """The trie of entries given as symbols; returns its number of states.

    Parameters
    ----------
    symbols, bounds
        Entry e is symbols[bounds[e]:bounds[e + 1]], none of them 0; none is empty, no two are equal.
    keys, targets
        uint64 and int32 scratch: a power of two of slots, at least twice as many as symbols.
    parent, by, depth, entry
        int32[symbols + 1], filled: the state before and the symbol that leads on from there, the number of symbols so
        far, the entry that ends here or -1.
    """
    keys[:] = _FREE
    states = 1
    parent[0], by[0], depth[0], entry[0] = -1, 0, 0, -1
    for e in range(bounds.size - 1):
        state = 0
        for k in range(bounds[e], bounds[e + 1]):
            following = _edge(keys, targets, state, symbols[k])
            if following < 0:
                following = states
                states += 1
                parent[following], by[following] = state, symbols[k]
                depth[following], entry[following] = depth[state] + 1, -1
                _add(keys, targets, (np.uint64(state) << _SHIFT) | np.uint64(symbols[k]), following)
            state = following
        entry[state] = e
    return states


@njit(cache=True, nogil=True)
def link(
    parent: Any, by: Any, depth: Any, entry: Any, keys: Any, targets: Any, table: Any, fail: Any, reach: Any
) -> None:
    """Make an automaton of a trie whose states are numbered breadth first.

    Parameters
    ----------
    parent, by, depth, entry
        As `build_trie` gives them.
    keys, targets
        uint64 and int32 hash table of all edges, filled.
    table
        int32[first states, alphabet], filled: where every symbol leads from there.
    fail, reach
        int32[states], filled: the state of the longest proper suffix that an entry begins with, and the first on the
        way from the state itself on, suffix by suffix, where an entry ends, 0 for none.
    """
    keys[:] = _FREE
    table[:] = 0
    fail[0], reach[0] = 0, 0
    for state in range(1, parent.size):
        _add(keys, targets, (np.uint64(parent[state]) << _SHIFT) | np.uint64(by[state]), state)
    rows = table.shape[0]
    begin = 1
    while begin < parent.size:
        end = begin
        while end < parent.size and depth[end] == depth[begin]:
            end += 1
        # Level by level: the rows of the levels before are whole but for the edges into this one.
        for state in range(begin, end):
            if parent[state] > 0:
                fail[state] = _advance(fail[parent[state]], by[state], table, keys, targets, fail)
            else:
                fail[state] = 0
            reach[state] = state if entry[state] >= 0 else reach[fail[state]]
        for state in range(begin, end):
            if parent[state] < rows:
                table[parent[state], by[state]] = state
        for state in range(begin, min(end, rows)):
            table[state] = table[fail[state]]
        begin = end


@njit(cache=True, nogil=True)
def _advance(state: int, symbol: int, table: Any, keys: Any, targets: Any, fail: Any) -> int:
    """The state after one more symbol."""
    while state >= table.shape[0]:
        following = _edge(keys, targets, state, symbol)
        if following >= 0:
            return following
        state = fail[state]
    return int(table[state, symbol])


@njit(cache=True, nogil=True)
def hash_word(codes: Any) -> Any:
    """The hash of a word given as folded code points, as `match_words` makes it."""
    value = _SEED
    for code in codes:
        value = (value ^ np.uint64(code)) * _STEP
    return _finished(value)


@njit(cache=True, nogil=True)
def _finished(value: Any) -> Any:
    value = (value ^ (value >> _SHIFT)) * _LAST
    value ^= value >> _SHIFT
    return value if value != _FREE else np.uint64(0)


@njit(cache=True, nogil=True)
def number_words(hashes: Any, keys: Any, numbers: Any) -> int:
    """Enter different hashes of words into a hash table with the numbers from 1 on; free slots have the number 0."""
    keys[:] = _FREE
    numbers[:] = 0
    for i in range(hashes.size):
        _add(keys, numbers, hashes[i], i + 1)
    return int(hashes.size)


@njit(cache=True, nogil=True)
def match_words(
    data: Any, offsets: Any, ascii_words: Any, classes: Any, folds: Any, word_keys: Any, word_numbers: Any,
    table: Any, keys: Any, targets: Any, fail: Any, depth: Any, entry: Any, reach: Any, counts: Any, hits: Any,
) -> int:  # fmt: skip
    """Find all entries in all texts, word by word.

    Words are compared by 64-bit hashes: one of another word is taken for an entry's with a chance of entries / 2⁶⁴.

    Parameters
    ----------
    data, offsets
        uint8 data and int64[documents + 1] offsets of texts.
    ascii_words, classes, folds
        `sketch.word_tables`.
    word_keys, word_numbers
        The symbols of words, made by `number_words`.
    table … reach
        The automaton, made by `link`.
    counts
        int64[documents, 3], overwritten: occurrences, words that an occurrence touches, words.
    hits
        int64[room, 4], filled as far as it reaches: document, entry, first byte, byte after the last.

    Returns
    -------
    int
        The number of all occurrences; beyond `hits` they are counted but not written down.
    """
    most = longest(offsets)
    starts = np.empty(most // 2 + 2, dtype=np.int64)  # of every word of the text; two of one byte have one between
    touched = np.full(most // 2 + 2, -1, dtype=np.int64)
    # `_advance` stands here in full: calling it with all these arrays takes longer than what it does.
    rows, mask, word_mask = table.shape[0], keys.size - 1, word_keys.size - 1
    total = 0
    for d in range(offsets.size - 1):
        begin, end = offsets[d], offsets[d + 1]
        words, found, covered, state = 0, 0, 0, 0
        value = _SEED
        i = begin
        while i <= end:
            # A word ends before this character, and one of its own begins and ends with it.
            own = False
            if i == end:
                code, size, kind = 0, 1, SPACE
            elif data[i] < 0x80:
                folded = ascii_words[data[i]]
                if folded != 0:
                    if value == _SEED:
                        starts[words] = i
                    value = (value ^ np.uint64(folded)) * _STEP
                    i += 1
                    continue
                code, size, kind = 0, 1, SPACE
            else:
                code, size = decode(data, i, end)
                kind = classes[code]
                if kind == WORD:
                    if value == _SEED:
                        starts[words] = i
                    value = (value ^ np.uint64(folds[code])) * _STEP
                    i += size
                    continue
                own = kind == OWN_WORD
            stop = i
            while value != _SEED or own:
                if value == _SEED:
                    starts[words] = i
                    value = (value ^ np.uint64(folds[code])) * _STEP
                    stop = i + size
                    own = False
                value = _finished(value)
                slot = np.int64((value * _SEED) >> _SHIFT) & word_mask
                while word_keys[slot] != value and word_keys[slot] != _FREE:
                    slot = (slot + 1) & word_mask
                symbol = word_numbers[slot]
                value = _SEED
                words += 1
                while state >= rows:
                    key = (np.uint64(state) << _SHIFT) | np.uint64(symbol)
                    slot = np.int64((key * _SEED) >> _SHIFT) & mask
                    while keys[slot] != key and keys[slot] != _FREE:
                        slot = (slot + 1) & mask
                    if keys[slot] == key:
                        state = targets[slot]
                        break
                    state = fail[state]
                else:
                    state = table[state, symbol]
                reached = reach[state]
                while reached > 0:
                    first = words - depth[reached]
                    for k in range(first, words):
                        if touched[k] != d:
                            touched[k] = d
                            covered += 1
                    if total < hits.shape[0]:
                        hits[total, 0], hits[total, 1] = d, entry[reached]
                        hits[total, 2], hits[total, 3] = starts[first] - begin, stop - begin
                    found += 1
                    total += 1
                    reached = reach[fail[reached]]
            i += size
        counts[d, 0], counts[d, 1], counts[d, 2] = found, covered, words
    return total


@njit(cache=True, nogil=True)
def match_text(
    data: Any, offsets: Any, symbols: Any, table: Any, keys: Any, targets: Any, fail: Any, depth: Any, entry: Any,
    reach: Any, counts: Any, hits: Any,
) -> int:  # fmt: skip
    """Find all entries in all texts, character by character; parameters and result as for `match_words`.

    `symbols` is int32[0x110000]: 4 · symbol of the folded character + its class. A run of white space is one symbol.
    """
    touched = np.full(longest(offsets) + 1, -1, dtype=np.int64)  # by the first byte of a word
    rows, mask = table.shape[0], keys.size - 1
    total = 0
    for d in range(offsets.size - 1):
        begin, end = offsets[d], offsets[d + 1]
        words, found, covered, state = 0, 0, 0, 0
        before = PUNCTUATION
        i = begin
        while i < end:
            if data[i] < 0x80:
                packed, size = symbols[data[i]], 1
            else:
                code, size = decode(data, i, end)
                packed = symbols[code]
            i += size
            kind = packed & 3
            if (kind | before) == SPACE:
                continue
            # Without branches, which text would mispredict at every other character.
            words += (kind == OWN_WORD) | ((kind == WORD) & (before != WORD))
            before = kind
            symbol = packed >> 2
            while state >= rows:
                key = (np.uint64(state) << _SHIFT) | np.uint64(symbol)
                slot = np.int64((key * _SEED) >> _SHIFT) & mask
                while keys[slot] != key and keys[slot] != _FREE:
                    slot = (slot + 1) & mask
                if keys[slot] == key:
                    state = targets[slot]
                    break
                state = fail[state]
            else:
                state = table[state, symbol]
            reached = reach[state]
            while reached > 0:
                first = _back(data, begin, i, symbols, depth[reached])
                covered += _touch(data, begin, end, first, i, symbols, touched, d)
                if total < hits.shape[0]:
                    hits[total, 0], hits[total, 1] = d, entry[reached]
                    hits[total, 2], hits[total, 3] = first - begin, i - begin
                found += 1
                total += 1
                reached = reach[fail[reached]]
        counts[d, 0], counts[d, 1], counts[d, 2] = found, covered, words
    return total


@njit(cache=True, nogil=True)
def _packed_at(data: Any, position: int, end: int, symbols: Any) -> int:
    if data[position] < 0x80:
        return int(symbols[data[position]])
    code, _ = decode(data, position, end)
    return int(symbols[code])


@njit(cache=True, nogil=True)
def _back(data: Any, begin: int, position: int, symbols: Any, count: int) -> int:
    """Where the last `count` symbols before `position` begin; entries begin and end with no white space."""
    white = False
    stop = position
    while count > 0:
        position = previous(data, begin, position)
        if _packed_at(data, position, stop, symbols) & 3 != SPACE:
            count -= 1
            white = False
        elif not white:
            count -= 1
            white = True
    return position


@njit(cache=True, nogil=True)
def _touch(data: Any, begin: int, end: int, first: int, stop: int, symbols: Any, touched: Any, mark: int) -> int:
    """Marks the words that have characters in [first, stop); returns how many were not marked yet."""
    start = first
    if _packed_at(data, first, end, symbols) & 3 == WORD:
        while start > begin:
            position = previous(data, begin, start)
            if _packed_at(data, position, end, symbols) & 3 != WORD:
                break
            start = position
    fresh = 0
    before = -1
    i = start
    while i < stop:
        kind = _packed_at(data, i, end, symbols) & 3
        begins = kind == OWN_WORD or (kind == WORD and before != WORD)
        if begins and touched[i - begin] != mark:
            touched[i - begin] = mark
            fresh += 1
        before = kind
        i += 1
        while i < end and data[i] & 0xC0 == 0x80:
            i += 1
    return fresh
