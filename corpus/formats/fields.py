"""Fields of a record: how text, address, date and further fields are found in an object or the row of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa

from corpus.config import SourceConfig
from corpus.sources.base import BadRecord, Record, bad_record

ABSENT = object()
"""What a getter gives where there is no such field, as against a field that is null."""


class ObjectReader:
    """Makes records of parsed JSON objects."""

    def __init__(self, config: SourceConfig) -> None:
        self._text_field = config.text_field
        self._text = field_getter(config.text_field)
        self._url = field_getter(config.url_field) if config.url_field else None
        self._date = field_getter(config.date_field) if config.date_field else None
        self._meta = [(name, field_getter(name)) for name in config.meta_fields]

    def record(self, number: int, value: dict[str, Any], data: bytes) -> Record | BadRecord:
        """The record of an object; `data` is what it was parsed from."""
        text = self._text(value)
        if type(text) is not str:
            return wrong_text(number, self._text_field, None if text is ABSENT else text, data)
        if not text or text.isspace():
            return bad_record(number, "empty-text", f"field {self._text_field!r} is empty", data)
        metas = self._metas([value])
        return Record(
            number,
            text,
            plain_string(self._url(value)) if self._url else None,
            plain_string(self._date(value)) if self._date else None,
            metas[0] if metas else None,
        )

    def columns(
        self, values: Sequence[dict[str, Any]]
    ) -> tuple[pa.LargeStringArray, pa.StringArray | None, pa.StringArray | None, list[dict[str, Any] | None] | None]:
        """Texts, addresses, dates and further fields of objects, as `Rows` has them; "" where there is no text."""
        texts = [text if type(text := self._text(value)) is str else "" for value in values]
        urls, dates = (
            _strings([found if type(found := get(value)) is str and found else plain_string(found) for value in values])
            if get
            else None
            for get in (self._url, self._date)
        )
        return pa.array(texts, pa.large_string()), urls, dates, self._metas(values)

    def _metas(self, values: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None] | None:
        if not self._meta:
            return None
        return [
            {name: found for name, get in self._meta if (found := get(value)) is not ABSENT} or None for value in values
        ]


def _strings(values: list[str | None]) -> pa.StringArray | None:
    return pa.array(values, pa.string()) if any(values) else None


def wrong_text(number: int, name: str, value: Any, data: bytes | str) -> BadRecord:
    """The bad record of a text field that is absent, null or no string."""
    if value is None:
        return bad_record(number, "missing-text", f"field {name!r} is absent or null", data)
    return bad_record(number, "not-a-string", f"field {name!r} holds a {type(value).__name__}, not text", data)


def plain_string(value: Any) -> str | None:
    """An address or a date as a string: null for what is absent, JSON for what is no string."""
    if value is ABSENT or value is None or value == "":
        return None
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def field_getter(path: str) -> Callable[[dict[str, Any]], Any]:
    """A function that finds a field by its name or, where there is none of that name, by its dotted path."""
    steps = path.split(".")
    if len(steps) == 1:

        def get_one(value: dict[str, Any]) -> Any:
            return value.get(path, ABSENT)

        return get_one

    def get(value: dict[str, Any]) -> Any:
        if path in value:
            return value[path]
        found: Any = value
        for step in steps:
            if not isinstance(found, dict) or step not in found:
                return ABSENT
            found = found[step]
        return found

    return get
