"""Personal data is replaced by typed placeholders before anything is written: e-mail and IP addresses, phone and card
numbers, bank accounts.

What can be checked is checked (Luhn for cards, ISO 7064 for IBANs, country codes, ranges of addresses), so that numbers
of other kinds stay. Digits and separators are those of ASCII. Redacting twice changes nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from corpus.config import RedactConfig

REDACTION_VERSION = 3
"""Raised when the same text would come out differently."""

PLACEHOLDERS = {
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "credit-card": "<CREDIT_CARD>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
}
"""Kind -> what stands in its place. This is also the order in which they are looked for: a card number is no phone."""

_AS_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # digits could be taken for a number

Span = tuple[int, int]


class Redactor:
    """Replaces the kinds of personal data a configuration names."""

    def __init__(self, config: RedactConfig) -> None:
        self._kinds = config.kinds
        self._numbers = [name for name in PLACEHOLDERS if name in config.kinds and name != "email"]

    def text(self, text: str) -> tuple[str, dict[str, int]]:
        """A text without personal data, and how much of each kind was replaced.

        Examples
        --------
        >>> Redactor(RedactConfig(kinds=("email", "ip"))).text("ask ann@example.org at 192.0.2.7, not @ann")
        ('ask <EMAIL> at <IP_ADDRESS>, not @ann', {'email': 1, 'ip': 1})
        """
        counts: dict[str, int] = {}
        # What is replaced can be what kept a neighbour from being seen: again, until nothing is left. Every round has
        # fewer digits and at signs.
        while (redacted := self._once(text, counts)) != text:
            text = redacted
        return text, counts

    def _once(self, text: str, counts: dict[str, int]) -> str:
        if "email" in self._kinds:
            text = _replace(text, _emails(text), "email", counts)
        page = None
        for name in self._numbers:
            if page is None or page.text is not text:
                page = _Page(text)
            text = _replace(text, _NUMBERS[name](page), name, counts)
        return text

    def name(self, path: str) -> str:
        """A path without personal data. One that had some ends in a hash of all of it, so that paths stay different.

        Examples
        --------
        >>> Redactor(RedactConfig(kinds=("email",))).name("mail/ann@example.org/1.txt")
        'mail/<EMAIL>/1.txt~dcmihbfliglm'
        """
        redacted, counts = self.text(path)
        if not counts:
            return path
        digest = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        return f"{redacted}~{digest.translate(_AS_LETTERS)}"

    def value(self, value: Any) -> Any:
        """The same for all strings and whole numbers in an address, a date, further fields, lists and dictionaries.

        The key of a field is read with it: in `{"phone": 4155550123}` the digits are a phone number. Keys are redacted
        too; those that become equal are numbered. What JSON does not know is taken as the string that it is stored as.
        """
        return self._value(value, "")

    def _value(self, value: Any, key: str) -> Any:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, Mapping):
            fields: dict[Any, Any] = {}
            for name, inner in value.items():
                own = unique = self._field("", name)
                while unique in fields:
                    unique = f"{own} ({len(fields)})"
                fields[unique] = self._value(inner, str(name))
            return fields
        if isinstance(value, list | tuple):
            return [self._value(inner, key) for inner in value]
        return self._field(key, value)

    def _field(self, key: str, value: Any) -> Any:
        plain = value if isinstance(value, str) else str(value)
        redacted, counts = self.text(plain)
        before = f"{key.replace('_', ' ')}: "
        if not counts and key and (with_key := self.text(before + plain)[0]).startswith(before):
            redacted = with_key[len(before) :]
        return value if redacted == plain else redacted


def _replace(text: str, spans: Iterable[Span], name: str, counts: dict[str, int]) -> str:
    pieces, at = [], 0
    for start, end in spans:
        if start >= at:
            pieces += [text[at:start], PLACEHOLDERS[name]]
            at = end
            counts[name] = counts.get(name, 0) + 1
    return "".join([*pieces, text[at:]]) if pieces else text


class _Page:
    """A text in the forms in which numbers are looked for; positions are the same in all of them.

    Attributes
    ----------
    plain
        The text with `?` for what is not ASCII, the dashes and spaces of typographers apart.
    shape
        `plain` with 0 for every digit and A for every letter: what begins with one known byte is found at 1 GB/s.
    long_numbers
        Where seven or more digits follow one another, up to three separators between two of them.
    """

    __slots__ = ("long_numbers", "plain", "shape", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        if not text.isascii():
            for odd, plain in _ODD_SEPARATORS:
                if odd in text:
                    text = text.replace(odd, plain)
        self.plain = text.encode("ascii", "replace")
        self.shape = self.plain.translate(_SHAPES)
        self.long_numbers = [found.span() for found in _LONG_NUMBER.finditer(self.shape)]


_ODD_SEPARATORS = tuple((odd, "-") for odd in "\u2010\u2011\u2012\u2013\u2212") + (("\xa0", " "), ("\u202f", " "))
_SHAPES = bytes(
    ord("0") if chr(code).isdigit() and code < 128 else ord("A") if chr(code).isalpha() and code < 128 else code
    for code in range(256)
)
_LONG_NUMBER = re.compile(rb"0(?:[ ().\-/\t]{0,3}0){6,}")

# Letters of Latin script, of other scripts. An address in a text without spaces ends where the script changes.
_LATIN = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u024f\u1e00-\u1eff"
_OTHER = rf"(?:(?![{_LATIN}])[^\W\d_])"
_LABEL = rf"(?:[{_LATIN}0-9](?:[{_LATIN}0-9-]{{0,61}}[{_LATIN}0-9])?|{_OTHER}(?:{_OTHER}|[0-9-]){{0,61}})"
_DOMAIN = re.compile(
    rf"(?:{_LABEL}\.){{1,8}}(?:xn--[A-Za-z0-9-]{{2,59}}|[{_LATIN}]{{2,24}}(?![{_LATIN}0-9_@]|-[{_LATIN}0-9])"
    rf"|{_OTHER}{{2,24}})|\[(?:[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}|IPv6:[0-9A-Fa-f:.]{{2,45}})\]"
)
_LOCAL_PART = re.compile(
    rf"(?:[{_LATIN}0-9_](?:[{_LATIN}0-9_+%&'~-]|\.(?!\.))*(?<![.'&%])|{_OTHER}(?:{_OTHER}|[0-9_+-]|\.(?!\.))*(?<!\.))\Z"
)
_LOCAL_PART_CHARACTERS = 64
# Pictures for screens of several densities (logo@2x.png).
_PICTURE = re.compile(r"[0-9](?:\.[0-9])?x\.(?:png|jpe?g|gif|webp|svg|avif)\Z", re.IGNORECASE)


_AT_SIGN, _AT_SIGN_OF_URLS = re.compile("@"), re.compile("@|%40")


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text and "%40" not in text:
        return
    for sign in (_AT_SIGN_OF_URLS if "%40" in text else _AT_SIGN).finditer(text):
        domain = _DOMAIN.match(text, sign.end())
        if domain is None or _PICTURE.match(domain.group()):
            continue
        local = _LOCAL_PART.search(text, max(0, sign.start() - _LOCAL_PART_CHARACTERS), sign.start())
        # git@host:path is the place of a repository.
        if local is not None and not (local.group() == "git" and text.startswith(":", domain.end())):
            yield local.start(), domain.end()


# Lengths of IBANs by country (SWIFT's IBAN registry, release 99).
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
_IBAN_BODY = re.compile(rb"(?:[ -]?[A-Za-z0-9]){11,29}")


def _ibans(page: _Page) -> Iterator[Span]:
    at = -1
    while (at := page.shape.find(b"AA00", at + 1)) >= 0:
        country = page.plain[at : at + 2].decode().upper()
        if country not in _IBAN_LENGTHS or page.plain[at - 1 : at].isalnum():
            continue
        if body := _IBAN_BODY.match(page.plain, at + 4):
            places = [at + 4 + place for place, byte in enumerate(body.group()) if byte not in b" -"]
            wanted = _IBAN_LENGTHS[country] - 4
            if len(places) < wanted:
                continue
            end = places[wanted - 1] + 1
            if page.plain[end : end + 1].isalnum():
                continue
            digits = bytes(page.plain[place] for place in (*places[:wanted], *range(at, at + 4))).decode()
            # ISO 7064, mod 97-10: the first four characters go to the end, letters count from ten.
            if int("".join(str(int(digit, 36)) for digit in digits)) % 97 == 1:
                yield at, end


# How the digits of a card are grouped, the longest first; a further group behind them is none of theirs.
_CARD_BEGIN = re.compile(rb"(?<![\w.,+-])[2-6][0-9]{3}")
_CARDS = tuple(
    re.compile(grouping + rb"(?!\w|[.,-][0-9])")
    for grouping in (
        rb"[0-9]{13,19}",
        rb"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}\1[0-9]{3}",
        rb"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}",
        rb"[0-9]{4}([ -])[0-9]{6}\1[0-9]{4,5}",
        rb"[0-9]{6}([ -])[0-9]{7,13}",
    )
)
# Ranges and lengths of the networks: Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay, Mir,
# Maestro and RuPay, from their public tables of issuer identification numbers.
_CARD_ISSUERS = re.compile(
    r"4[0-9]{12}(?:[0-9]{3})?(?:[0-9]{3})?|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}(?:[0-9]{3})?|3(?:0[0-5]|095|[689][0-9])[0-9]{11,16}"
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}|62[0-9]{14,17}|220[0-4][0-9]{12,15}"
    r"|(?:50[0-9]{2}|5[6-8][0-9]{2}|6304|6759|676[1-3]|60[0-9]{2})[0-9]{12,15}"
)
_CARD_WORD = re.compile(r"\b(?:card|visa|credit)\b[^0-9\n]{0,20}\Z", re.IGNORECASE)


def _cards(page: _Page) -> Iterator[Span]:
    for start, end in page.long_numbers:
        if end - start < 13:
            continue
        done = 0
        for begin in _CARD_BEGIN.finditer(page.plain, start, end):
            for grouping in _CARDS if begin.start() >= done else ():
                found = grouping.match(page.plain, begin.start())
                if found and _is_card(re.sub("[ -]", "", found.group().decode()), page.text, found.start()):
                    yield found.span()
                    done = found.end()
                    break


def _is_card(digits: str, text: str, at: int) -> bool:
    if not (_CARD_ISSUERS.fullmatch(digits) and luhn(digits)):
        return False
    # Thirteen digits are mostly barcodes; one in ten of them passes for a card of the first years of Visa.
    return len(digits) > 13 or not _is_barcode(digits) or bool(_CARD_WORD.search(text, max(0, at - 40), at))


def _is_barcode(digits: str) -> bool:
    return sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10 == 0


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = int(char) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


# From the last digit of the first number on: a pattern that begins with known bytes is found ten times as fast.
_IPV4 = re.compile(rb"0\.0{1,3}\.0{1,3}\.0{1,3}(?!0|\.0|A|_|-A)")
_VERSION_WORD = re.compile(r"\b(?:(?:version|release|build|ver|section|chapter)s?\.?[\s-]*|v\.?)\Z", re.IGNORECASE)
_TWO_COLONS = re.compile(rb":[0-9A-Fa-f]{0,4}:")
_HEX_AND_COLONS = re.compile(rb"[0-9A-Fa-f:]*(?::[0-9]{1,3}(?:\.[0-9]{1,3}){3})?")
_IPV6_CHARACTERS = 45
# What is given out to networks (2000::/3), private (fc00::/7) or of one link (fe80::/10); a::b may be many things.
_IPV6_FIRST = re.compile(r"(?:[23][0-9a-f]{3}|f[cd][0-9a-f]{2}|fe[89ab][0-9a-f])\Z", re.IGNORECASE)


def _ip_addresses(page: _Page) -> Iterator[Span]:
    yield from sorted([*_ipv4(page), *_ipv6(page)])


def _ipv4(page: _Page) -> Iterator[Span]:
    for found in _IPV4.finditer(page.shape):
        start, end = found.span()
        while start and found.start() - start < 3 and page.shape[start - 1] == ord("0"):
            start -= 1
        if start and page.shape[start - 1] in b"0A._":
            continue
        parts = page.plain[start:end].decode().split(".")
        numbers = [int(part) for part in parts]
        if max(numbers) > 255 or any(len(part) > 1 and part[0] == "0" for part in parts):
            continue
        # Nobody's: unspecified, loopback, several receivers, masks.
        if numbers[0] in (0, 127) or numbers[0] >= 224:
            continue
        # Versions and sections. One public address in 2,000 looks so.
        if (numbers[0] < 8 and max(numbers) < 64) or _VERSION_WORD.search(page.text, max(0, start - 12), start):
            continue
        yield start, end


def _ipv6(page: _Page) -> Iterator[Span]:
    done = 0
    for found in _TWO_COLONS.finditer(page.plain):
        start = found.start()
        if start < done:
            continue
        while start > max(done, found.start() - 5) and page.plain[start - 1] in b"0123456789abcdefABCDEF":
            start -= 1
        token = _HEX_AND_COLONS.match(page.plain, start)
        done = token.end() if token else found.end()
        address = page.plain[start:done].decode()
        if len(address) > _IPV6_CHARACTERS or len(re.sub("[^0-9A-Fa-f]", "", address)) < 8:
            continue
        if (start and page.shape[start - 1] in b"0A:._") or page.shape[done : done + 1] in (b"A", b"_"):
            continue
        if _IPV6_FIRST.match(address.partition(":")[0]) and any(char.isdigit() for char in address):
            address = address[:-1] if address.endswith(":") and not address.endswith("::") else address
            try:
                ipaddress.IPv6Address(address)
            except ValueError:
                continue
            yield start, start + len(address)


# Country codes (ITU-T E.164); a number is seven digits at least, the code among them, and fifteen at most.
_COUNTRY_CODE = re.compile(
    r"1[2-9]..[2-9]......\Z|7\d{10}\Z|2[07]|2[1-69]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[7-9]\d"
    r"|8[1246]|8[058]\d|9[0-58]|9[679]\d"
)
_EXTENSION = rb"(?: ?(?:x|ext\.?|extension) ?[0-9]{1,5})?"
_NOT_BEHIND = rb"(?![\w%])(?![.,/-][0-9])"
_DATE = re.compile(
    r"(?:[0-9]{1,2}([ .\-/])[0-9]{1,2}\1(?:19|20)?[0-9]{2}"
    r"|(?:19|20)[0-9]{2}([ .\-/])[0-9]{1,2}\2[0-9]{1,2}|(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)?[0-9]{2})(?:[ \-].*)?"
)
_DOTTED = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_FIVE_PAIRS = re.compile(r"\d\d([ .\-/])\d\d(?:\1\d\d){3}\Z")
_CHINESE = re.compile("[\u3400-\u9fff\uff00-\uffef\u3000-\u303f]")
_PHONE_WORDS = (
    "tel", "telephone", "telefone", "telefono", "teléfono", "telefon", "telefax", "tél", "téléphone", "ph", "phone",
    "fax", "mob", "mobil", "mobile", "móvil", "cell", "cellphone", "celular", "handy", "whatsapp", "hotline", "call",
    "dial", "ring", "sms", "viber", "тел", "телефон", "факс", "моб",
)  # fmt: skip
_PHONE_WORDS_WITHOUT_SPACES = (
    "拨打", "致电", "联系", "电话", "電話", "手机", "手機", "传真", "傳真", "热线", "熱線", "携帯", "전화", "휴대폰",
    "هاتف", "फोन", "โทร",
)  # fmt: skip
_BETWEEN_WORD_AND_NUMBER = (
    "number", "numbers", "no", "nr", "num", "is", "us", "me", "him", "her", "at", "on", "or", "and", "office", "home",
    "work", "free", "direct", "号码", "號碼", "是", "番号", "번호",
)  # fmt: skip
_PHONE_WORD = re.compile(
    rf"(?:\b(?:{'|'.join(_PHONE_WORDS)})\b|{'|'.join(_PHONE_WORDS_WITHOUT_SPACES)}"
    r"|<PHONE>(?=[ ]?(?:[,;/|]|or\b|and\b)))"
    rf"[\s\W_]{{0,6}}(?:(?:{'|'.join(_BETWEEN_WORD_AND_NUMBER)})[\s\W_]{{0,4}}){{0,4}}\Z",
    re.IGNORECASE,
)
_LAST_WORDS = (*_PHONE_WORDS, *_PHONE_WORDS_WITHOUT_SPACES, *_BETWEEN_WORD_AND_NUMBER)
_OTHER_NUMBER = re.compile(r"\b(?:isbn|issn|doi|oclc|pmid|ean|upc|sku|lccn|asin)\b[^0-9\n]{0,12}\Z", re.IGNORECASE)


def _phones(page: _Page) -> Iterator[Span]:
    spans: list[Span] = []
    for start, end in page.long_numbers:
        begin, stop = max(0, start - 3), min(len(page.plain), end + 16)
        place = page.plain[begin:end]
        for writing in _PHONES:
            if not any(sign in place for sign in writing.signs):
                continue
            for found in writing.pattern.finditer(page.plain, begin, stop):
                if found.start() >= end or (writing.first and found.start() > start):
                    break
                if writing.accepts(found.group().decode(), page.text, found.start()):
                    spans.append(found.span())
    done = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            yield start, end
            done = end


def _digits(number: str) -> str:
    return re.sub("[^0-9]", "", re.split("[xe]", number)[0])


def _is_named(text: str, at: int) -> bool:
    before = text[max(0, at - 60) : at]
    last = len(before)
    while last and not before[last - 1].isalpha():
        last -= 1
    # Most numbers are settled by the last letters before them.
    return before[max(0, last - 12) : last].lower().endswith(_LAST_WORDS) and bool(_PHONE_WORD.search(before))


def _is_other(text: str, at: int) -> bool:
    return bool(_OTHER_NUMBER.search(text, max(0, at - 30), at))


def _is_international(number: str, text: str, at: int) -> bool:
    digits = _digits(number).removeprefix("00") if number.startswith("00") else _digits(number)
    return bool(_COUNTRY_CODE.match(digits)) and 8 <= len(digits) <= 15


def _is_national(number: str, text: str, at: int) -> bool:
    return not _is_other(text, at)


def _is_with_trunk_prefix(number: str, text: str, at: int) -> bool:
    groups = re.findall("[0-9]+", number)
    if not 10 <= sum(map(len, groups)) <= 12 or _is_other(text, at):
        return False
    if all(len(group) == 2 for group in groups):
        return bool(_FIVE_PAIRS.match(number))
    return not (_DATE.fullmatch(number) or _DOTTED.fullmatch(number))


def _is_chinese_mobile(number: str, text: str, at: int) -> bool:
    around = text[max(0, at - 12) : at] + text[at + len(number) : at + len(number) + 4]
    return not number.isdigit() or bool(_CHINESE.search(around))


def _is_said_to_be_one(number: str, text: str, at: int) -> bool:
    return _is_named(text, at) and 7 <= len(_digits(number)) <= 15 and not _DATE.fullmatch(number.strip("()"))


class _Writing(NamedTuple):
    """A way to write a phone number."""

    pattern: re.Pattern[bytes]
    accepts: Callable[[str, str, int], bool]
    """Of the number, the text and its place there: true if it is one."""
    signs: tuple[bytes, ...]
    """One of these has to be there, else nobody need look."""
    first: bool = False
    """Only the first digits of a place are looked at: words stand before places, never in them."""


def _writing(body: bytes, accepts: Callable[[str, str, int], bool], *signs: bytes, first: bool = False) -> _Writing:
    return _Writing(re.compile(body + _EXTENSION + _NOT_BEHIND), accepts, signs, first)


def _alone(begin: bytes = b"") -> bytes:
    """`begin`, unless it goes on what stands before: a pattern that begins with a known byte is found faster."""
    return begin + rb"(?<![\w.,/=#$%&*+-]" + begin + rb")"


_PHONES = (
    # North America first: with the country code there are eleven digits, whatever follows.
    _writing(
        rb"\+(?<![\w+]\+) ?1[ .\-/]?\(?[2-9][0-9]{2}\)?[ .\-/]{0,2}[2-9][0-9]{2}[ .\-/]?[0-9]{4}",
        _is_international,
        b"+",
    ),
    _writing(rb"\+(?<![\w+]\+) ?\(?[2-9](?:[ .\-/()]{0,2}[0-9]){6,12}(?![0-9])", _is_international, b"+"),
    _writing(
        _alone(b"0") + rb"0 ?[1-9][0-9]{0,2}[ .\-/]\(?[0-9](?:[ .\-/()]{0,2}[0-9]){4,11}(?![0-9])",
        _is_international,
        b"00",
    ),
    _writing(
        _alone() + rb"(?:1[ .\-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .\-]?[0-9]{4}"
        rb"|[2-9][0-9]{2}([.\-])[2-9][0-9]{2}\1[0-9]{4}|[2-9][0-9]{2}[ /][2-9][0-9]{2}-[0-9]{4})",
        _is_national,
        *(b"(", b".", b"-"),
    ),
    _writing(_alone(rb"\(") + rb"[0-9]{2,3}\) ?[0-9]{3,5}[ -][0-9]{3,4}", _is_national, b"("),
    _writing(_alone(rb"\(") + rb"0[0-9]{1,4}\) ?[0-9]{2,8}(?:[ .\-][0-9]{2,8}){0,4}", _is_with_trunk_prefix, b"(0"),
    _writing(
        _alone(b"0") + rb"[1-9][0-9]{0,3}(?:[ .\-]| ?[/-] ?)[0-9]{2,8}(?:[ .\-][0-9]{2,8}){0,4}",
        _is_with_trunk_prefix,
        b"0",
    ),
    _writing(_alone(b"1") + rb"[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}", _is_chinese_mobile, b"1"),
    _writing(_alone() + rb"\(?[0-9](?:[ .\-/()]{0,2}[0-9]){6,14}", _is_said_to_be_one, b"", first=True),
)

_NUMBERS: Mapping[str, Callable[[_Page], Iterable[Span]]] = {
    "iban": _ibans,
    "credit-card": _cards,
    "ip": _ip_addresses,
    "phone": _phones,
}
