"""Repairs of how a text is written down: encoding, line ends, invisible characters, spaces, Unicode form, blank lines.

Applied once, before a document gets its id. Applying it twice changes nothing. What a character says is kept: joiners
(U+200C, U+200D: Persian, Indic scripts, emoji), marks of direction, variation selectors, emoji tags, the Mongolian
vowel separator, the ideographic space U+3000 and all quotes, dashes, ligatures and widths stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from corpus.config import NormaliseConfig

NORMALISE_VERSION = 2
"""Raised when the same text would come out differently."""

_LINE_ENDS = ("\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029")
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff"
_LINE_END_CONTROLS = "\x0b-\x0d\x85"
_ASCII_CONTROLS = bytes(code for code in range(0x80) if (code < 0x20 and code not in b"\t\n") or code == 0x7F)
_ASCII_CONTROLS_BUT_LINE_ENDS = bytes(code for code in _ASCII_CONTROLS if code not in b"\r\v\f")
_ORDINARY_ASCII = bytes(code for code in range(0x80) if code not in _ASCII_CONTROLS)

# Invisible, whatever stands beside them: soft hyphen, word joiner, the operators of mathematics that are only heard
# (U+2061 to U+2064), format characters that Unicode deprecates (U+206A to U+206F).
_INVISIBLE = "\xad\u2060\u2061\u2062\u2063\u2064\u206a\u206b\u206c\u206d\u206e\u206f"
_INVISIBLES = re.compile(f"[{_INVISIBLE}]+")
# At the end of a line a soft hyphen is seen: the word goes on below.
_SOFT_HYPHEN_AT_LINE_END = re.compile("(?<=\\w)\xad(?=[ \t]*\n)")
_ZERO_WIDTH_SPACE = "\u200b"
# Thai, Lao, Tibetan, Burmese, Khmer: scripts without spaces, in which the zero width space stands between words.
_NO_SPACES = "\u0e01-\u0fff\u1000-\u109f\u1780-\u17ff\u19e0-\u1aad\ua9e0-\ua9fe\uaa60-\uaa7f"
_ZERO_WIDTH_SPACES = re.compile(f"(?P<between_words>(?<=[{_NO_SPACES}])\u200b+(?=[{_NO_SPACES}]))|\u200b+")
# Spaces of other widths or that forbid a break, and the two fillers of Korean keyboards that show as a blank.
_SPACES = "\xa0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3164\uffa0"
_BLANK_LINES = re.compile("\n{4,}")
# What ftfy's measure of badness looks for are short sequences around certain characters; letters of these alphabets are
# at most two characters of such a sequence, at its start or its end. So the inside of long runs of them is left out.
_PLAIN = "[\x00-\x7f\u0530-\u1fff\u2600-\ufaffα-ωάέήίΰа-џ]"
_PLAIN_RUNS = re.compile(f"(?<={_PLAIN}{_PLAIN}){_PLAIN}+(?={_PLAIN}{_PLAIN})")
_RAGGED = re.compile("\n(?:(?<=[ \t]\n)|(?=\n\n\n))")
# All characters that combine with one before them or that normal form C replaces (a few ranges hold others as well).
_COMPOSES = (
    "\u0300-\u036f\u0374\u037e\u0387\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0711"
    "\u0730-\u08ff\u093c\u094d\u0951-\u095f\u09bc\u09be\u09cd\u09d7-\u09df\u09fe\u0a33-\u0dff\u0e38-\u0e3a\u0e48-\u0e4b"
    "\u0eb8-\u0fff\u102e-\u103a\u108d\u1161-\u11ff\u135d-\u135f\u1714-\u1dff\u1f71-\u1fff\u2000\u2001\u20d0-\u20f0"
    "\u2126\u212a\u212b\u2329\u232a\u2adc\u2cef-\u2cf1\u2d7f\u2de0-\u2dff\u302a-\u302f\u3099\u309a\ua66f-\ua69f"
    "\ua6f0-\uabed\uf900-\ufaff\ufb1d-\ufb4e\ufe20-\ufe2f"
)
COMPOSES_BEYOND_16_BITS = ((0x101FD, 0x1EFFF), (0x2F800, 0x2FA1D))
_COMPOSING = re.compile(f"[{_COMPOSES}{''.join(f'{chr(a)}-{chr(b)}' for a, b in COMPOSES_BEYOND_16_BITS)}]+")
_BEYOND_16_BITS = b"\xf0"
"""The byte that begins all characters of U+10000 to U+3FFFF in UTF-8."""
_REPAIRED = f"{_CONTROLS}{_INVISIBLE}{_ZERO_WIDTH_SPACE}{_SPACES}\u2028\u2029\ud800-\udfff"
_REPAIRED_CHARACTER = re.compile(f"[{_REPAIRED}]")
NEVER_CLEAN = _REPAIRED + _COMPOSES
"""Characters, as a set of a regular expression, that ask for a closer look wherever they stand."""
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
    if config.trailing_white_space:
        trimmed = _trim(text)
        # White space at a line's end may be all that there is to repair, or a part of mojibake.
        if _is_clean(trimmed) and not is_suspicious(text):
            return trimmed, ("trailing_white_space",)
    steps = _steps(config)
    changed: set[str] = set()
    for _ in range(_MAX_PASSES):
        before = text
        for name, repair in steps:
            repaired = repair(text)
            if repaired != text:
                changed.add(name)
                text = repaired
        if text == before or _is_clean(text):
            break
    return text, tuple(name for name, _ in steps if name in changed)


def _is_clean(text: str) -> bool:
    """True if no repair applies, whichever are switched on: the common case, found at the speed of C.

    A look at what is no ordinary ASCII decides nearly always; only a few neighbours in it ask for a closer look.
    """
    if not text or text[-1] in " \t\n" or text[0] == "\n" or _RAGGED.search(text):
        return False
    try:
        data = text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    # Where most characters are beyond ASCII, taking ASCII away costs more than it saves.
    probe = text if len(data) > 2 * len(text) else data.translate(None, _ORDINARY_ASCII).decode()
    if not (probe and (bad_neighbours(NEVER_CLEAN).search(probe) or _BEYOND_16_BITS in data)):
        return True
    if _REPAIRED_CHARACTER.search(probe) or is_suspicious(text):
        return False
    if not _COMPOSING.search(probe):
        return True
    return unicodedata.is_normalized("NFC", text) if probe is text else _is_composed(text)


def _is_composed(text: str) -> bool:
    """True if the text has Unicode normal form C: the places that could differ have it, each with what it rests on."""
    places = [text[max(0, found.start() - 1) : found.end()] for found in _COMPOSING.finditer(text)]
    return unicodedata.is_normalized("NFC", "".join(places))


@lru_cache(maxsize=32)
def _steps(config: NormaliseConfig) -> tuple[Step, ...]:
    return tuple(_switched_on(config))


def _switched_on(config: NormaliseConfig) -> Iterator[Step]:
    """The repairs in their order: each leaves alone what those before it have settled, as far as that can be."""
    if config.fix_encoding:
        yield "fix_encoding", _fix_encoding
    if config.line_ends:
        yield "line_ends", _line_ends
    if config.control_characters:
        yield "control_characters", _without_controls if config.line_ends else _without_controls_but_line_ends
    if config.zero_width:
        yield "zero_width", _zero_width
    if config.white_space:
        yield "white_space", _white_space
    if config.unicode_nfc:
        # Joining surrogates is the business of fix_encoding; Python's normaliser passes them through.
        yield "unicode_nfc", lambda text: unicodedata.normalize("NFC", text)
    if config.trailing_white_space:
        yield "trailing_white_space", _trim
    if config.blank_lines:
        yield "blank_lines", lambda text: _BLANK_LINES.sub("\n\n\n", text) if "\n\n\n\n" in text else text


def _line_ends(text: str) -> str:
    for end in _LINE_ENDS:
        if end in text:
            text = text.replace(end, "\n")
    return text


def _without_controls(text: str) -> str:
    if text.isascii():
        return text.encode().translate(None, _ASCII_CONTROLS).decode()
    return _control_characters().sub("", text)


def _without_controls_but_line_ends(text: str) -> str:
    if text.isascii():
        return text.encode().translate(None, _ASCII_CONTROLS_BUT_LINE_ENDS).decode()
    return _control_characters(line_ends=False).sub("", text)


@lru_cache(maxsize=2)
def _control_characters(*, line_ends: bool = True) -> re.Pattern[str]:
    return re.compile(f"[{_CONTROLS}]" if line_ends else f"(?![{_LINE_END_CONTROLS}])[{_CONTROLS}]")


def _zero_width(text: str) -> str:
    """Without invisible characters; a soft hyphen that ends a line becomes a hyphen."""
    if any(character in text for character in _INVISIBLE):
        text = _INVISIBLES.sub("", _SOFT_HYPHEN_AT_LINE_END.sub("-", text))
    if _ZERO_WIDTH_SPACE in text:
        text = _ZERO_WIDTH_SPACES.sub(lambda found: _ZERO_WIDTH_SPACE if found["between_words"] else "", text)
    return text


def _white_space(text: str) -> str:
    """One ordinary space for each space of another kind."""
    for space in _SPACES:
        if space in text:
            text = text.replace(space, " ")
    return text


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
    return _without_mojibake(text) if is_suspicious(text) else text


def _without_mojibake(text: str) -> str:
    """`ftfy.fix_text`, which works line by line and is slow (1 MB/s), on the lines that may need it."""
    import ftfy

    pieces, at = [], 0
    while found := bad_neighbours("").search(text, at):
        start, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.start()) + 1 or len(text)
        pieces += [text[at:start], ftfy.fix_text(text[start:end], _ftfy_config())]
        at = end
    return "".join([*pieces, text[at:]])


def is_suspicious(text: str) -> bool:
    """True if the text has sequences of characters that wrong decoding leaves behind: `ftfy.badness.is_bad`, faster."""
    if text.isascii() or not bad_neighbours("").search(text):
        return False
    from ftfy.badness import is_bad

    return is_bad(_PLAIN_RUNS.sub("", text))


@lru_cache(maxsize=2)
def bad_neighbours(single: str) -> re.Pattern[str]:
    """One of the characters `single`, or what every sequence that `ftfy.badness.is_bad` looks for has in it.

    That measure tries thirty alternatives at every character (4 MB/s). All of them have two or three neighbours beyond
    ASCII of certain kinds, or œ, Ã, Â and no letter after it. To look for these is to pass over most characters by one
    set; what follows is told apart by the first, and accented letters before an ASCII letter leave at once.
    """
    from ftfy.badness import MOJIBAKE_CATEGORIES

    kinds = dict(MOJIBAKE_CATEGORIES, single=single + MOJIBAKE_CATEGORIES["c1"])
    kinds["letters"] = kinds["lower_accented"] + kinds["upper_accented"]
    return re.compile(
        "[{single}{letters}{bad}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}ÙЂВГРСΒΓΞΟ]"
        "(?:(?<=[{single}])"
        "|(?<=[{letters}])(?:(?<=[{lower_common}][{upper_accented}])|(?![A-Za-z])(?:"
        "[{bad}{box}{start_punctuation}{end_punctuation}]"
        "|(?<=[{lower_accented}])[{upper_accented}{currency}{numeric}]"
        "|(?<=[{upper_accented}])[{currency}{numeric}{law}°]"
        "|(?<=[ŒœÃÂ])"
        "|(?<=[ÎÐ])[€œŠš¢£Ÿž\xa0\xad®©°·»–—´]"
        "|(?<=Ø)[{common}{currency}{bad}{numeric}ŸŠ®°µ»][ØÙ]))"
        "|(?<![{letters}])(?:(?<=[{start_punctuation}])[{bad}{box}{numeric}Äâó]"
        "|(?<=[{end_punctuation}])[{letters}{bad}{box}{currency}]"
        "|(?<=[{currency}{numeric}])[{letters}{bad}{box}{start_punctuation}{end_punctuation}]"
        "|(?<=[{bad}])[{letters}{bad}{box}{start_punctuation}{end_punctuation}{currency}{numeric}{law}]"
        "|(?<=[{lower_common}{upper_common}][{bad}])"
        "|(?<=[{box}])[{letters}{bad}{start_punctuation}{end_punctuation}{currency}{numeric}{law}{kaomoji}]"
        "|(?<=[{law}])[{bad}{box}{end_punctuation}]"
        "|(?<=[×√≈])[²³±∂≠´≤≥¥µø°¢]"
        "|(?<=Ù)[{common}{currency}{bad}{numeric}{start_punctuation}ŸŠ®°µ»][ØÙ]"
        "|(?<=[ВГРС])[{bad}{start_punctuation}{end_punctuation}{currency}°µ][ВГРС]"
        "|(?<=[ΒΓΞΟ])[{bad}{start_punctuation}{end_punctuation}{currency}°][ΒΓΞΟ]"
        "|(?<=Г)ў|(?<=вЂ)|(?<=β€)))".format(**kinds)
    )


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
