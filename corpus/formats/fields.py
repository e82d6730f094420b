"""Fields of a record: how text, address, date and further fields are found in an object or the row of a table."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._text = Field(config.text_field)
        self._url = Field(config.url_field) if config.url_field else None
        self._date = Field(config.date_field) if config.date_field else None
        self._meta = [(name, Field(name)) for name in config.meta_fields]

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
        texts = self._text.column(values)
        if set(map(type, texts)) != {str}:
            texts = [text if type(text) is str else "" for text in texts]
        urls, dates = (_strings(get.column(values)) if get else None for get in (self._url, self._date))
        return pa.array(texts, pa.large_string()), urls, dates, self._metas(values)

    def _metas(self, values: Sequence[dict[str, Any]]) -> list[dict[str, Any] | None] | None:
        if not self._meta:
            return None
        return [
            {name: found for name, get in self._meta if (found := get(value)) is not ABSENT} or None for value in values
        ]


def _strings(values: list[Any]) -> pa.StringArray | None:
    """`plain_string` of values as a column; None where all are null."""
    if set(map(type, values)) != {str} or "" in values:
        values = [plain_string(value) for value in values]
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


class Field:
    """Finds a field in objects by its name or, where there is none of that name, by its dotted path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._steps = path.split(".")

    def __call__(self, value: dict[str, Any]) -> Any:
        """The field's value; `ABSENT` if there is no such field."""
        if len(self._steps) == 1 or self._path in value:
            return value.get(self._path, ABSENT)
        found: Any = value
        for step in self._steps:
            if not isinstance(found, dict) or step not in found:
                return ABSENT
            found = found[step]
        return found

    def column(self, values: Sequence[dict[str, Any]]) -> list[Any]:
        """The values of many objects."""
        if len(self._steps) == 1:
            path = self._path
            return [value.get(path, ABSENT) for value in values]
        return [self(value) for value in values]
