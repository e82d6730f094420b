"""What the command line asks about the decisions of a run: what other rules would change, and real documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.cli import UsageError
from flows.config import from_values
from stages import explain
from storage.filesystem import Store

_SWITCH = {"on": "true", "off": "false"}


def what_if(
    store: Store,
    found: Mapping[str, Any],
    changes: Sequence[str],
    presets: Sequence[str],
    sets: Sequence[str],
    samples: int,
) -> dict[str, Any]:
    """What would change in a run's decisions if its rules were others.

    Parameters
    ----------
    found
        The record of the run.
    changes
        RULE=VALUE (a threshold, or the text of an expression), RULE=on or RULE=off.
    presets
        Presets to add after those the run has.
    sets
        Other changes of the section `filter`, as `gristmill run --set` takes them.

    Returns
    -------
    dict
        The answer of `stages.what_if.what_if`, with the `run`, and `set`: what to give to `gristmill run`.

    Raises
    ------
    UsageError
        If nothing is changed, or something else than `filter`.
    ConfigError
        If the changed configuration cannot be.
    """
    from stages.what_if import what_if as ask

    if not (changes or presets or sets):
        raise UsageError("what-if: give RULE=VALUE, RULE=off, --preset or --set filter.…")
    origin = f"the configuration of run {found['name']}"
    before = from_values(found["config"], origin)
    overrides = [_override(change, found["config"]) for change in changes]
    if presets:
        overrides.append(f"filter.presets=[{', '.join([*before.filter.presets, *presets])}]")
    for one in sets:
        if not one.startswith("filter."):
            raise UsageError(f"--set {one}: what-if changes filter.… only; all else needs a run")
    overrides += sets
    after = from_values(found["config"], origin, overrides)
    answer = ask(explain.outputs_of(store, found), before.filter, after.filter, samples)
    return {"run": found["name"], "set": overrides, **answer}


def _override(change: str, config: Mapping[str, Any]) -> str:
    """RULE=VALUE as a change of the configuration."""
    name, sign, value = (part.strip() for part in change.partition("="))
    if not sign or not name or not value:
        raise UsageError(f"{change!r}: write RULE=VALUE, RULE=on or RULE=off")
    if "." in name:
        raise UsageError(f"{change!r}: {name} is no name of a rule; other settings are changed by --set filter.…")
    if value in _SWITCH:
        return f"filter.rules.{name}.enabled={_SWITCH[value]}"
    own = config["filter"]["rules"].get(name) or {}
    return f"filter.rules.{name}.{'expression' if own.get('expression') else 'threshold'}={value}"


def samples(
    store: Store,
    found: Mapping[str, Any],
    reason: str,
    number: int,
    source: str | None,
    language: str | None,
) -> list[dict[str, Any]]:
    """Documents of a run that a reason dropped, or that were kept."""
    from stages.samples import samples as choose

    return choose(explain.outputs_of(store, found), reason, number, source=source, language=language)
