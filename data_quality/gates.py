"""Gates: what is believed of the shares that decisions come to, by themselves and beside those of the last run.

They judge a result and never make it. What they say is a table: every share that is outside, and what else moved.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_quality.filter_config import Expectation
from data_quality.presets import Rule

KEPT = "kept_share"
EVERY = "*"
MOVED_SHOWN = 10
_FORMS = ("kept_share", "kept_share:source:", "kept_share:language:", "share:source:", "share:language:", "hits:")


@dataclass(frozen=True)
class Share:
    """A part of a whole, in documents."""

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.part / self.whole if self.whole else 0.0


def shares(found: Mapping[str, Any]) -> dict[str, Share]:
    """Every share of a tally that a gate can name.

    kept_share
        of all that was read; kept_share:source:NAME and kept_share:language:LABEL of what was read there.
    share:source:NAME, share:language:LABEL
        of all that is kept.
    hits:RULE
        of all that was read.
    """
    from data_quality.tally import by

    result: dict[str, Share] = {}
    for what in ("source", "language"):
        groups = {name: counts for name, counts in by(found, what).items() if name is not None}
        kept_in_all = sum(kept for _, kept in by(found, what).values())
        result[KEPT] = Share(kept_in_all, found["read"])
        for name, (read, kept) in groups.items():
            result[f"{KEPT}:{what}:{name}"] = Share(kept, read)
            result[f"share:{what}:{name}"] = Share(kept, kept_in_all)
    result.update({f"hits:{name}": Share(number, found["read"]) for name, number in found["hits"].items()})
    return result


def check_gates(found: Mapping[str, Any], before: Mapping[str, Any] | None, expect: Mapping[str, Expectation]) -> str:
    """What is outside the expectations, as a table for people; empty if all is well.

    Parameters
    ----------
    found
        What the decisions came to.
    before
        What those of the last run came to; None if there is none. Then nothing can have drifted.
    """
    if not found["read"]:
        return ""  # an empty corpus has no shares; what reads nothing fails elsewhere
    now, then = shares(found), shares(before) if before is not None and before["read"] else {}
    outside: dict[str, str] = {}
    for key in sorted(expect):
        for name in _named(key, now, then):
            allowed = _outside(expect[key], now.get(name, Share(0, 0)), then.get(name))
            if allowed:
                outside.setdefault(name, f"{allowed} (filter.expect.{key})")
    if not outside:
        return ""
    moved = [
        name
        for name in sorted(then.keys() & now.keys(), key=lambda name: (-_distance(now[name], then[name]), name))
        if name not in outside and _distance(now[name], then[name]) >= 0.0005
    ]
    rows = [(name, _said(then.get(name)), _said(now.get(name, Share(0, 0))), why) for name, why in outside.items()]
    rows += [(name, _said(then[name]), _said(now[name]), "moved too") for name in moved[:MOVED_SHOWN]]
    number = "one share is" if len(outside) == 1 else f"{len(outside)} shares are"
    return f"{number} not as expected\n" + "\n".join(_aligned(("share", "before", "now", "expected"), rows))


def check_expectations(expect: Mapping[str, Expectation], rules: Iterable[Rule], contamination: str) -> None:
    """Refuse gates that name nothing there can be.

    Raises
    ------
    ValueError
        Naming the gate, if it is none of the known forms, names a rule that does not apply, or its min is above its
        max, or it expects nothing.
    """
    names = [contamination, *(rule.name for rule in rules)]
    for key, expected in expect.items():
        where = f"filter.expect.{key}"
        form = next((form for form in sorted(_FORMS, reverse=True) if key.startswith(form)), None)
        rest = key.removeprefix(form or "")
        if form is None or (form == KEPT) != (not rest):
            hint = f"; did you mean hits:{key}?" if key in names else _near(key, [KEPT, *(f"hits:{n}" for n in names)])
            raise ValueError(
                f"{where}: a gate is kept_share, kept_share:source:NAME, kept_share:language:LABEL, share:source:NAME, "
                f"share:language:LABEL or hits:RULE{hint}"
            )
        if form == "hits:" and rest != EVERY and rest not in names:
            raise ValueError(f"{where}: no rule of this name applies{_near(rest, names)}")
        if expected.min is None and expected.max is None and expected.drift is None:
            raise ValueError(f"{where}: it expects nothing; give min, max or drift")
        if expected.min is not None and expected.max is not None and expected.min > expected.max:
            raise ValueError(f"{where}: min {expected.min:g} is above max {expected.max:g}")


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _named(key: str, now: Mapping[str, Share], then: Mapping[str, Share]) -> list[str]:
    """The shares a gate names; one that is named by itself is judged even if nothing of the kind was read."""
    if not key.endswith(f":{EVERY}"):
        return [key]
    return sorted(name for name in {**now, **then} if name.startswith(key[:-1]))


def _outside(expected: Expectation, now: Share, then: Share | None) -> str:
    if expected.min is not None and now.value < expected.min:
        return f"at least {expected.min:.1%}"
    if expected.max is not None and now.value > expected.max:
        return f"at most {expected.max:.1%}"
    if expected.drift is not None and then is not None and _distance(now, then) > expected.drift:
        return f"within {100 * expected.drift:g} points of before"
    return ""


def _distance(now: Share, then: Share) -> float:
    # Compared with what people write, as 0.05, not with its neighbour in binary.
    return round(abs(now.value - then.value), 12)


def _said(share: Share | None) -> str:
    return "–" if share is None else f"{share.value:.1%} ({share.part:,} of {share.whole:,})"


def _aligned(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
