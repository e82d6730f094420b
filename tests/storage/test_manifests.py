"""A manifest that does not add up cannot be written and is not believed when read."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import manifests
from storage.filesystem import Store
from storage.manifests import Counts, ManifestError, Part, content_digest

amounts = st.integers(0, 10**12)
reasons = st.dictionaries(st.text(max_size=6), amounts, max_size=4)
names = st.from_regex(r"[a-z]{1,5}/[a-z0-9-]{1,8}", fullmatch=True)
digests = st.from_regex(r"blake2b:[0-9a-f]{64}", fullmatch=True)
parts = st.builds(
    Part, name=names, path=st.just("outputs/s/f/x.parquet"), key=st.just("k"), rows=amounts, bytes=amounts,
    digest=digests,
)  # fmt: skip


def built(**changes: Any) -> dict[str, Any]:
    """A small manifest with every kind of field."""
    values: dict[str, Any] = {
        "stage": "filter",
        "version": 1,
        "fingerprint": "0123456789abcdef",
        "parameters": {"rules": [{"name": "short", "below": 50}], "seed": None},
        "inputs": {"quality": {"fingerprint": "fedcba9876543210", "digest": "blake2b:00ff"}},
        "parts": [
            Part("decisions/web-0", "outputs/filter/f/decisions/web-0.parquet", "k0", 3, 100, "blake2b:aa"),
            Part("about/log", "outputs/filter/f/about/log.json", "k1", 0, 5, "blake2b:bb"),
        ],
        "counts": Counts(3, 1, {"short": 2}, {}),
        "numerics": {"threads": 2},
        "timings": {"seconds": 1.5},
        "software": {"python": "3.11"},
        "git": {"revision": "abc"},
    }
    return manifests.build(**(values | changes))


@given(kept=amounts, dropped=reasons, quarantined=reasons, error=st.integers(-3, 3))
def test_counts_must_add_up(kept: int, dropped: dict[str, int], quarantined: dict[str, int], error: int) -> None:
    total = kept + sum(dropped.values()) + sum(quarantined.values())
    counts = Counts(total + error, kept, dropped, quarantined)
    if error:
        with pytest.raises(ManifestError, match=r"do not add up|not negative"):
            counts.check("here")
    else:
        counts.check("here")


@given(st.lists(st.tuples(amounts, reasons, reasons), max_size=5))
def test_sums_of_counts_that_add_up_add_up(pieces: list[tuple[int, dict[str, int], dict[str, int]]]) -> None:
    total = Counts()
    for kept, dropped, quarantined in pieces:
        read = kept + sum(dropped.values()) + sum(quarantined.values())
        total.add(Counts(read, kept, dropped, quarantined))
    total.check("the sum")
    again = Counts()
    again.add(total.as_dict())
    assert again == total


def test_a_manifest_that_does_not_add_up_cannot_be_built() -> None:
    with pytest.raises(ManifestError, match="filter 0123456789abcdef: the counts do not add up: read 4, but kept 1"):
        built(counts=Counts(4, 1, {"short": 2}, {}))
    part = Part("a/b", "p", "k", 0, 0, "blake2b:aa")
    with pytest.raises(ManifestError, match="a/b stands twice"):
        built(parts=[part, part])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a JSON value, the containers too."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += leaves(inner, (*path, key))
    return found


corruptions = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["../x", "/etc/passwd", "a/../b", "a//b", "", ".", "..", "blake2b:zz", "blake2b:", "aa"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_one_corrupted_field_is_refused_or_harmless(data: st.DataObject) -> None:
    manifest = json.loads(json.dumps(built()))
    path = data.draw(st.sampled_from(leaves(manifest)))
    holder = manifest
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(corruptions)
    try:
        manifests.check(manifest, "here")
    except ManifestError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith("here: ")
        return
    # What is believed still keeps the laws, and can be used without surprise.
    counts = manifest["counts"]
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + sum(counts["quarantined"].values())
    found = manifests.parts_of(manifest)
    assert len({part.name for part in found}) == len(found)
    for part in found:
        assert part.kind
        assert part.stem
        assert part.rows >= 0
        assert part.bytes >= 0
        assert Store("memory://x")._full(part.path).endswith(part.path), "inside the workspace, written in one way"
    content_digest(found)


def test_the_schema_in_the_docs_refuses_what_the_code_refuses() -> None:
    from tests.storage.conftest import schema_of

    good = json.loads(json.dumps(built()))
    assert schema_of("manifest").is_valid(good)
    for path, value in [
        (("stage",), ""), (("version",), "1"), (("schema_version",), 2), (("parts", 0, "rows"), -1),
        (("parts", 0, "path"), "../x"), (("parts", 0, "path"), "/x"), (("parts", 0, "name"), "noslash"),
        (("parts", 0, "digest"), "nothex"), (("counts", "read"), -1), (("counts", "dropped"), {"x": 1.5}),
        (("inputs", "quality"), {}), (("git",), None),
    ]:  # fmt: skip
        bad = copy.deepcopy(good)
        holder = bad
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        assert not schema_of("manifest").is_valid(bad), path
        with pytest.raises(ManifestError):
            manifests.check(bad, "here")


@given(st.lists(parts, max_size=5, unique_by=lambda part: part.name), st.data())
def test_the_content_digest_covers_names_rows_and_digests_and_nothing_else(
    found: list[Part], data: st.DataObject
) -> None:
    about = Part("about/log", "p", "k", 1, 2, "blake2b:aa")
    digest = content_digest(found)
    moved = [Part(p.name, "outputs/older/" + p.path, "other", p.rows, p.bytes, p.digest) for p in found]
    assert content_digest(moved) == digest
    assert content_digest([*found, about]) == digest
    if found:
        index = data.draw(st.integers(0, len(found) - 1))
        part = found[index]
        for other in (
            Part(part.name + "x", part.path, part.key, part.rows, part.bytes, part.digest),
            Part(part.name, part.path, part.key, part.rows + 1, part.bytes, part.digest),
            Part(part.name, part.path, part.key, part.rows, part.bytes, part.digest + "0"),
        ):
            assert content_digest([*found[:index], other, *found[index + 1 :]]) != digest
    if len(found) > 1:
        assert content_digest(found[::-1]) != digest, "order is content"


def test_unreadable_manifests_are_manifest_errors_that_name_the_file(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        manifests.read(store, "outputs/filter/f")
    for content in (b"", b"{", b"[]", b"null", b"\xff", b'{"schema_version": 1}'):
        store.replace("outputs/filter/f/manifest.json", content)
        with pytest.raises(ManifestError, match=r"outputs/filter/f/manifest\.json"):
            manifests.read(store, "outputs/filter/f")
