"""How a configuration field is written: one line of documentation and its bounds, beside its default.

Configurations are frozen dataclasses that live beside the code that uses them. They hold no behaviour and need no
library: `flows/config.py` reads the same metadata with pydantic to enforce the bounds and to draw forms.
"""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

STRICT: dict[str, Any] = {"extra": "forbid", "strict": False}
"""The `__pydantic_config__` of every configuration class: unknown keys are errors."""


def setting(doc: str, default: Any = MISSING, *, default_factory: Any = MISSING, **bounds: Any) -> Any:
    """A dataclass field with its documentation and bounds.

    Parameters
    ----------
    doc
        One line for people: what it does, in which unit. Shown in error messages, `docs/` and the Prefect form.
    default, default_factory
        As for `dataclasses.field`; a field with neither must be given.
    bounds
        Limits under pydantic's names: `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern`.
    """
    metadata = {"description": doc, **bounds}
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=metadata)
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)
