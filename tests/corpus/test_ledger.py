"""The ledger: copies are counted in the file that they stand in, and rows of one file add up."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from corpus.documents import id_index
from corpus.ledger import LedgerError, count_duplicates, join_rows


@pytest.mark.parametrize("texts", [1, 3, 40, 5000])
@pytest.mark.parametrize("files", [1, 4])
def test_copies_are_counted_where_they_stand(texts: int, files: int) -> None:
    """Files in units of their own, together in one, in several parts, and members of archives."""
    chance = random.Random(texts * files)
    rows: dict[tuple[str, str], Any] = {}
    tables: dict[str, pa.Table] = {}
    seen, expected = set(), {}
    for number in range(5):
        unit = f"web-{number:012x}"
        uris = [f"{number}/{file}.jsonl" + ".zip" * (file % 2) for file in range(files)]
        for uri in uris:
            rows["web", uri] = {"source": "web", "uri": uri, "unit": unit, "duplicates": 0}
            expected[uri] = 0
        for part in range(2):
            ids, places = [], []
            for uri in uris:
                for _ in range(chance.randrange(60)):
                    identity = chance.randrange(texts).to_bytes(16, "big")
                    ids.append(identity)
                    places.append(uri + "!/a!/b" * uri.endswith(".zip"))
                    expected[uri] += identity in seen
                    seen.add(identity)
            tables[f"documents/{unit}-{part:05d}"] = pa.table(
                {"id": pa.array(ids, pa.binary(16)), "source": ["web"] * len(ids), "uri": pa.array(places, pa.string())}
            )
    index = id_index([(name, table.column("id")) for name, table in tables.items()])
    asked = []

    def place(name: str) -> Any:
        return lambda: asked.append(name) or tables[name].select(["source", "uri"])

    count_duplicates(rows, index, {name: place(name) for name in tables})
    assert {uri: row["duplicates"] for (_, uri), row in rows.items()} == expected
    assert bool(asked) == (files > 1)


def test_a_document_of_no_file_is_an_error() -> None:
    rows = {("web", name): {"unit": "web-0", "duplicates": 0} for name in ("a", "b")}
    index = id_index([("documents/web-0-00000", pa.array([b"x" * 16] * 2, pa.binary(16)))])
    table = pa.table({"source": ["web"] * 2, "uri": ["c!/d"] * 2})
    with pytest.raises(LedgerError, match="no line for web:c"):
        count_duplicates(rows, index, {"documents/web-0-00000": lambda: table})


def test_rows_of_a_file_in_several_units_are_added_up() -> None:
    row = {
        "source": "web", "uri": "a", "records": 3, "written": 2, "skipped": 0, "quarantined": 1,
        "reasons": '{"bad-json":1}', "sha256": None,
    }  # fmt: skip
    joined = join_rows([{**row, "unit": "web-0-0000", "sha256": "sha256:1"}, {**row, "unit": "web-0-0001"}])
    assert joined["web", "a"] == {
        **row, "records": 6, "written": 4, "quarantined": 2, "reasons": '{"bad-json":2}', "sha256": "sha256:1",
        "unit": "web-0",
    }  # fmt: skip
    with pytest.raises(LedgerError, match="web:a does not add up: read 4, written 2, skipped 0, quarantined 1"):
        join_rows([{**row, "unit": "web-0", "records": 4}])
