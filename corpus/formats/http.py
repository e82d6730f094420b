"""HTTP messages as crawlers have kept them: status, header fields, and the body without its encodings.

Archives hold what servers sent, so what is declared is only believed where the bytes agree (a body said to be chunked
or compressed that is not is taken as it is), and nothing inflates beyond a bound.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_STATUS = re.compile(rb"HTTP/\d{1,2}(?:\.\d{1,3})?[ \t]+(\d{3})(?!\d)")
_FIELD = re.compile(r"^([^:\r\n]+):[ \t]*([^\r\n]*)", re.MULTILINE)
_FOLD = re.compile(r"\r?\n[ \t]+")
_END_OF_FIELDS = re.compile(rb"\n\r?\n|\r\r")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n")
_REPEATED = "x-robots-tag"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PLAIN_BYTES = 1024


class Response(NamedTuple):
    """A response: its status, its header fields by lower-case name (the first of each), and its body as it was sent."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class BodyProblem(NamedTuple):
    """Why there is no body: `error` is a kind of `corpus.sources.base.BadRecord`, `bad-http` or `too-long`."""

    error: str
    message: str


def parse_fields(head: bytes) -> dict[str, str]:
    """Header fields by lower-case name, as HTTP and WARC write them.

    Of repeated fields the first counts; of X-Robots-Tag all do, one a line, since each may name a crawler of its own.
    Folded lines go on with the line before (RFC 9112, section 5.2); lines without a colon are passed over; bytes are
    UTF-8, or else latin-1.
    """
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        name = name.lower().strip()
        if name == _REPEATED and name in fields:
            fields[name] += f"\n{value.rstrip()}"
        fields.setdefault(name, value.rstrip())
    return fields


def parse_response(block: bytes) -> Response | None:
    """The response in a block; None if it does not begin with a status line (RFC 9112, section 4).

    Interim responses (100 Continue) that stand before it are passed over.
    """
    status, begin = _STATUS.match(block), 0
    if status is None:
        return None
    while True:
        end = _END_OF_FIELDS.search(block, status.end())
        begin = end.end() if end else len(block)
        following = _STATUS.match(block, begin) if status[1].startswith(b"1") else None
        if following is None:
            break
        status = following
    head = block[status.end() : end.start() if end else begin]
    return Response(int(status[1]), parse_fields(head.partition(b"\n")[2]), block[begin:])


def decode_body(body: bytes, fields: Mapping[str, str], max_bytes: int, cut: bool = False) -> bytes | BodyProblem:
    """A body without its transfer encoding (chunked) and content encodings (gzip, deflate, br, zstd).

    Parameters
    ----------
    body
        As it was sent.
    fields
        Header fields by lower-case name.
    max_bytes
        More than this is not inflated.
    cut
        The body is known to be cut short: what there is of it is taken.
    """
    if "chunked" in fields.get("transfer-encoding", "").lower():
        joined = join_chunks(body, cut)
        if isinstance(joined, BodyProblem):
            return joined
        body = joined
    for name in reversed(fields.get("content-encoding", "").lower().split(",")):
        name = name.strip().strip("\"'")
        inflate = _INFLATE.get(name)
        if inflate is None or not body:
            continue  # identity, misspelt, an encoding of characters: what it is then shows by itself
        inflated = inflate(body, max_bytes)
        if inflated is None:
            continue
        body, ended, error = inflated
        if len(body) > max_bytes:
            return BodyProblem("too-long", f"the body inflates ({name}) to more than max_record_bytes ({max_bytes})")
        if error:
            return BodyProblem("bad-http", f"the body's {name} data is damaged: {error}")
        if not ended and not cut:
            return BodyProblem("bad-http", f"the body's {name} data is cut short")
    return body


