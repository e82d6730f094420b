"""What `quality` says of documents beside their features: classifiers, lists, scorers and rights, as columns.

Parts: `models/<classifier>`, `model_reports/<classifier>`, `lists/<list>`, and `judgements/<stem>`, row for row with
`documents/<stem>`. A judgement has a key of its own: another classifier or list measures no features anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from corpus.config import IngestConfig, SourceConfig
from data_quality.judges_config import BlocklistConfig, ScorerConfig
from stages.base import Inputs, Stage, StageError, Unit, part_units
from stages.config import ClassifierStageConfig, QualityStageConfig
from storage.filesystem import Store, digest_bytes
from storage.fingerprint import canonical
from storage.manifests import Counts
from storage.outputs import Output, PartWriter, Receipt

MODELS, MODEL_REPORTS, LISTS, JUDGEMENTS = "models", "model_reports", "lists", "judgements"
_RIGHTS = ("licence", "licence_class", "ai_opt_out", "noindex")


def judged_columns(config: QualityStageConfig) -> list[str]:
    """The names of all columns of judges, in the order of the file.

    Raises
    ------
    ValueError
        If two judges give a column of one name.
    """
    names = [classifier.name for classifier in config.classifiers]
    for blocklist in config.blocklists:
        names.append(f"{blocklist.name}_hits")
        if blocklist.kind in ("words", "text"):
            names.append(f"{blocklist.name}_word_share")
    names += [scorer.name for scorer in config.scorers]
    names += _RIGHTS if config.rights else ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"quality: two judges give the column {', '.join(twice)}; give one of them another name")
    return names


class Judges:
    """The judges of a configuration, in the runner's process.

    Parameters
    ----------
    config
        The quality stage's.
    reading
        How ingest normalises and redacts: examples are treated like the corpus, or a classifier would learn to tell
        the one from the other.
    """

    def __init__(self, config: QualityStageConfig, reading: IngestConfig) -> None:
        self.config = config
        self.reading = reading
        self._given: dict[str, bytes] = {}
        self._parameters: dict[str, Any] | None = None

    def parameters(self) -> dict[str, Any]:
        """What the judgements depend on beside the documents: contents, never places."""
        if self._parameters is None:
            try:
                self._parameters = {
                    "classifiers": [self._of_classifier(one) for one in self.config.classifiers],
                    "blocklists": [
                        {
                            "name": one.name,
                            "kind": one.kind,
                            "content": digest_bytes(self._read(one.path, f"blocklist {one.name!r}")),
                        }
                        for one in self.config.blocklists
                    ],
                    "scorers": [{**canonical(one), "source": _source_of(one)} for one in self.config.scorers],
                    "rights": self.config.rights,
                }
            except ValueError as error:
                raise StageError(str(error)) from error
        return self._parameters

    def _of_classifier(self, config: ClassifierStageConfig) -> Any:
        if config.model:
            data = self._read(config.model, f"classifier {config.name!r}")
            return {"name": config.name, "model": digest_bytes(data)}
        from corpus.inventory import take_inventory

        found = canonical(config)
        sources = (*config.positive, *config.negative)
        if sources:
            inventory = take_inventory(IngestConfig(sources=sources))
            found["inventory"] = {"digest": inventory.digest, "files": len(inventory.files), "bytes": inventory.bytes}
            found["reading"] = canonical({"normalise": self.reading.normalise, "redact": self.reading.redact})
        return found

    def _read(self, path: str, what: str) -> bytes:
        if path not in self._given:
            import fsspec

            try:
                with fsspec.open(path, "rb", compression="infer") as stream:
                    self._given[path] = bytes(stream.read())
            except (OSError, ValueError) as error:
                raise StageError(f"{what}: {path} cannot be read: {error}") from error
        return self._given[path]

    def starts(self) -> bool:
        """Whether `start` does anything."""
        return bool(self.config.classifiers or self.config.blocklists)

    def start(self, inputs: Inputs, writer: PartWriter) -> None:
        """Train classifiers and read lists, once, before any document is judged."""
        for classifier in self.config.classifiers:
            self._prepare_classifier(classifier, inputs, writer)
        for blocklist in self.config.blocklists:
            import pyarrow as pa

            from data_quality.blocklists import ENTRIES, ListError, parse_list

            try:
                entries = parse_list(self._read(blocklist.path, f"blocklist {blocklist.name!r}"), blocklist)
            except ListError as error:
                raise StageError(str(error)) from error
            writer.ipc(f"{LISTS}/{blocklist.name}", pa.table([entries], schema=ENTRIES), ENTRIES)

    def _prepare_classifier(self, config: ClassifierStageConfig, inputs: Inputs, writer: PartWriter) -> None:
        from data_quality.classifier import TooFewDocumentsError, train_classifier

        if config.model:
            model = _model_of(self._read(config.model, f"classifier {config.name!r}"), config)
        else:
            read: dict[str, Any] = {}
            positive = self._examples(config, config.positive, config.positive_sources, inputs, read)
            negative = self._examples(config, config.negative, config.negative_sources, inputs, read)
            try:
                model, report = train_classifier(positive, negative, config.training)
            except TooFewDocumentsError as error:
                said = f" (read: {json.dumps(read)})" if read else ""
                raise StageError(f"quality.classifiers, {config.name}: {error}{said}") from error
            writer.json(f"{MODEL_REPORTS}/{config.name}", {**report, "read": read})
        table = model.to_table()
        writer.ipc(f"{MODELS}/{config.name}", table, table.schema)

    def _examples(
        self,
        config: ClassifierStageConfig,
        sources: Sequence[SourceConfig],
        names: Sequence[str],
        inputs: Inputs,
        read: dict[str, Any],
    ) -> Any:
        """The documents of one side that may teach: those of the smallest keys. `read` gets the counts by source."""
        import pyarrow as pa

        from corpus.documents import read_source
        from data_quality.classifier import EXAMPLES, choose_examples

        found = EXAMPLES.empty_table()
        for source in sources:
            counts = Counts()
            for batch in read_source(replace(self.reading, sources=(source,)), source):
                found = choose_examples(pa.concat_tables([found, _examples_in(batch.documents)]), config.training)
                counts.add(batch.counts)
            read[source.name] = counts.as_dict()
        if names:
            # Of the corpus all ids are looked at, and the texts of those chosen.
            places = _chosen_places(inputs, names, config)
            for part, rows in places.items():
                documents = inputs["ingest"].read(part, ["id", "text"]).take(rows)
                found = pa.concat_tables([found, _examples_in(documents)])
            found = choose_examples(found, config.training)
        return found

    def units(self, stage: Stage[Any], inputs: Inputs, started: Receipt) -> list[Unit]:
        """One unit for every part of the documents, keyed by the contents of models and lists and the rest of the
        parameters: what features depend on is not among it."""
        if not self.config.judged:
            return []
        shared = [part for part in started.parts if part.name.startswith((f"{MODELS}/", f"{LISTS}/"))]
        scorers = self.parameters()["scorers"]
        material = {
            "parts": {part.name: part.digest for part in shared},
            "blocklists": [[one.name, one.kind] for one in self.config.blocklists],
            "scorers": scorers,
            "rights": self.config.rights,
            "versions": _versions(self.config),
        }
        payload = {
            "judges": {part.name: part.path for part in shared},
            "sources": {found["name"]: found["source"] for found in scorers},
        }
        return [
            replace(unit, name=f"{JUDGEMENTS}/{unit.name}", payload={**unit.payload, **payload})
            for unit in part_units(stage, inputs, parameters=material)
        ]


def _versions(config: QualityStageConfig) -> dict[str, int]:
    """The versions of what computes the columns: a new one redoes those judgements."""
    found = {}
    if config.classifiers:
        from data_quality.classifier import MODEL_VERSION

        found["model"] = MODEL_VERSION
    if config.blocklists:
        from data_quality.blocklists import BLOCKLIST_VERSION

        found["blocklist"] = BLOCKLIST_VERSION
    if config.rights:
        from data_quality.rights import RIGHTS_VERSION

        found["rights"] = RIGHTS_VERSION
    return found


def judge_part(unit: Unit, inputs: Inputs, writer: PartWriter, config: QualityStageConfig) -> None:
    """Write the judgements of a part, in a worker; its documents are counted where they are measured.

    Raises
    ------
    StageError
        If a scorer fails.
    """
    stem = unit.payload["stem"]
    documents = inputs["ingest"].read(f"documents/{stem}", _needed_columns(config))
    judgements = _judge(documents, stem, config, writer.store, unit.payload)
    writer.parquet(f"{JUDGEMENTS}/{stem}", judgements, judgements.schema)


def _judge(documents: Any, part: str, config: QualityStageConfig, store: Store, payload: Mapping[str, Any]) -> Any:
    """`id` and `judged_columns` of documents, row for row; the schema is the same for every part."""
    import pyarrow as pa

    from data_quality.scorer import ScorerError, load_scorer
    from storage.schemas import ID_FIELD

    paths = payload["judges"]
    columns: dict[str, Any] = {}
    for classifier in config.classifiers:
        columns[classifier.name] = _model(store, paths[f"{MODELS}/{classifier.name}"]).scores(documents.column("text"))
    for blocklist in config.blocklists:
        columns |= _blocklist(store, paths[f"{LISTS}/{blocklist.name}"], blocklist).columns(documents)
    for scorer in config.scorers:
        try:
            columns[scorer.name] = load_scorer(scorer, payload["sources"][scorer.name]).column(documents, part)
        except ScorerError as error:
            raise StageError(str(error)) from error
    if config.rights:
        from data_quality.rights import rights_columns

        columns |= rights_columns(documents)
    schema = pa.schema([ID_FIELD, *(pa.field(name, column.type) for name, column in columns.items())])
    return pa.table([documents.column("id"), *columns.values()], schema=schema)


def listed_passages(quality: Output, column: str, text: str) -> list[tuple[int, int]]:
    """Where the entries of the list behind a column stand in a text, as ranges of characters; for lists of words and
    text."""
    import pyarrow as pa

    name = column.removesuffix("_hits").removesuffix("_word_share")
    known = {one["name"]: one["kind"] for one in quality.manifest["parameters"].get("blocklists", ())}
    if known.get(name) not in ("words", "text"):
        return []
    config = BlocklistConfig(name=name, kind=known[name], path="-")
    blocklist = _blocklist(quality.store, quality.part(f"{LISTS}/{name}").path, config)
    data = text.encode()
    return [
        (len(data[: hit.start].decode()), len(data[: hit.end].decode()))
        for hit in blocklist.find(pa.array([text], pa.large_string()))
    ]


def _needed_columns(config: QualityStageConfig) -> list[str]:
    """The columns of documents that the judges look at."""
    wanted = {"id"}
    if config.classifiers or any(one.kind in ("words", "text") for one in config.blocklists):
        wanted.add("text")
    if any(one.kind not in ("words", "text") for one in config.blocklists):
        wanted.add("url")
    if config.rights:
        wanted.add("meta")
    return sorted(wanted.union(*(scorer.columns for scorer in config.scorers)))


def _source_of(config: ScorerConfig) -> str:
    from data_quality.scorer import source_digest

    return source_digest(config)


def _examples_in(documents: Any) -> Any:
    from data_quality.classifier import EXAMPLES

    return documents.select(EXAMPLES.names).cast(EXAMPLES)


def _chosen_places(inputs: Inputs, names: Sequence[str], config: ClassifierStageConfig) -> dict[str, Any]:
    """Part and rows of the documents of some sources that have the smallest keys, each id once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from data_quality.classifier import example_keys

    most = config.training.max_documents
    keys, parts, rows = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
    documents = inputs["ingest"].parts("documents")
    for number, part in enumerate(documents):
        table = inputs["ingest"].read(part, ["id", "source"])
        taken = np.flatnonzero(pc.is_in(table.column("source"), pa.array(names)).to_numpy())
        if taken.size:
            keys = np.concatenate([keys, example_keys(table.column("id").take(taken), config.training.seed)])
            parts, rows = np.concatenate([parts, np.full(taken.size, number)]), np.concatenate([rows, taken])
            keys, first = np.unique(keys, return_index=True)
            keys, parts, rows = keys[:most], parts[first[:most]], rows[first[:most]]
    return {documents[number].name: np.sort(rows[parts == number]) for number in np.unique(parts).tolist()}


def _table(data: bytes, what: str) -> Any:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{what} cannot be read as an Arrow file: {error}") from error


def _model_of(data: bytes, config: ClassifierStageConfig) -> Any:
    from data_quality.classifier import Classifier

    what = f"quality.classifiers, {config.name}: {config.model}"
    try:
        return Classifier.from_table(_table(data, what))
    except ValueError as error:
        raise StageError(f"{what}: {error}") from error


@lru_cache(maxsize=8)
def _model(store: Store, path: str) -> Any:
    from data_quality.classifier import Classifier

    return Classifier.from_table(_table(store.read_bytes(path), path))


@lru_cache(maxsize=32)
def _blocklist(store: Store, path: str, config: BlocklistConfig) -> Any:
    from data_quality.blocklists import Blocklist

    return Blocklist(config, _table(store.read_bytes(path), path).column("entry").to_pylist())
