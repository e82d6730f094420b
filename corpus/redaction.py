"""Personal data is replaced by typed placeholders before anything is written: e-mail and IP addresses, phone and card
numbers, bank accounts.

What can be checked is checked (Luhn for cards, ISO 7064 for IBANs, ranges of addresses), so that numbers of other kinds
stay. Redacting twice changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from corpus.config import RedactConfig

REDACTION_VERSION = 1
"""Raised when the same text would come out differently."""

PLACEHOLDERS = {
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "credit-card": "<CREDIT_CARD>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
}
"""Kind -> what stands in its place. This is also the order in which they are looked for: a card number is no phone."""

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

# The local part begins and ends with a letter or digit; the domain has a dot and ends with letters (in any script).
_EMAIL = re.compile(
    r"(?<![\w.+%-])[\w](?:[\w.!#$%&'*+/=?^`{|}~-]{0,62}[\w])?@(?:[\w](?:[\w-]{0,61}[\w])?\.){1,8}[^\W\d_]{2,24}(?![\w@])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \u00a0]?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,+-])[2-6](?:[ -]?[0-9]){12,18}(?![\w]|[.,-][0-9])")
_CARD_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)\d+|3[47]\d{13}|3(?:0[0-5]|[68])\d+"
    r"|6(?:011|4[4-9]|5)\d+|35(?:2[89]|[3-8])\d+|62\d+"
)
_IPV4 = re.compile(r"(?<![\w.:/-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_VERSION_WORD = re.compile(r"(?:version|release|ver|v|section|chapter)\.?\s*$", re.IGNORECASE)
# International numbers have a plus or 00; national ones brackets or at least two separators, so that plain digits stay.
_PHONE = re.compile(
    r"(?<![\w.,/:=#$€£-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .\-/]?(?:\(0?\d{1,5}\)[ .\-]?)?\d{1,5}(?:[ .\-/]?\d{2,5}){1,5}"
    r"|\(0?\d{2,5}\)[ .\-]?\d{2,4}[ .\-]\d{3,5}(?:[ .\-]\d{2,4})?"
    r"|(?:1[ .\-])?[2-9]\d{2}[.\-][2-9]\d{2}[.\-]\d{4}"
    r"|0\d{1,4}[ \-/]\d{2,5}[ \-]\d{2,5}(?:[ \-]\d{2,4}){0,2}"
    r")(?![\w]|[.,/:-]\d)"
)
_DATE = re.compile(r"0?\d{1,2}[ .\-/]\d{1,2}[ .\-/]\d{2,4}|(?:19|20)\d\d[ .\-/]\d{1,2}[ .\-/]\d{1,2}(?!\d).*")
_FIVE_DIGITS = re.compile(r"[0-9](?:[ ().\-/\u00a0]{0,3}[0-9]){4}")
_IBAN_BEGIN = re.compile(r"[A-Z]{2}[0-9]{2}[ \u00a0]?[A-Z0-9]{4}")


@dataclass(frozen=True)
class _Kind:
    pattern: re.Pattern[str]
    accepts: Callable[[re.Match[str]], int]
    """The length of the match that is personal data, 0 for none."""
    sign: re.Pattern[str]
    """What every match has in it: found fast, it says where a closer look is worth it."""
    reach: tuple[int, int]
    """How far before and behind the sign a match may go."""

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """All that fits the pattern, each once, in order."""
        done = at = 0
        while (sign := self.sign.search(text, at)) is not None:
            at = sign.end()
            begin, end = max(done, sign.start() - self.reach[0]), sign.end() + self.reach[1]
            for match in self.pattern.finditer(text, begin, end):
                if match.end() == end < len(text):
                    match = self.pattern.match(text, match.start()) or match
                yield match
                done = match.end()
            at = max(at, done)


class Redactor:
    """Replaces the kinds of personal data a configuration names."""

    def __init__(self, config: RedactConfig) -> None:
        self._kinds = [(name, kind) for name in PLACEHOLDERS if name in config.kinds for kind in _KINDS[name]]

    def text(self, text: str) -> tuple[str, dict[str, int]]:
        """A text without personal data, and how much of each kind was replaced.

        Examples
        --------
        >>> Redactor(RedactConfig(kinds=("email", "ip"))).text("ask ann@example.org at 192.0.2.7, not @ann")
        ('ask <EMAIL> at <IP_ADDRESS>, not @ann', {'email': 1, 'ip': 1})
        """
        counts: dict[str, int] = {}
        for name, kind in self._kinds:
            pieces, at = [], 0
            for match in kind.matches(text):
                if match.start() >= at and (length := kind.accepts(match)):
                    pieces += [text[at : match.start()], PLACEHOLDERS[name]]
                    at = match.start() + length
                    counts[name] = counts.get(name, 0) + 1
            if pieces:
                text = "".join([*pieces, text[at:]])
        return text, counts

    def value(self, value: Any) -> Any:
        """The same for every string in an address, a date, further fields: lists and dictionaries are gone into."""
        if isinstance(value, str):
            return self.text(value)[0]
        if isinstance(value, Mapping):
            return {self.value(key): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value


def _all(match: re.Match[str]) -> int:
    return match.end() - match.start()


def _is_iban(match: re.Match[str]) -> int:
    """The length of the IBAN a match begins with: digits of the text that follows may have been matched with it."""
    text = match.group()
    wanted = _IBAN_LENGTHS.get(text[:2])
    if wanted is None:
        return 0
    places = [place for place, char in enumerate(text) if char not in " \u00a0"]
    if len(places) < wanted:
        return 0
    end = places[wanted - 1] + 1
    if end < len(text) and text[end] not in " \u00a0":
        return 0
    taken = "".join(text[place] for place in places[:wanted])
    # ISO 7064, mod 97-10: the first four characters go to the end, letters count from ten.
    number = int("".join(str(int(char, 36)) for char in taken[4:] + taken[:4]))
    return end if number % 97 == 1 else 0


def _is_card(match: re.Match[str]) -> int:
    digits = re.sub(r"[ -]", "", match.group())
    if not _CARD_ISSUERS.fullmatch(digits) or not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return 0
    return _all(match) if luhn(digits) else 0


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        digit = int(char) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def _is_ip(match: re.Match[str]) -> int:
    text = match.group()
    if ":" not in text and _VERSION_WORD.search(match.string, max(0, match.start() - 12), match.start()):
        return 0
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return 0  # they are nobody's
    if isinstance(address, ipaddress.IPv4Address) and text.startswith(("0.", "255.")):
        return 0  # masks
    # Times and ratios look like short IPv6 addresses.
    return _all(match) if address.version == 4 or len(re.sub("[^0-9A-Fa-f]", "", text)) >= 8 else 0


def _is_phone(match: re.Match[str]) -> int:
    text = match.group()
    digits = sum(char.isdigit() for char in text)
    if not 7 <= digits <= 15 or _DATE.fullmatch(text) or (text.startswith("00") and text.isdigit()):
        return 0
    return _all(match)


_KINDS = {
    "email": (_Kind(_EMAIL, _all, re.compile("@"), (66, 300)),),
    "iban": (_Kind(_IBAN, _is_iban, _IBAN_BEGIN, (0, 60)),),
    "credit-card": (_Kind(_CARD, _is_card, _FIVE_DIGITS, (8, 60)),),
    "ip": (
        _Kind(_IPV4, _is_ip, re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]"), (12, 12)),
        _Kind(_IPV6, _is_ip, re.compile(":[0-9A-Fa-f]{0,4}:"), (40, 40)),
    ),
    "phone": (_Kind(_PHONE, _is_phone, _FIVE_DIGITS, (16, 40)),),
}
