"""What changing text needs to know of a vocabulary: which tokens are text, where words and sentences end, synonyms."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from storage.fingerprint import hash_of

Flags = npt.NDArray[np.bool_]

SENTENCE_ENDS = ".!?…"
"""They end a sentence where white space follows."""

WIDE_SENTENCE_ENDS = "。！？｡।॥؟۔"
"""They end a sentence whatever follows: these scripts write no space there, or nothing else ends in them."""

CLOSING = "\"'”’»)]}」』）"
"""What may stand between the end of a sentence and the space behind it."""

APOSTROPHES = "'’"


class SynonymError(ValueError):
    """A table of synonyms that cannot be used; the message names the file and the line or word."""


@dataclass(frozen=True)
class Vocabulary:
    """Properties of every token id, bool (vocabulary_size,) each.

    Attributes
    ----------
    is_text
        A token that comes out of text: not special, not a row of the embedding that no token has.
    begins_with_space
        Its text begins with white space.
    goes_on
        Behind a word it makes the word longer: its text begins with a letter, digit, mark or apostrophe, or with a part
        of a character; in WordPiece, it begins with ##.
    ends_in_word
        Its text ends in a letter, digit or mark, or in a part of a character.
    ends_sentence, ends_any_sentence
        Its text ends in an end of a sentence that counts where white space follows, or always.
    """

    is_text: Flags
    begins_with_space: Flags
    goes_on: Flags
    ends_in_word: Flags
    ends_sentence: Flags
    ends_any_sentence: Flags

    def __len__(self) -> int:
        """Rows of the embedding."""
        return len(self.is_text)


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """What the tokens of a tokeniser are; `size`: rows of the embedding, as many as it has tokens or more."""
    description = json.loads(tokenizer.to_str())
    wordpiece = description["model"]["type"] == "WordPiece"
    prefix = description["model"].get("continuing_subword_prefix") or "##"
    byte_level = "ByteLevel" in json.dumps(description["decoder"])
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    table = Vocabulary(*(np.zeros(size, np.bool_) for _ in range(6)))
    for spelled, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if number in special:
            continue
        text = _written(spelled) if byte_level else _BYTE_TOKEN.sub(_byte, spelled).replace("▁", " ")
        inside = wordpiece and text.startswith(prefix)
        text = text.removeprefix(prefix) if inside else text
        table.is_text[number] = True
        if not text:
            continue
        first, last = text[0], text[-1]
        bare = text.rstrip()
        ending = bare.rstrip(CLOSING)[-1:]
        table.begins_with_space[number] = first.isspace() or (wordpiece and not inside and not _of_word(first))
        table.goes_on[number] = inside if wordpiece else _of_word(first) or first in APOSTROPHES
        table.ends_in_word[number] = _of_word(last) and not wordpiece
        ends = ending != "" and ending in SENTENCE_ENDS
        table.ends_any_sentence[number] = (ending != "" and ending in WIDE_SENTENCE_ENDS) or (ends and bare != text)
        table.ends_sentence[number] = ends
    if wordpiece:  # white space is not kept: whatever does not go on with a word follows one
        table.begins_with_space[:] = table.is_text & ~table.goes_on
    return table


def _of_word(character: str) -> bool:
    return character.isalnum() or character == "�" or unicodedata.category(character)[0] == "M"


def _written(spelled: str) -> str:
    """The text of a byte-level token, U+FFFD for parts of characters."""
    return bytes(_BYTES[character] for character in spelled if character in _BYTES).decode("utf-8", "replace")


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (Radford et al. 2019, encoder.py)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _bytes_of_characters()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # where a SentencePiece model falls back to bytes


def _byte(match: re.Match[str]) -> str:
    return bytes([int(match[1], 16)]).decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------- synonyms


def read_synonyms(path: str) -> dict[str, tuple[str, ...]]:
    """The table at a path or fsspec URL; raises `SynonymError`, for what cannot be read too."""
    try:
        system, place = fsspec.core.url_to_fs(path)
        data: bytes = system.cat_file(place)
    except OSError as error:
        raise SynonymError(f"{path} cannot be read: {error}") from None
    return parse_synonyms(data, path)


def named_by_content(training: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training with the table of synonyms named by what it says, not by where it lies."""
    augment = training["augment"]
    if not augment["synonyms"]:
        return training
    return {**training, "augment": {**augment, "synonyms": hash_of(read_synonyms(augment["synonyms"]))}}


