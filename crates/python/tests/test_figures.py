"""The program that measures runs, on little; its bounds are for a release wheel on many files."""

import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = Path(__file__).parent.parent / "benches" / "figures.py"


@pytest.mark.parametrize(
    ("arguments", "cases"),
    [
        (["opening", "--files", "1200", "--rounds", "1"], ["open", "open and plan one day"]),
        (["rows", "--rows", "20000"], ["deltalakedb-write", "deltalakedb-read"]),
    ],
)
def test_the_figures_are_measured(arguments, cases):
    command = [sys.executable, str(FIGURES), "--no-bounds", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    for case in cases:
        assert f"| {case} |" in done.stdout, done.stdout
