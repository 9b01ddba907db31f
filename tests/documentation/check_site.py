"""The site as it was built: every public name has its place, and search finds what people ask for.

``nox -s docs`` runs this, and nothing else does: it needs the site in docs/_build/html.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sphinx.search.en import SearchEnglish

import fastlstm
from support.browser import opened
from support.paths import ROOT

SITE = ROOT / "docs" / "_build" / "html"

#: What has a name without an underscore and is used by other parts of the package alone.
NO_API = ("fastlstm.bench", "fastlstm.cli", "fastlstm.demo", "fastlstm.weights.")


def public_modules() -> list[str]:
    """Modules that say what is public in them, and are."""
    found = ["fastlstm"]
    for module in pkgutil.walk_packages(fastlstm.__path__, "fastlstm."):
        name = module.name
        if re.search(r"\._", name) or name.startswith(NO_API):
            continue
        if hasattr(importlib.import_module(name), "__all__"):
            found.append(name)
    return found


@cache
def documented() -> set[str]:
    """Names that have an entry in the reference, from the inventory."""
    packed = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines if " py:" in line}


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_is_in_the_reference(module: str) -> None:
    names = importlib.import_module(module).__all__
    # What the package itself has as well is told of there.
    places = {f"{'fastlstm' if name in fastlstm.__all__ else module}.{name}" for name in names}
    assert sorted(places - documented()) == []


@cache
def index() -> dict[str, Any]:
    text = (SITE / "searchindex.js").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    return loaded


def search(query: str) -> list[str]:
    """Pages that hold all words of a query, the best first: a word in a title counts more than one
    in the text, and most where it is much of the title.
    """
    language = SearchEnglish({})
    words = [language.stem(w) for w in re.findall(r"\w+", query.lower()) if language.word_filter(w)]
    scores: dict[int, float] = {}
    for n, word in enumerate(words):
        found: dict[int, float] = {}
        for places in ("terms", "titleterms"):
            pages = index()[places].get(word, [])
            for page in [pages] if isinstance(pages, int) else pages:
                title = index()["titles"][page]
                found[page] = 5 if places == "terms" else 15 + 15 * len(word) / len(title)
        held = found.keys() if n == 0 else scores.keys() & found.keys()
        scores = {page: scores.get(page, 0) + found[page] for page in held}
    ranked = sorted(scores, key=lambda page: (-scores[page], page))
    return [index()["docnames"][page] for page in ranked]


#: What a new user asks, and the page that answers.
QUESTIONS = {
    "see gates": "gallery/see_gates",
    "explain a forecast": "gallery/explain_forecast",
    "stream audio": "gallery/audio_effect",
    "read a checkpoint": "how-to/weights",
    "train on ragged data": "tutorials/training",
    "quantise": "gallery/quantise",
    "scikit-learn": "how-to/scikit-learn",
    "PyTorch": "how-to/pytorch",
    "on Dask": "how-to/xarray",
    "call from C": "how-to/c_api",
}

#: In other words, which the site's own search is asked as well.
MORE_QUESTIONS = {
    "use in scikit-learn": "how-to/scikit-learn",
    "in PyTorch": "how-to/pytorch",
    "how do I see the gates of my LSTM?": "gallery/see_gates",
    "install": "tutorials/first-steps",
    "variable length sequences": "tutorials/training",
    "GPU": "index",
    "lstm.trace": "reference/api/fastlstm",
    "quantize": "reference/api/fastlstm.quantization",
}


@pytest.mark.parametrize(("question", "page"), QUESTIONS.items())
def test_a_new_user_finds_the_page(question: str, page: str) -> None:
    assert page in search(question)[:3]


def test_search_in_a_browser_finds_it(tmp_path: Path) -> None:
    """The site's own search, from files and without a network, by `docs/search_scorer.js`."""
    found = {}
    with opened(SITE / "index.html", "", tmp_path) as shown:
        for question in QUESTIONS | MORE_QUESTIONS:
            shown.go(f"{(SITE / 'search.html').as_uri()}?q={quote(question)}")
            shown.wait_for(
                "/finished|did not/.test(document.querySelector('.search-summary')?.textContent)"
            )
            found[question] = shown.evaluate(
                "[...document.querySelectorAll('#search-results li a')].slice(0, 3)"
                ".map((link) => link.getAttribute('href').split(/[?#]|[.]html/)[0])"
            )
    missed = {question: found[question] for question, page in (QUESTIONS | MORE_QUESTIONS).items()
              if page not in found[question]}  # fmt: skip
    assert missed == {}
