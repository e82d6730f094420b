"""How often is the encoding of a page found, and how fast? `corpus` beside detectors, on bytes and declarations.

Real pages and feeds in 44 encodings (a sample of chardet's test files), and paragraphs of XQuAD in 10 languages written
in 16 legacy encodings, which no detector was made with. An answer is right if it decodes to the same text. Peers that
are not installed are left out.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.documents import REPOSITORY
from benchmarks.timing import Benchmark, Peer, Result, Work, main

DATA = REPOSITORY.parent / "shared" / "data"
Decode = Callable[[bytes], str]
Sample = tuple[str, str, bytes]
"""Name, encoding (a codec of Python), bytes."""

# As browsers read them, and as the data was written (WHATWG Encoding Standard).
_TRUTH = {
    "ascii": "cp1252", "big5": "big5hkscs", "euc-kr": "cp949", "gb2312": "gb18030", "iso-8859-1": "cp1252",
    "iso-8859-9": "cp1254", "maccyrillic": "mac_cyrillic", "shift_jis": "cp932", "tis-620": "cp874",
}  # fmt: skip
_LANGUAGES = re.compile(
    "-(arabic|bulgarian|croatian|czech|greek|hebrew|hungarian|polish|romanian|russian|slovak|slovene|turkish)$"
)
_LEGACY = {
    "ar": ("cp1256", "iso8859-6"), "de": ("cp1252",), "el": ("cp1253", "iso8859-7"), "es": ("cp1252",),
    "ro": ("cp1250", "iso8859-2"), "ru": ("cp1251", "koi8-r", "iso8859-5", "cp866"), "th": ("cp874",),
    "tr": ("cp1254",), "vi": ("cp1258",), "zh": ("gb18030", "big5hkscs"),
}  # fmt: skip
_DECLARATION = re.compile(rb"(?:encoding|charset)(\s*=)", re.IGNORECASE)
_PARAGRAPHS = 40


def load_files(data: Path = DATA) -> list[Sample]:
    """The files of chardet_229; the folder names the encoding, and often the language."""
    found = []
    with tarfile.open(data / "encoding" / "chardet_229.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                name = _LANGUAGES.sub("", Path(member.name).parent.name.lower())
                found.append((member.name, _TRUTH.get(name, name), content.read()))
    return found


def load_paragraphs(data: Path = DATA) -> list[Sample]:
    """Paragraphs of XQuAD in each legacy encoding of their language, where it can write them."""
    texts: dict[str, list[str]] = {}
    with gzip.open(data / "langid" / "xquad_paragraphs_12_languages.jsonl.gz") as lines:
        for line in lines:
            found = json.loads(line)
            texts.setdefault(found["lang"], []).append(found["text"])
    samples = []
    for language, encodings in _LEGACY.items():
        for encoding in encodings:
            for number, text in enumerate(texts[language][:_PARAGRAPHS]):
                packed = text.encode(encoding, "xmlcharrefreplace")
                if not packed.isascii():
                    samples.append((f"{language} {encoding} {number}", encoding, packed))
    return samples


def without_declarations(samples: list[Sample]) -> list[Sample]:
    """The same bytes with what they say of their encoding made unreadable."""
    return [(name, encoding, _DECLARATION.sub(rb"........\1", data)) for name, encoding, data in samples]


def expected(sample: Sample) -> str:
    """The text of a sample, without a byte order mark."""
    return sample[2].decode(sample[1], "replace").removeprefix("\ufeff")


def prepare(documents: pa.Table, folder: Path) -> None:
    """Nothing: the samples are read where they lie."""


def peer(folder: Path, make: Callable[[], Decode]) -> Work:
    """Decodes all samples; one before, to warm up."""
    decode, declared, paragraphs = make(), load_files(), load_paragraphs()
    sets = (declared, without_declarations(declared), paragraphs)
    decode(declared[0][2])

    def work() -> Result:
        texts = [[decode(sample[2]) for sample in samples] for samples in sets]
        size = sum(len(sample[2]) for samples in sets for sample in samples)
        return Result({"files": sum(map(len, sets)), "MB": size / 1e6}, lambda: list(map(_share, texts, sets)))

    return work


def _share(texts: list[str], samples: list[Sample]) -> float:
    right = [text == expected(sample) for text, sample in zip(texts, samples, strict=True)]
    return sum(right) / len(right)


def gristmill() -> Decode:
    """`decode_text`; "" for what it refuses."""
    from corpus.extraction.encodings import decode_text

    def decode(data: bytes) -> str:
        try:
            return decode_text(data, html=True)[0]
        except UnicodeDecodeError:
            return ""

    return decode


def detector(module: str) -> Decode:
    """What a library says, as it says it, decoded."""
    library = importlib.import_module(module)

    def decode(data: bytes) -> str:
        match module:
            case "chardet" | "cchardet":
                name = library.detect(data)["encoding"]
            case "charset_normalizer":
                best = library.from_bytes(data).best()
                name = best.encoding if best is not None else None
            case _:
                name = library.detect_encoding(data, max_len=len(data), from_html_meta=True)
        try:
            return data.decode(name or "utf-8", "replace").removeprefix("\ufeff")
        except LookupError:
            return ""

    return decode


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """Shares of the files that are decoded to the right text."""
    return {
        name: f"right: {found[0]:.1%} of files, {found[1]:.1%} without declarations, {found[2]:.1%} of paragraphs"
        for name, found in outcomes.items()
    }


_DETECTORS = {
    "chardet": "chardet",
    "charset-normalizer": "charset_normalizer",
    "resiliparse": "resiliparse.parse.encoding",
    "faust-cchardet": "cchardet",
}


def _peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {"gristmill": partial(peer, make=gristmill)}
    for name, module in _DETECTORS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            found[name] = partial(peer, make=partial(detector, module))
    return found


if __name__ == "__main__":
    peers = _peers()
    main(
        Benchmark(
            "imports, reading the archives, one file.",
            prepare,
            peers,
            judge,
            documents=1,
            packages=[name for name in peers if name != "gristmill"],
        )
    )
