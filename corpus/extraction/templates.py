"""Templates of wikis that stand in the middle of sentences: what a reader sees of them. All others have no text.

What a template shows is known to the wiki alone, where it is a program. This table has those of the large Wikipedias
whose loss leaves holes in sentences (languages, units, quotations, dates), by their documentation pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Arguments = Sequence[tuple[str | None, str]]

# Numbers are positional arguments, names named ones; of several the first with text counts. Arguments without text
# leave a gap, which takes brackets, commas and spaces around it along.
_PATTERNS = {
    # text in a language
    "lang": "{2}", "langue": "{2}", "lang2": "{2}", "idioma": "{2}", "jęz": "{2}", "langx": "{2}", "transl": "{3|2}",
    "transliteration": "{3|2}", "translit": "{3|2}", "script": "{2}", "rtl-lang": "{2}", "rtl": "{1}",
    "zh": "{s|t|c|hant|hans|1}", "nihongo": "{1} ({2}, {3})", "nihongo2": "{1}", "nihongo3": "{3|1} ({2})",
    "japonais": "{1} ({2}, {3})", "korean": "{hangul|1}", "hebrew": "{1}", "polytonic": "{1}", "grec ancien": "{1}",
    "cyrl": "{1}", "unicode": "{1}", "lang-en": "{1}", "gloss": "'{1}'", "lit": "'{1}'", "literal translation": "'{1}'",
    # how it is set
    "nowrap": "{1}", "nobr": "{1}", "nobreak": "{1}", "no wrap": "{1}", "nlf": "{1}", "small": "{1}", "smaller": "{1}",
    "big": "{1}", "larger": "{1}", "resize": "{2|1}", "sub": "{1}", "sup": "{1}", "em": "{1}", "strong": "{1}",
    "smallcaps": "{1}", "sc": "{1}", "sc2": "{1}", "aut": "{1}", "underline": "{1}", "u": "{1}", "center": "{1}",
    "abbr": "{1}", "abbrlink": "{1}", "tooltip": "{1}", "abréviation": "{1}", "code": "{1}", "mono": "{1}",
    "var": "{1}", "kbd": "{1}", "keypress": "{1}", "tt": "{1}", "font color": "{3|2}", "color": "{2}", "color box": "",
    "anchor": "", "visible anchor": "{1}", "vanchor": "{1}", "no italic": "{1}", "noitalic": "{1}", "not a typo": "{1}",
    "sic": "{1}", "as written": "{1}", "text": "{1}", "math": "{1}", "mvar": "{1}", "angbr": "⟨{1}⟩", "bra": "⟨{1}|",
    "ket": "|{1}⟩", "abs": "|{1}|", "nota": "{1}", "no ping": "{1}",
    # links
    "ill": "{lt|1}", "illm": "{lt|1}", "interlanguage link": "{lt|1}", "link-interwiki": "{lt|1}", "lien": "{texte|1}",
    "нп": "{2|1}", "нп3": "{2|1}", "нп5": "{2|1}", "не переведено": "{2|1}", "не переведено 5": "{2|1}", "w": "{2|1}",
    "wt": "{2|1}", "l": "{3|2}", "m": "{3|2}", "sortname": "{1} {2}", "hs": "", "url": "{2|1}", "link": "{2|1}",
    "ship": "{1} {2}", "uss": "USS {1}", "hms": "HMS {1}", "ss": "SS {1}", "flag": "{1}", "flagcountry": "{1}",
    "flagu": "{1}", "pays": "{1}", "species": "{1}", "main other": "",
    # numbers and units
    "val": "{1} {u|ul}", "num": "{1}", "nombre": "{1} {2}", "unité": "{1} {2}", "unit": "{1} {2}", "unidad": "{1} {2}",
    "unidade": "{1} {2}", "число": "{1}", "formatnum": "{1}", "s": "{1}{2}", "gaps": "{1}{2}{3}{4}", "e": "×10^{1}",
    "us$": "US${1}", "usd": "${1}", "£": "£{1}", "gbp": "£{1}", "€": "€{1}", "eur": "€{1}", "¥": "¥{1}", "jpy": "¥{1}",
    "inr": "₹{1}", "inflation": "", "ordinal": "{1}", "roman": "{1}", "chem": "{1}{2}{3}{4}{5}{6}", "chem2": "{1}",
    "fraction": "{1}/{2}", "nts": "{1}", "simplenuclide": "{1}-{2}", "simplenuclide2": "{1}-{2}", "pipe": "|",
    "vol.": "vol. {1}", "native name": "{2}", "dts": "{1} {2} {3}", "sfrac": "{1}/{2}", "coord": "",
    # dates
    "date": "{1} {2} {3}", "date de naissance": "{1} {2} {3}", "date de naissance-": "{1} {2} {3}",
    "date de décès": "{1} {2} {3}", "date de décès-": "{1} {2} {3}", "circa": "c. {1}", "c.": "c. {1}", "ca": "c. {1}",
    "floruit": "fl. {1}", "fl.": "fl. {1}", "reign": "r. {1}–{2}", "r.": "r. {1}–{2}", "died": "d. {1}",
    "born": "b. {1}", "siècle": "{1}e siècle", "as of": "As of {1}", "mdy": "{1}", "dmy": "{1}",
    # quotations
    "quote": "\n{text|quote|1}\n", "blockquote": "\n{text|quote|1}\n", "cquote": "\n{text|quote|1}\n",
    "quotation": "\n{text|quote|1}\n", "rquote": "\n{text|quote|2}\n", "quote box": "", "zitat": "„{text|1}“",
    "citation bloc": "\n{1}\n", "citation": "{quote}", "cita": "\n{1}\n", "цитата": "\n{1}\n", "début citation": "",
    "poem": "\n{text|1}\n", "verse translation": "\n{1}\n", "poemquote": "\n{text|1}\n", "bq": "\n{text|quote|1}\n",
    # signs
    "!": "|", "=": "=", "(": "{{", ")": "}}", "'": "’", "' \"": "’ ”", "\" '": "” ’", "'s": "’s", "nbsp": " ",
    "spaces": " ", "space": " ", "thinsp": " ", "ndash": "–", "mdash": "—", "emdash": "—", "endash": "–", "–": "–",
    "—": "—", "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "spaced en dash": " – ", "dash": " – ", "·": " · ",
    "•": " • ", "bullet": " • ", "middot": " · ", "dot": " · ", "ellipsis": "…", "...": "…", "'-": "’", "okina": "ʻ",
    "hamza": "ʼ", "ayin": "ʽ", "sharp": "♯", "flat": "♭", "music": "", "euro": "€", "pound": "£", "minus": "−",
    "times": "×", "pi": "π", "clear": "\n", "-": "\n", "break": "\n", "br": "\n", "crlf": "\n", "pb": "\n",
    "paragraph break": "\n",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_TITLES = frozenset(["pagename", "fullpagename", "basepagename", "subpagename", "rootpagename", "articlepagename"])
_CHANGES: Mapping[str, Callable[[str], str]] = {
    "formatnum": str,
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}
_BETWEEN = {
    "to": " to ", "and": " and ", "or": " or ", "-": "–", "–": "–", "to(-)": "–", "&ndash;": "–", "by": " by ",
    "x": " × ", "×": " × ", "+/-": " ± ", "±": " ± ", "to about": " to about ", "/": "/", "+": " + ", ",": ", ",
}  # fmt: skip


def template_text(name: str, arguments: Arguments, title: str) -> str:
    """The text of a template or a magic word, "" if none is known.

    Parameters
    ----------
    name
        As it stands between the braces.
    arguments
        Their names (None for positional ones) and texts.
    title
        Of the page that it stands on.
    """
    name = " ".join(name.replace("\0", " ").replace("_", " ").split()).lower()
    name = name.removeprefix("subst:").removeprefix("template:")
    word, colon, rest = name.partition(":")
    if colon:
        change = _CHANGES.get(word)
        return change(rest) if change else ""
    if name in _TITLES:
        return title.rpartition("/")[2] if name == "subpagename" else title
    pattern = _PATTERNS.get(name)
    special = _SPECIAL.get(name)
    if pattern is None and special is None and not name.startswith("lang-"):
        return ""
    values: dict[str, str] = {}
    position = 0
    for key, value in arguments:
        if key is None:
            position += 1
            values[str(position)] = value.strip()
        else:
            values[key.strip().lower()] = value.strip()
    if special is not None:
        return special(values)
    if pattern is None:
        return values.get("1", "")  # {{lang-de|…}} and its like
    if not _PLACEHOLDER.search(pattern):
        return pattern
    if not any(values.get(key) for keys in _PLACEHOLDER.findall(pattern) for key in keys.split("|")):
        return ""
    return _PLACEHOLDER.sub(lambda found: _first(values, found[1]), pattern)


def _first(values: Mapping[str, str], keys: str) -> str:
    return next((value for key in keys.split("|") if (value := values.get(key))), "\0")


def _measure(values: Mapping[str, str]) -> str:
    """{{convert}}: what was measured, in the unit it was measured in (`5|to|10|km|mi` is 5 to 10 km)."""
    text, position = values.get("1", ""), 2
    while (between := _BETWEEN.get(values.get(str(position), ""))) and values.get(str(position + 1)):
        text += between + values[str(position + 1)]
        position += 2
    unit = values.get(str(position), "")
    return f"{text} {unit}" if text and unit else text


def _fraction(values: Mapping[str, str]) -> str:
    """{{frac}}: one argument is a denominator, three are a whole number before the fraction."""
    found = [values[key] for key in ("1", "2", "3") if values.get(key)]
    match found:
        case [below]:
            return f"1/{below}"
        case [above, below]:
            return f"{above}/{below}"
        case [whole, above, below]:
            return f"{whole} {above}/{below}"
    return ""


def _items(values: Mapping[str, str]) -> str:
    """{{plainlist}}, {{hlist}}, {{unbulleted list}}: positional arguments on lines of their own."""
    found = [values[key] for key in sorted((key for key in values if key.isdecimal()), key=int) if values[key]]
    return "\n" + "\n".join(found) + "\n" if found else ""


_SPECIAL: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "convert": _measure,
    "cvt": _measure,
    "convertir": _measure,
    "frac": _fraction,
    "plainlist": _items,
    "unbulleted list": _items,
    "ubl": _items,
    "hlist": _items,
    "div col": _items,
}
