"""Reads a run's configuration: a YAML file, changes from the command line, types and bounds checked with pydantic.

The configuration classes themselves are plain dataclasses beside the code that uses them; here they are only composed
and enforced. Every problem is reported at once, with its path, its value, what is allowed, and a near match.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stages.config import RunConfig


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every problem (exit code 2)."""


Where = tuple[str | int, ...]


def load_config(path: Path | str, overrides: Sequence[str] = (), **replacements: Any) -> RunConfig:
    """The configuration in a YAML file with changes applied.

    Parameters
    ----------
    path
        The file. Relative paths inside it are relative to the current directory, not to the file.
    overrides
        Changes such as "pretrain.training.steps=50" or "ingest.sources.0.path=texts"; the value is read as YAML.
    replacements
        Top-level settings to replace (`name`, `workspace`); None leaves the file's.

    Raises
    ------
    ConfigError
        Listing all problems of the file and of the changes.
    """
    file = Path(path)
    return from_values(_read(file), str(file), overrides, **replacements)


def from_values(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = (), **replacements: Any
) -> RunConfig:
    """The configuration that plain values (as YAML gives them) describe, with changes as for `load_config`.

    `origin` says in messages what the values come from. Raises ConfigError.
    """
    from pydantic import ValidationError

    whole = copy.deepcopy(dict(values))
    changes: list[tuple[Where, str]] = []
    for text in overrides:
        where, value = parse_override(text)
        _put(whole, where, value, text)
        changes.append((where, f"--set {text}"))
    for name, value in replacements.items():
        if value is not None:
            whole[name] = value
            changes.append(((name,), f"--{name} {value}"))
    _finite(whole, (), origin)
    try:
        # As JSON, where strictness accepts lists for tuples but no text for numbers.
        return _adapter().validate_json(json.dumps(whole), strict=True)  # type: ignore[no-any-return]
    except ValidationError as error:
        found = _without_alternatives(error.errors(include_url=False))
        problems = [_explain(problem, changes) for problem in found if not _follows(problem, found)]
    except TypeError as error:
        problems = [str(error)]
    number = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
    raise ConfigError(f"{origin} has {number}:\n" + "\n".join(problems))


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, with descriptions, bounds and defaults."""
    return _adapter().json_schema()  # type: ignore[no-any-return]


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RunConfig)


# -------------------------------------------------------------------- reading


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of YAML 1.2: `1e-3` is a number, `no` and `2024-01-01` are text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, yaml.Node] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"{_at(key_node)}: the key {key!r} is not text; put it in quotes")
        if key in seen:
            raise ConfigError(f"{_at(key_node)}: the key {key!r} stands twice (first in line {_line(seen[key])})")
        seen[key] = key_node
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _at(node: yaml.Node) -> str:
    return f"line {_line(node)}"


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{origin}, {error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(_no_file(file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} cannot be read: {error}") from error
    values = _parse(text, str(file))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}; a configuration is a mapping of sections")
    return values


def _no_file(file: Path) -> str:
    here = sorted({*Path().glob("*.y*ml"), *Path("configs").glob("*.y*ml")})
    near = difflib.get_close_matches(str(file), [str(f) for f in here], 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no configuration file {file}{hint}"


# -------------------------------------------------------------------- changes


def parse_override(text: str) -> tuple[Where, Any]:
    """The path and the value of a change such as "a.b.0.c=value"; ConfigError if it is not of that form."""
    where, sign, value = text.partition("=")
    steps = where.strip().split(".")
    if not sign or not all(steps):
        raise ConfigError(f"--set {text}: write a path, '=' and a value, such as pretrain.training.steps=50")
    return tuple(int(s) if s.isdigit() else s for s in steps), _parse(value, f"--set {text}: the value")


def _put(values: dict[str, Any], where: Where, value: Any, text: str) -> None:
    here: Any = values
    for number, step in enumerate(where):
        last = number == len(where) - 1
        before = dotted(where[:number]) or "the configuration"
        if here is None:
            raise ConfigError(f"--set {text}: {before} is null; give it a value first")
        if isinstance(here, list):
            if not isinstance(step, int) or step > len(here):
                raise ConfigError(f"--set {text}: {before} is a list of {len(here)}; give a number up to {len(here)}")
            if step == len(here):
                here.append({})
        elif isinstance(here, dict):
            step = str(step)
            if not last and step not in here:
                here[step] = [] if isinstance(where[number + 1], int) else {}
        else:
            raise ConfigError(f"--set {text}: {before} is the value {here!r} and has nothing inside")
        if last:
            here[step] = value
        else:
            here = here[step]


# -------------------------------------------------------------------- messages


def dotted(where: Sequence[str | int]) -> str:
    """A path for people: ("ingest", "sources", 0, "path") is "ingest.sources[0].path"."""
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _finite(value: Any, where: Where, origin: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{origin} has a problem:\n  {dotted(where)} = {value}: must be a finite number")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _finite(item, (*where, key), origin)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _finite(item, (*where, index), origin)


_ALTERNATIVES = {"float": "a number", "int": "a whole number", "str": "text", "bool": "true or false"}


def _without_alternatives(problems: Sequence[Any]) -> list[Mapping[str, Any]]:
    """One problem for a value that fits none of several types, where pydantic tells what is wrong with each."""
    found: dict[Where, dict[str, Any]] = {}
    for problem in problems:
        where: Where = tuple(problem["loc"])
        at = next((i for i, step in enumerate(where) if i and _alternative(step) and not _class_at(where[:i])), None)
        if at is None:
            found[where] = dict(problem)
            continue
        merged = found.setdefault(where[:at], {"loc": where[:at], "type": "alternatives", "input": None, "options": []})
        option = _alternative(where[at])
        if option not in merged["options"]:
            merged["options"].append(option)
        if len(where) == at + 1:  # the value itself, not something inside it
            merged["input"] = problem["input"]
    return list(found.values())


def _alternative(step: str | int) -> str | None:
    """What people call the type that pydantic names in the path of a problem, or None if it is no type."""
    name = str(step)
    if name.startswith("literal["):
        return name.removeprefix("literal[").rstrip("]").strip("'")
    if name.startswith("tuple["):
        return "a list of text"
    return "a number for each name" if name.startswith("dict[") else _ALTERNATIVES.get(name)


def _follows(problem: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list seems too short only because pydantic does not count its bad items."""
    where = problem["loc"]
    return problem["type"] == "too_short" and any(
        len(other["loc"]) > len(where) and other["loc"][: len(where)] == where for other in others
    )


