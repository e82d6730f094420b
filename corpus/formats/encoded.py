"""Content in any encoding, as UTF-8 or in an encoding whose line ends and quotes are single ASCII bytes."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from corpus.config import SourceConfig
from corpus.extraction.encodings import decode_text, find_codec

_HEAD_BYTES = 1 << 16
# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def check_encoding(config: SourceConfig) -> str:
    """The encoding of a source, checked; "" where none is named.

    Raises
    ------
    ValueError
        There is no encoding of that name; names the source.
    """
    if config.encoding in ("", "detect"):
        return config.encoding
    try:
        return find_codec(config.encoding)
    except ValueError as error:
        raise ValueError(f"source {config.name!r}, encoding: {error}") from None


def open_encoded(content: Iterable[bytes], encoding: str, at_start: bool = True) -> tuple[Iterable[bytes], str, int]:
    """Chunks of bytes, the encoding to decode pieces of them with, and where in the content they begin.

    Lines may be cut at LF, quotes and delimiters be looked for: UTF-16 and UTF-32 come as UTF-8, what cannot be decoded
    there as bytes that are no UTF-8 either; they begin at -1, since their bytes are not those of the content.

    Parameters
    ----------
    content
        The bytes, in chunks.
    encoding
        "" for UTF-8 or what a byte order mark says, "detect", or a name.
    at_start
        False where the content begins in the middle of a file: there is no mark there, and nothing to detect.
    """
    chunks = iter(content)
    if not at_start:
        return chunks, encoding or "utf-8", 0
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    mark, codec = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", ""))
    if encoding == "detect" and not codec:
        sample = head[:_HEAD_BYTES]
        sample = sample[: sample.rfind(b"\n") + 1] or sample
        try:
            codec = decode_text(sample)[1]
        except UnicodeDecodeError:
            codec = "utf-8"
    elif encoding and not codec:
        codec = encoding
    whole = itertools.chain([head[len(mark) :]], chunks)
    if codec.startswith(("utf-16", "utf-32")):
        return _as_utf8(whole, codec), "utf-8", -1
    return whole, codec or "utf-8", len(mark)


def _as_utf8(chunks: Iterable[bytes], codec: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)("surrogatepass")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        yield b"\xff"
