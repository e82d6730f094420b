"""Digests that WARC records state of their block and payload (WARC 1.1, sections 5.8 and 5.9): do the bytes fit?"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping

_ALGORITHMS: Mapping[str, tuple[str, int]] = {
    "md5": ("md5", 16),
    "sha1": ("sha1", 20),
    "sha256": ("sha256", 32),
    "sha384": ("sha384", 48),
    "sha512": ("sha512", 64),
}


def wrong_digest(fields: Mapping[str, str], block: bytes, payloads: Iterable[bytes]) -> str:
    """What a record's digests say against its bytes, "" if nothing.

    The digest of the block decides where there is one. Crawlers do not agree on what the payload is that they hash
    (with or without chunks, as sent or decoded), so its digest is wrong only if it fits none of `payloads`. Nothing is
    said of records that were truncated, of those whose length is not the declared one, and of digests of an unknown
    kind.
    """
    if "warc-truncated" in fields or fields.get("content-length", "").strip() != str(len(block)):
        return ""
    for name, readings in (("WARC-Block-Digest", (block,)), ("WARC-Payload-Digest", payloads)):
        stated = fields.get(name.lower(), "")
        expected = _parse(stated)
        if expected is None:
            continue
        algorithm, digest = expected
        found = [hashlib.new(algorithm, data, usedforsecurity=False).digest() for data in readings]
        if digest in found:
            return ""
        return f"{name} is {stated}, the bytes have {algorithm}:{_like(stated, found[0])}"
    return ""


def _parse(stated: str) -> tuple[str, bytes] | None:
    """Algorithm and digest of `sha1:BASE32`, also in hexadecimal or base64; None if it cannot be understood."""
    label, _, value = stated.strip().partition(":")
    algorithm, size = _ALGORITHMS.get(label.strip().lower().replace("-", ""), ("", 0))
    value = value.strip()
    bare = value.rstrip("=")
    try:
        if len(bare) == 2 * size:
            digest = bytes.fromhex(bare)
        elif len(bare) == -(-size * 8 // 5):
            digest = base64.b32decode(bare.upper() + "=" * (-len(bare) % 8))
        else:
            digest = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=_altchars(bare), validate=True)
    except (ValueError, binascii.Error):
        return None
    return (algorithm, digest) if size and len(digest) == size else None


def _altchars(value: str) -> bytes:
    """The last two characters of base64's alphabet: that of addresses, or the ordinary one."""
    return b"-_" if "-" in value or "_" in value else b"+/"


def _like(stated: str, digest: bytes) -> str:
    """A digest written as the stated one is."""
    bare = stated.partition(":")[2].strip().rstrip("=")
    if len(bare) == 2 * len(digest):
        return digest.hex()
    base32 = base64.b32encode(digest).decode()
    if len(bare) == len(base32.rstrip("=")):
        return base32
    return base64.b64encode(digest, altchars=_altchars(bare)).decode()
