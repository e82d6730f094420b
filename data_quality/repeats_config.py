"""The settings of `repeats`: which passages that stand in many documents are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class RepeatsConfig:
    """Lines, paragraphs and runs of words that stand in several of the kept documents, marked to be cut."""

    __pydantic_config__ = STRICT

    line_documents: int | None = setting(
        "A line that stands in more documents than this is cut from all of them (Llama 3, arXiv 2407.21783, section "
        "3.1.1: 6, of 30 million); null: lines are not compared.",
        6,
        ge=1,
    )
    shortest_line: int = setting("Lines of fewer bytes, white space at the ends left out, are never cut.", 10, ge=1)
    paragraph_documents: int | None = setting(
        "The same for paragraphs (lines between blank lines); null: paragraphs are not compared.", None, ge=1
    )
    shortest_paragraph: int = setting("Paragraphs of fewer bytes are never cut.", 50, ge=1)
    substring_words: int | None = setting(
        "Runs of at least so many words that stand in several documents are cut (RefinedWeb, arXiv 2306.01116: 50 "
        "tokens); null: they are not looked for, which saves two more scans of the text.",
        None,
        ge=4,
        le=10_000,
    )
    substring_documents: int = setting("Such a run is cut if it stands in more documents than this.", 1, ge=1)
    substring_keep: Literal["first", "none"] = setting(
        "Whether a run stays in the document of the smallest id among those that hold it, or in none.", "first"
    )
    counted_sources: tuple[str, ...] = setting(
        "Sources whose documents are counted; passages are cut in all. Empty: all sources. Naming those of a "
        "generation freezes its counts: sources added later change none of its cuts.",
        (),
    )
    seed: int = setting("Seed of the hashes; changed only where an error message asks for it.", 0, ge=0, lt=2**32)

    def __post_init__(self) -> None:
        if self.line_documents is None and self.paragraph_documents is None and self.substring_words is None:
            raise ValueError(
                "repeats compares nothing: set line_documents, paragraph_documents or substring_words, or set "
                "repeats to null"
            )
