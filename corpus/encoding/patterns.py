"""The ways of splitting text before merging that the compiled encoder knows, and whether a tokeniser is one of them."""

from __future__ import annotations

import json
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
"""Regular expressions as published: GPT-2 (Radford et al. 2019); cl100k, which Llama 3 has too; Qwen 2 and 3; o200k."""


def compiled_pattern(description: dict[str, Any]) -> tuple[str, str]:
    """(name in PATTERNS, "") if the compiled encoder gives the tokens of a tokeniser, else ("", why it does not).

    `description` is the content of its tokenizer.json.
    """
    model = description["model"]
    if model.get("type") != "BPE":
        return "", f"its model is {model.get('type')}, not byte-level BPE"
    if model.get("dropout"):
        return "", "its merges are left out at random (dropout)"
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            return "", f"its model has a {affix}"
    normaliser = description.get("normalizer")
    if normaliser and normaliser != {"type": "NFC"} and normaliser != {"type": "Sequence", "normalizers": []}:
        return "", f"its normaliser changes text: {_brief(normaliser)}"
    name = _pattern_of(description.get("pre_tokenizer"))
    if not name:
        step = _brief(description.get("pre_tokenizer"))
        return "", f"its way of splitting text is not one of {', '.join(PATTERNS)}: {step}"
    return name, ""


def _pattern_of(step: dict[str, Any] | None) -> str:
    if not step:
        return ""
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    last = steps[-1] if steps else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return ""
    if last.get("use_regex", True):
        return "gpt2" if len(steps) == 1 else ""
    if len(steps) != 2 or steps[0]["type"] != "Split":
        return ""
    split = steps[0]
    # Every character is in some match, so that keeping matches or taking out all else comes to the same.
    if (split.get("behavior"), bool(split.get("invert"))) not in (("Isolated", False), ("Removed", True)):
        return ""
    expression = split["pattern"].get("Regex")
    return next((name for name, pattern in PATTERNS.items() if pattern == expression), "")


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]} …"
