"""Makes tables through `dl` and reads them with other engines.

Started by `cargo xtask interop`. Prints one line a case and engine in the form of Rust's test runner, then a
table. Every reading is done by an engine in a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

from cases import CASES
from dl import Dl
from facts import differences, facts

ENGINES = ["deltalake", "polars", "duckdb"]


def read(engine: str, reading) -> list[str]:
    """What is wrong with an engine's view of a table."""
    command = [sys.executable, str(Path(__file__).with_name("engine.py")), engine, str(reading.folder)]
    where = reading.folder.name
    if reading.version is not None:
        command.append(str(reading.version))
        where += f" at version {reading.version}"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        return [f"{where}: {engine} failed:\n{done.stderr.strip()[-2000:]}"]
    found = json.loads(done.stdout)
    return [f"{where}: {d}" for d in differences(facts(reading.expected), found)]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dl", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("filter", nargs="?", default="")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    dl = Dl(args.dl.resolve(), args.work.resolve() / "catalog.db")
    dl("init")

    cases = [c for c in CASES if args.filter in c.__name__]
    print(f"running {len(cases) * len(ENGINES)} tests", flush=True)
    outcomes: dict[tuple[str, str], bool] = {}
    for case in cases:
        name = case.__name__
        home = args.work.resolve() / name
        home.mkdir()
        problem, readings = None, []
        try:
            readings = case(dl, home)
        except Exception:
            problem = traceback.format_exc()
        for engine in ENGINES:
            wrong = [problem] if problem else [w for r in readings for w in read(engine, r)]
            outcomes[name, engine] = not wrong
            print(f"test interop::{engine}::{name} ... {'FAILED' if wrong else 'ok'}", flush=True)
            if wrong:
                print("\n".join(f"    {line}" for w in wrong for line in w.splitlines()), flush=True)

    width = max((len(c.__name__) for c in cases), default=4)
    print(f"\n{'case':<{width}}  " + "  ".join(f"{e:<9}" for e in ENGINES))
    for case in cases:
        cells = ("PASS" if outcomes[case.__name__, e] else "FAIL" for e in ENGINES)
        print(f"{case.__name__:<{width}}  " + "  ".join(f"{c:<9}" for c in cells))
    passed = sum(outcomes.values())
    failed = len(outcomes) - passed
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored")
    if not args.keep and not failed:
        shutil.rmtree(args.work, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
