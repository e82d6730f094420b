"""Redaction: what is personal goes, what only looks like it stays, and twice is once."""

from __future__ import annotations

import datetime
import gzip
import json
import string
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.config import IngestConfig, RedactConfig, SourceConfig
from corpus.documents import read_unit
from corpus.inventory import plan_units, take_inventory
from corpus.redaction import PLACEHOLDERS, Redactor, luhn

ALL = Redactor(RedactConfig(kinds=("email", "ip", "phone", "credit-card", "iban")))

# Published examples: RFC 5737 and 3849 for addresses, card networks' test numbers, the IBAN registry's examples,
# numbers reserved for fiction (555-01xx in North America, Ofcom's drama numbers, Bundesnetzagentur's).
FOUND = {
    "email": [
        "ann@example.org", "a.b+c@mail.example.co.uk", "x_y-z%1@example.museum", "j\u00f6rg@b\u00fccher.example",
        "o'neil@example.com", "1@example.com", "name@sub.domain-with-hyphen.example",
    ],
    "ip": ["192.0.2.1", "198.51.100.255", "203.0.113.7", "10.1.2.3", "8.8.8.8", "2001:db8::ff00:42:8329",
           "2001:0db8:0000:0000:0000:ff00:0042:8329"],
    "phone": [
        "+1 202-555-0143", "+44 20 7946 0958", "+49 30 23125 014", "(202) 555-0143", "202-555-0143", "+12025550143",
        "020 7946 0958", "+33 1 99 00 12 34", "0044 20 7946 0958", "+86 138 0013 8000", "030/23125 014",
    ],
    "credit-card": [
        "4111 1111 1111 1111", "4012-8888-8888-1881", "5555555555554444", "378282246310005", "6011 1111 1111 1117",
        "3530111333300000", "30569309025904", "2223003122003222",
    ],
    "iban": [
        "GB29 NWBK 6016 1331 9268 19", "DE89370400440532013000", "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "SA03 8000 0000 6080 1016 7519", "BE68 5390 0754 7034",
    ],
}  # fmt: skip
KEPT = [
    "@property", "user@host", "git@", "a @ b", "decorator@1.5", "x@y.z1",
    "version 1.2.3.4", "v1.2.3.4", "1.2.3.4.5", "999.1.1.1", "127.0.0.1", "0.0.0.0", "255.255.255.0", "12:30:45",
    "std::vector::size", "::1",
    "2024-01-31", "31.12.2024", "1234567890", "12345678", "3.14159265", "1,234,567", "978-3-16-148410-0", "12-34",
    "10 000 000", "1999-2004", "page 1001-1023", "0.5-1.5", "00101101", "ISO 8601", "192 000",
    "4111 1111 1111 1112", "1234567812345670", "0000 0000 0000 0000", "deadbeef4111111111111111",
    "GB29 NWBK 6016 1331 9268 18", "XX29 NWBK 6016 1331 9268 19", "DE8937040044053201300",
]  # fmt: skip

