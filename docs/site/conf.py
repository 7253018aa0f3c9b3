"""How `make docs` builds the site: Sphinx over the Markdown that is read in the repository.

The source directory is the repository's root, so that links between README, ARCHITECTURE and
docs/ are the same here and there. The order of the pages is `_toc.yml`.
"""

project = "RaftKV"
copyright = "the RaftKV authors, Apache-2.0"  # noqa: A001 - Sphinx's name
html_title = "RaftKV"

extensions = ["myst_parser", "sphinx_external_toc", "sphinx_copybutton", "sphinxcontrib.mermaid"]
external_toc_path = "docs/site/_toc.yml"
include_patterns = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/**.md"]

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]

html_theme = "furo"
html_static_path: list[str] = []
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False

# Plain indented blocks are commands and their output; none of them is Python.
highlight_language = "none"
