"""Configuration of the corpus: bounds are enforced, combinations that make no sense are refused, imports stay light."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from corpus.config import IngestConfig, SourceConfig, TokenizeConfig, TokenizerConfig


def test_yaml_like_mappings_become_a_configuration() -> None:
    config = TypeAdapter(IngestConfig).validate_python(
        {"sources": [{"name": "web", "kind": "jsonl", "path": "data", "include": ["*.gz"]}], "part_bytes": 4096}
    )
    assert config.sources[0].include == ("*.gz",)
    assert config.normalise.unicode_nfc


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "Web", "kind": "jsonl", "path": "x"}, "name"),
        ({"name": "web", "kind": "xml", "path": "x"}, "kind"),
        ({"name": "web", "kind": "jsonl", "path": "x", "txt_field": "t"}, "txt_field"),
        ({"name": "web", "kind": "jsonl", "path": "x", "fraction": 0}, "fraction"),
        ({"name": "web", "kind": "jsonl"}, "needs a path"),
        ({"name": "web", "kind": "text", "path": "x", "packages": ["torch"]}, "packages"),
    ],
)
def test_a_bad_source_is_refused_with_the_name_of_what_is_wrong(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        TypeAdapter(SourceConfig).validate_python(values)


def test_tokenizer_and_shards_refuse_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="end_of_text"):
        TokenizerConfig(end_of_text="</s>")
    with pytest.raises(ValueError, match="path"):
        TokenizerConfig(kind="file")
    with pytest.raises(ValueError, match="too small"):
        TokenizerConfig(vocabulary_size=257, special_tokens=("<|endoftext|>", "<|pad|>"))
    with pytest.raises(ValueError, match="at least one"):
        TokenizeConfig(arrow=False, parquet=False)


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = (
        "import sys, corpus.config; "
        "heavy = {'pyarrow', 'polars', 'numpy', 'tokenizers', 'fsspec', 'ftfy', 'orjson'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