def _explain(problem: Mapping[str, Any], changes: Sequence[tuple[Where, str]]) -> str:
    where: Where = tuple(problem["loc"])
    kind = problem["type"]
    said = next((f" ({how})" for path, how in reversed(changes) if where[: len(path)] == path), "")
    if kind == "unexpected_keyword_argument":
        return f"  {dotted(where)}: no such setting{said}{_nearest(where)}"
    if kind == "missing":
        return f"  {dotted(where)}: must be given{said}{_description(where)}"
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        place = dotted(where)
        return f"  {place + ': ' if place else ''}{text}{said}"
    value = _short(problem["input"])
    return f"  {dotted(where)} = {value}: {_allowed(problem, where)}{said}{_description(where)}"


def _allowed(problem: Mapping[str, Any], where: Where) -> str:
    kind, limits = problem["type"], problem.get("ctx", {})
    value = problem["input"]
    if kind == "alternatives":
        *options, last = problem["options"]
        return f"must be {', '.join(options)} or {last}"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(limits.get("expected", "")))
        near = difflib.get_close_matches(str(value), options, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"must be one of {', '.join(options)}{hint}"
    words = {
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "multiple_of": "must be a multiple of {multiple_of}",
        "string_pattern_mismatch": "must match the pattern {pattern}",
        "string_too_short": "must not be shorter than {min_length} (characters)",
        "string_too_long": "must not be longer than {max_length} (characters)",
        "too_short": "must not have fewer items than {min_length}",
        "too_long": "must not have more items than {max_length}",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping",
        "dataclass_type": "must be a section (a mapping of settings)",
        "dataclass_exact_type": "must be a section (a mapping of settings)",
    }
    limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in limits.items()}
    text = words[kind].format(**limits) if kind in words else str(problem["msg"])
    if kind == "string_type" and isinstance(value, bool | int | float):
        text += f'; put it in quotes: "{value}"'
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        text += ", without quotes" if _same_as(value) else ""
    if kind == "tuple_type" and isinstance(value, str):
        text += f": [{value}]"
    if kind.startswith("dataclass") and value is None:
        text += "; this section cannot be switched off"
    return text


def _same_as(text: str) -> bool:
    try:
        return not isinstance(_parse(text, ""), str)
    except ConfigError:
        return False


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else text[:77] + "…"


def _description(where: Where) -> str:
    while where and isinstance(where[-1], int):
        where = where[:-1]
    section = _class_at(where[:-1])
    if section is None or not where:
        return ""
    for field in dataclasses.fields(section):
        if field.name == where[-1] and field.metadata.get("description"):
            return f"\n      {field.metadata['description']}"
    return ""


def _nearest(where: Where) -> str:
    section, wrong = _class_at(where[:-1]), str(where[-1])
    here = [field.name for field in dataclasses.fields(section)] if section else []
    paths = list(_paths(RunConfig, ()))
    # Of several settings of one name, those nearest to where it was written come first.
    paths.sort(key=lambda path: -sum(1 for a, b in zip(path, where, strict=False) if a == b))
    found: list[str] = []
    everywhere = [str(path[-1]) for path in paths]
    for names, cutoff in ((here, 0.85), (everywhere, 1.0), (here, 0.6), (everywhere, 0.75)):
        near = difflib.get_close_matches(wrong.replace("-", "_"), sorted(set(names)), 1, cutoff)
        if near and names is here:
            found = [dotted((*where[:-1], near[0]))]
        elif near:
            found = [dotted(path) for path in paths if path[-1] == near[0]][:2]
        if found:
            break
    hint = f"; did you mean {' or '.join(found)}?" if found else ""
    return hint if len(found) == 1 or not here else f"{hint}\n      Settings here: {', '.join(here)}"


def _hints(section: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(section)


def _class_in(kind: Any) -> tuple[type[Any] | None, str | int | None]:
    """The configuration class in a type, and what stands for its place there: 0 in a list, * under names."""
    if dataclasses.is_dataclass(kind):
        return typing.cast("type[Any]", kind), None
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType, tuple, dict):
        for inner in typing.get_args(kind):
            found, place = _class_in(inner)
            if found is not None:
                return found, 0 if origin is tuple else "*" if origin is dict else place
    return None, None


def _class_at(where: Where) -> type[Any] | None:
    here: type[Any] | None = RunConfig
    named = False
    for step in where:
        if here is None:
            return None
        if named:
            named = False  # a name in a mapping, of which each has this class
            continue
        if isinstance(step, int):
            continue
        here, place = _class_in(_hints(here).get(step))
        named = place == "*"
    return here


def _paths(section: type[Any], before: Where) -> Iterator[Where]:
    """The paths of all settings below a section; 0 stands for any item of a list, * for any name."""
    for field in dataclasses.fields(section):
        path = (*before, field.name)
        yield path
        inner, place = _class_in(_hints(section)[field.name])
        if inner is not None:
            yield from _paths(inner, path if place is None else (*path, place))