def parse_synonyms(data: bytes, name: str) -> dict[str, tuple[str, ...]]:
    """The synonyms of every word of a table.

    Parameters
    ----------
    data
        UTF-8. A file called .json is an object, word to list of synonyms; any other has a word and its synonyms a line,
        between tabs, and may have empty lines.
    name
        The file, for messages and for its ending.

    Raises
    ------
    SynonymError
        Naming the line, or in JSON the word, that is wrong.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SynonymError(f"{name}, line {line}: not UTF-8 ({error.reason})") from None
    found: dict[str, tuple[str, ...]] = {}
    for where, word, synonyms in _json_rows(text, name) if name.endswith(".json") else _lines(text, name):
        for entry in (word, *synonyms):
            if not entry or entry != entry.strip():
                raise SynonymError(f"{where}: {entry!r} is empty or has white space around it")
        if not synonyms:
            raise SynonymError(f"{where}: {word!r} has no synonym")
        if word in synonyms:
            raise SynonymError(f"{where}: {word!r} is its own synonym")
        if len(set(synonyms)) < len(synonyms):
            raise SynonymError(f"{where}: a synonym of {word!r} stands twice")
        if word in found:
            raise SynonymError(f"{where}: {word!r} stands in the table already")
        found[word] = tuple(synonyms)
    if not found:
        raise SynonymError(f"{name}: there is no word in it")
    return found


def _lines(text: str, name: str) -> Iterable[tuple[str, str, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            word, *synonyms = line.removesuffix("\r").split("\t")
            yield f"{name}, line {number}", word, synonyms


def _json_rows(text: str, name: str) -> Iterable[tuple[str, str, list[str]]]:
    def pairs(items: list[tuple[str, object]]) -> list[tuple[str, object]]:
        return items  # a dict would hide words that stand twice

    try:
        rows = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        raise SynonymError(f"{name} is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, tuple) for row in rows):
        raise SynonymError(f"{name}: not an object of words and their lists of synonyms")
    for word, synonyms in rows:
        if not isinstance(synonyms, list) or not all(isinstance(entry, str) for entry in synonyms):
            raise SynonymError(f"{name}: the synonyms of {word!r} are no list of texts")
        yield name, word, synonyms


@dataclass(frozen=True)
class Phrase:
    """A word as tokens, and as tokens what it may become."""

    tokens: tuple[int, ...]
    synonyms: tuple[tuple[int, ...], ...]


def encode_synonyms(
    table: Mapping[str, tuple[str, ...]], tokenizer: Tokenizer, vocabulary: Vocabulary
) -> dict[int, list[Phrase]]:
    """The words of a table as tokens, by their first token, the longest first.

    Each word is encoded as it stands at the beginning of a text and behind a space, its synonyms likewise. What holds a
    token that is no text (an unknown word, for vocabularies without all bytes) is left out.
    """
    phrases_of: dict[int, list[Phrase]] = {}
    known: set[tuple[int, ...]] = set()
    for word, synonyms in table.items():
        for before in ("", " "):
            texts = [before + entry for entry in (word, *synonyms)]
            encoded = [tuple(found.ids) for found in tokenizer.encode_batch(texts, add_special_tokens=False)]
            tokens, *others = [ids if vocabulary.is_text[list(ids)].all() else () for ids in encoded]
            others = [ids for ids in others if ids and ids != tokens]
            if tokens and others and tokens not in known:
                known.add(tokens)
                phrases_of.setdefault(tokens[0], []).append(Phrase(tokens, tuple(others)))
    for phrases in phrases_of.values():
        phrases.sort(key=lambda phrase: (-len(phrase.tokens), phrase.tokens))
    return phrases_of