ALSO_FOUND = {
    "email": [
        "почта@пример.рф", "用户@例子.广告", "user@xn--bcher-kva.example", "ann%40example.org", "bob@[192.0.2.1]",
        "ANN@EXAMPLE.ORG", "first_last@a-b.c-d.example", "a@b.io",
    ],
    "ip": [
        "172.16.254.3", "81.2.69.142", "fe80::1ff:fe23:4567:890a", "fd12:3456:789a:1::1",
        "2001:DB8:0:0:8:800:200C:417A",
    ],
    "phone": [
        "(202)555-0143", "1-800-555-0199", "202.555.0143", "+44 (0)20 7946 0958", "+491515550123", "06-1234-5678-90",
        "010-1234-5678", "03-1234-5678", "(030) 23125 014", "01 99 00 12 34", "(11) 91234-5678", "138 0013 8000",
        "+1 202-555-0143 x22", "202-555-0143 ext. 7", "+1\u2013202\u2013555\u20110143", "+5511912345678",
    ],
    "credit-card": [
        "5105-1051-0510-5100", "3714 496353 98431", "3852 000002 3237", "6304000000000000", "2200770239097761",
        "6205500000000000004", "4000 0000 0000 0000 006", "4222222222222",
    ],
    "iban": [
        "de89 3704 0044 0532 0130 00", "AD12 0001 2030 2003 5910 0100", "AE07 0331 2345 6789 0123 456",
        "CH93 0076 2011 6238 5295 7",
        "NL91ABNA0417164300", "PL61 1090 1014 0000 0712 1981 2874", "BR18 0036 0305 0000 1000 9795 493C 1",
        "ES91-2100-0418-4502-0005-1332",
    ],
}  # fmt: skip
# Words before or behind decide what digits are.
IN_CONTEXT = [
    ("call 2025550143 now", "call <PHONE> now"),
    ("Tel.: 555-0143", "Tel.: <PHONE>"),
    ("phone number 912 345 678", "phone number <PHONE>"),
    ("Fax (main office): 23125 014", "Fax (main office): 23125 014"),
    ("тел. 8 495 123-45-67", "тел. <PHONE>"),
    ("联系电话：13800138000，谢谢", "联系电话：<PHONE>，谢谢"),
    ("手机13800138000号", "手机<PHONE>号"),
    ("Tel 202-555-0143, 555-0144 or 555-0145", "Tel <PHONE>, <PHONE> or <PHONE>"),
    ("tel:+12025550143", "tel:<PHONE>"),
    ("mailto:ann@example.org?subject=x", "mailto:<EMAIL>?subject=x"),
    ("请联系ann@example.org谢谢", "请联系<EMAIL>谢谢"),
    ("メールはann@example.jpまで", "メールは<EMAIL>まで"),
    ("'ann@example.org', \"bob@example.org\"; <cy@example.org>.", "'<EMAIL>', \"<EMAIL>\"; <<EMAIL>>."),
    ("see...ann@example.org...", "see...<EMAIL>..."),
    ("https://ann:secret@example.org/x?to=bob%40example.org", "https://ann:<EMAIL>/x?to=<EMAIL>"),
    ("http://81.2.69.142:8080/", "http://<IP_ADDRESS>:8080/"),
    ("81.2.69.142-81.2.69.150, 81.2.69.0/24", "<IP_ADDRESS>-<IP_ADDRESS>, <IP_ADDRESS>/24"),
    ("[2001:db8::8a2e:370:7334]:443 ends 2001:db8::8a2e:370:7334.", "[<IP_ADDRESS>]:443 ends <IP_ADDRESS>."),
    ("visa 4111 1111 1111 1111 123 12/29", "visa <CREDIT_CARD> 123 12/29"),
    ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <IBAN> BIC COBADEFF"),
    ("GB29 NWBK 6016 1331 9268 19 and 4111111111111111", "<IBAN> and <CREDIT_CARD>"),
    ("barcode 4006381333931", "barcode 4006381333931"),
    ("phone: 2004-05-06, call 1990-2004", "phone: 2004-05-06, call 1990-2004"),
    ("ISBN 0123-456-7890", "ISBN 0123-456-7890"),
    ("version 81.2.69.142 and v81.2.69.142", "version 81.2.69.142 and v81.2.69.142"),
    ("git clone git@example.org:a/b.git", "git clone git@example.org:a/b.git"),
]
ALSO_KEPT = [
    "@app.route", "@media", "a@b", "logo@2x.png", "react@16.8.0", "q @ k.T", "user@@example.org", "@ann", "@ann@",
    ".@.",
    "2.7.2.2", "3.3.9.45", "1.2.3", "256.1.2.3", "81.2.69", "81.2.69.142.7", "081.02.69.142", "81.2.69.142-beta1",
    "00:1A:2B:3C:4D:5E", "a::b", "dead::beef", "x[::2]", "12:30:45:10", "2001:db8:::1", "std::ab::cd",
    "31.12.2024 10:30", "2024-01-31 12:00:00", "01.02.2003 - 04.05.2006", "08.30 - 12.00", "2024-01-31T12:00:00+0100",
    "1700000000", "1700000000000", "20240131123045", "7 000 000 000", "1 234 567 890", "123 456 789",
    "-0.536 1.936 -1.182",
    "ISBN 0-306-40615-2", "978 0 306 40615 7", "10.1000/182-123-4567", "doi:10.1038/nphys1170", "arXiv:2101.00027",
    "0x7fff5fbff8c0", "d41d8cd98f00b204e9800998ecf8427e", "123e4567-e89b-12d3-a456-426614174000", "0123456789",
    "+1234567",
    "3.141592653589793", "6.02214076e23", "2147483647", "1/2/3/4/5/6/7/8", "1+1=2", "x=1234567", "#1234567",
    "$202-555-0143",
    "01 02 03 04 05 06 07 08", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10", "47057/47114", "(2010) 658-6670",
    "4111111111111111111111", "6304000000000001", "GB00", "DE89 3704", "AB12CDEF34567890", "part no. GB29-NWBK",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "example"), [(kind, example) for kind in FOUND for example in FOUND[kind]])
