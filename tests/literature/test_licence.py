"""What may be passed on."""

from __future__ import annotations

from typing import Any

import pytest

from atomvision_hub.literature.fetch import Fetcher
from atomvision_hub.literature.licence import is_credited, licence_of, parse_licence
from atomvision_hub.literature.search import Article


@pytest.mark.parametrize(
    ("text", "name", "conditions", "allowed"),
    [
        ("http://creativecommons.org/licenses/by/4.0/", "cc-by-4.0", "attribution", True),
        ("https://creativecommons.org/licenses/by-sa/4.0", "cc-by-sa-4.0", "attribution sharealike", True),
        (
            "http://creativecommons.org/licenses/by-nc-sa/3.0/",
            "cc-by-nc-sa-3.0",
            "attribution noncommercial sharealike",
            True,
        ),
        (
            "http://creativecommons.org/licenses/by-nc-nd/4.0/",
            "cc-by-nc-nd-4.0",
            "attribution noncommercial noderivatives",
            True,
        ),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0", "", True),
        ("http://creativecommons.org/publicdomain/mark/1.0/", "pdm-1.0", "", True),
        ("License: CC BY 4.0", "cc-by-4.0", "attribution", True),
        ("License: CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0", "attribution noncommercial noderivatives", True),
        ("License: CC0 1.0", "cc0-1.0", "", True),
        ("http://arxiv.org/licenses/nonexclusive-distrib/1.0/", "arxiv-nonexclusive-1.0", "", False),
        ("License: arXiv.org perpetual non-exclusive license", "arxiv-nonexclusive-1.0", "", False),
        ("http://arxiv.org/licenses/assumed-1991-2003/", "other", "", False),
        ("License: CC BY", "other", "", False),
        ("https://evil.example/creativecommons.org/licenses/by/4.0/", "other", "", False),
        ("http://creativecommons.org/licenses/by/4.0/ but not really", "other", "", False),
        ("", "unknown", "", False),
    ],
)
def test_the_rule(text: str, name: str, conditions: str, allowed: bool) -> None:
    licence = parse_licence(text)
    assert (licence.name, " ".join(licence.conditions), licence.allows_copies) == (name, conditions, allowed)
    if allowed:  # what a row says of its licence is enough to check it
        assert parse_licence(licence.url) == licence


@pytest.mark.parametrize(
    "caption",
    [
        "TEM image. Reproduced with permission from Ref. [12].",
        "STM image, adapted from Smith et al.",
        "STEM image taken from Ref. 7.",
        "Reprinted from [3], with permission of AIP.",
        "Image courtesy of A. Smith.",
        "A galaxy (image credit A. Smith).",
        "© 2012 American Physical Society.",
        "Structure modified after reference 4.",
        "Copyright 2020 by Wiley.",
    ],
)
def test_credits(caption: str) -> None:
    assert is_credited(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "STM image taken with a bias of 1 V along the [110] direction.",
        "HRTEM image viewed from the [001] zone axis.",
        "Image taken from the area marked in (a), along [001].",
        "Au nanoparticles, modified surfaces, see text and Ref. [12] for details.",
        "The profile is extracted from the line in (a).",
        "We thank the referees.",
    ],
)
def test_what_is_no_credit(caption: str) -> None:
    assert not is_credited(caption)


def article(key: str) -> Article:
    name, version = key.rsplit("v", 1)
    return Article(name, int(version), "T", "A")


@pytest.mark.parametrize(
    ("key", "stated", "name"),
    [
        ("2401.00002v2", "", "arxiv-nonexclusive-1.0"),
        ("1706.00003v1", "", "cc-by-nc-nd-4.0"),
        ("1706.00003v1", "CC BY 4.0", "cc-by-4.0"),
        ("1706.00003v1", "some words", "cc-by-nc-nd-4.0"),
        ("cond-mat/0101004v1", "", "unknown"),
        ("2401.00009v1", "", "unknown"),  # what OAI-PMH says is about version 3
        ("2401.00009v3", "", "cc-by-4.0"),
        ("9999.99999v1", "", "unknown"),
        ("2402.00004v1", "", "unknown"),  # an entity bomb
    ],
)
def test_who_is_asked(fetcher: Fetcher, arxiv_server: Any, key: str, stated: str, name: str) -> None:
    assert licence_of(fetcher, article(key), stated).name == name
    assert len(arxiv_server.requests("/oai")) == (0 if name == "cc-by-4.0" and stated else 1)


def test_an_answer_about_another_article(fetcher: Fetcher, arxiv_server: Any) -> None:
    arxiv_server.fault("/oai", "status", status=400)
    assert licence_of(fetcher, article("2401.00002v2"), "").name == "unknown"
