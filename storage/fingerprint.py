"""What names an output: a canonical form of its parameters, and hashes of it.

Only plain values can be fingerprinted. Anything whose canonical form could differ between two runs (callables, sets,
objects, NaN) is refused with the path of the offending field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any


def canonical(value: Any, path: str = "parameters") -> Any:
    """A copy of `value` made of dicts with string keys, lists, strings, numbers, booleans and None only.

    Raises
    ------
    TypeError
        If something in it has no exact canonical form; the message names where.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        raise TypeError(f"{path} is {value!r}: give its value, an enumeration cannot be fingerprinted")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{path} is {value}, which cannot be fingerprinted: give a finite number")
        return float(value) + 0.0  # -0.0 becomes 0.0, which it equals
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: canonical(getattr(value, f.name), f"{path}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r}, which is not a string")
        return {_text(key, path): canonical(value[key], f"{path}.{key}") for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{path} is a {type(value).__name__}, which cannot be fingerprinted exactly")


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise TypeError(f"{path} holds text that is not Unicode, which cannot be fingerprinted: {error}") from error
    return str(value)


def canonical_json(value: Any) -> bytes:
    """The canonical form of `value` as UTF-8 JSON: sorted keys, no white space."""
    return json.dumps(
        canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def hash_of(value: Any, digits: int = 32) -> str:
    """`digits` hexadecimal digits of the blake2b hash of the canonical form of `value`."""
    return hashlib.blake2b(canonical_json(value), digest_size=32).hexdigest()[:digits]


def fingerprint(stage: str, version: int, parameters: Any, inputs: Mapping[str, str]) -> str:
    """The name of a stage's output: 16 hexadecimal digits.

    `inputs` maps each input stage to the content digest of its output, so that what does not change the bytes
    (times, paths, how an input was made) does not change the name.
    """
    return hash_of({"stage": stage, "version": version, "parameters": parameters, "inputs": dict(inputs)}, digits=16)


def differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Field-by-field differences of two canonical values as (path, before, after); None stands for absent.

    There are none exactly if both have the same fingerprint.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[tuple[str, Any, Any]] = []
        for key in sorted(before.keys() | after.keys()):
            where = f"{path}.{key}" if path else key
            if key in before and key in after:
                found += differences(before[key], after[key], where)
            else:
                found.append((where, before.get(key), after.get(key)))
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            row
            for index, (a, b) in enumerate(zip(before, after, strict=True))
            for row in differences(a, b, f"{path}[{index}]")
        ]
    # Not `==`, for which 1, 1.0 and True are the same.
    return [] if canonical_json(before) == canonical_json(after) else [(path, before, after)]
