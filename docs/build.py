"""Build the pages: `make docs`, or `python docs/build.py [FOLDER]`.

Pages link to each other and to files of the repository by relative paths. All that may
be linked to is laid out as it lies here, notebooks become pages, and Zensical builds
the site (zensical.toml) in build/site, or in FOLDER. A warning is an error. The site
loads nothing from elsewhere.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    *("README.md", "PAPER_MAP.md", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("CITATION.cff", "LICENSE", "Makefile", "Dockerfile", "pyproject.toml"),
)
FOLDERS = ("docs", "configs", "launch", "benchmarks", "imas_jax")
# configs is laid out by itself (a link in imas_jax); templates are no pages.
IGNORED = shutil.ignore_patterns("__pycache__", "*.npz", "configs", "templates")
CONFIG = "zensical.toml"


def main() -> None:
    """Build into the folder that the command line names."""
    site = Path(*sys.argv[1:2] or [ROOT / "build" / "site"]).resolve()
    shutil.rmtree(site, ignore_errors=True)
    config = (ROOT / CONFIG).read_text()
    told = tomllib.loads(config)["project"]
    source = site.parent / "site_source"
    lay_out(source)
    # A configuration's folders are relative to it, and it cannot be told others.
    config = config.replace(f'"{told["docs_dir"]}"', f'"{source.name}"')
    config = config.replace(f'"{told["site_dir"]}"', f'"{site.name}"')
    (site.parent / CONFIG).write_text(config)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=site.parent, check=False)
    sys.exit(built.returncode)


def lay_out(source: Path) -> None:
    """Copy what pages are made of, and turn notebooks into pages."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=IGNORED)
    for script in (source / "docs" / "notebooks").glob("*.py"):
        notebook = jupytext.read(script, fmt="py:percent")
        for one in (notebook, *notebook.cells):
            one.metadata.clear()  # no front matter, no tags on fences
        jupytext.write(notebook, script.with_suffix(".md"), fmt="md")


if __name__ == "__main__":
    main()