@pytest.mark.parametrize("frame", ["{}", "call {} now", "({})", "{}.", "{}, and", "is:\n{}\n", '"{}"'])
def test_what_is_personal_is_replaced(kind: str, example: str, frame: str) -> None:
    text, counts = ALL.text(frame.format(example))
    assert text == frame.format(PLACEHOLDERS[kind])
    assert counts == {kind: 1}
    alone = Redactor(RedactConfig(kinds=(kind,)))  # type: ignore[arg-type]
    assert alone.text(frame.format(example)) == (text, counts)
    assert ALL.text(text) == (text, {})


@pytest.mark.parametrize(("kind", "example"), [(kind, text) for kind in ALSO_FOUND for text in ALSO_FOUND[kind]])
@pytest.mark.parametrize("frame", ["{}", "see {} there", "({}),", "{}\n"])
def test_other_ways_to_write_it_are_found(kind: str, example: str, frame: str) -> None:
    assert ALL.text(frame.format(example)) == (frame.format(PLACEHOLDERS[kind]), {kind: 1})


@pytest.mark.parametrize(("text", "expected"), IN_CONTEXT)
def test_what_stands_around_it_decides(text: str, expected: str) -> None:
    assert ALL.text(text)[0] == expected
    assert ALL.text(expected) == (expected, {})


@pytest.mark.parametrize("example", ALSO_KEPT)
@pytest.mark.parametrize("frame", ["{}", "see {} there", "({})", "{}.\n"])
def test_numbers_of_other_kinds_and_code_stay(example: str, frame: str) -> None:
    assert ALL.text(frame.format(example)) == (frame.format(example), {})


@pytest.mark.parametrize("example", KEPT)
@pytest.mark.parametrize("frame", ["{}", "see {} there", "({})"])
def test_what_only_looks_like_it_stays(example: str, frame: str) -> None:
    assert ALL.text(frame.format(example)) == (frame.format(example), {})


def test_nothing_is_replaced_that_was_not_asked_for() -> None:
    everything = " ; ".join(example for examples in FOUND.values() for example in examples)
    assert Redactor(RedactConfig()).text(everything) == (everything, {})
    _, counts = ALL.text(everything)
    assert counts == {kind: len(examples) for kind, examples in FOUND.items()}


@settings(max_examples=200, deadline=None)
@given(
    before=st.text(st.characters(exclude_categories=("Cs", "Nd", "Nl", "No")), max_size=30),
    after=st.text(st.characters(exclude_categories=("Cs", "Nd", "Nl", "No")), max_size=30),
    kind=st.sampled_from(sorted(FOUND)),
    index=st.integers(0, 20),
)
def test_it_is_found_in_any_surroundings_and_redacting_twice_changes_nothing(
    before: str, after: str, kind: str, index: int
) -> None:
    example = FOUND[kind][index % len(FOUND[kind])]
    text, counts = ALL.text(f"{before} {example} {after}")
    assert counts.get(kind, 0) >= 1
    assert example not in text
    assert ALL.text(text)[0] == text


@given(text=st.text(st.characters(exclude_categories=("Cs", "Nd"), exclude_characters="@")))
def test_text_without_digits_and_at_signs_is_never_touched(text: str) -> None:
    assert ALL.text(text) == (text, {})


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_any_text_is_settled_after_once(text: str) -> None:
    once, _ = ALL.text(text)
    assert ALL.text(once)[0] == once


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")


def test_real_news_loses_next_to_nothing(shared_data: Path) -> None:
    data = gzip.decompress((shared_data / "text" / "wikipedia_en_30_articles.txt.gz").read_bytes()).decode()
    _, counts = ALL.text(data)
    assert sum(counts.values()) <= 5, counts


