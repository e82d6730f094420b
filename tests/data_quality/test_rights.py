"""Licences as people write them, opt-outs as sites state them, and metadata that says nothing."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_quality.rights import (
    _TRAINERS,
    RIGHTS_COLUMNS,
    licence_class,
    licence_table,
    normal_licence,
    read_rights,
    rights_columns,
)


@pytest.mark.parametrize(
    ("written", "licence", "kind"),
    [
        ("MIT", "MIT", "permissive"),
        ("The MIT License (MIT)", "MIT", "permissive"),
        ("Apache License, Version 2.0", "Apache-2.0", "permissive"),
        ("apache-2.0", "Apache-2.0", "permissive"),
        ("http://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0", "permissive"),
        ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause", "permissive"),
        ("https://opensource.org/licenses/MIT", "MIT", "permissive"),
        ("https://spdx.org/licenses/ISC.html", "ISC", "permissive"),
        ("GPLv3", "GPL-3.0-only", "copyleft"),
        ("GNU General Public License v3.0", "GPL-3.0-only", "copyleft"),
        ("https://www.gnu.org/licenses/gpl-3.0.html", "GPL-3.0-only", "copyleft"),
        ("GNU GPL v2+", "GPL-2.0-or-later", "copyleft"),
        ("GNU Lesser General Public License v2.1 or later", "LGPL-2.1-or-later", "copyleft"),
        ("AGPLv3", "AGPL-3.0-only", "copyleft"),
        ("GPL-2.0+", "GPL-2.0-or-later", "copyleft"),
        ("Mozilla Public License Version 2.0", "MPL-2.0", "copyleft"),
        ("CC0", "CC0-1.0", "public-domain"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0", "public-domain"),
        ("Public Domain", "Public-Domain", "public-domain"),
        ("CC-BY", "CC-BY", "permissive"),
        ("cc by 4", "CC-BY-4.0", "permissive"),
        ("cc_by_sa_4.0", "CC-BY-SA-4.0", "copyleft"),
        ("https://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0", "permissive"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0", "copyleft"),
        ("cc-by-nc-nd 3.0", "CC-BY-NC-ND-3.0", "restricted"),
        ("Attribution-NonCommercial 4.0 International", "CC-BY-NC-4.0", "restricted"),
        ("CC BY-ND 4.0", "CC-BY-ND-4.0", "restricted"),
        ("© 2020 Somebody. All rights reserved.", "Proprietary", "restricted"),
        ("MIT OR Apache-2.0", "Apache-2.0 OR MIT", "permissive"),
        ("GPL-3.0 or MIT", "GPL-3.0-only OR MIT", "permissive"),
        ("ask me", "other", "other"),
        ("this or that", "other", "other"),
        ("cc by xx", "CC-BY", "permissive"),
        ("", "other", "other"),
    ],
)
def test_a_licence_however_it_is_written(written: str, licence: str, kind: str) -> None:
    assert normal_licence(written) == licence
    assert licence_class(licence) == kind


def test_every_name_in_the_table_leads_to_its_own_row() -> None:
    for identifier, kind, names in licence_table():
        assert licence_class(identifier) == kind
        for name in (identifier, identifier.upper(), f"the {identifier} license", *names):
            assert normal_licence(name) == identifier, name


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    assert normal_licence(text)
    read_rights(json.dumps({"license": text, "robots": text, "tdm_reservation": text}))


@pytest.mark.parametrize(
    ("meta", "opt_out", "noindex"),
    [
        ({"robots": "noai"}, True, False),
        ({"robots": "NOINDEX, NoAI"}, True, True),
        ({"robots": "none"}, False, True),
        ({"robots": "index, follow"}, False, False),
        ({"robots": "noimageai"}, False, False),  # of images, says nothing of text
        ({"http.x-robots-tag": "noml"}, True, False),
        ({"X-Robots-Tag": "GPTBot: noindex, nofollow"}, True, False),
        ({"X-Robots-Tag": "googlebot: noindex"}, False, False),
        ({"X-Robots-Tag": "unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"}, False, True),
        ({"http.x-robots-tag": "googlebot: nofollow\nnoindex"}, False, True),
        ({"X-Robots-Tag": ["all", "ccbot: none"]}, True, False),
        ({"tdm-reservation": 1}, True, None),
        ({"tdm_reservation": "1"}, True, None),
        ({"http.tdm-reservation": "0"}, False, None),
        ({"robots": "all", "tdm-reservation": "1"}, True, False),
        ({"html": {"robots": "noai"}}, True, False),
        ({"robots": ""}, None, None),
        ({"robots": None}, None, None),
        ({"title": "noai"}, None, None),
        ({}, None, None),
    ],
)
def test_opt_outs_as_sites_state_them(meta: dict[str, Any], opt_out: bool | None, noindex: bool | None) -> None:
    found = read_rights(json.dumps(meta))
    assert (found.ai_opt_out, found.noindex) == (opt_out, noindex)


@pytest.mark.parametrize(
    ("meta", "licence", "kind"),
    [
        ({"license": "MIT"}, "MIT", "permissive"),
        ({"Licence": "mit"}, "MIT", "permissive"),
        ({"metadata.license": "mit"}, "MIT", "permissive"),
        ({"repo": {"license": {"spdx_id": "GPL-3.0", "name": "x"}}}, "GPL-3.0-only", "copyleft"),
        ({"max_stars_repo_licenses": ["MIT", "Apache-2.0"]}, "Apache-2.0 AND MIT", "permissive"),
        ({"licenses": ["MIT", "CC BY-NC 4.0"]}, "CC-BY-NC-4.0 AND MIT", "restricted"),
        ({"licenses": ["MIT", "ask me"]}, "MIT AND other", "other"),
        ({"license": None, "rights": "CC0"}, "CC0-1.0", "public-domain"),
        ({"license": [], "title": "MIT"}, None, "none"),
        ({"license": True}, None, "none"),
        ({}, None, "none"),
    ],
)
def test_licences_wherever_metadata_states_them(meta: dict[str, Any], licence: str | None, kind: str) -> None:
    found = read_rights(json.dumps(meta))
    assert (found.licence, found.licence_class) == (licence, kind)


def test_columns_of_documents_with_and_without_metadata() -> None:
    metas = ['{"license":"MIT"}', None, "no JSON", "[1]", '{"license":"MIT"}', '{"robots":"noai"}']
    found = rights_columns(pa.table({"meta": pa.array(metas, pa.string())}))
    assert {name: column.type for name, column in found.items()} == RIGHTS_COLUMNS
    assert found["licence"].to_pylist() == ["MIT", None, None, None, "MIT", None]
    assert found["licence_class"].to_pylist() == ["permissive", "none", "none", "none", "permissive", "none"]
    assert found["ai_opt_out"].to_pylist() == [None] * 5 + [1]
    assert found["noindex"].to_pylist() == [None] * 5 + [0]
    empty = rights_columns(pa.table({"meta": pa.array([], pa.string())}))
    assert all(len(column) == 0 for column in empty.values())


def test_names_of_crawlers_are_in_lower_case() -> None:
    assert {name.lower() for name in _TRAINERS} == _TRAINERS
