"""What is taken of the kept documents: samples, caps, shares, repeats, the split. Drops by count, never by content.

All choices are made by hashes of (seed, id), so that they do not depend on the order of rows or parts, and a
corpus that grows keeps most of its earlier choices. A document takes 32 bytes of memory, and some more in passing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from data_quality.identifiers import seeded_hash
from data_quality.select_config import GroupLimits, SelectConfig

TRAIN, VALIDATION = "train", "validation"
NO_LANGUAGE = "none"
"""How `select.languages` calls documents whose language is not identified."""

REASONS = (
    "source-sample", "language-sample", "source-cap", "language-cap", "source-share", "language-share", "document-cap",
    "byte-cap",
)  # fmt: skip
_CODES = {reason: number for number, reason in enumerate(REASONS, start=1)}

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Candidates:
    """The kept documents in a few numbers each, gathered part by part; rows may come in any order.

    Parameters
    ----------
    number
        How many there will be.
    seed
        Of all choices.

    Attributes
    ----------
    order
        uint64[number]: the order in which limits take documents.
    group
        uint64[number]: equal for documents that must stand on the same side of the split.
    bytes
        int64[number]: of the text.
    source, language
        int32[number]: numbers of the names in `sources` and `languages`.
    """

    def __init__(self, number: int, seed: int) -> None:
        self.seed = seed
        self.order = np.zeros(number, dtype=np.uint64)
        self.group = np.zeros(number, dtype=np.uint64)
        self.bytes = np.zeros(number, dtype=np.int64)
        self.source = np.zeros(number, dtype=np.int32)
        self.language = np.zeros(number, dtype=np.int32)
        self.sources: dict[str, int] = {}
        self.languages: dict[str, int] = {}
        self._filled = 0

    def add(self, documents: pl.DataFrame) -> None:
        """Take in documents: `id` (16 bytes), `keeper` (16 bytes or null), `bytes`, `source`, `language` (or null)."""
        rows = slice(self._filled, self._filled + documents.height)
        self._filled = rows.stop
        group = documents.select(pl.coalesce("keeper", "id"))["keeper"]
        self.order[rows] = seeded_hash(documents["id"], self.seed, "cap")
        self.group[rows] = seeded_hash(group, self.seed, "split")
        self.bytes[rows] = documents["bytes"].to_numpy()
        self.source[rows] = _numbers(documents["source"], self.sources)
        self.language[rows] = _numbers(documents["language"].fill_null(NO_LANGUAGE), self.languages)

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True)
class Chosen:
    """What `choose` decides, row for row with the candidates.

    Attributes
    ----------
    reason
        int8[n]: 0 for what is taken, else the number of the reason in REASONS, counted from 1.
    held_out
        bool[n]: validation documents among those taken.
    repeats
        int32[n]: how often training sees it; 1 for validation, 0 for what is not taken.
    """

    reason: npt.NDArray[np.int8]
    held_out: Flags
    repeats: npt.NDArray[np.int32]

    def frame(self, start: int = 0, stop: int | None = None) -> pl.DataFrame:
        """`split`, `repeats` and `dropped_by` of some rows as they stand in DECISIONS."""
        rows = slice(start, stop)
        taken = pl.col("reason") == 0
        split = pl.when(pl.col("held_out")).then(pl.lit(VALIDATION)).otherwise(pl.lit(TRAIN))
        codes, reasons = list(_CODES.values()), list(_CODES)
        names = pl.col("reason").replace_strict(codes, reasons, default=None, return_dtype=pl.String)
        columns = {"reason": self.reason[rows], "held_out": self.held_out[rows], "repeats": self.repeats[rows]}
        return pl.DataFrame(columns).select(
            split=pl.when(taken).then(split), repeats=pl.when(taken).then("repeats"), dropped_by=names
        )


def choose(candidates: Candidates, config: SelectConfig, ties: Callable[[Integers], Integers]) -> Chosen:
    """Samples, caps, shares, repeats and the split.

    Samples come first. Then limits take documents in the order of a hash: caps of sources, caps of languages, the caps
    of all, where a cap in bytes takes the first whose sizes add up to it (a document larger than that is passed over).
    Shares of sources and languages then leave out the last documents of what has too much, until every share holds of
    what is taken at last. Of sources and languages each document counts for both its own.

    A document is held out if the hash of its keeper's id (of its own where it has none) lies in the lowest
    `validation_share`, so similar documents of one keeper never straddle the splits; of more than
    `validation_documents` held out, the groups of the lowest hashes stay so, the rest trains.

    Parameters
    ----------
    ties
        Given rows of equal hash (copies of one text), puts them into an order that does not depend on that of rows.

    Raises
    ------
    ValueError
        If the shares of all sources, or of all languages, cannot add up to a whole.
    """
    limits = _Limits(candidates, config, _ordered(candidates.order, ties))
    limits.apply()
    taken = limits.reason == 0
    held_out = _held_out(candidates.group, taken, config)
    repeats = _repeats(candidates, config)
    repeats[held_out] = 1
    repeats[~taken] = 0
    return Chosen(limits.reason, held_out, repeats)


class _Limits:
    """Leaves documents out, limit by limit: `reason` says by which."""

    def __init__(self, candidates: Candidates, config: SelectConfig, order: Integers) -> None:
        self.candidates = candidates
        self.config = config
        self.order = order
        self.reason = np.zeros(len(order), dtype=np.int8)
        self.groups = (
            ("source", candidates.source, candidates.sources, config.sources),
            ("language", candidates.language, candidates.languages, config.languages),
        )

    def apply(self) -> None:
        for what, numbers, names, limits in self.groups:
            for number, limit in _named(names, limits):
                if limit.sample is not None:
                    self._drop((numbers == number) & self._beyond(limit.sample), f"{what}-sample")
        for what, numbers, names, limits in self.groups:
            for number, limit in _named(names, limits):
                self._cap(numbers == number, limit.max_documents, limit.max_bytes, f"{what}-cap", f"{what}-cap")
        everything = np.ones(len(self.order), dtype=np.bool_)
        self._cap(everything, self.config.max_documents, self.config.max_bytes, "document-cap", "byte-cap")
        while self._share():
            pass

    def _beyond(self, share: float) -> Flags:
        # 53 bits: a share is a float, and a hash below it is compared without rounding.
        return np.asarray((self.candidates.order >> np.uint64(11)) >= share * float(1 << 53))

    def _drop(self, rows: Flags | Integers, reason: str) -> None:
        before = self.reason[rows]
        self.reason[rows] = np.where(before == 0, _CODES[reason], before)

    def _taken(self, members: Flags) -> Integers:
        """The rows of a group that are still taken, in order."""
        return np.asarray(self.order[(members & (self.reason == 0))[self.order]])

    def _cap(self, members: Flags, documents: int | None, size: int | None, by_documents: str, by_bytes: str) -> None:
        if documents is not None:
            self._drop(self._taken(members)[documents:], by_documents)
        if size is not None:
            self._drop(members & (self.candidates.bytes > size), by_bytes)
            rows = self._taken(members)
            self._drop(rows[np.cumsum(self.candidates.bytes[rows]) > size], by_bytes)

    def _share(self) -> bool:
        """Leave out what is too much of each group beside all that is taken; says whether there was any."""
        weights = self.candidates.bytes if self.config.shares_of == "bytes" else np.ones(len(self.order), np.int64)
        found = False
        for what, numbers, names, limits in self.groups:
            shares = {number: limit.max_share for number, limit in _named(names, limits) if limit.max_share is not None}
            taken = self.reason == 0
            sums = np.bincount(numbers[taken], weights[taken].astype(np.float64), len(names)).tolist()
            allowed = _fitting(dict(enumerate(sums)), shares)
            if sum(sums) and not sum(sums) - sum(sums[number] for number in allowed) + sum(allowed.values()):
                raise ValueError(
                    f"select.{what}s: the max_share of {', '.join(sorted(limits))} leave nothing: they add up to "
                    f"{sum(shares[number] for number in allowed):g}, and there is no other {what}"
                )
            for number, most in allowed.items():
                rows = self._taken(numbers == number)
                left_out = rows[np.cumsum(weights[rows]) > most * (1 + 1e-12)]  # 0.3 of 10 is 3
                self._drop(left_out, f"{what}-share")
                found |= bool(len(left_out))
        return found


def _fitting(sums: Mapping[int, float], shares: Mapping[int, float]) -> dict[int, float]:
    """How much each limited group may have so that every share holds of what is then left.

    With sums S and shares s, the total T is the largest with T = sum of min(S, s T) over all groups: the groups that
    are over their share are those with the largest S / s, and T follows from them.

    >>> _fitting({0: 90.0, 1: 10.0}, {0: 0.5})
    {0: 10.0}
    """
    over = [number for number in sorted(shares, key=lambda n: (-_ratio(sums[n], shares[n]), n)) if sums[number] > 0]
    rest, used = sum(sums.values()), 0.0
    allowed: dict[int, float] = {}
    for number in over:
        total = rest / (1 - used) if used < 1 else np.inf
        if sums[number] <= shares[number] * total:
            break
        rest -= sums[number]
        used += shares[number]
        allowed[number] = 0.0
    total = rest / (1 - used) if used < 1 else 0.0
    return {number: shares[number] * total for number in allowed}


def _ratio(size: float, share: float) -> float:
    return size / share if share else np.inf


def _named(numbers: Mapping[str, int], limits: Mapping[str, GroupLimits]) -> list[tuple[int, GroupLimits]]:
    """The limits of groups that are there, by their numbers, in the order of their names."""
    return [(numbers[name], limits[name]) for name in sorted(limits) if name in numbers]


def _numbers(values: pl.Series, known: dict[str, int]) -> npt.NDArray[np.int32]:
    for name in values.unique(maintain_order=True):
        known.setdefault(name, len(known))
    return values.replace_strict(known, return_dtype=pl.Int32).to_numpy().astype(np.int32)


def _ordered(hashes: npt.NDArray[np.uint64], ties: Callable[[Integers], Integers]) -> Integers:
    """Row numbers by hash; rows of equal hash as `ties` puts them."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if same.size:
        places = np.union1d(same, same + 1)
        rows = ties(order[places])
        order[places] = rows[np.argsort(hashes[rows], kind="stable")]
    return order


def _held_out(group: npt.NDArray[np.uint64], taken: Flags, config: SelectConfig) -> Flags:
    """Which of the taken documents are validation documents."""
    held_out = taken & ((group >> np.uint64(11)) < config.validation_share * float(1 << 53))
    if config.validation_documents is None:
        return held_out
    hashes, counts = np.unique(group[held_out], return_counts=True)
    fitting = hashes[np.cumsum(counts) <= config.validation_documents]
    return held_out & np.isin(group, fitting)


def _repeats(candidates: Candidates, config: SelectConfig) -> npt.NDArray[np.int32]:
    of_source, of_language = (
        np.array([limits[name].repeats if name in limits else 1 for name in names] or [1], dtype=np.int32)
        for names, limits in ((candidates.sources, config.sources), (candidates.languages, config.languages))
    )
    return of_source[candidates.source] * of_language[candidates.language]
