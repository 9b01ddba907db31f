"""How Sphinx makes the site of these pages: ``nox -s docs``."""

from __future__ import annotations

import re
from pathlib import Path

import fastlstm

project = "fastlstm"
author = "The fastlstm developers"
release = version = fastlstm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]

# Pages.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]

# Docstrings: what stands in single backticks is code.
default_role = "code"
autodoc_member_order = "groupwise"
autodoc_type_aliases = {
    "LSTM": "fastlstm.LSTM",
    "BiLSTM": "fastlstm.BiLSTM",
    "torch.nn.Module": "torch.nn.Module",  # not imported where it is named
    "npt.DTypeLike": "DTypeLike",
    "npt.ArrayLike": "ArrayLike",
}
numpydoc_show_class_members = False
numpydoc_citation_re = r"\d+"  # of one docstring; what a whole module cites has a name
python_maximum_signature_line_length = 88
nitpicky = True  # roles name what there is; types in signatures may be of packages elsewhere
nitpick_ignore_regex = [("py:class", ".*")]

# Examples: each script in cells runs, and what it prints and draws is on its page. The others
# are programs with options, some of which run for minutes.
EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = [path.name for path in EXAMPLES.glob("*.py") if "\n# %%" not in path.read_text("utf-8")]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "",
    "ignore_pattern": "^({})$".format("|".join(map(re.escape, sorted(PROGRAMS)))),
    "parallel": True,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = "fastlstm"
html_search_scorer = str(Path(__file__).with_name("search_scorer.js"))
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
