"""What the stages sketch and deduplicate are told: the configuration classes, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class SketchConfig:
    """MinHash signatures over sets of word n-grams (Broder 1997)."""

    __pydantic_config__ = STRICT

    ngram: int = setting("Words in a shingle; a document with fewer words is one shingle.", 5, ge=1, le=32)
    permutations: int = setting("Numbers in a signature, of which deduplicate makes its bands.", 108, ge=1, le=4096)
    seed: int = setting("Seed of the permutations' coefficients.", 1, ge=0, lt=2**32)
    scheme: Literal["affine32", "affine64"] = setting(
        "How a permutation is computed (datasketch's name); affine64 is for sets of more than about 100 million.",
        "affine32",
    )


@dataclass(frozen=True, kw_only=True)
class DeduplicateConfig:
    """Who is compared with whom, what is too similar, and who stays.

    Two documents of similarity s become candidates with probability 1 - (1 - s^rows)^bands: .9958 at
    s = .8 for 18 × 6, .89 at .7, .25 at .5 (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2).
    `banded` finds the bands that a threshold and a recall ask for.
    """

    __pydantic_config__ = STRICT

    threshold: float = setting("Exact Jaccard similarity from which a document is removed.", 0.8, gt=0, le=1)
    recall: float = setting(
        "The chance that two documents as similar as the threshold are compared, at least.", 0.99, gt=0, lt=1
    )
    bands: int = setting("Bands of the signature that are compared; 0: as threshold and recall ask.", 0, ge=0, le=4096)
    rows: int = setting("Numbers in a band; 0: as threshold and recall ask.", 0, ge=0, le=64)
    priority: tuple[
        Literal["source-order", "highest-score", "lowest-score", "longest", "shortest", "newest", "oldest"], ...
    ] = setting(
        "Who stays among similar documents; the first rule that tells them apart decides.",
        ("source-order", "longest"),
    )
    source_order: tuple[str, ...] = setting("Sources, the most trusted first; others come after them.", ())
    score: str | None = setting("The feature that highest-score and lowest-score go by.", None, min_length=1)
    bucket_limit: int = setting("Kept documents of one bucket that a document is compared with.", 64, ge=1)
    mode: Literal["keep-one", "only-report", "drop-all"] = setting(
        "Whether duplicates are dropped, only pointed out, or dropped together with what they are duplicates of.",
        "keep-one",
    )
    incremental: bool = setting(
        "Documents of the run before keep their decisions; parts that are new since are compared with the kept ones.",
        False,
    )

    def __post_init__(self) -> None:
        by_score = [rule for rule in self.priority if rule.endswith("-score")]
        if by_score and self.score is None:
            raise ValueError(f"deduplicate.priority has {by_score[0]}: name the feature in deduplicate.score")
        if (self.bands == 0) != (self.rows == 0):
            raise ValueError(
                f"deduplicate.bands = {self.bands} and deduplicate.rows = {self.rows}: set both, or neither, so that "
                "they follow from deduplicate.threshold and deduplicate.recall"
            )

    def banded(self, permutations: int) -> DeduplicateConfig:
        """With the bands for signatures of so many numbers: if they are not set, as many rows as the recall allows.

        More rows make fewer candidates that are not similar.

        Raises
        ------
        ValueError
            If the signatures are too short for the bands that are set, or for any that have the recall.
        """
        if self.bands:
            if self.bands * self.rows > permutations:
                raise ValueError(
                    f"deduplicate.bands × deduplicate.rows = {self.bands * self.rows} is more than "
                    f"sketch.permutations = {permutations}: raise sketch.permutations or lower one of them"
                )
            return self
        for rows in range(min(permutations, 64), 0, -1):
            bands = permutations // rows
            if 1 - (1 - self.threshold**rows) ** bands >= self.recall:
                return replace(self, bands=bands, rows=rows)
        raise ValueError(
            f"no bands of sketch.permutations = {permutations} numbers find pairs of deduplicate.threshold = "
            f"{self.threshold:g} with deduplicate.recall = {self.recall:g}: raise sketch.permutations"
        )
