"""The settings of judges: what says of a document more than its features do. Classifiers, lists, scorers.

Each gives columns beside the features, so that a threshold on it is a rule; how their names end says what they hold
(`columns.py`). Light on purpose, like `quality_config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting

NAME_PATTERN = r"^[a-z][a-z0-9_]*$"

ScorerColumn = Literal["id", "text", "source", "uri", "record", "url", "date", "meta"]


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """How a linear classifier on hashed n-grams is trained. Which documents teach it is an input of the stage."""

    __pydantic_config__ = STRICT

    word_ngrams: int = setting("Sequences of up to this many words are what it sees; 0: no words.", 2, ge=0, le=5)
    character_ngrams: tuple[int, ...] = setting(
        "Shortest and longest sequence of characters within words that it sees beside them, such as [3, 5]; "
        "empty: none. They help where texts are short or words have many forms.",
        (),
    )
    bucket_bits: int = setting("N-grams are hashed into 2 to the power of this many weights.", 20, ge=8, le=26)
    max_documents: int = setting(
        "Documents taken of each side at most, chosen by a hash of their ids.", 20_000, ge=20, le=10_000_000
    )
    held_out: float = setting(
        "Share of the documents, by hash of id, that is not trained on: half of it sets the calibration, the other "
        "half measures accuracy, AUC and calibration.",
        0.2,
        ge=0.02,
        le=0.8,
    )
    epochs: int = setting("Passes over the training documents.", 5, ge=1, le=100)
    learning_rate: float = setting("First step of AdaGrad; it falls to zero in a straight line.", 0.5, gt=0, le=10)
    l2: float = setting("Weight decay a step, of the weights that a document has.", 1e-5, ge=0, lt=1)
    balance: bool = setting("Both sides weigh the same in training, however many documents they have.", True)
    seed: int = setting("Changes which documents are taken and held out, and their order.", 0, ge=0, lt=1 << 32)

    def __post_init__(self) -> None:
        if self.character_ngrams:
            low, high = self.character_ngrams[0], self.character_ngrams[-1]
            if len(self.character_ngrams) != 2 or not 1 <= low <= high <= 10:
                raise ValueError(
                    f"character_ngrams: give the shortest and the longest, from 1 to 10, such as [3, 5], "
                    f"not {list(self.character_ngrams)}"
                )
        elif not self.word_ngrams:
            raise ValueError("word_ngrams is 0 and character_ngrams is empty: the classifier would see nothing")


@dataclass(frozen=True, kw_only=True)
class BlocklistConfig:
    """A list of words, domains or addresses that the user supplies."""

    __pydantic_config__ = STRICT

    name: str = setting(
        "Name of the list; its columns are NAME_hits and, for words and text, NAME_word_share.",
        pattern=NAME_PATTERN,
        max_length=64,
    )
    kind: Literal["words", "text", "domains", "urls", "url-patterns"] = setting(
        "words: words and phrases, found as whole words; text: any characters, found anywhere; domains: hosts with "
        "all their subdomains; urls: pieces of addresses; url-patterns: regular expressions (of Rust's kind).",
        "words",
    )
    path: str = setting(
        "The file, a path or fsspec URL (.gz, .bz2, .xz and .zst are read): one entry a line, in UTF-8; empty lines "
        "and lines that begin with # are comments.",
        min_length=1,
    )


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """A function of the user's own that gives one value a document."""

    __pydantic_config__ = STRICT

    name: str = setting(
        "Name of the column it fills; it ends in _score, or in _label where its type is string.",
        pattern=r"^[a-z][a-z0-9_]*_(score|label)$",
        max_length=64,
    )
    function: str = setting(
        "`package.module:function`, importable in the current directory or by PYTHONPATH. It is given a Polars frame "
        "of documents and gives back one value a row, as a Series, a list or a NumPy array.",
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
    )
    version: str = setting(
        "Anything you change whenever its values change for another reason than its module's own source: a model "
        "file, another module, a library.",
        min_length=1,
        max_length=100,
    )
    columns: tuple[ScorerColumn, ...] = setting("Columns of the documents it is given.", ("text",), min_length=1)
    type: Literal["float", "int", "bool", "string"] = setting(
        "Type of its values; each may be null. bool is stored as 0 and 1.", "float"
    )

    def __post_init__(self) -> None:
        ending = "_label" if self.type == "string" else "_score"
        if not self.name.endswith(ending):
            raise ValueError(f"scorer {self.name!r}: the name of a column of type {self.type} must end in {ending}")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"scorer {self.name!r}: a column is named twice in {list(self.columns)}")
