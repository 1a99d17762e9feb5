"""The program ``dl``, as the wheel brings it."""

from __future__ import annotations

import signal
import sys

from ._internal import run_program


def main() -> int:
    """Runs the command line of this process, and gives its exit code."""
    # The program handles it: it ends a step, or begins none.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_program(["dl", *sys.argv[1:]])
