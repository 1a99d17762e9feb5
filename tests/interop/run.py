"""Makes tables through `dl` and reads them with other engines.

Started by `cargo xtask interop`. Prints one line a case and engine, then a table, and writes events for the
counts. Every reading is done by an engine in a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

from cases import CASES, Foreign, corpus_cases, store_cases
from dl import Dl
from facts import differences, facts
import literals
from outcomes import Outcomes
import tpch

ENGINES = ["deltalake", "polars", "duckdb", "sail", "clickhouse"]


def ask(engine: str, readings, *arguments: str) -> list[dict]:
    """The answers of an engine in a process of its own, one a reading."""
    command = [sys.executable, str(Path(__file__).with_name("engine.py")), engine, *arguments]
    asked = json.dumps(
        [{"table": str(r.folder), "version": r.version, "store": r.store and vars(r.store)} for r in readings]
    )
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=300, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(readings):
        died = {"error": f"{engine} died ({done.returncode}):\n{done.stderr.strip()[-2000:]}"}
        answers += [died] * (len(readings) - len(answers))
    return answers


def where(reading) -> str:
    at = "" if reading.version is None else f" at version {reading.version}"
    return str(reading.folder).rsplit("/", 1)[-1] + at


def read(engine: str, readings) -> tuple[list[str], str | None]:
    """What is wrong with an engine's view of tables; or why it cannot read what they were made from."""
    answers = ask(engine, readings)
    wrong, unable = [], []
    originals = {r.folder: a for r, a in zip(readings, answers) if r.original}
    for answer in originals.values():
        if "error" in answer:
            return [], f"cannot read the original: {first_line(answer['error'])}"
    for reading, answer in zip(readings, answers):
        if reading.original:
            continue
        if "error" in answer:
            found = [f"{where(reading)}: {answer['error'][-2000:]}"]
        else:
            same = reading.same_as is not None
            expected = originals[reading.same_as]["facts"] if same else facts(reading.expected)
            found = [f"{where(reading)}: {d}" for d in differences(expected, answer["facts"])]
        known = reading.unable.get(engine)
        if known and found:
            unable.append(known)
            print(f"    {engine} at '{where(reading)}': {known}", flush=True)
        elif known:
            # A limit that is gone is news: the list is kept true.
            wrong.append(f"{where(reading)} works now: {known}")
        wrong += [] if known else found
    everything = len(unable) == len(readings) - len(originals)
    return wrong, unable[0] if unable and everything else None


def check(engine: str, readings) -> tuple[list[str], str | None]:
    """What is wrong with what an engine does with the tables of a case; or why it cannot do it anyway."""
    if isinstance(readings, Foreign):
        return refuses(engine, readings)
    return read(engine, readings)


def refuses(engine: str, tables) -> tuple[list[str], str | None]:
    """An engine that can append to a table without a fence must not append to one with it."""
    (control,) = ask(engine, [tables.open], "--append")
    if "error" in control:
        return [], f"cannot append to Delta tables: {first_line(control['error'])}"
    if len(commits(tables.open.folder)) <= tables.commits:
        return ["it says it has appended to the table without a fence, and has not"], None
    (answer,) = ask(engine, [tables.fenced], "--append")
    wrong = []
    if "error" not in answer:
        wrong.append("it has appended to the table with a fence")
    elif not any(word in answer["error"].lower() for word in ("feature", "protocol")):
        wrong.append(f"it fails for another reason: {answer['error'][:500]}")
    if len(commits(tables.fenced.folder)) != tables.commits:
        wrong.append("the log of the table with a fence has another commit")
    return wrong, None


def commits(folder: Path) -> list[Path]:
    return sorted((folder / "_delta_log").glob("*.json"))


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:160]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dl", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--tables", type=Path, help="tables of other engines")
    parser.add_argument("--tpch", type=Path, help="the program that makes the data of TPC-H")
    parser.add_argument("--scale", default="0.1", help="scale factor of TPC-H")
    parser.add_argument("--events", type=Path, help="a file for one line of JSON a test")
    parser.add_argument("filter", nargs="?", default="")
    args = parser.parse_args()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    dl = Dl(args.dl.resolve(), args.work.resolve() / "catalog.db")
    dl("init")

    cases = [c for c in CASES + store_cases() + corpus_cases(args.tables) if args.filter in c.__name__]
    outcomes = Outcomes(args.events)
    cells: dict[tuple[str, str], str] = {}
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
            wrong, unable = ([problem], None) if problem else check(engine, readings)
            cells[name, engine] = "FAIL" if wrong else "-" if unable else "PASS"
            if unable and not wrong:
                outcomes.skips(f"{engine}::{name}", unable)
            else:
                outcomes.ends(f"{engine}::{name}", wrong)

    width = max((len(c.__name__) for c in cases), default=4)
    print(f"\n{'case':<{width}}  " + "  ".join(f"{e:<10}" for e in ENGINES))
    for case in cases:
        row = (cells[case.__name__, e] for e in ENGINES)
        print(f"{case.__name__:<{width}}  " + "  ".join(f"{c:<10}" for c in row))
    if args.tpch and args.filter in "tpch":
        print(f"\nTPC-H, scale {args.scale}, beside DuckDB", flush=True)
        data = args.work.resolve() / "tpch"
        data.mkdir()
        tpch.run(args.dl.resolve(), args.tpch.resolve(), data, args.scale, outcomes)
    if args.filter in "literals":
        home = args.work.resolve() / "literals"
        home.mkdir()
        print(f"\n{literals.COUNT} checks of literals", flush=True)
        literals.run(args.dl.resolve(), home, outcomes)
    if not args.keep and not outcomes.failed:
        shutil.rmtree(args.work, ignore_errors=True)
    return 1 if outcomes.failed else 0


if __name__ == "__main__":
    sys.exit(main())
