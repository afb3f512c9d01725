"""Fills the templates of this folder: names from outside are escaped, none missing.

The templates are whole pages with their style and script (`base.html`, which the others
extend): a page opens from disk and asks nothing of the network.
"""

from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def fill(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template: File name, e.g. "report.html".
        **values: What it names; text is escaped.
    """
    return _TEMPLATES.get_template(template).render(**values) + "\n"
