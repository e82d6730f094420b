"""Encodings: what is declared, what bytes look like, and what is refused rather than guessed."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.encodings import expected, load_files, load_paragraphs, without_declarations
from corpus.extraction.encodings import decode_text, find_codec

RUSSIAN = "Хлеб пекут из муки, воды, соли и дрожжей, и тесту нужно время, чтобы подняться в тёплой кухне. "


def share_right(samples: list[tuple[str, str, bytes]], *, html: bool = True) -> float:
    right = 0
    for sample in samples:
        with contextlib.suppress(UnicodeDecodeError):
            right += decode_text(sample[2], html=html)[0] == expected(sample)
    return right / len(samples)


def test_real_files_in_44_encodings_are_decoded_as_they_were_meant(shared_data: Path) -> None:
    files = load_files(shared_data)
    assert len(files) == 229
    assert share_right(files) >= 0.98
    assert share_right(without_declarations(files)) >= 0.97


def test_paragraphs_that_no_detector_was_made_with_are_decoded(shared_data: Path) -> None:
    paragraphs = load_paragraphs(shared_data)
    assert len(paragraphs) > 500
    assert share_right(paragraphs, html=False) >= 0.97


@pytest.mark.parametrize(
    ("label", "codec", "data", "text"),
    [
        ("latin-1", "cp1252", b"\x93caf\xe9\x94", "“café”"),
        ("ISO-8859-1", "cp1252", b"\x93caf\xe9\x94", "“café”"),
        ("us-ascii", "cp1252", b"\x80", "€"),
        ("gb2312", "gb18030", "國朱镕基".encode("gb18030"), "國朱镕基"),
        ("shift_jis", "cp932", "①髙".encode("cp932"), "①髙"),
        ("x-sjis", "cp932", "①髙".encode("cp932"), "①髙"),
        ("euc-kr", "cp949", "똠방각하".encode("cp949"), "똠방각하"),
        ("iso-8859-9", "cp1254", b"\x93\xfe\x94", "“ş”"),
        ("tis-620", "cp874", b"\x85\xa1", "…ก"),
        ("windows-31j", "cp932", "①".encode("cp932"), "①"),
        ("x-mac-cyrillic", "mac-cyrillic", "Хлеб".encode("mac_cyrillic"), "Хлеб"),
        ("cp850", "cp850", "é".encode("cp850"), "é"),
        (" 'koi8-r' ", "koi8-r", "Хлеб".encode("koi8-r"), "Хлеб"),
        ("iso-2022-jp", "iso2022_jp", "日本語".encode("iso2022_jp"), "日本語"),
    ],
)
def test_labels_mean_what_browsers_take_them_for(label: str, codec: str, data: bytes, text: str) -> None:
    assert decode_text(data, declared=f"text/html; charset={label.strip()}") == (text, codec)
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={label.strip(" ")}">'.encode()
    if "'" not in label:
        assert decode_text(data, declared=label) == (text, codec)
        assert decode_text(meta + data, html=True)[0].endswith(text)


def test_the_order_is_mark_then_valid_utf8_then_what_was_sent_then_what_the_page_says() -> None:
    russian = RUSSIAN * 3
    meta = '<html><head><meta charset="koi8-r"></head>'
    page = (meta + russian).encode("cp1251")
    assert decode_text(page, html=True) == (page.decode("koi8-r"), "koi8-r")
    assert decode_text(page, html=True, declared="windows-1251") == (meta + russian, "cp1251")
    assert decode_text((meta + russian).encode(), html=True, declared="windows-1251") == (meta + russian, "utf-8")
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF32_BE, "utf-32-be")):
        assert decode_text(mark + russian.encode(name), declared="windows-1251", html=True) == (russian, name)
    assert decode_text(codecs.BOM_UTF8 + b"a") == ("a", "utf-8")
    assert decode_text(b'<?xml version="1.0" encoding="koi8-r"?>' + russian.encode("koi8-r"), html=True)[1] == "koi8-r"


@pytest.mark.parametrize(
    "declared", ["", "nonsense", "text/html", "idna", "rot13", "hex", "utf-7", "text/html; charset="]
)
def test_declarations_of_nothing_are_passed_over(declared: str) -> None:
    assert decode_text((RUSSIAN * 3).encode("cp1251"), declared=declared) == (RUSSIAN * 3, "cp1251")


def test_an_encoding_that_was_declared_wrongly_gives_way_to_the_next() -> None:
    japanese = "日本語の文字コードの検出を確かめるための文章です。パンは小麦粉から作られます。" * 4
    assert decode_text(japanese.encode("cp932"), declared="utf-8") == (japanese, "cp932")
    assert decode_text(japanese.encode("euc_jp"), declared="shift_jis")[0] == japanese
    meta = '<meta charset="utf-16">'  # it could not have been read if it were true
    assert decode_text((meta + RUSSIAN).encode(), html=True) == (meta + RUSSIAN, "utf-8")


def test_few_damaged_bytes_become_replacement_characters_and_many_are_refused() -> None:
    text = RUSSIAN * 20
    data = text.encode()
    damaged = data[:500] + b"\xff" + data[500:]
    found, codec = decode_text(damaged, declared="utf-8")
    assert codec == "utf-8"
    assert found.count("\ufffd") == 1
    assert found.replace("\ufffd", "") == text
    cut = text.rstrip(". ").encode()[:-1]
    assert decode_text(cut) == (text.rstrip(". ")[:-1] + "\ufffd", "utf-8")
    with pytest.raises(UnicodeDecodeError):
        decode_text(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20)


def test_one_byte_of_another_encoding_in_english_is_not_taken_for_damage() -> None:
    assert decode_text(b"It\x92s a page in English, and its author typed one quotation mark. " * 3)[0].startswith(
        "It’s"
    )


def test_a_named_encoding_is_used_to_the_letter() -> None:
    assert decode_text(b"caf\xe9 \x93", encoding="latin-1") == ("café \x93", "iso8859-1")
    assert decode_text("é".encode(), encoding="cp1252") == ("Ã©", "cp1252")
    assert decode_text("\ufeffé".encode(), encoding="utf-8") == ("é", "utf-8")
    with pytest.raises(UnicodeDecodeError, match=r"cp1252|charmap"):
        decode_text(b"\x81", encoding="cp1252")
    with pytest.raises(UnicodeDecodeError, match="utf-8"):
        decode_text(b"a\xff", encoding="utf-8", declared="latin-1")


@pytest.mark.parametrize("name", ["utf-9", "", "rot13", "base64", "idna", "a\0b"])
def test_an_unknown_name_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="there is no encoding"):
        find_codec(name)


def test_text_without_marks_in_wide_characters_and_escapes_is_found() -> None:
    text = "<html><body><p>Plain words, many of them, in a wide encoding.</p></body></html>" * 5
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        assert decode_text(text.encode(codec), html=True) == (text, codec)
    japanese = "日本語の文章です。パンは小麦粉から作られます。" * 5
    assert decode_text(japanese.encode("iso2022_jp"))[0] == japanese
    assert decode_text(b"a NUL \0 in the text")[0] == "a NUL \0 in the text"


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_utf8_with_one_character_beyond_ascii_comes_back_whatever_is_declared(text: str) -> None:
    assert decode_text(f"é{text}".encode(), declared="shift_jis") == (f"é{text}", "utf-8")


@given(
    st.binary(max_size=400),
    st.sampled_from([None, "utf-8", "shift_jis", "utf-16", "latin-1", "hz", "x"]),
    st.booleans(),
)
def test_any_bytes_give_text_with_little_damage_or_are_refused(data: bytes, declared: str | None, html: bool) -> None:
    try:
        text, codec = decode_text(data, declared=declared, html=html)
    except UnicodeDecodeError:
        return
    assert codecs.lookup(codec)
    real = data.decode(codec, "ignore").count("\ufffd")
    assert text.count("\ufffd") - real <= 0.01 * len(text)
    assert decode_text(data, declared=declared, html=html) == (text, codec)
