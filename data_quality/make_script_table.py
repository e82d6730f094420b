"""Writes `script_table.txt`, the script of every letter and mark, which `words.script_table` reads.

Run by a person when a newer Unicode is wanted (`python -m data_quality.make_script_table`, needs the package `regex`),
never at run time: the file is checked in, so that features do not change with the version of a library.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

from data_quality.make_unicode_table import CODE_POINTS, runs

VERSION = 1

# ISO 15924 codes of the scripts with living or historical text in Unicode 14; Latin first, since a table's first
# script wins ties. Letters of all others, and those common to several scripts, have none.
SCRIPTS = (
    "Latn", "Cyrl", "Grek", "Arab", "Hebr", "Deva", "Beng", "Guru", "Gujr", "Orya", "Taml", "Telu", "Knda", "Mlym",
    "Sinh", "Thai", "Laoo", "Tibt", "Mymr", "Geor", "Armn", "Hang", "Ethi", "Cher", "Cans", "Ogam", "Runr", "Khmr",
    "Mong", "Hira", "Kana", "Bopo", "Hani", "Yiii", "Syrc", "Thaa", "Nkoo", "Samr", "Mand", "Adlm", "Tfng", "Copt",
    "Goth", "Glag", "Bali", "Java", "Sund", "Lana", "Olck", "Lisu", "Vaii", "Saur", "Cham", "Limb", "Tale", "Talu",
    "Tglg", "Buhd", "Hano", "Tagb", "Bugi", "Batk", "Lepc", "Rjng", "Kali", "Mtei", "Bamu", "Phag", "Sylo", "Tavt",
    "Xsux", "Egyp", "Linb", "Lina", "Ugar", "Xpeo", "Phnx", "Armi", "Avst", "Cprt", "Dsrt", "Shaw", "Osma", "Osge",
    "Cakm", "Newa", "Modi", "Takr", "Khoj", "Sind", "Sidd", "Gran", "Tirh", "Wara", "Rohg", "Nbat", "Palm", "Hatr",
    "Orkh",
)  # fmt: skip


def table_text() -> str:
    import regex

    scripts = [(code, regex.compile(rf"\p{{Script={code}}}")) for code in SCRIPTS]

    def script_of(code: int) -> int:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LM":
            return 0
        return next((i for i, (_, found) in enumerate(scripts, start=1) if found.match(character)), 0)

    lines = [
        "# Scripts of letters and marks; made by make_script_table.py, not edited by hand.",
        f"version {VERSION}",
        f"unicode {unicodedata.unidata_version}",
        "# names in the order of their numbers, from 1; script START END NUMBER (END exclusive, hexadecimal)",
        "names " + " ".join(SCRIPTS),
    ]
    lines += [f"script {start:x} {end:x} {found}" for start, end, found in runs(script_of) if found]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    assert sys.maxunicode + 1 == CODE_POINTS
    target = Path(__file__).with_name("script_table.txt")
    target.write_text(table_text(), encoding="ascii")
    sys.stdout.write(f"{target.name}: {target.stat().st_size} bytes\n")
