"""How far do our features reproduce datatrove's decisions? Its filters and defaults, on identical English text.

Every filter sees every text as it is; in "c4, then fineweb" FineWeb's filter sees what C4's, without its rule on end
marks, leaves (FineWeb's order). Once datatrove is given our words ("given words"; ours: datatrove_words attached), once
it keeps its own, spaCy's ("own words"; ours: separate). Sentences are spaCy's both times.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.datatrove import ask_version
from benchmarks.documents import REPOSITORY, write_json_lines

Rules = tuple[tuple[str, str, float, str], ...]

GOPHER: Rules = (
    ("datatrove_non_symbol_words", "<", 50, "gopher_short_doc"),
    ("datatrove_non_symbol_words", ">", 100_000, "gopher_long_doc"),
    ("datatrove_mean_word_length", "<", 3, "gopher_below_avg_threshold"),
    ("datatrove_mean_word_length", ">", 10, "gopher_above_avg_threshold"),
    ("datatrove_hash_ratio", ">", 0.1, "gopher_too_many_hashes"),
    ("datatrove_ellipsis_ratio", ">", 0.1, "gopher_too_many_ellipsis"),
    ("datatrove_bullet_line_share", ">", 0.9, "gopher_too_many_bullets"),
    ("datatrove_ellipsis_line_share", ">", 0.3, "gopher_too_many_end_ellipsis"),
    ("datatrove_alphabetic_word_share", "<", 0.8, "gopher_below_alpha_threshold"),
    ("datatrove_stop_words", "<", 2, "gopher_enough_stop_words"),
)
REPETITION: Rules = (
    ("characters", "<", 1, "empty"),
    ("datatrove_duplicate_paragraph_share", ">", 0.3, "dup_para_frac"),
    ("datatrove_duplicate_paragraph_character_share", ">", 0.2, "dup_para_char_frac"),
    ("datatrove_duplicate_line_share", ">", 0.3, "dup_line_frac"),
    ("datatrove_duplicate_line_character_share", ">", 0.2, "dup_line_char_frac"),
    *(
        (f"datatrove_top_{n}_gram_character_share", ">", threshold, f"top_{n}_gram")
        for n, threshold in ((2, 0.2), (3, 0.18), (4, 0.16))
    ),
    *(
        (f"datatrove_duplicate_{n}_gram_character_share", ">", threshold, f"duplicated_{n}_n_grams")
        for n, threshold in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
)


def c4(prefix: str) -> Rules:
    return (
        (f"{prefix}lorem_ipsum", ">", 0, "lorem_ipsum"),
        (f"{prefix}curly_brackets", ">", 0, "curly_bracket"),
        (f"{prefix}sentences", "<", 5, "too_few_sentences"),
    )


def fineweb(prefix: str) -> Rules:
    return (
        (f"{prefix}lines", "<", 1, "empty"),
        (f"{prefix}line_punct_ratio", "<", 0.12, "line_punct_ratio"),
        (f"{prefix}short_line_ratio", ">", 0.67, "short_line_ratio"),
        (f"{prefix}char_dup_ratio", ">", 0.01, "char_dup_ratio"),
        (f"{prefix}list_ratio", ">", 0.3, "list_ratio"),
    )


FILTERS: dict[str, Rules] = {
    "gopher": GOPHER,
    "gopher-repetition": REPETITION,
    "c4": c4("c4_datatrove_"),
    "fineweb": fineweb(""),
    "c4, then fineweb": (*c4("fineweb_"), *fineweb("fineweb_")),
}


def english(data: Path) -> Iterator[str]:
    """Real English documents of many kinds: pages, news, speeches, articles, a play, technical texts."""
    text = data / "text"
    for name in ("c4_en_300.jsonl.gz", "cc_en_head-0091.jsonl.gz"):
        for line in gzip.decompress((text / name).read_bytes()).decode().splitlines():
            yield json.loads(line)["text"]
    for name in ("rural", "science"):
        news = gzip.decompress((text / f"abc_news_2006/{name}.txt.gz").read_bytes()).decode("latin-1")
        lines = news.split("\n")
        yield from ("\n".join(lines[i : i + 40]) for i in range(0, len(lines), 40))
    with zipfile.ZipFile(text / "state_union.zip") as speeches:
        for name in sorted(speeches.namelist()):
            if name.endswith(".txt"):
                yield speeches.read(name).decode("latin-1")
    yield from gzip.decompress((text / "wikipedia_en_30_articles.txt.gz").read_bytes()).decode().splitlines()
    play = gzip.decompress((text / "tinyshakespeare.txt.gz").read_bytes()).decode()
    yield from (play[i : i + 4000] for i in range(0, len(play), 4000))
    with tarfile.open(fileobj=io.BytesIO((text / "python_peps.tar.gz").read_bytes())) as peps:
        for member in peps.getmembers()[::4]:
            file = peps.extractfile(member)
            if file is not None:
                yield file.read().decode("utf-8", "replace")
    with tarfile.open(fileobj=io.BytesIO((data / "html/article_extraction_101.tar.gz").read_bytes())) as pages:
        truth = pages.extractfile("ground-truth.json")
        if truth is not None:
            yield from (row["articleBody"] for row in json.load(truth).values())


def decide(features: Any, rules: Rules) -> list[str | None]:
    """The first reason of every document, null for kept."""
    reasons: list[str | None] = [None] * features.num_rows
    for column, comparison, threshold, reason in reversed(rules):
        for i, value in enumerate(features.column(column).to_pylist()):
            if value < threshold if comparison == "<" else value > threshold:
                reasons[i] = reason
    return reasons


def ask(python: str, texts: list[str], words: str) -> list[dict[str, Any]]:
    """What datatrove says of every text."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text(
            "".join(json.dumps({"text": text, "words": words}) + "\n" for text in texts), encoding="utf-8"
        )
        subprocess.run(
            [python, "-m", "benchmarks.agreement_peer", str(source), str(target)],
            cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement", description=" ".join((__doc__ or "").split())
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="the folder with text/ and html/ of the public test data"
    )
    parser.add_argument("--python", help="an interpreter with datatrove[io,processing] and spacy")
    parser.add_argument("--write", type=Path, help="only write the texts as JSON lines into this folder, for --data")
    parser.add_argument("--show", type=int, default=0, help="differences to print for each filter (default: none)")
    options = parser.parse_args()
    texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in english(options.data)]
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        write_json_lines(texts, [str(number) for number in range(len(texts))], options.write / "english.jsonl.gz")
        return
    if not options.python:
        raise SystemExit("name the interpreter that has datatrove: --python")
    asked = ask_version(options.python)
    if asked.returncode:
        raise SystemExit(f"{options.python} has no datatrove and spaCy: skipped\n{asked.stderr.splitlines()[-1]}")

    import pyarrow as pa

    from data_quality.features import compute_features
    from data_quality.quality_config import QualityConfig

    size = sum(len(text.encode()) for text in texts) / 1e6
    lines = [
        "# agreement",
        " ".join((__doc__ or "").split()),
        "    python -m benchmarks.agreement --data DATA --python PYTHON",
        f"{len(texts):,} documents, {size:.1f} MB; {asked.stdout.strip()}, "
        f"gristmill {importlib.metadata.version('gristmill')}.",
        "| words | filter | dropped by datatrove | by us | same decision | same reason | datatrove alone drops (its "
        "reason) | we alone drop (our reason) |\n|---|---|---:|---:|---:|---:|---|---|",
    ]
    speeds: list[str] = []
    for words, kind in (("given", "attached"), ("own", "separate")):
        config = QualityConfig(identify_language=False, datatrove_words=kind)  # type: ignore[arg-type]
        column = pa.array(texts, pa.large_string())
        compute_features(column.slice(0, 10), config)
        began = time.process_time()
        features = compute_features(column, config)
        ours = time.process_time() - began
        theirs = ask(options.python, texts, words)
        for name, rules in FILTERS.items():
            mine = decide(features, rules)
            pairs = [(row[name], own) for row, own in zip(theirs, mine, strict=True)]
            same = sum((a is None) == (b is None) for a, b in pairs) / len(pairs)
            reasons = sum(a == b for a, b in pairs) / len(pairs)
            only_theirs = Counter(a for a, b in pairs if a is not None and b is None)
            only_ours = Counter(b for a, b in pairs if a is None and b is not None)
            lines[-1] += (
                f"\n| {words} | {name} | {sum(a is not None for a, _ in pairs)} "
                f"| {sum(b is not None for _, b in pairs)} "
                f"| {same:.2%} | {reasons:.2%} | {_counted(only_theirs)} | {_counted(only_ours)} |"
            )
            shown = [(i, a, b) for i, (a, b) in enumerate(pairs) if (a is None) != (b is None)][: options.show]
            for i, a, b in shown:
                values = {
                    column: features.column(column)[i].as_py() for column, _, _, reason in rules if reason in (a, b)
                }
                print(words, name, i, a, b, values, repr(texts[i][:200]), file=sys.stderr)
        seconds = sum(row["seconds"] for row in theirs)
        speeds.append(
            f"With {words} words datatrove's four filters take {seconds:.1f} CPU s ({size / seconds:.2f} MB/s; spaCy's "
            f"sentences included), all of our features, its formulas included, {ours:.2f} ({size / ours:.0f} MB/s, "
            f"{seconds / ours:.0f} times)."
        )
    text = "\n\n".join([*lines, " ".join(speeds)])
    print(text)
    (REPOSITORY / "benchmarks/results/agreement.md").write_text(text + "\n", encoding="utf-8")


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in found.most_common()) or "-"


if __name__ == "__main__":
    main()
