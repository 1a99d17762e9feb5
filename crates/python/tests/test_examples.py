"""The examples run, and say what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ARGUMENTS = {"memory": ["600000"], "opening": ["60"], "locks": ["3"], "errors": []}


def test_each_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


def run(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path), *ARGUMENTS[name]],
        capture_output=True, text=True, timeout=240, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", ["opening", "locks", "errors"])
def test_an_example_runs(name, tmp_path):
    said = run(name, tmp_path)
    assert len(said.splitlines()) >= 2, said


def test_memory_does_not_grow_with_the_table(tmp_path):
    said = run("memory", tmp_path)
    before, written, read = map(int, re.findall(r"(\d+) MiB (?:before|after)", said))
    # All rows are 60 MiB as text, and more as Python's objects; a build without optimization needs more for a file.
    assert read - before < 250, said
