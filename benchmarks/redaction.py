"""How fast is personal data found, and how much of it? `corpus.redaction` beside a plain regular expression a kind.

Documents in memory, one thread. All kinds: e-mail and IP addresses, phone and card numbers, IBANs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from benchmarks.documents import amounts, load_texts, save_documents
from benchmarks.timing import Benchmark, Result, Work, main

Redact = Callable[[str], tuple[str, dict[str, int]]]


def prepare(documents: pa.Table, folder: Path) -> None:
    """The documents as they are."""
    save_documents(documents, folder)


def peer(folder: Path, make: Callable[[], Redact]) -> Work:
    """Redacts every document; how many of each kind were found is the outcome."""
    array = load_texts(folder)
    texts, total, redact = array.to_pylist(), amounts(array), make()
    for text in texts[:20]:
        redact(text)

    def work() -> Result:
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(redact(text)[1])
        return Result(total, lambda: dict(sorted(counts.items())))

    return work


def gristmill(*kinds: str) -> Redact:
    """The redactor of these kinds, of all if none is named."""
    from corpus.config import RedactConfig
    from corpus.redaction import Redactor

    every = get_args(get_args(get_type_hints(RedactConfig)["kinds"])[0])
    return Redactor(RedactConfig(kinds=kinds or every)).text  # type: ignore[arg-type]


def regular_expressions() -> Redact:
    """What one writes in ten lines: no check digits, no look at what stands around."""
    patterns = {
        "email": re.compile(r"\b[\w.%+-]+@[\w.-]+\.[A-Za-z]{2,}\b"),
        "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        "credit-card": re.compile(r"\b(?:\d[ -]?){12,18}\d\b"),
        "ip": re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"),
        "phone": re.compile(r"(?:\+?\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}\b"),
    }

    def redact(text: str) -> tuple[str, dict[str, int]]:
        counts = {}
        for kind, pattern in patterns.items():
            text, counts[kind] = pattern.subn(f"<{kind.upper()}>", text)
        return text, counts

    return redact


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What was found."""
    return {
        name: ", ".join(f"{kind} {count:,}" for kind, count in found.items() if count) or "nothing"
        for name, found in outcomes.items()
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "reading the documents, imports, twenty documents to warm up with.",
            prepare,
            {
                "gristmill": partial(peer, make=gristmill),
                **{
                    f"gristmill, {kind}": partial(peer, make=partial(gristmill, kind))
                    for kind in ("email", "ip", "phone", "credit-card", "iban")
                },
                "regular expressions": partial(peer, make=regular_expressions),
            },
            judge,
            documents=10_000,
            repetitions=3,
        )
    )
