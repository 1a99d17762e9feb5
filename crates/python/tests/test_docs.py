"""The page of the docs and the README: each Python block runs."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGES = [ROOT / "docs" / "src" / "python.md", HERE.parent / "README.md", ROOT / "README.md"]


def blocks(page):
    return re.findall(r"^```python,package\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_one_after_the_other(page):
    found = blocks(page)
    assert found, f"{page} has no Python block"
    names = {}
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if "catalog" in names:
        names["catalog"].close()
