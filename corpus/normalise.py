"""Repairs of how a text is written down: encoding, line ends, control characters, Unicode form, trailing white space.

Applied once, before a document gets its id. Applying it twice changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from corpus.config import NormaliseConfig

NORMALISE_VERSION = 1
"""Raised when the same text would come out differently."""

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_CONTROLS_BUT_LINE_ENDS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_ASCII_CONTROLS = bytes(code for code in range(0x80) if (code < 0x20 and code not in b"\t\n") or code == 0x7F)
_UTF8_CONTROLS = re.compile(b"\xc2[\x80-\x9f]")
_UTF8_MARKS = ("\u2028".encode(), "\u2029".encode(), "\ufeff".encode())
# What ftfy's measure of badness looks for are short sequences around certain characters; letters of these alphabets are
# at most two characters of such a sequence, at its start or its end. So the inside of long runs of them may be left
# out, which makes the measure (4 MB/s) some twenty times faster on ordinary text.
_PLAIN = "[\x00-\x7f\u0530-\u1fff\u2600-\ufaffα-ωάέήίΰа-џ]"
_PLAIN_RUNS = re.compile(f"(?<={_PLAIN}{_PLAIN}){_PLAIN}+(?={_PLAIN}{_PLAIN})")
# One pass settles nearly every text. A repair that makes another one possible (mojibake of a control character) takes
# a second; the bound only guards against two repairs that undo each other.
_MAX_PASSES = 8

Step = tuple[str, Callable[[str], str]]


def normalise(text: str, config: NormaliseConfig) -> tuple[str, tuple[str, ...]]:
    """Repairs a text.

    Parameters
    ----------
    text
        Any string, lone surrogates included.
    config
        Which repairs are made.

    Returns
    -------
    text
        The repaired text; `normalise(text, config)` gives it back as it is. It holds lone surrogates only if it did
        and `fix_encoding` is off.
    steps
        Names of the repairs that changed something, in the order in which they are made.

    Examples
    --------
    >>> normalise("cafÃ©  \\r\\n", NormaliseConfig())
    ('café', ('fix_encoding', 'line_ends', 'trailing_white_space'))
    """
    if _is_clean(text):
        return text, ()
    steps = _steps(config)
    changed: set[str] = set()
    for _ in range(_MAX_PASSES):
        before = text
        for name, repair in steps:
            repaired = repair(text)
            if repaired != text:
                changed.add(name)
                text = repaired
        if text == before:
            break
    return text, tuple(name for name, _ in steps if name in changed)


def _is_clean(text: str) -> bool:
    """True if no repair applies, whichever are switched on: the common case, found at the speed of C."""
    if not text or text[-1] in " \t\n" or text[0] in " \t\n" or " \n" in text or "\t\n" in text:
        return False
    try:
        data = text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    if len(data.translate(None, _ASCII_CONTROLS)) != len(data):
        return False
    if text.isascii():
        return True
    if _UTF8_CONTROLS.search(data) or any(mark in data for mark in _UTF8_MARKS):
        return False
    return unicodedata.is_normalized("NFC", text) and not is_suspicious(text)


@lru_cache(maxsize=32)
def _steps(config: NormaliseConfig) -> tuple[Step, ...]:
    return tuple(_switched_on(config))


def _switched_on(config: NormaliseConfig) -> Iterator[Step]:
    """The repairs in their order: each leaves alone what those before it have settled, as far as that can be."""
    if config.fix_encoding:
        yield "fix_encoding", _fix_encoding
    if config.line_ends:
        yield "line_ends", lambda text: _LINE_ENDS.sub("\n", text)
    if config.control_characters:
        controls = _CONTROLS if config.line_ends else _CONTROLS_BUT_LINE_ENDS
        yield "control_characters", lambda text: controls.sub("", text)
    if config.unicode_nfc:
        # Joining surrogates is the business of fix_encoding; Python's normaliser passes them through.
        yield "unicode_nfc", lambda text: unicodedata.normalize("NFC", text)
    if config.trailing_white_space:
        yield "trailing_white_space", _trim


def _trim(text: str) -> str:
    """No spaces and tabs at line ends, no blank lines at both ends of the text."""
    text = text.rstrip(" \t\n")
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return text.lstrip("\n") if text.startswith("\n") else text


def _fix_encoding(text: str) -> str:
    """Mojibake undone, where ftfy's own measure finds the text suspicious; surrogate pairs joined, lone ones U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if not is_suspicious(text):
        return text
    import ftfy

    return str(ftfy.fix_text(text, _ftfy_config()))


def is_suspicious(text: str) -> bool:
    """True if the text has sequences of characters that wrong decoding leaves behind: `ftfy.badness.is_bad`, faster."""
    from ftfy.badness import is_bad

    return is_bad(_PLAIN_RUNS.sub("", text))


@lru_cache(maxsize=1)
def _ftfy_config() -> Any:
    """Only repairs of wrong decoding. Quotes, ligatures, widths and HTML entities are how people write: they stay."""
    import ftfy

    return ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_encoding=True,
        restore_byte_a0=True,
        replace_lossy_sequences=True,
        decode_inconsistent_utf8=True,
        fix_c1_controls=True,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
