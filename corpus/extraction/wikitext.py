"""Plain text of wikitext, the markup of MediaWiki: what a reader of the page would read, without boxes and apparatus.

mwparserfromhell's tokenizer (C) finds the structure. Its stream of tokens is turned into text here, not its tree, which
costs five times as much as the tokens. It may take minutes on wikitext with many elements that are never closed, so
that pages of unknown origin are read in a process that can be ended (`corpus.extraction.pages`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mwparserfromhell.parser import tokens

from corpus.extraction.templates import template_text

try:
    from mwparserfromhell.parser._tokenizer import CTokenizer as Tokenizer
except ImportError:  # no compiled extension on this platform: the same tokens, many times slower
    from mwparserfromhell.parser.tokenizer import Tokenizer

# Characters that XML cannot hold mark what only the whole line tells how to write.
GONE = "\0"
"""Something without text stood here: spaces, brackets and lines that are empty only because of it go too."""
_RAW = "\1"
_LIST = "\2"
_HEADING = "\3"
_MARKS = re.compile("[\0\2]|\3[0-9]?")
_CONTROL = dict.fromkeys([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20)])

_NO_TEXT = frozenset(
    [
        "categorytree", "dynamicpagelist", "gallery", "graph", "hiero", "imagemap", "includeonly", "indicator",
        "inputbox", "mapframe", "maplink", "ref", "references", "score", "section", "seo", "style", "table",
        "templatedata", "templatestyles", "timeline",
    ]
)  # fmt: skip
_VERBATIM = frozenset(["nowiki", "pre", "syntaxhighlight", "source"])
_FORMULAS = frozenset(["math", "ce", "chem"])
_BLOCKS = frozenset(
    [
        "blockquote", "center", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "poem", "ul",
    ]
)  # fmt: skip
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple)(?:-[a-z]{2,8}){0,3}")
# Prefixes of other sites that look like languages.
_NO_LANGUAGES = frozenset(["doi", "mos", "mw", "phab", "rev", "rfc", "voy", "wmf", "wp"])
_SWITCH = re.compile(r"__[^\W\da-z_]+(?:_[^\W\da-z_]+)*__")
_VARIANTS = re.compile(r"-\{(?:([^{}|]{0,40})\|)?([^{}]{0,2000})\}-")
_QUOTES = re.compile(r"'{2,}")
_EXPONENT = re.compile(r"[-+−–]?\d{1,4}")
_HIDDEN = re.compile(r"display\s*:\s*none")
_STRAY_TAG = re.compile(
    r"</?(?:abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|gallery|h[1-6]|hr|i|includeonly|ins|kbd|"
    r"li|math|noinclude|nowiki|ol|onlyinclude|p|poem|pre|q|references|ref|s|samp|small|source|span|strike|strong|sub|"
    r"sup|syntaxhighlight|table|tbody|td|th|tr|tt|u|ul|var)(?:[\s/][^<>\n]{0,500})?>",
    re.IGNORECASE,
)
_GAPS = re.compile(r"\0(?: ?\0)+")
_EMPTY_BRACKETS = re.compile(r" ?[(（\[]([\s,;:、，；/\0]+)[)）\]]")
_OPENED_BRACKET = re.compile(r"([(（])[\s,;:、，；\0]*\0[\s,;:、，；\0]*")
_CLOSED_BRACKET = re.compile(r"[\s,;、，；]{0,3}\0[\s,;、，；\0]*(?=[)）])")
_TERM_ENDS = re.compile(" ?\2: ?")
_NO_WORDS = re.compile(r"[\W_]*")
_LOWEST_HEADING = 6


class Names(NamedTuple):
    """What a wiki calls its namespaces of files and categories, in lower case; the English names always count."""

    files: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()


class PlainPage(NamedTuple):
    """The text of a page and its categories, in the order in which they stand there."""

    text: str
    categories: list[str]


def write_request(wikitext: str, title: str, names: Names) -> str:
    """What `plain_text` takes: title, names of files and of categories in one line, then the page."""
    head = " ".join(title.split()), "|".join(sorted(names.files)), "|".join(sorted(names.categories))
    return "\t".join(head) + "\n" + wikitext


def read_answer(answer: str) -> PlainPage:
    """What `plain_text` gave."""
    categories, _, text = answer.partition("\n")
    return PlainPage(text, categories.split("|") if categories else [])


def plain_text(request: str) -> str:
    """`read_wikitext` from text to text, as the process that extracts pages wants it; "" where a page has no text."""
    head, _, wikitext = request.partition("\n")
    title, files, categories, *_ = [*head.split("\t"), "", ""]
    page = read_wikitext(wikitext, title, Names(frozenset(files.split("|")), frozenset(categories.split("|"))))
    return f"{'|'.join(page.categories)}\n{page.text}" if page.text else ""


def read_wikitext(wikitext: str, title: str = "", names: Names | None = None) -> PlainPage:
    """The text of a page.

    Headings, paragraphs and lines of code stand on lines of their own; list items begin with "- " or a number; formulas
    are TeX between "$"; links are their labels. Tables, galleries, files with their captions, footnotes, comments,
    categories, links to other languages and templates have no text, but those of `corpus.extraction.templates`.
    Sections without text have no heading. Markup that is not closed is taken for text by the parser; what can be told
    for markup all the same is removed.

    Parameters
    ----------
    wikitext
        As it stands in a dump, after the XML was parsed.
    title
        Of the page, for the templates that show it.
    names
        What the wiki calls its namespaces.

    Raises
    ------
    mwparserfromhell.parser.ParserError
        The parser has a bug that shows on this page.
    """
    reader = _Reader(title, names or Names())
    # Quotes for bold and italics are not for the tokenizer: they need no nesting, and it gives up much where they have
    # none (`_without_quotes` knows MediaWiki's own rule).
    for token in Tokenizer().tokenize(wikitext.translate(_CONTROL), 0, True):
        reader.handlers[type(token)](token)
    return PlainPage(reader.finish(), reader.categories)


@dataclass(slots=True)
class _Frame:
    """An element that is open: the parts of what is being read, and what was read of it before."""

    opened: Any = None
    parts: list[str] = field(default_factory=list)
    name: str | None = None
    attributes: str = ""
    content: str = ""
    key: str | None = None
    arguments: list[tuple[str | None, str]] = field(default_factory=list)

    def take(self) -> str:
        text, self.parts = "".join(self.parts), []
        return text


class _Reader:
    """Turns tokens into text with marks in it, and that into lines."""

    def __init__(self, title: str, names: Names) -> None:
        self.categories: list[str] = []
        self._title = title
        self._files = names.files | {"file", "image"}
        self._categories = names.categories | {"category"}
        self._raw: list[str] = []
        self._frames = [_Frame()]
        self.handlers: Mapping[type, Callable[[Any], None]] = {
            tokens.Text: lambda token: self._write(token["text"]),
            tokens.TemplateOpen: self._open,
            tokens.TemplateParamSeparator: self._argument_ends,
            tokens.TemplateParamEquals: self._key_ends,
            tokens.TemplateClose: self._template_ends,
            tokens.ArgumentOpen: self._open,
            tokens.ArgumentSeparator: self._name_ends,
            tokens.ArgumentClose: self._parameter_ends,
            tokens.WikilinkOpen: self._open,
            tokens.WikilinkSeparator: self._name_ends,
            tokens.WikilinkClose: self._link_ends,
            tokens.ExternalLinkOpen: self._open,
            tokens.ExternalLinkSeparator: self._name_ends,
            tokens.ExternalLinkClose: self._external_link_ends,
            tokens.HTMLEntityStart: self._open,
            tokens.HTMLEntityNumeric: lambda token: self._write("#"),
            tokens.HTMLEntityHex: lambda token: self._write("x"),
            tokens.HTMLEntityEnd: self._entity_ends,
            tokens.HeadingStart: self._open,
            tokens.HeadingEnd: self._heading_ends,
            tokens.CommentStart: self._open,
            tokens.CommentEnd: self._comment_ends,
            tokens.TagOpenOpen: self._open,
            tokens.TagAttrStart: self._attribute_begins,
            tokens.TagAttrEquals: lambda token: self._write("="),
            tokens.TagAttrQuote: lambda token: None,
            tokens.TagCloseOpen: self._start_tag_ends,
            tokens.TagOpenClose: self._content_ends,
            tokens.TagCloseClose: self._tag_ends,
            tokens.TagCloseSelfclose: self._empty_tag_ends,
        }

    def finish(self) -> str:
        """The text, when all tokens were handled."""
        text = self._frames[0].take()
        if "__" in text:
            text = _SWITCH.sub(GONE, text)
        if "-{" in text:
            text = _VARIANTS.sub(_first_variant, text)
        if "<" in text:
            text = _STRAY_TAG.sub(GONE, text)
        lines = _drop_empty_sections(_lines(text.replace("\xa0", " ").split("\n")))
        return self._restore("\n".join(lines))

    def _open(self, token: Any) -> None:
        self._frames.append(_Frame(token))

    def _write(self, text: str) -> None:
        self._frames[-1].parts.append(text)

    def _keep(self, text: str) -> str:
        """A mark for text that no rule may touch any more."""
        self._raw.append(self._restore(_MARKS.sub("", text)))
        return f"{_RAW}{len(self._raw) - 1}{_RAW}"

    def _restore(self, text: str) -> str:
        if _RAW not in text:
            return text
        pieces = text.split(_RAW)
        pieces[1::2] = [self._raw[int(number)] for number in pieces[1::2]]
        return "".join(pieces)

    def _name_ends(self, token: Any) -> None:
        self._frames[-1].name = self._frames[-1].take()

    # --- templates and their parameters

    def _argument_ends(self, token: Any) -> None:
        frame = self._frames[-1]
        if frame.name is None:
            frame.name = frame.take()
        else:
            frame.arguments.append((frame.key, frame.take()))
            frame.key = None

    def _key_ends(self, token: Any) -> None:
        self._frames[-1].key = self._frames[-1].take()

    def _template_ends(self, token: Any) -> None:
        self._argument_ends(token)
        frame = self._frames.pop()
        self._write(template_text(frame.name or "", frame.arguments, self._title) or GONE)

    def _parameter_ends(self, token: Any) -> None:
        frame = self._frames.pop()
        self._write((frame.take() if frame.name is not None else "") or GONE)

    # --- links

    def _link_ends(self, token: Any) -> None:
        frame = self._frames.pop()
        label = frame.take()
        target = (label if frame.name is None else frame.name).replace(GONE, "").strip()
        if not target.startswith(":"):
            space, colon, rest = target.partition(":")
            space = " ".join(space.replace("_", " ").split()).lower()
            if colon and space in self._categories:
                category = " ".join(self._restore(_MARKS.sub("", rest)).replace("_", " ").split())
                if category and category not in self.categories:
                    self.categories.append(category)
                self._write(GONE)
                return
            is_language = frame.name is None and space not in _NO_LANGUAGES and _LANGUAGE.fullmatch(space)
            if colon and (space in self._files or is_language):
                self._write(GONE)
                return
        self._write(label if frame.name is not None and label.strip() else target.removeprefix(":"))

    def _external_link_ends(self, token: Any) -> None:
        frame = self._frames.pop()
        text = frame.take()
        if frame.name is None:  # only an address: in brackets it is shown as a number
            text = GONE if frame.opened.brackets else self._keep(text)
        self._write(text)

    # --- characters, headings, comments

    def _entity_ends(self, token: Any) -> None:
        character = html.unescape(f"&{self._frames.pop().take()};").translate(_CONTROL)
        self._write(self._keep(character) if character and character in "'{}[]|_-<>" else character)

    def _heading_ends(self, token: Any) -> None:
        frame = self._frames.pop()
        heading = frame.take().replace("\n", " ").strip()
        self._write(f"\n{_HEADING}{frame.opened.level}{heading}\n")

    def _comment_ends(self, token: Any) -> None:
        self._frames.pop()
        self._write(GONE)

    # --- tags, among them lists and tables

    def _attribute_begins(self, token: Any) -> None:
        frame = self._frames[-1]
        if frame.name is None:
            frame.name = frame.take()
        else:
            frame.parts.append(" ")

    def _start_tag_ends(self, token: Any) -> None:
        frame = self._frames[-1]
        if frame.name is None:
            frame.name = frame.take()
        else:
            frame.attributes = frame.take()

    def _content_ends(self, token: Any) -> None:
        self._frames[-1].content = self._frames[-1].take()

    def _empty_tag_ends(self, token: Any) -> None:
        self._start_tag_ends(token)
        frame = self._frames.pop()
        markup, name = frame.opened.wiki_markup, (frame.name or "").lower().strip()
        if markup and markup in "*#:;":
            self._write(f"{_LIST}{markup}")
        elif name == "li":
            self._write(f"\n{_LIST}*")
        elif name in ("br", "hr") or name in _BLOCKS:
            self._write("\n")
        elif name not in ("nowiki", "wbr"):
            self._write(GONE)

    def _tag_ends(self, token: Any) -> None:
        frame = self._frames.pop()
        name, content = (frame.name or "").lower().strip(), frame.content
        if name in _FORMULAS:
            formula = " ".join(html.unescape(content).split())
            formula = formula if name == "math" else f"\\ce{{{formula}}}"
            self._write(self._keep(f"${formula}$") if content.strip() else GONE)
        elif name in _NO_TEXT or _HIDDEN.search(frame.attributes):
            self._write(GONE)
        elif name in _VERBATIM:
            text = self._keep(html.unescape(content).strip("\n"))
            self._write(text if name == "nowiki" or "\n" not in content else f"\n{text}\n")
        elif name == "li":
            self._write(f"\n{_LIST}*{content.strip()}\n")
        elif name in _BLOCKS:
            self._write(f"\n{content}\n")
        elif name == "sup" and self._follows_word() and _EXPONENT.fullmatch(content):
            self._write(f"^{content}")
        else:
            self._write(content)

    def _follows_word(self) -> bool:
        parts = self._frames[-1].parts
        return bool(parts and parts[-1]) and (parts[-1][-1].isalnum() or parts[-1][-1] in ")]")


def _first_variant(found: re.Match[str]) -> str:
    """What a reader without a preference sees of `-{zh-hans:…; zh-hant:…}-` (MediaWiki's LanguageConverter)."""
    flags, content = found[1] or "", found[2]
    if set(flags) & set("HT-"):
        return GONE
    first = next((rule for rule in content.split(";") if rule.strip()), "")
    variant, colon, text = first.partition(":")
    return text.strip() if colon and _LANGUAGE.fullmatch(variant.strip().lower()) else content


def _lines(lines: Iterable[str]) -> list[str]:
    """Lines of text from lines with marks; headings keep theirs."""
    kept: list[str] = []
    counts: list[tuple[str, int]] = []  # of every level of lists, its marker and how many items it has
    in_table = False
    for line in lines:
        markers, line = _list_markers(line)
        heading = line[:2] if line.startswith(_HEADING) else ""
        line = line[len(heading) :]
        if _LIST in line:
            line = _TERM_ENDS.sub(": ", line).replace(_LIST, "")
        # What the parser could not make a table of; it ends with the table's end or with the next heading.
        start = line.lstrip(" ")[:2]
        if not markers and not heading and (start == "{|" or start[:1] == "|" or (in_table and start[:1] == "!")):
            in_table = start != "|}" and (in_table or start == "{|")
            continue
        in_table = in_table and not heading
        line = _without_rests(line)
        if "''" in line:
            line = _without_quotes(line)
        if GONE in line:
            line = _close_gaps(line)
            if _RAW not in line and _NO_WORDS.fullmatch(line):
                continue
        line = line.strip() if heading or markers else line.removeprefix(" ").rstrip()
        if not markers:
            counts.clear()
        elif line:
            line = _list_item(markers, counts) + line
        else:
            continue
        if heading and line:
            kept += ["", heading + line, ""]
        elif line or (kept and kept[-1]):
            kept.append(line)
    return kept


def _list_markers(line: str) -> tuple[str, str]:
    """The markers (`*#:;`) at the start of a line, and the rest."""
    end = 0
    while line.startswith(_LIST, end):
        end += 2
    return line[1:end:2], line[end:]


def _list_item(markers: str, counts: list[tuple[str, int]]) -> str:
    """What stands before the text of an item; `counts` is moved on."""
    depth, marker = len(markers), markers[-1]
    del counts[depth:]
    counts += [("", 0)] * (depth - len(counts))
    before, number = counts[-1]
    counts[-1] = (marker, number + 1 if marker == before else 1)
    if marker not in "*#":
        return ""
    indent = "  " * (sum(above in "*#" for above in markers) - 1)
    return f"{indent}- " if marker == "*" else f"{indent}{counts[-1][1]}. "


def _without_rests(line: str) -> str:
    """Without what is left of links and templates that are not closed."""
    if "{{" in line or "}}" in line:
        if line.lstrip().startswith("{{"):
            return GONE
        line = line.replace("{{", GONE).replace("}}", GONE)
    if "[[" in line or "]]" in line:
        line = line.replace("[[", "").replace("]]", "")
    return line


def _without_quotes(line: str) -> str:
    """Without the quotes that are bold and italics; apostrophes beside them stay.

    Runs of quotes mean what they mean to MediaWiki (Parser::doQuotes): 2 are italics, 3 bold, 5 both, of 4 and of more
    than 5 those in excess are text; if both bold and italics are left open on the line, one bold is an apostrophe and
    italics, rather after a single letter (l'''amour'') than after a word.
    """
    pieces = _QUOTES.split(line)
    runs: list[int] = []
    for number, found in enumerate(_QUOTES.finditer(line)):
        length = len(found[0])
        runs.append({2: 2, 3: 3, 4: 3}.get(length, 5))
        pieces[number] += "'" * (length - runs[-1])
    bold = sum(run in (3, 5) for run in runs)
    italic = sum(run in (2, 5) for run in runs)
    triples = [number for number, run in enumerate(runs) if run == 3]
    if bold % 2 and italic % 2 and triples:
        pieces[min(triples, key=lambda number: _rank(pieces[number]))] += "'"
    return "".join(pieces)


def _rank(before: str) -> int:
    if before.endswith(" "):
        return 2
    return 0 if before[-2:-1] == " " else 1


def _close_gaps(line: str) -> str:
    """Without the marks of what is gone, and what makes no sense without it: double spaces, brackets, separators."""
    line = _GAPS.sub(GONE, line)
    line = _EMPTY_BRACKETS.sub(lambda found: "" if GONE in found[1] else found[0], line)
    line = _OPENED_BRACKET.sub(r"\1", line)
    line = _CLOSED_BRACKET.sub("", line)
    joined, *pieces = line.split(GONE)
    if pieces and not joined.strip():
        joined, pieces[0] = "", pieces[0].lstrip(" ,.;:")
    parts = [joined]
    for piece in pieces:
        last = next((part[-1] for part in reversed(parts) if part), " ")
        parts.append(piece.lstrip(" ") if last == " " else piece)
        if last == " " and parts[-1][:1] in tuple(",.;:)!?、。，"):
            parts[-2] = parts[-2].rstrip(" ")
    return "".join(parts)


def _drop_empty_sections(lines: Sequence[str]) -> list[str]:
    """Without headings that no text follows before the next heading of their level or above."""
    kept: list[str] = []
    filled = 0  # headings of this level and above have text below them
    for line in reversed(lines):
        if line.startswith(_HEADING):
            level = int(line[1])
            if level > filled:
                continue
            filled = level - 1
            line = line[2:]
        elif line:
            filled = _LOWEST_HEADING
        elif not kept or not kept[-1]:
            continue
        kept.append(line)
    while kept and not kept[-1]:
        kept.pop()
    return kept[::-1]
