"""Text of bytes whose encoding is declared, declared wrongly, or not declared at all.

What is tried, in this order: the byte order mark; UTF-8, if the bytes are valid UTF-8 (with a multi-byte sequence that
hardly happens by chance, so it overrules any declaration); the encoding that the caller was told (HTTP's Content-Type);
for HTML and XML, what the XML declaration or a meta element says; what the bytes look like (chardet).
"""

from __future__ import annotations

import codecs
import functools
import itertools
import re
from collections.abc import Iterator

import chardet
import webencodings

MAX_DAMAGE = 0.01
"""Share of the characters that may be undecodable: they become U+FFFD. With more of them an encoding is not taken."""
MAX_DAMAGE_BEYOND_ASCII = 0.1
"""The same, as a share of the characters that are not ASCII: in these a wrong encoding shows, in mostly English pages
too."""

# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What the web calls by these names, browsers read as the larger encoding (WHATWG Encoding Standard, section 4.2).
# Keys are names of the standard or Python's names for encodings that chardet finds.
_LARGER = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "shift_jis_2004": "cp932",
    "iso-8859-8-i": "iso8859-8",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-user-defined": "cp1252",
}
# Codecs of Python that are no encodings of text, or that no page is written in.
_NO_ENCODINGS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})
_HEAD_BYTES = 1 << 13
_SAMPLE_BYTES = 1 << 16
_BEFORE_SAMPLE = 1 << 10
_XML_DECLARATION = re.compile(rb"""\s{0,99}<\?xml\s[^<>]*?encoding\s{0,99}=\s{0,99}["']([\w.:+-]{1,40})""")
_META_CHARSET = re.compile(rb"""<meta\s[^<>]*?charset\s{0,99}=\s{0,99}["']?\s{0,99}([\w.:+-]{1,40})""", re.IGNORECASE)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_TAG = re.compile(rb"</?[a-zA-Z][^<>]{0,9999}>")
_CHARSET_PARAMETER = re.compile(r"""charset\s*=\s*["']?\s*([\w.:+-]+)""", re.IGNORECASE)


def find_mark(data: bytes) -> tuple[bytes, str]:
    """The byte order mark that bytes begin with, and the encoding it stands for; both empty where there is none."""
    return next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))


def decode_text(
    data: bytes, *, declared: str | None = None, html: bool = False, encoding: str = "detect"
) -> tuple[str, str]:
    """The text of bytes, without a byte order mark, and Python's name of the encoding it was read as.

    Parameters
    ----------
    data
        The bytes.
    declared
        What whoever sent them says: a label (`latin-1`) or a whole Content-Type (`text/html; charset=latin-1`). Labels
        mean what they mean to browsers (WHATWG Encoding Standard): latin-1 is cp1252, gb2312 is gb18030.
    html
        Believe an XML declaration or a meta element in the first 8 KiB.
    encoding
        `detect`, or the name of an encoding, which is then used to the letter.

    Raises
    ------
    UnicodeDecodeError
        With a named encoding: a byte that it cannot decode. With `detect`: nothing decodes all but a few characters
        (`MAX_DAMAGE`, `MAX_DAMAGE_BEYOND_ASCII`); the error is that of the first encoding that was tried.
    ValueError
        There is no encoding of the given name.
    """
    if encoding != "detect":
        codec = find_codec(encoding)
        return data.decode(codec).removeprefix("\ufeff"), codec
    mark, marked = find_mark(data)
    if mark:
        data = data[len(mark) :]
        return _first_that_fits(data, itertools.chain([marked], _candidates(data, declared, html)))
    # Text in UTF-16 or UTF-32 is full of NULs, so that it may be ASCII, byte by byte.
    if data.count(0) * 20 <= len(data):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            if len(text) < len(data) or not (b"\x1b" in data or b"~{" in data):  # what else is ASCII: ISO 2022, HZ
                return text, "utf-8"
    return _first_that_fits(data, _candidates(data, declared, html))


def find_codec(name: str) -> str:
    """Python's name of an encoding; labels that only the web knows are understood too.

    Raises
    ------
    ValueError
        There is no encoding of this name.
    """
    found = _codec(name.strip()) or _web_codec(name)
    if found is None:
        raise ValueError(f"there is no encoding {name!r}; Python's and the web's names are known, and `detect`")
    return found


def _candidates(data: bytes, declared: str | None, html: bool) -> Iterator[str]:
    """Codecs to try, each only made when the ones before did not fit."""
    if declared:
        parameter = _CHARSET_PARAMETER.search(declared)
        codec = _web_codec(parameter[1] if parameter else declared)
        if codec is not None:
            yield codec
    if html:
        head = data[:_HEAD_BYTES]
        found = _XML_DECLARATION.match(head) or _META_CHARSET.search(head)
        codec = _web_codec(found[1].decode("latin-1")) if found else None
        if codec is not None:
            # A declaration that could be read byte by byte is not in UTF-16 (HTML Standard, section 13.2.3.2).
            yield "utf-8" if codec.startswith(("utf-16", "utf-32")) else codec
    beyond_ascii = _BEYOND_ASCII.search(data)
    if beyond_ascii:
        yield "utf-8"  # with a few damaged characters
    if beyond_ascii and b"\0" not in data:
        # Long heads of scripts come before the text, and markup, which tells no language, between its words.
        begin = max(0, beyond_ascii.start() - _BEFORE_SAMPLE)
        sample = _TAG.sub(b" ", data[begin : begin + _SAMPLE_BYTES])
    else:
        sample = data[:_SAMPLE_BYTES]
    guess = chardet.detect(sample, max_bytes=_SAMPLE_BYTES, compat_names=False)["encoding"]
    codec = _codec(guess or "utf-8")
    if codec is not None:
        if codec in _LARGER and beyond_ascii:
            yield _LARGER[codec]
        yield codec
    yield "utf-8"


def _first_that_fits(data: bytes, codec_names: Iterator[str]) -> tuple[str, str]:
    first_error = None
    for name in codec_names:
        try:
            return data.decode(name), name
        except UnicodeDecodeError as error:
            first_error = first_error or error
        text = data.decode(name, "replace")
        damage = text.count("\ufffd")
        beyond_ascii = len(text) - len(text.encode("ascii", "ignore"))
        if damage <= MAX_DAMAGE * len(text) and damage <= MAX_DAMAGE_BEYOND_ASCII * beyond_ascii:
            return text, name
    assert first_error is not None  # UTF-8 was tried
    raise first_error


@functools.lru_cache(1024)
def _web_codec(label: str) -> str | None:
    """Python's name of what browsers take a label for; None for labels that name no encoding."""
    label = label.strip()
    known = webencodings.lookup(label)
    # Python's own names (latin-1, cp850) are no labels of the web, but pages use them.
    name = known.name if known is not None and known.name != "replacement" else _codec(label)
    return None if name is None else _LARGER.get(name) or _codec(name)


def _codec(name: str) -> str | None:
    try:
        found = codecs.lookup(name).name
        b"\0\0\0\0".decode(found, "ignore")
    except (LookupError, ValueError):  # no codec, or one from bytes to bytes; a NUL in the name
        return None
    return None if found in _NO_ENCODINGS else found
