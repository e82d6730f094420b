"""`gristmill show quality` tells how good classifiers are and what lists and metadata found."""

from __future__ import annotations

from typing import Any

import pytest

from flows import show

MANIFEST: dict[str, Any] = {
    "stage": "quality", "version": 2, "inputs": {}, "timings": {}, "numerics": {}, "parts": [],
    "counts": {"read": 3, "kept": 3, "dropped": {}, "quarantined": {}},
}  # fmt: skip
TRAINED = {
    "test": {"documents": 134, "accuracy": 0.9925, "majority": 0.8209, "auc": None, "expected_calibration_error": 0.05},
    "documents": {"positive": {"used": 1108}, "negative": {"used": 300}, "in_both_sides": 7},
}


def shown(judges: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    show.stage({"run": "r", "folder": "f", "digest": "d", "manifest": MANIFEST, "judges": judges})
    return capsys.readouterr().out


def test_judges_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(
        {
            "documents": 3,
            "classifiers": {"quality_score": TRAINED, "old_score": {}},
            "lists": [{"name": "vice", "entries": 2, "documents": 210, "hits": 1234}],
            "licences": {"permissive": 2, "opted out": 1},
        },
        capsys,
    )
    for piece in ("quality_score", "99.25%", "82.09%", "0.0500", "1,108", "vice", "1,234", "permissive", "opted out"):
        assert piece in text
    assert "given" in next(line for line in text.splitlines() if line.startswith("old_score"))


def test_without_judges_nothing_is_said_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert "classifier" not in shown({"documents": 0, "classifiers": {}, "lists": [], "licences": {}}, capsys)
