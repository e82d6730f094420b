"""Zip and tar archives: members one after the other, each accounted for. Nothing is ever written by their names."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.sources.members import Member, Names, safe_name
from corpus.sources.streams import SUFFIXES, Content
from corpus.sources.tar_members import BLOCK, is_header, tar_members
from corpus.sources.zip_members import MAX_ZIP_MEMBERS, zip_members

__all__ = ["MAX_ZIP_MEMBERS", "PATTERNS", "Member", "archive_kind", "is_epub", "members"]

PATTERNS = ("*.zip", "*.tgz", *(f"*.tar{suffix}" for suffix in SUFFIXES))
"""Usual names of archives; what is one is found by its content."""


def archive_kind(head: bytes) -> str:
    """ "zip", "tar" or "" by the first 512 bytes of a file, decompressed."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK\x03\x04")):
        return "zip"
    # A first header with damage is still known, by its mark in a field that text would not have.
    if is_header(head) or (head[257:262] == b"ustar" and b"\0" in head[:BLOCK]):
        return "tar"
    return ""


def is_epub(head: bytes, name: str) -> bool:
    """Whether a zip is one book: by the type that stands first in it, or by its name, as many do without."""
    return head[30:58] == b"mimetypeapplication/epub+zip" or name.lower().endswith(".epub")


def members(kind: str, content: Content) -> Iterator[Member]:
    """All members in their order, folders aside. Each must be done with before the next one is asked for.

    Damage is told as members with a `problem`; what can be read after it is. A tar is read as it streams by; a zip
    that cannot seek is unpacked to a temporary file first.
    """
    names = Names()
    for member in zip_members(content) if kind == "zip" else tar_members(content):
        name, wrong = safe_name(member.name)
        member.name = names.distinct(name)
        if wrong and member.problem is None:
            member.problem = ("unsafe-name", f"the name of the member {wrong}")
        yield member