def join_chunks(body: bytes, cut: bool) -> bytes | BodyProblem:
    """The content of chunks (RFC 9112, section 7.1); the body itself if it does not begin with a whole chunk.

    A missing last chunk is no fault: crawlers leave it out.
    """
    chunks: list[bytes] = []
    at = 0
    while at < len(body):
        size = _CHUNK_SIZE.match(body, at)
        if size is None:
            if not chunks:
                return body
            if cut or not body[at:].strip(b"\r\n"):
                break
            return BodyProblem("bad-http", f"the body's chunk {len(chunks)} does not begin with its size")
        length = int(size[1], 16)
        if length == 0:
            return b"".join(chunks)
        end = size.end() + length
        if end > len(body):
            if not chunks and not cut:
                return body
            if not cut:
                return BodyProblem("bad-http", f"the body is cut short in chunk {len(chunks)}")
        elif body[end : end + 1] not in (b"\r", b"\n", b"") and not chunks:
            return body
        chunks.append(body[size.end() : end])
        at = end
        at += 2 if body.startswith(b"\r\n", at) else body.startswith(b"\n", at)
    return b"".join(chunks)


_Inflated = tuple[bytes, bool, str]  # at most one byte more than allowed; whether it has an end; what is wrong


def _gzip(data: bytes, max_bytes: int) -> _Inflated | None:
    if not data.startswith(_GZIP_MAGIC):
        return _zlib(data, max_bytes, zlib.MAX_WBITS) if _is_zlib(data) else None
    pieces: list[bytes] = []
    size = 0
    while data.startswith(_GZIP_MAGIC):
        decoder = zlib.decompressobj(wbits=31)
        try:
            pieces.append(decoder.decompress(data, max_bytes + 1 - size))
        except zlib.error as error:
            return b"".join(pieces), False, str(error)
        size += len(pieces[-1])
        if size > max_bytes or not decoder.eof:
            return b"".join(pieces), False, ""
        data = decoder.unused_data
    return b"".join(pieces), True, ""


def _deflate(data: bytes, max_bytes: int) -> _Inflated | None:
    """With zlib's header, as the standard says, or without it, as some servers send it."""
    if data.startswith(_GZIP_MAGIC):
        return _gzip(data, max_bytes)
    if _is_zlib(data):
        return _zlib(data, max_bytes, zlib.MAX_WBITS)
    found = _zlib(data, max_bytes, -zlib.MAX_WBITS)
    return None if found[2] and _looks_plain(data) else found


def _is_zlib(data: bytes) -> bool:
    return len(data) > 2 and data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (data[0] << 8 | data[1]) % 31 == 0


def _zlib(data: bytes, max_bytes: int, wbits: int) -> _Inflated:
    decoder = zlib.decompressobj(wbits=wbits)
    try:
        out = decoder.decompress(data, max_bytes + 1)
    except zlib.error as error:
        return b"", False, str(error)
    return out, decoder.eof, ""


def _brotli(data: bytes, max_bytes: int) -> _Inflated | None:
    import brotli  # type: ignore[import-untyped, unused-ignore]

    decoder = brotli.Decompressor()
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes and not decoder.is_finished():
            piece = decoder.process(data, output_buffer_limit=max_bytes + 1 - size)
            data = b""
            pieces.append(piece)
            size += len(piece)
            if not piece and decoder.can_accept_more_data():
                break
    except brotli.error as error:
        return None if _looks_plain(data) else (b"", False, str(error) or "no brotli data")
    return b"".join(pieces)[: max_bytes + 1], decoder.is_finished(), ""


def _zstd(data: bytes, max_bytes: int) -> _Inflated | None:
    if not data.startswith(_ZSTD_MAGIC):
        return None
    import zstandard

    pieces: list[bytes] = []
    size = 0
    decoder: Any = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    try:
        # In small pieces, since one call inflates all it is given (32,768 to 1 at most).
        for at in range(0, len(data), 1024):
            if decoder.eof or size > max_bytes:
                break
            pieces.append(decoder.decompress(data[at : at + 1024]))
            size += len(pieces[-1])
    except zstandard.ZstdError as error:
        return b"", False, str(error)
    return b"".join(pieces)[: max_bytes + 1], decoder.eof, ""


def _looks_plain(data: bytes) -> bool:
    """Whether bytes that do not inflate are markup or text that somebody declared to be compressed."""
    head = data[:_PLAIN_BYTES]
    return b"\0" not in head and sum(byte < 32 for byte in head) * 5 <= len(head) and (b"<" in head or head.isascii())


_INFLATE: Mapping[str, Callable[[bytes, int], _Inflated | None]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