def test_what_must_not_be_stored_is_nowhere_in_the_output(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": "write to ann@example.org",
            "url": "http://x/?mail=ann@example.org",
            "to": {"all": ["ann@example.org"]},
        },
        {"text": 5, "note": "ann@example.org"},
        {"text": "call 202-555-0143"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = SourceConfig(name="s", kind="jsonl", path=str(tmp_path), meta_fields=("to",))
    config = IngestConfig(sources=(source,), redact=RedactConfig(kinds=("email",)))
    [unit] = plan_units(take_inventory(config), config)
    [batch] = read_unit(config, unit)
    assert batch.documents["text"].to_pylist() == ["write to <EMAIL>", "call 202-555-0143"]
    assert "ann" not in str(batch.documents.to_pylist()) + str(batch.quarantine.to_pylist())
    assert batch.normalised == {"redact email": 1}


def test_fields_are_read_with_their_keys() -> None:
    value = {
        "phone": 2025550143,
        "card": [4111111111111111, "x"],
        "count": 2025550143,
        "nested": {"Mobile_Phone": ["13800138000"], "ann@example.org": None, "bob@example.org": 1.5},
        "flag": True,
    }
    assert ALL.value(value) == {
        "phone": "<PHONE>",
        "card": ["<CREDIT_CARD>", "x"],
        "count": 2025550143,
        "nested": {"Mobile_Phone": ["<PHONE>"], "<EMAIL>": None, "<EMAIL> (2)": 1.5},
        "flag": True,
    }
    assert ALL.value(None) is None
    moment = datetime.datetime(2024, 1, 31, 12, 30)
    assert ALL.value({"phone": moment})["phone"] is moment


@given(
    digits=st.text("0123456789", min_size=10, max_size=25),
    before=st.text(string.ascii_letters, min_size=1, max_size=3),
)
def test_numbers_in_words_and_long_runs_are_no_cards(digits: str, before: str) -> None:
    assert "credit-card" not in ALL.text(f"{before}{digits}")[1]
    assert "credit-card" not in ALL.text(f"{digits}{'7' * 20}")[1]


@given(number=st.integers(0, 10**14 - 1))
def test_any_card_number_of_a_known_network_is_found_if_its_check_digit_is_right(number: int) -> None:
    first = f"4{number:014d}"
    [card] = [f"{first}{digit}" for digit in range(10) if luhn(f"{first}{digit}")]
    assert ALL.text(f"paid with {card}, thanks")[0] == "paid with <CREDIT_CARD>, thanks"
    grouped = "-".join(card[at : at + 4] for at in range(0, 16, 4))
    assert ALL.text(f"paid with {grouped}, thanks")[0] == "paid with <CREDIT_CARD>, thanks"


@given(number=st.integers(0, 10**18 - 1), country=st.sampled_from(["DE", "AT", "FI", "BE"]))
def test_an_iban_is_found_if_its_check_digits_are_right(number: int, country: str) -> None:
    length = {"DE": 18, "AT": 16, "FI": 14, "BE": 12}[country]
    account = str(number).zfill(length)[-length:]
    check = 98 - int(account + "".join(str(int(letter, 36)) for letter in country) + "00") % 97
    written = f"{country}{check:02d}{account}"
    grouped = " ".join(written[at : at + 4] for at in range(0, len(written), 4))
    only = Redactor(RedactConfig(kinds=("iban",)))
    for text in (written, grouped):
        assert only.text(f"to {text}.") == ("to <IBAN>.", {"iban": 1})
    wrong = f"{country}{(check + 1) % 100:02d}{account}"
    assert only.text(f"to {wrong}.") == (f"to {wrong}.", {})


@given(text=st.text(st.sampled_from("0123456789 .-+()/@:abcGBDE%\u4e2d\xe9"), max_size=80))
def test_any_mix_of_digits_and_signs_is_settled_after_once(text: str) -> None:
    once, counts = ALL.text(text)
    assert ALL.text(once) == (once, {})
    assert (once == text) == (not counts)


def test_real_prose_loses_phone_numbers_and_addresses_only(shared_data: Path) -> None:
    with gzip.open(shared_data / "text" / "c4_en_300.jsonl.gz", "rt", encoding="utf-8") as lines:
        pages = [json.loads(line)["text"] for line in lines]
    counts: Counter[str] = Counter()
    for page in pages:
        counts.update(ALL.text(page)[1])
    assert counts == {"phone": 24, "email": 7}  # looked at one by one: all are what they are said to be
    with zipfile.ZipFile(shared_data / "text" / "state_union.zip") as archive:
        for member in archive.namelist():
            assert ALL.text(archive.read(member).decode("latin-1"))[1] == {}
    plays = gzip.decompress((shared_data / "text" / "tinyshakespeare.txt.gz").read_bytes()).decode()
    assert ALL.text(plays) == (plays, {})


def test_an_excerpt_that_ends_within_an_address_does_not_keep_its_half(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no json " + "x " * 90 + "ann.example@example.org and more")
    source = SourceConfig(name="s", kind="jsonl", path=str(tmp_path))
    config = IngestConfig(sources=(source,), redact=RedactConfig(kinds=("email",)))
    [unit] = plan_units(take_inventory(config), config)
    [batch] = read_unit(config, unit)
    [excerpt] = batch.quarantine["excerpt"].to_pylist()
    assert excerpt.startswith("no json x x")
    assert "ann" not in excerpt
