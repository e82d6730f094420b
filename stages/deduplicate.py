"""deduplicate: among the eligible documents, who is kept for whom. Every removal is verified on the text.

Parts: `decisions/<stem>` and `neighbours/<stem>`, row for row with `documents/<stem>` (documents dropped before have
the reason "filter"), `bands/<stem>` and `ids/<stem>` (what candidates are found by), `growth/<generation>`, with
`incremental` the kept documents as `index/…`, and `about/duplicates`, `about/generations`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from data_quality.duplicates_config import DeduplicateConfig, SketchConfig
from stages import duplicate_blocks as blocks
from stages import duplicate_decisions as decisions
from stages import duplicate_groups as groups
from stages import duplicate_steps as steps
from stages.base import Context, Inputs, Stage, Unit
from stages.config import RunConfig
from stages.duplicate_files import Copies, Place, add
from stages.duplicate_groups import Grouping
from storage.fingerprint import canonical, hash_of
from storage.manifests import Part
from storage.outputs import Output, PartWriter, Receipt

EARLIER = "filter"
PIECE_BYTES = 64 << 20
"""Sorted entries a unit goes through at least, so that small corpora are not cut into crumbs."""
ENTRY_BYTES = 16
GROUP_SHARE = 12
"""Of how many bytes of memory a group takes one number: 8 in the mapped file of its shingles, the rest for buckets."""
GROUP_NUMBERS = 8 << 20
"""What components that are put together in a group hold at most, so that there are groups for many workers."""
SORTING_BYTES = 120
"""A band's or an id's entry on disk, and in memory while it is sorted and shared out, at most."""

Generations = list[list[list[str]]]
"""For every generation, oldest first, its parts: stem and digest of the documents."""
STEPS = {
    step.__name__: step
    for step in (
        steps.entries, steps.copies, steps.claims, steps.leaders, steps.buckets,
        groups.components, groups.jump, groups.weigh, groups.pack,
        blocks.arrange, blocks.spread, blocks.against, blocks.decide_block,
        steps.members, steps.regroup, steps.decide,
        decisions.decisions, decisions.growth, decisions.index_bands, decisions.index_ids,
    )
}  # fmt: skip

Rounds = Generator[list[Unit], list[Receipt], None]
Items = Sequence[tuple[str, dict[str, Any]]]
"""Units of a step: their names, and what each is told beside what all are."""


class Deduplicate(Stage[DeduplicateConfig]):
    """The definition stands in `data_quality/duplicates.py`, the steps in `docs/duplicates.md`."""

    name = "deduplicate"
    version = 4
    needs = ("ingest", "quality", "sketch", "filter")

    def __init__(self, config: DeduplicateConfig, sketch: SketchConfig, memory: int) -> None:
        super().__init__(config.banded(sketch.permutations))
        self.sketch = sketch
        self.memory = memory
        self.generations: Generations = []
        self._find_previous: Callable[[], Output | None] = lambda: None

    @property
    def group_weight(self) -> int:
        """How much a group may hold, in numbers of 8 bytes: shingles, and RECORD a document."""
        return self.memory // GROUP_SHARE

    @property
    def packed_weight(self) -> int:
        """How much components that are put together in a group hold."""
        return min(self.group_weight, GROUP_NUMBERS)

    @property
    def block_weight(self) -> int:
        """How much a block of a larger group holds, about: beside it stand the kept documents it is compared with."""
        return max(1, self.group_weight // 4)

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_worker, (self.config, self.sketch, self.memory, self.generations)

    def follow(self, previous: Callable[[], Output | None]) -> None:
        self._find_previous = previous

    def meet(self, inputs: Inputs) -> None:
        """Parts the run before knew keep their generations; all that are new are one more."""
        current = {part.stem: part.digest for part in inputs["ingest"].parts("documents")}
        previous = self._find_previous() if self.config.incremental else None
        known: Generations = []
        if previous is not None and previous.has("about/generations"):
            known = [
                [[stem, digest] for stem, digest in generation if current.get(stem) == digest]
                for generation in previous.read_json("about/generations")
            ]
        old = {stem for generation in known for stem, _ in generation}
        new = sorted([stem, digest] for stem, digest in current.items() if stem not in old)
        self.generations = [generation for generation in (*known, new) if generation]

    def parameters(self) -> Any:
        return {
            **canonical(self.config, self.name),
            "ngram": self.sketch.ngram,
            "generations": [hash_of(generation) for generation in self.generations[:-1]],
        }

    def units(self, inputs: Inputs, started: Receipt) -> list[Unit]:
        """What ends in the decisions; the steps that lead there are not known before."""
        return [unit for number in range(len(self.generations)) for unit in self._deciding(number, inputs)]

    def rounds(self, inputs: Inputs, started: Receipt, done: Callable[[str], bool]) -> Rounds:
        """Generation after generation: copies, buckets, groups, shingles, decisions, and an index for the next."""
        receipts = yield self._entries(inputs)
        entries = {receipt.key: _kinds(receipt) for receipt in receipts}
        places = self.places(inputs)
        files = {place.stem: entries[self._entries_key(place.stem, inputs)] for place in places}
        older: dict[str, list[Part]] = {"bands": [], "ids": []}
        for number in range(len(self.generations)):
            deciding = self._deciding(number, inputs)
            if not all(done(unit.key) for unit in deciding):
                deciding = yield from self._steps(number, inputs, files, older, deciding)
            receipts = yield deciding
            if self.config.incremental:
                for receipt in (yield self._index(number, inputs, files, receipts)):
                    for part in receipt.parts:
                        older[part.stem.split("-")[1]].append(part)

    # ---------------------------------------------------------------- the steps of one generation

    def _entries_key(self, stem: str, inputs: Inputs) -> str:
        digests = [
            inputs["sketch"].part(f"signatures/{stem}").digest,
            inputs["filter"].part(f"decisions/{stem}").digest,
        ]
        return self.unit_key(step="entries", name=stem, bands=[self.config.bands, self.config.rows], digests=digests)

    def _entries(self, inputs: Inputs) -> list[Unit]:
        return [
            Unit(
                stem,
                self._entries_key(stem, inputs),
                {"step": "entries", "stem": stem},
                inputs["sketch"].part(f"signatures/{stem}").bytes,
            )
            for generation in self.generations
            for stem, _ in generation
        ]

    def _state(self, number: int, inputs: Inputs) -> str:
        """A hash of all that the decisions of a generation depend on."""
        parameters = {k: v for k, v in self.parameters().items() if k not in ("generations", "incremental")}
        digests = [
            [
                [
                    stem,
                    digest,
                    inputs["sketch"].part(f"signatures/{stem}").digest,
                    inputs["quality"].part(f"features/{stem}").digest,
                    inputs["filter"].part(f"decisions/{stem}").digest,
                ]
                for stem, digest in generation
            ]
            for generation in self.generations[: number + 1]
        ]
        return hash_of({"parameters": parameters, "parts": digests})

    def _deciding(self, number: int, inputs: Inputs) -> list[Unit]:
        state = self._state(number, inputs)
        units = []
        for stem, _ in self.generations[number]:
            key = self.unit_key(step="decisions", state=state, name=stem)
            weight = inputs["sketch"].part(f"signatures/{stem}").bytes
            units.append(Unit(stem, key, {"step": "decisions", "stem": stem}, weight))
        rows = sum(place.rows for place in self.places(inputs) if place.generation == number)
        for piece, ranges in enumerate(_divide(1, rows, PIECE_BYTES)):
            name = f"{number}-{piece:05d}"
            key = self.unit_key(step="growth", state=state, name=name)
            units.append(Unit(f"growth-{name}", key, {"step": "growth", "name": name, "ranges": ranges, "counted": {}}))
        return units

    def _steps(
        self,
        number: int,
        inputs: Inputs,
        files: dict[str, dict[str, list[Part]]],
        older: dict[str, list[Part]],
        deciding: list[Unit],
    ) -> Generator[list[Unit], list[Receipt], list[Unit]]:
        places = self.places(inputs)
        new = [place for place in places if place.generation == number]
        state = self._state(number, inputs)

        def step(name: str, items: Items, **shared: Any) -> list[Unit]:
            """Units of one step; what they share is the same for all of them, and follows from the state."""
            division = [len(items), self.memory]
            return [
                Unit(
                    f"{name}-{item}",
                    self.unit_key(step=name, state=state, name=item, division=division),
                    {"step": name, "name": item, "generation": number, **shared, **payload},
                    weight // max(1, len(items)),
                )
                for item, payload in items
            ]

        weight = sum(inputs["sketch"].part(f"signatures/{place.stem}").bytes for place in new)
        rows = sum(place.rows for place in new)
        of_new = [(place, files[place.stem]) for place in new]
        pieces = [(f"{i:05d}", {"ranges": r}) for i, r in enumerate(_divide(1, rows, self.memory))]
        found = yield step("copies", pieces, parts=of_new, index=older["ids"])
        of_parts = [(place.stem, {"place": place, "ids": kinds["ids"][0]}) for place, kinds in of_new]
        claims = yield step("claims", of_parts, repeated=_parts(found, "repeated"), known=_parts(found, "known"))
        leaders = yield step("leaders", pieces, claims=_parts(claims, "claims"))
        same, known = (
            {place.stem: part for place, part in zip(new, _parts(claims, kind), strict=True)}
            for kind in ("same", "known")
        )
        copies = Copies(same, _parts(leaders, "leaders"), known)

        pieces = [(f"{i:05d}", {"ranges": r}) for i, r in enumerate(_divide(self.config.bands, rows, self.memory))]
        buckets = yield step("buckets", pieces, parts=of_new, index=older["bands"], copies=copies)

        together = _parts(buckets, "buckets")
        grouping, count, touching = yield from self._grouping(step, places, buckets)

        touched = [place for place in places if place.generation == number or place.stem in touching]
        read = step(
            "members",
            [(place.stem, {"place": place}) for place in touched],
            grouping=grouping, copies=copies,
        )  # fmt: skip
        sort = step("regroup", [(f"{i:05d}", {"buckets": part}) for i, part in enumerate(together)], grouping=grouping)
        receipts = yield [*read, *sort]
        members, inside = _parts(receipts, "members"), _parts(receipts, "regrouped")

        named = [(f"{i:06d}", {"group": i}) for i in range(count) if i not in grouping.large]
        decided = yield step("decide", named, members=members, buckets=inside)
        if grouping.large:
            sampled = [some for receipt in receipts for some in receipt.notes.get("samples", [])]
            decided = [*decided, *(yield from self._blocks(step, touched, sampled, grouping.large, receipts))]

        counted: dict[str, Any] = {}
        for receipt in (*buckets, *decided):
            add(counted, receipt.notes["counted"])
        told = {"decided": _parts(decided, "decided"), "added": _parts(decided, "added"), "copies": copies}
        grown = {"growth": _parts(decided, "growth"), "known": list(known.values())}
        counting = f"growth-{number}-00000"
        by_stem = {place.stem: place for place in new}
        return [
            replace(unit, payload={**unit.payload, **told, "place": by_stem[unit.name]})
            if unit.payload["step"] == "decisions"
            else replace(unit, payload={**unit.payload, **grown, "counted": counted if unit.name == counting else {}})
            for unit in deciding
        ]

    def _grouping(
        self, step: Callable[..., list[Unit]], places: list[Place], buckets: list[Receipt]
    ) -> Generator[list[Unit], list[Receipt], tuple[Grouping, int, set[str]]]:
        """Who has to be decided together: the groups, how many, and the parts of older generations they touch."""
        from data_quality.components import BYTES

        width = max(1, self.memory // BYTES)
        total = places[-1].end if places else 0
        ranges = [(start, min(start + width, total)) for start in range(0, max(1, total), width)]
        turn = 0

        def units(name: str, payloads: dict[int, dict[str, Any]], **shared: Any) -> list[Unit]:
            named = [(f"{turn:04d}-{i:05d}", {"range": ranges[i], **some}) for i, some in payloads.items()]
            return step(name, named, width=width, **shared)

        whole: dict[int, dict[str, Any]] = {i: {} for i in range(len(ranges))}
        edges = dict.fromkeys(whole, _parts(buckets, "edges"))
        roots: dict[int, Part] = {}
        outside: set[int] = set()
        while edges:
            receipts = yield units("components", {i: {"edges": some} for i, some in edges.items()})
            lower: dict[int, list[Part]] = {}
            for i, receipt in zip(edges, receipts, strict=True):
                (roots[i],) = _parts([receipt], "roots")
                (outside.add if receipt.notes["outside"] else outside.discard)(i)
                for part, numbers in zip(_parts([receipt], "edges"), receipt.notes["lower"], strict=True):
                    for number in numbers:
                        lower.setdefault(number, []).append(part)
            edges = {i: [roots[i], *lower[i]] for i in sorted(lower)}
            turn += 1
        while outside:
            some = sorted(outside)
            receipts = yield units("jump", {i: {} for i in some}, roots=[roots[i] for i in whole])
            for i, receipt in zip(some, receipts, strict=True):
                (roots[i],) = _parts([receipt], "roots")
                if not receipt.notes["outside"]:
                    outside.discard(i)
            turn += 1
        ordered = [roots[i] for i in whole]
        weighed = yield units("weigh", whole, roots=ordered, places=places)
        packed = yield units("pack", whole, weights=_parts(weighed, "weights"))
        touching = {stem for receipt in weighed for stem in receipt.notes["older"]}
        first = [0, *accumulate(receipt.notes["count"] for receipt in packed)]
        large = frozenset(start + i for start, some in zip(first, packed, strict=False) for i in some.notes["large"])
        return Grouping(width, ordered, _parts(packed, "packed"), first[:-1], large), first[-1], touching

    def _blocks(
        self,
        step: Callable[..., list[Unit]],
        places: list[Place],
        samples: list[list[Any]],
        large: frozenset[int],
        receipts: list[Receipt],
    ) -> Generator[list[Unit], list[Receipt], list[Receipt]]:
        """Decides the large groups, all of them side by side, block after block."""
        edges = blocks.cuts(samples, large)
        stems = [place.stem for place in places]
        members = dict(zip(stems, _parts(receipts, "members"), strict=True))
        arranged = yield step("arrange", [(stem, {"members": members[stem]}) for stem in stems], cuts=edges)
        files = dict(zip(stems, _parts(arranged, "arranged"), strict=True))
        where = blocks.Arranged(places, files, members)
        regrouped = _parts(receipts, "regrouped")
        first = [0, *accumulate(part.rows for part in regrouped)]
        spread = yield step(
            "spread",
            [(f"{i:05d}", {"buckets": part, "first_bucket": first[i]}) for i, part in enumerate(regrouped)],
            arranged=where, large=sorted(large),
        )  # fmt: skip
        kept: dict[int, list[Part]] = {group: [] for group in edges}
        before = dict.fromkeys(edges, 0)
        found: list[Receipt] = []
        for number in range(max(len(some) for some in edges.values()) + 1):
            payloads = {
                group: {"block": group * blocks.BLOCK + number, "kept": list(kept[group]), "before": before[group]}
                for group, cut in edges.items()
                if number <= len(cut)
            }
            compared: list[Receipt] = []
            if number:
                compared = yield step(
                    "against",
                    [
                        (f"{group:06d}-{number:05d}-{piece:02d}", {**payload, "piece": piece})
                        for group, payload in payloads.items()
                        for piece in range(blocks.PIECES)
                    ],
                    arranged=where, buckets=_parts(spread, "spread"),
                )  # fmt: skip
            for place, payload in enumerate(payloads.values()):
                these = compared[place * blocks.PIECES : (place + 1) * blocks.PIECES]
                payload["earlier"] = _parts(these, "earlier")
            decided = yield step(
                "decide_block",
                [(f"{group:06d}-{number:05d}", payload) for group, payload in payloads.items()],
                arranged=where, buckets=_parts(spread, "spread"),
            )  # fmt: skip
            for group, receipt in zip(payloads, decided, strict=True):
                kept[group] += _parts([receipt], "kept")
                before[group] += receipt.notes["rows"]
            found += [*compared, *decided]
        return found

    def _index(
        self, number: int, inputs: Inputs, files: dict[str, dict[str, list[Part]]], receipts: list[Receipt]
    ) -> list[Unit]:
        places = [place for place in self.places(inputs) if place.generation == number]
        rows = sum(place.rows for place in places)
        said: dict[str, dict[str, list[Part]]] = {}
        for receipt in receipts:
            for part in receipt.parts:
                said.setdefault(part.stem, {}).setdefault(part.kind, []).append(part)
        parts = [(place, {**files[place.stem], **said[place.stem]}) for place in places]
        units = []
        for kind, bands in (("bands", self.config.bands), ("ids", 1)):
            for piece, ranges in enumerate(_divide(bands, rows, PIECE_BYTES)):
                name = f"{number}-{kind}-{piece:05d}"
                key = self.unit_key(step="index", state=self._state(number, inputs), name=name)
                payload = {"step": f"index_{kind}", "name": name, "ranges": ranges, "parts": parts}
                units.append(Unit(f"index-{name}", key, payload))
        return units

    def places(self, inputs: Inputs) -> list[Place]:
        """Where the rows of every part stand in the numbering of all documents, oldest generation first."""
        found: list[Place] = []
        start = 0
        for number, generation in enumerate(self.generations):
            for stem, _ in generation:
                rows = inputs["ingest"].part(f"documents/{stem}").rows
                found.append(Place(stem, number, start, rows))
                start += rows
        return found

    def run_unit(self, unit: Unit, inputs: Inputs, writer: PartWriter, context: Context) -> None:
        STEPS[unit.payload["step"]](self, unit.payload, inputs, writer, context)

    def finish(self, inputs: Inputs, receipts: Sequence[Receipt], writer: PartWriter) -> None:
        from data_quality.duplicates_statistics import summary

        total: dict[str, Any] = {"documents": 0, "without_words": 0}
        for receipt in receipts:
            add(total, receipt.notes.get("statistics", {}))
        writer.json("about/duplicates", {**summary(total, self.config), "generations": len(self.generations)})
        writer.json("about/generations", self.generations)


def _divide(bands: int, rows: int, memory: int) -> list[Any]:
    """All hashes of so many bands of `rows` entries in pieces: none larger in memory than `memory`, none tiny."""
    from data_quality.bands import divide

    entries = bands * rows
    return divide(bands, max(-(-entries * SORTING_BYTES // memory), -(-entries * ENTRY_BYTES // PIECE_BYTES)))


def _kinds(receipt: Receipt) -> dict[str, list[Part]]:
    return {part.kind: [part] for part in receipt.parts}


def _parts(receipts: Sequence[Receipt], kind: str) -> list[Part]:
    """The scratch files of one kind: their stems are "<kind>-<name>"."""
    return [part for receipt in receipts for part in receipt.parts if part.stem.startswith(f"{kind}-")]


def _in_worker(config: DeduplicateConfig, sketch: SketchConfig, memory: int, generations: Generations) -> Deduplicate:
    stage = Deduplicate(config, sketch, memory)
    stage.generations = generations
    return stage


def make(config: RunConfig) -> Deduplicate:
    """The stage of a run."""
    return Deduplicate(config.deduplicate, config.sketch, config.how.memory_megabytes << 20)
