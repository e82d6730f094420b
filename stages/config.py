"""What one run is asked to do: the configurations of all stages, and how they are run.

Stage configurations are those of the rooms, put together where a stage uses several. Light to import: no torch, no
Prefect, no polars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from corpus.config import ExportConfig, IngestConfig, SourceConfig, TokenizeConfig, TokenizerConfig
from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from data_quality.filter_config import FilterConfig
from data_quality.judges_config import BlocklistConfig, ClassifierConfig, ScorerConfig
from data_quality.quality_config import CutsConfig, DecontaminateConfig, QualityConfig
from data_quality.repeats_config import RepeatsConfig
from data_quality.select_config import SelectConfig
from model.config import MixtureSegment, ModelConfig, TrainingConfig
from model.finetune_config import EvaluateConfig, FinetuneConfig, GenerateConfig
from stages.base import Resources
from storage.settings import STRICT, setting


@dataclass(frozen=True, kw_only=True)
class ClassifierStageConfig:
    """A classifier, and the documents that teach it what is good and what is not."""

    __pydantic_config__ = STRICT

    name: str = setting(
        "Name of the column of its scores; it ends in _score.",
        "quality_score",
        pattern=r"^[a-z][a-z0-9_]*_score$",
        max_length=64,
    )
    positive: tuple[SourceConfig, ...] = setting("Good examples, read like any source; they join no corpus.", ())
    negative: tuple[SourceConfig, ...] = setting("Bad examples, read like any source; they join no corpus.", ())
    positive_sources: tuple[str, ...] = setting("Names of ingest.sources whose documents are good examples.", ())
    negative_sources: tuple[str, ...] = setting("Names of ingest.sources whose documents are bad examples.", ())
    model: str = setting(
        "The file of a model that an earlier run trained (models/NAME.arrow of its quality output), a path or fsspec "
        "URL: nothing is trained. So a growing corpus keeps its scores.",
        "",
    )
    training: ClassifierConfig = setting("How it is trained.", default_factory=ClassifierConfig)

    def __post_init__(self) -> None:
        sides = {
            "positive": (self.positive, self.positive_sources),
            "negative": (self.negative, self.negative_sources),
        }
        if self.model and any(any(side) for side in sides.values()):
            raise ValueError(f"classifier {self.name!r}: a given model is not trained; leave out its examples")
        for side, given in sides.items():
            if not self.model and not any(given):
                raise ValueError(
                    f"classifier {self.name!r}: it has no {side} examples; name them in {side} (sources of their own) "
                    f"or {side}_sources (of the corpus)"
                )
        both = set(self.positive_sources) & set(self.negative_sources)
        if both:
            raise ValueError(f"classifier {self.name!r}: {', '.join(sorted(both))} cannot be on both sides")
        names = [source.name for source in (*self.positive, *self.negative)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"classifier {self.name!r}: two of its sources are called {name!r}")


@dataclass(frozen=True, kw_only=True)
class QualityStageConfig:
    """Evidence about single documents: features, passages to cut, and what judges say."""

    __pydantic_config__ = STRICT

    features: QualityConfig = setting("What is measured.", default_factory=QualityConfig)
    cuts: CutsConfig = setting("Which passages are marked to be cut.", default_factory=CutsConfig)
    classifiers: tuple[ClassifierStageConfig, ...] = setting(
        "Linear classifiers; each gives a column of scores from 0 (bad) to 1 (good).", ()
    )
    blocklists: tuple[BlocklistConfig, ...] = setting("Lists of words, domains or addresses that are counted.", ())
    scorers: tuple[ScorerConfig, ...] = setting("Functions of your own, each a column.", ())
    rights: bool = setting(
        "Whether licence and opt-outs are read from the documents' metadata (columns licence, licence_class, "
        "ai_opt_out, noindex).",
        False,
    )

    @property
    def judged(self) -> bool:
        """Whether there is any judge."""
        return bool(self.classifiers or self.blocklists or self.scorers or self.rights)


@dataclass(frozen=True, kw_only=True)
class DecontaminateStageConfig:
    """Evidence about text shared with evaluation sets."""

    __pydantic_config__ = STRICT

    eval_sets: tuple[SourceConfig, ...] = setting("Evaluation sets, read like any source; one item a record.", ())
    finetune_set: bool = setting("Whether finetune.data, where a run has it, is compared like an evaluation set.", True)
    comparison: DecontaminateConfig = setting("How they are compared.", default_factory=DecontaminateConfig)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A model and how it is trained."""

    __pydantic_config__ = STRICT

    model: ModelConfig = setting("Shape of the Transformer.", default_factory=ModelConfig)
    training: TrainingConfig = setting("Steps, batches, optimiser.", default_factory=TrainingConfig)
    mixture: tuple[MixtureSegment, ...] = setting(
        "How sources are mixed, from which sequence on; empty: every selected document once an epoch. Segments may be "
        "appended to a training that has begun, and change nothing before them.",
        (),
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateStageConfig:
    """What is measured on the pretrained model."""

    __pydantic_config__ = STRICT

    scoring: EvaluateConfig = setting("Perplexity and bits per byte.", default_factory=EvaluateConfig)
    generate: GenerateConfig = setting("Sample texts.", default_factory=GenerateConfig)


@dataclass(frozen=True, kw_only=True)
class FinetuneStageConfig:
    """Fine-tuning on labelled documents: a file of one's own, or labels that the corpus carries."""

    __pydantic_config__ = STRICT

    training: FinetuneConfig = setting("Classes, epochs, learning rates.", default_factory=FinetuneConfig)
    label: str = setting(
        "Where the label of a document stands: `source`, `language`, or `meta.<field>` (for python-docs "
        "`meta.package`). For `data` files: the meta field of that name.",
        "source",
        pattern=r"^(source|language|meta\.[A-Za-z0-9_.-]+)$",
    )
    data: SourceConfig | None = setting(
        "Labelled documents of one's own (list the label in its meta_fields); empty: the selected documents of the "
        "corpus, split into train and validation as they are.",
        None,
    )
    test_share: float = setting("`data`: share of its documents held out for testing, by hash of id.", 0.2, gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """The model as a folder for others."""

    __pydantic_config__ = STRICT

    title: str = setting("Name of the model on its card.", "gristmill-model", min_length=1, max_length=200)
    licence: str = setting("Licence stated on the card; what the corpus allows is for you to judge.", "other")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The HTML report."""

    __pydantic_config__ = STRICT

    samples: int = setting("Documents shown for every reason.", 5, ge=0, le=100)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, from text to a released model. Sections left out have their defaults; a null section is not run."""

    __pydantic_config__ = STRICT

    name: str = setting("Name of the run record.", "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", min_length=1)
    workspace: str = setting("Where outputs lie: a folder or any fsspec URL.", "./workspace", min_length=1)
    ingest: IngestConfig = setting("What text to read.")
    quality: QualityStageConfig = setting("Features and cuts.", default_factory=QualityStageConfig)
    sketch: SketchConfig = setting("MinHash signatures.", default_factory=SketchConfig)
    decontaminate: DecontaminateStageConfig = setting(
        "Comparison with evaluation sets.", default_factory=DecontaminateStageConfig
    )
    filter: FilterConfig = setting("Rules.", default_factory=FilterConfig)
    deduplicate: DeduplicateConfig = setting("Duplicates.", default_factory=DeduplicateConfig)
    repeats: RepeatsConfig | None = setting(
        "Lines, paragraphs and runs of words that stand in many documents, as cuts; run where asked for.", None
    )
    select: SelectConfig = setting("Caps, repeats, splits.", default_factory=SelectConfig)
    export_corpus: ExportConfig | None = setting("The cleaned corpus as files.", default_factory=ExportConfig)
    tokenizer: TokenizerConfig | None = setting("The vocabulary.", default_factory=TokenizerConfig)
    tokenize: TokenizeConfig | None = setting("Token shards.", default_factory=TokenizeConfig)
    pretrain: PretrainConfig | None = setting("Pretraining.", default_factory=PretrainConfig)
    evaluate: EvaluateStageConfig | None = setting("Evaluation.", default_factory=EvaluateStageConfig)
    finetune: FinetuneStageConfig | None = setting("Fine-tuning; it needs labels, so it is run where asked for.", None)
    release: ReleaseConfig | None = setting("Release folder.", default_factory=ReleaseConfig)
    report: ReportConfig | None = setting("HTML report.", default_factory=ReportConfig)
    how: Resources = setting(
        "How it is run: workers, devices, retries. Never fingerprinted.", default_factory=Resources
    )
    orchestrator: Literal["prefect", "none"] = setting(
        "Whether the run is recorded by Prefect; the command line's --no-prefect is `none`.", "prefect"
    )

    def __post_init__(self) -> None:
        self.deduplicate.banded(self.sketch.permutations)
        sources = [source.name for source in self.ingest.sources]
        _check_classifiers(self.quality, sources)
        _check_rules(self.filter, self.quality)
        limit = self.filter.contamination_overlap
        if limit is not None and self.decontaminate.comparison.minimum_overlap > limit:
            raise ValueError(
                f"decontaminate.comparison.minimum_overlap = {self.decontaminate.comparison.minimum_overlap} "
                f"must not exceed filter.contamination_overlap = {limit}: smaller overlaps are not stored"
            )
        names = [source.name for source in (*self.ingest.sources, *self.decontaminate.eval_sets)]
        names += [self.finetune.data.name] if self.finetune and self.finetune.data else []
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"the source name {name!r} stands twice among ingest.sources, decontaminate.eval_sets and "
                    "finetune.data"
                )
        for name in self.select.sources:
            if name not in sources:
                raise ValueError(f"select.sources.{name}: there is no source of this name in ingest.sources")
        counted = self.repeats.counted_sources if self.repeats else ()
        for setting_name, named in (
            ("repeats.counted_sources", counted),
            ("deduplicate.source_order", self.deduplicate.source_order),
        ):
            for name in named:
                if name not in sources:
                    raise ValueError(f"{setting_name}: there is no source {name!r} in ingest.sources")
        if self.select.cluster_repeats and self.deduplicate.mode == "only-report":
            raise ValueError(
                "select.cluster_repeats repeats what stays for dropped duplicates, and deduplicate.mode only-report "
                "drops none: choose another mode, or leave select.cluster_repeats empty"
            )
        for user, needed in REQUIRES.items():
            if getattr(self, user) is not None:
                for other in needed:
                    if getattr(self, other) is None:
                        raise ValueError(f"{user} needs {other}, which is null: set {user} to null too")
        if self.pretrain and self.pretrain.model.max_positions < self.pretrain.training.sequence_length:
            raise ValueError(
                f"pretrain.training.sequence_length = {self.pretrain.training.sequence_length} is longer than "
                f"pretrain.model.max_positions = {self.pretrain.model.max_positions}"
            )
        for name, section in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            mask = section.training.augment.mask_token if section else ""
            known: tuple[str, ...] = (mask,)  # other kinds have special tokens that only their files or trainers know
            if self.tokenizer and self.tokenizer.kind in ("bpe", "unigram"):
                known = self.tokenizer.special_tokens
            if mask and mask not in known:
                raise ValueError(
                    f"{name}.training.augment.mask_token = {mask!r} is not one of tokenizer.special_tokens "
                    f"{list(known)}: put it there too"
                )
        if self.pretrain and self.tokenize and not self.tokenize.arrow:
            raise ValueError("tokenize.arrow is false, but pretrain reads Arrow shards")


def _check_classifiers(quality: QualityStageConfig, sources: Sequence[str]) -> None:
    """Refuse examples from sources that the corpus does not have."""
    for classifier in quality.classifiers:
        for name in (*classifier.positive_sources, *classifier.negative_sources):
            if name not in sources:
                raise ValueError(
                    f"quality.classifiers, {classifier.name}: there is no source {name!r} in ingest.sources "
                    f"({', '.join(sources)})"
                )


def _check_rules(config: FilterConfig, quality: QualityStageConfig) -> None:
    """Refuse rules and gates that cannot be, and rules over what is not measured, before anything is done."""
    from data_quality.feature_table import feature_schema
    from data_quality.gates import check_expectations
    from data_quality.rules import CONTAMINATION, resolve_rules
    from stages.judges import judged_columns

    measured = feature_schema(quality.features).names
    measured += judged_columns(quality)
    check_expectations(config.expect, resolve_rules(config, measured), CONTAMINATION)


REQUIRES: dict[str, tuple[str, ...]] = {
    "tokenize": ("tokenizer",),
    "pretrain": ("tokenize",),
    "evaluate": ("pretrain",),
    "finetune": ("pretrain",),
    "release": ("pretrain", "evaluate"),
}
"""Sections that need another section."""
