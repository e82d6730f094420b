"""Content in any encoding, made fit to be cut into lines before it is decoded, so that a bad byte costs one line."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from corpus.config import SourceConfig
from corpus.extraction.encodings import decode_text, find_codec, find_mark
from corpus.sources.base import BadRecord, bad_record

_HEAD_BYTES = 1 << 16
# The mark is taken off here, so that these mean what they mean without one.
_WITHOUT_MARK = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}

ESCAPED = "gristmill-escaped"
"""Error handler of codecs: a byte that cannot be decoded, of any value, becomes the lone surrogate U+DC00 plus byte."""


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(ESCAPED, _escape)


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

    The bytes may be cut at LF: where that is not a byte of its own (UTF-16, EBCDIC, ISO 2022) they come as UTF-8, what
    cannot be decoded there as bytes that are no UTF-8 either; they begin at -1, being not those of the content.

    Parameters
    ----------
    content
        The bytes, in chunks.
    encoding
        "" for UTF-8, "detect", which looks at the first 64 KiB, or a name. A byte order mark is believed before all.
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
    mark, codec = find_mark(head)
    if encoding == "detect" and not codec:
        sample = head[:_HEAD_BYTES]
        if len(head) > _HEAD_BYTES and b"\0" not in sample:  # a character may be cut at its end
            sample = sample[: sample.rfind(b"\n") + 1] or sample
        try:
            codec = decode_text(sample)[1]
        except UnicodeDecodeError:
            codec = "utf-8"
    codec = codec or _WITHOUT_MARK.get(encoding, encoding) or "utf-8"
    whole = itertools.chain([head[len(mark) :]], chunks)
    if '\n"'.encode(codec) != b'\n"' or codec.startswith(("iso2022", "hz")):
        return _as_utf8(whole, codec), "utf-8", -1
    return whole, codec, len(mark)


def undecodable(number: int, problem: object, data: bytes | str, codec: str) -> BadRecord:
    """The bad record of bytes that are no text in an encoding; it says what to set."""
    message = f"{problem}; `encoding: detect` or the name of the encoding may read it"
    return bad_record(number, "bad-utf8" if codec == "utf-8" else "bad-encoding", message, data)


def _as_utf8(chunks: Iterable[bytes], codec: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)(ESCAPED)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
