"""Wikitext to plain text: what a reader sees of the running text, without boxes, references, pictures and tables."""

from __future__ import annotations

import re
from typing import Any

# Namespaces whose links show a picture or sort the page, in English, which every wiki understands. Names in the wiki's
# own language come in the first line of what is extracted.
_DROPPED_NAMESPACES = ("file", "image", "media", "category")
# Templates that carry words of the text: name -> which parameter, counted from 1, holds them.
_TEXT_PARAMETER = {
    "lang": 2, "transl": -1, "nowrap": 1, "nobr": 1, "em": 1, "strong": 1, "abbr": 1, "quote": 1, "blockquote": 1,
    "small": 1, "big": 1, "smallcaps": 1, "circa": 1, "as of": 1, "w": 1, "notatypo": 1, "sic": 1,
}  # fmt: skip
_JOINED = {"convert", "cvt"}  # number and unit
_DROPPED_TAGS = {
    "ref", "references", "gallery", "table", "math", "chem", "timeline", "score", "imagemap", "graph", "hiero",
    "section", "templatestyles", "indicator", "syntaxhighlight", "source", "mapframe", "maplink", "inputbox", "style",
    "script",
}  # fmt: skip
_LISTS = {"li": "- ", "dt": "", "dd": ""}
_SWITCHES = re.compile(r"__[A-Z]{3,30}__")
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_SPACES = re.compile(r"[ \t]{2,}")
_EMPTY_BRACKETS = re.compile(r"[ \t]*[(\[][\s,;:]*[)\]]")
_SPACE_BEFORE = re.compile(r"(?<=\S)[ \t]+(?=[,.;](?:\s|$))")
_HEADING = "\x02"  # marks a line as a heading of the level that follows, until empty ones are dropped


def plain_text(source: str) -> str:
    """The running text of a page.

    Headings stand on lines of their own, list items begin with "- "; links leave their labels. Templates are left out
    but for some that carry words (`_TEXT_PARAMETER`), and so are tables, references, galleries, formulas and comments.
    Sections that are empty after that lose their headings.

    Parameters
    ----------
    source
        In its first line names of the wiki's namespaces of files and categories, between "|"; then the wikitext.
    """
    import mwparserfromhell

    names, _, wikitext = source.partition("\n")
    dropped = {name.strip().lower() for name in (*names.split("|"), *_DROPPED_NAMESPACES) if name.strip()}
    wikitext = _SWITCHES.sub("", wikitext.replace(_HEADING, ""))
    out: list[str] = []
    _walk(mwparserfromhell.parse(wikitext, skip_style_tags=True), out, dropped)
    text = "".join(out).replace("'''", "").replace("''", "")
    text = _EMPTY_BRACKETS.sub("", _SPACES.sub(" ", text))
    text = _SPACE_BEFORE.sub("", _BLANK_LINES.sub("\n\n", text))
    lines = [line.strip() if not line.startswith(_HEADING) else line for line in text.split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(_without_empty_sections(lines))).strip()


def _walk(code: Any, out: list[str], dropped: set[str]) -> None:
    from mwparserfromhell import nodes

    for node in code.nodes:
        match node:
            case nodes.Text():
                out.append(node.value)
            case nodes.Wikilink():
                _link(node, out, dropped)
            case nodes.ExternalLink():
                if not node.brackets:
                    out.append(str(node.url))
                elif node.title is not None:
                    _walk(node.title, out, dropped)
            case nodes.Heading():
                title: list[str] = []
                _walk(node.title, title, dropped)
                out.append(f"{_HEADING}{node.level}{' '.join(''.join(title).split())}")
            case nodes.HTMLEntity():
                out.append(node.normalize())
            case nodes.Template():
                _template(node, out, dropped)
            case nodes.Tag():
                _tag(node, out, dropped)


def _link(node: Any, out: list[str], dropped: set[str]) -> None:
    title = str(node.title)
    namespace, colon, _ = title.partition(":")
    if colon and namespace.strip().lower() in dropped:
        return
    if node.text is not None:
        _walk(node.text, out, dropped)
    elif colon and not namespace.strip():  # [[:Category:Name]] shows its name
        out.append(title[1:])
    elif colon and re.fullmatch(r"[a-z]{2,3}(?:-[a-z]+)*", namespace):
        return  # the page in another language
    else:
        out.append(title)


def _template(node: Any, out: list[str], dropped: set[str]) -> None:
    name = str(node.name).strip().lower()
    if name.startswith("lang-"):
        wanted = 1
    elif name in _JOINED:
        words = [str(p.value).strip() for p in node.params if not p.showkey][:2]
        out.append(" ".join(words))
        return
    else:
        wanted = _TEXT_PARAMETER.get(name, 0)
    positional = [p for p in node.params if not p.showkey]
    if wanted < 0 and positional:
        _walk(positional[-1].value, out, dropped)
    elif 0 < wanted <= len(positional):
        _walk(positional[wanted - 1].value, out, dropped)


def _tag(node: Any, out: list[str], dropped: set[str]) -> None:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return
    if name in _LISTS:
        out.append(_LISTS[name])
    elif name in ("br", "hr"):
        out.append("\n")
    if node.contents is not None:
        if name in ("nowiki", "pre", "code"):
            out.append(str(node.contents))
        else:
            _walk(node.contents, out, dropped)
    if name in ("p", "div", "blockquote", "center"):
        out.append("\n")


def _without_empty_sections(lines: list[str]) -> list[str]:
    """Headings with nothing below them, up to the next of their level or above, are left out; the others' marks too."""
    kept: list[str] = []
    below: int | None = None  # level of the heading that the last kept line, seen from the end, belongs under
    for line in reversed(lines):
        if line.startswith(_HEADING):
            level = int(line[1])
            if below is not None and (below == 0 or level < below):
                kept.append(line[2:])
                below = level
            continue
        if line:
            below = 0
        kept.append(line)
    return kept[::-1]
