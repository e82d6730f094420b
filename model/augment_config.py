"""How training text is changed while it is shown: what is off by default, for small corpora and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes of training sequences, a function of the seed, the position and the tokens (`model/augment.py`)."""

    __pydantic_config__ = STRICT

    token_noise: float = setting("Share of the tokens read that are random ones instead; 0 = off.", 0.0, ge=0.0, lt=1.0)
    token_dropout: float = setting("Share of the tokens that are left out of the text; 0 = off.", 0.0, ge=0.0, lt=1.0)
    span_masking: float = setting(
        "Share of the tokens read that are hidden behind `mask_token`, in spans; 0 = off.", 0.0, ge=0.0, lt=1.0
    )
    span_length: float = setting(
        "span_masking: mean of the geometric distribution of the spans' lengths, in tokens.", 5.0, ge=1.0, le=1000.0
    )
    longest_span: int = setting("span_masking: no span is longer than this.", 10, ge=1)
    mask_token: str = setting("span_masking: a special token of the vocabulary, such as <|mask|>.", "")
    sentence_shuffle: float = setting(
        "Share of the documents whose sentences change places; 0 = off.", 0.0, ge=0.0, le=1.0
    )
    synonym_rate: float = setting(
        "Share of the words of `synonyms` that are replaced where they stand; 0 = off.", 0.0, ge=0.0, le=1.0
    )
    synonyms: str = setting(
        "synonym_rate: the table, a path or fsspec URL. TSV: a word and its synonyms a line; .json: an object of "
        "lists.",
        "",
    )
    seed: int = setting("Seed of all changes.", 0, ge=0)

    def __post_init__(self) -> None:
        if bool(self.span_masking) != bool(self.mask_token):
            raise ValueError(
                f"augment.span_masking = {self.span_masking} and augment.mask_token = {self.mask_token!r}: give both "
                "or neither"
            )
        if bool(self.synonym_rate) != bool(self.synonyms):
            raise ValueError(
                f"augment.synonym_rate = {self.synonym_rate} and augment.synonyms = {self.synonyms!r}: give both or "
                "neither"
            )

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return bool(self.rewrites or self.token_noise or self.span_masking)

    @property
    def rewrites(self) -> bool:
        """Whether the text itself is changed, targets included."""
        return bool(self.token_dropout or self.sentence_shuffle or self.synonym_rate)
