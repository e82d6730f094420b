"""What a member of an archive is to those who read it, and how its name becomes part of a uri."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

_LONGEST_NAME = 1024
_KEPT_END = 64
_TRACKED_NAMES = 1_000_000


@dataclass
class Member:
    """A member of an archive, or what is wrong with it.

    Attributes
    ----------
    name
        As it stands in the archive; from `corpus.sources.archives.members` on as it stands in uris: relative, with
        forward slashes, printable, different from all others.
    raw
        Its bytes, None if they cannot be read. They end early where they are damaged; then `broken` says how.
    problem
        The kind of error and a message ("encrypted-member", …), if it cannot be read.
    special
        It is a link, a device or the like, by its kind no file.
    of_archive
        The problem is one of the archive; there is no such member.
    """

    name: str
    raw: BinaryIO | None = None
    problem: tuple[str, str] | None = None
    special: bool = False
    of_archive: bool = False


def trouble(error: str, message: str) -> Member:
    """What is wrong with an archive, in place of the members that are lost by it."""
    return Member("archive", problem=(error, message), of_archive=True)


def safe_name(name: str) -> tuple[str, str]:
    """A name as it stands in uris, and what is wrong with it, "" if nothing. Lone surrogates stand for bad bytes."""
    wrong = ""
    steps = name.replace("\\", "/").split("/")
    if "\0" in name:
        wrong = "has a NUL in it"
    elif ".." in steps:
        wrong = "leads out of the archive"
    elif name.startswith(("/", "\\")) or name[1:3] in (":\\", ":/"):
        wrong = "is absolute"
    text = "/".join(step for step in steps if step not in ("", ".", ".."))
    text = text.encode("utf-8", "backslashreplace").decode()
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) > _LONGEST_NAME:  # its ending says what it is
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        text = f"{text[: _LONGEST_NAME - _KEPT_END]}~{digest}~{text[-_KEPT_END:]}"
    return text or "member", wrong


class Names:
    """Makes names of members different: a second `a.txt` becomes `a~2.txt`.

    A million names are remembered, by a hash; whatever comes after them gets its number among all members.
    """

    def __init__(self) -> None:
        self._times: dict[int, int] = {}
        self._members = 0

    def distinct(self, name: str) -> str:
        """The name, or the name with a number before its ending."""
        self._members += 1
        times = self._times
        if len(times) >= _TRACKED_NAMES:
            return _numbered(name, self._members)
        number = times.get(first := _hash(name), 0) + 1
        found = name
        while number > 1 and _hash(found := _numbered(name, number)) in times:
            number += 1
        times[first] = number
        times.setdefault(_hash(found), 1)
        return found


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _numbered(name: str, number: int) -> str:
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.partition(".")
    return f"{folder}{slash}{stem}~{number}{dot}{ending}"
