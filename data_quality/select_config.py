"""The settings of `select`: samples, caps, shares and repeats of sources and languages, and the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class GroupLimits:
    """How much is taken of one source or one language."""

    __pydantic_config__ = STRICT

    sample: float | None = setting("Share of its documents that is taken, by hash of id.", None, ge=0, le=1)
    max_documents: int | None = setting("At most so many documents.", None, ge=0)
    max_bytes: int | None = setting("At most so many bytes of text, repeats not counted.", None, ge=0)
    max_share: float | None = setting(
        "At most this share of all that is taken, counted in select.shares_of; repeats do not count.",
        None,
        ge=0,
        le=1,
    )
    repeats: int = setting("How often training sees each of its documents.", 1, ge=1)


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """How many of the kept documents are taken, how often, and which are held out for validation."""

    __pydantic_config__ = STRICT

    validation_share: float = setting("Share of the documents held out for validation.", 0.01, ge=0, lt=1)
    validation_documents: int | None = setting("At most so many documents are held out.", None, ge=0)
    max_documents: int | None = setting("At most so many documents in all.", None, ge=0)
    max_bytes: int | None = setting("At most so many bytes of text in all, repeats not counted.", None, ge=0)
    sources: dict[str, GroupLimits] = setting("Limits and repeats of sources, by name.", default_factory=dict)
    languages: dict[str, GroupLimits] = setting(
        "Limits and repeats of languages, by label; `none` for documents whose language is not identified. A document "
        "is repeated as often as its source times its language says.",
        default_factory=dict,
    )
    cluster_repeats: tuple[tuple[int, int], ...] = setting(
        "How often training sees a document that stays for its duplicates, by the size of its cluster: pairs of a size "
        "from which on, and a number of times, which is multiplied with the other repeats. Keep-3 is "
        "[[1, 1], [2, 2], [3, 3]]; FineWeb-2 has [[1, 1], [2, 2], [3, 3], [5, 5], [100, 8], [1000, 1]].",
        (),
    )
    shares_of: Literal["bytes", "documents"] = setting("What max_share counts.", "bytes")
    seed: int = setting("Seed of the split, of samples, and of the order in which limits take documents.", 1, ge=0)

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.cluster_repeats]
        if sizes != sorted(set(sizes)) or any(size < 1 or times < 1 for size, times in self.cluster_repeats):
            pairs = [list(pair) for pair in self.cluster_repeats]
            raise ValueError(f"select.cluster_repeats is {pairs}: sizes must ascend, sizes and times be 1 or more")
