"""What is documented is what there is."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

from k3s.apiserver.admission.settings import ABSENT, OPTIONAL
from k3s.cli import cis
from k3s.run.options import OPTIONS, markdown
from k3s.run.settings import PASSED

ROOT = Path(__file__).resolve().parent.parent


def test_options_page_is_made_from_the_table() -> None:
    """docs/options.md holds exactly what the tables say: write `markdown(PASSED)` into it."""
    assert (ROOT / "docs" / "options.md").read_text() == markdown(PASSED)


def test_every_option_is_documented() -> None:
    """No option is missing from the page, refused ones are named with their reason."""
    page = (ROOT / "docs" / "options.md").read_text()
    assert not [o.name for o in OPTIONS if f"`--{o.name}`" not in page and f"`-{o.name}`" not in page]


def test_security_page_has_the_checks() -> None:
    """docs/security.md holds the table of `k3s check-config --cis`: write `cis.markdown()` into it."""
    assert cis.markdown() in (ROOT / "docs" / "security.md").read_text()


def test_security_page_has_the_plugins() -> None:
    """docs/security.md names each plugin of admission that is off or not here, with the reason."""
    page = (ROOT / "docs" / "security.md").read_text()
    assert [name for name, why in ABSENT.items() if f"| {name} | {why} |" not in page] == []
    assert [name for name in OPTIONAL if name not in page] == []


def test_every_dependency_is_documented() -> None:
    """Each run-time dependency has its line in docs/dependencies.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=~! \[]", d)[0] for d in project["dependencies"]]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert not [name for name in names if f"| {name}" not in page]


def test_every_figure_is_kept_and_no_miss_is_hidden() -> None:
    """Each figure of bench/figures.py has its line in docs/benchmarks.md; what is missed has its reasons below."""
    figures = runpy.run_path(str(ROOT / "bench" / "figures.py"), run_name="figures")["FIGURES"]
    table, _, reasons = (ROOT / "docs" / "benchmarks.md").read_text().partition("## Missed, and why")
    assert [f.title for f in figures if f"| {f.title} |" not in table] == []
    missed = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if "| **missed** |" in line]
    told = {word.lower() for word in re.findall(r"^\*\*(\w+)", reasons, re.MULTILINE)}
    assert [title for title in missed if title.split(" ")[0].lower() not in told] == []


def test_decisions_are_numbered_and_dated() -> None:
    """Decision records count up without gaps, each with date and status."""
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(p.name[:4]) for p in records] == list(range(1, len(records) + 1))
    assert not [p.name for p in records if not re.search(r"Date: \d{4}-\d{2}-\d{2}\. Status: \w+", p.read_text())]


def test_architecture_is_short() -> None:
    """The map stays a map."""
    assert (ROOT / "ARCHITECTURE.md").read_text().count("\n") <= 300
