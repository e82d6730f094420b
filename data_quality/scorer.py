"""Scorers: a user's own function of a Polars frame as one more column.

The promise a scorer makes: a document's value depends on that document's columns alone, and is the same every time.
What names its values in fingerprints are its name, its `version`, its type and columns, and the source of the module
it stands in; what that module imports is not seen, which is what `version` is for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from data_quality.judges_config import ScorerConfig

TYPES: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.int64(),  # 0 or 1, as flags among the features are
    "string": pa.string(),
}
CHECKED_ROWS = 16
"""Documents of every part that are scored again, as a frame of their own, to see whether the promise is kept."""


class ScorerError(ValueError):
    """A scorer that cannot be found, fails, or gives something else than it should; the message names it."""


@dataclass(frozen=True)
class Scorer:
    """A scorer ready to be called."""

    config: ScorerConfig
    function: Callable[[pl.DataFrame], Any]

    def column(self, documents: pa.Table, part: str) -> pa.Array:
        """The values of a part's documents, row for row, in the type of the configuration.

        Parameters
        ----------
        documents
            Its columns are at least those of the configuration.
        part
            Name of the part, for messages.

        Raises
        ------
        ScorerError
            If the function fails (naming the row, where one alone makes it fail), gives another number of values or
            values of another type, or gives other values for the same documents when it sees them alone.
        """
        frame = pl.from_arrow(documents.select(list(self.config.columns)))
        assert isinstance(frame, pl.DataFrame)
        if not frame.height:
            return pa.array([], TYPES[self.config.type])
        values = self._call(frame, part)
        few = frame.head(CHECKED_ROWS)
        again = self._call(few, part)
        for row, (first, second) in enumerate(zip(values.head(CHECKED_ROWS), again, strict=True)):
            if not _same(first, second):
                raise self._error(
                    f"gives {second!r} for row {row} of the part {part} when it sees the first {few.height} rows alone "
                    f"and {first!r} when it sees all {frame.height}: a value must depend on its document alone, and be "
                    "the same every time"
                )
        return values.to_arrow().cast(TYPES[self.config.type])

    def _call(self, frame: pl.DataFrame, part: str) -> pl.Series:
        try:
            found = self.function(frame)
        except Exception as error:
            row = self._failing_row(frame)
            place = f"the part {part}" if row is None else f"row {row} of the part {part}"
            raise self._error(f"fails on {place}: {type(error).__name__}: {error}") from error
        try:
            values = found if isinstance(found, pl.Series) else pl.Series(self.config.name, found)
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise self._error(
                f"gives a {type(found).__name__}, which is no column of values: return a Series, a list or an array"
            ) from error
        if len(values) != frame.height:
            raise self._error(f"gives {len(values)} values for the {frame.height} documents of the part {part}")
        return self._typed(values, part)

    def _typed(self, values: pl.Series, part: str) -> pl.Series:
        kind, given = self.config.type, values.dtype
        wanted = {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean, "string": pl.String}[kind]
        fits = {
            "float": given.is_numeric() and not given.is_decimal(),
            "int": given.is_integer(),
            "bool": given == pl.Boolean,
            "string": given in (pl.String, pl.Categorical) or isinstance(given, pl.Enum),
        }[kind]
        if given == pl.Null:
            return values.cast(wanted)
        if not fits:
            raise self._error(f"gives {given} for the part {part}, its type in the configuration is {kind}")
        try:
            return values.cast(wanted, strict=True)
        except pl.exceptions.PolarsError as error:
            raise self._error(f"gives values for the part {part} that do not fit 64 bits: {error}") from error

    def _failing_row(self, frame: pl.DataFrame) -> int | None:
        """The first row with which the function fails alone; None if it fails on none, or fails even on none at all."""

        def fails(start: int, stop: int) -> bool:
            try:
                self.function(frame.slice(start, stop - start))
            except Exception:  # noqa: BLE001
                return True
            return False

        low, high = 0, frame.height
        while high - low > 1:
            middle = (low + high) // 2
            if fails(low, middle):
                high = middle
            elif fails(middle, high):
                low = middle
            else:
                return None
        return low if fails(low, high) else None

    def _error(self, message: str) -> ScorerError:
        return ScorerError(f"scorer {self.config.name!r} ({self.config.function}) {message}")


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        # Sums of a matrix product may end differently in batches of another size.
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(first) and math.isnan(second))
    return bool(first == second)


def source_digest(config: ScorerConfig) -> str:
    """The digest of the source of the module that a scorer stands in, without running it.

    Raises
    ------
    ScorerError
        If there is no such module, or it has no source in a file: what cannot be read cannot be fingerprinted.
    """
    return f"blake2b:{hashlib.blake2b(_source(config).read_bytes(), digest_size=32).hexdigest()}"


def load_scorer(config: ScorerConfig, digest: str) -> Scorer:
    """Import a scorer.

    Parameters
    ----------
    digest
        What `source_digest` said when the run was fingerprinted.

    Raises
    ------
    ScorerError
        If the module cannot be imported, has no such function, or has changed since.
    """
    if source_digest(config) != digest:
        raise ScorerError(
            f"scorer {config.name!r}: the source of {config.function.partition(':')[0]} has changed since the run "
            "began, or is another one in this process: start the run again"
        )
    module_name, _, name = config.function.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ScorerError(
            f"scorer {config.name!r}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        offered = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ScorerError(
            f"scorer {config.name!r}: {module_name} has no function {name!r}; it has {', '.join(offered) or 'none'}"
        )
    return Scorer(config, function)


def _source(config: ScorerConfig) -> Path:
    module_name = config.function.partition(":")[0]
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # an installed command does not look there; last, so that it hides nothing
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise ScorerError(f"scorer {config.name!r}: there is no module {module_name}: {error}") from error
    if spec is None:
        raise ScorerError(
            f"scorer {config.name!r}: there is no module {module_name} in the current directory ({here}), on "
            "PYTHONPATH or among the installed packages"
        )
    origin = Path(spec.origin) if spec.origin else None
    if origin is None or origin.suffix != ".py" or not origin.is_file():
        raise ScorerError(
            f"scorer {config.name!r}: the module {module_name} has no Python source that could be fingerprinted; "
            "wrap it in a module of your own"
        )
    return origin
