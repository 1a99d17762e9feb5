"""What became of the cases: a line on the terminal for each, and an event for `cargo xtask` (see xtask/src/tally.rs)."""

import json
from pathlib import Path


class Outcomes:
    def __init__(self, events: Path | None):
        self.events = events and events.open("w")
        self.passed = self.failed = self.skipped = 0

    def passes(self, name: str) -> None:
        self.passed += 1
        self._tell(name, "ok", "ok")

    def fails(self, name: str, wrong: list[str]) -> None:
        self.failed += 1
        self._tell(name, "failed", "FAILED")
        for line in (line for problem in wrong for line in problem.splitlines()):
            print(f"    {line}", flush=True)

    def skips(self, name: str, why: str) -> None:
        self.skipped += 1
        self._tell(name, "ignored", f"skipped: {why}", reason=why)

    def ends(self, name: str, wrong: list[str]) -> None:
        if wrong:
            self.fails(name, wrong)
        else:
            self.passes(name)

    def _tell(self, name: str, event: str, shown: str, **more: str) -> None:
        print(f"{name}: {shown}", flush=True)
        if self.events:
            line = {"type": "test", "event": event, "name": f"interop::{name}", **more}
            print(json.dumps(line), file=self.events, flush=True)
