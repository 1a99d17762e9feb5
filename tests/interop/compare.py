"""Whether two Delta tables read the same by each of several engines, asked line by line.

Standard input has a line of JSON for each question: {"expected": folder, "found": folder}. The answer is a line, too:
{"rows": …, "wrong": ["engine: …"], "unable": {"engine": "why it cannot read the expected one"}}.
"""

import json
import logging
import os
import sys

from engine import ENGINES
from facts import differences, facts

NAMES = ["deltalake", "polars", "duckdb"]


def main() -> None:
    logging.disable(logging.CRITICAL)
    # What engines print themselves does not get in between.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engines = {name: ENGINES[name]() for name in NAMES}
    for line in sys.stdin:
        question = json.loads(line)
        answer = {"rows": None, "wrong": [], "unable": {}}
        for name, engine in engines.items():
            try:
                expected = facts(engine.read(question["expected"], None, None))
            except Exception as e:  # Each engine has errors of its own.
                answer["unable"][name] = f"{type(e).__name__}: {e}"
                continue
            answer["rows"] = expected["rows"]
            try:
                found = facts(engine.read(question["found"], None, None))
                answer["wrong"] += [f"{name}: {d}" for d in differences(expected, found)]
            except Exception as e:
                answer["wrong"].append(f"{name}: {type(e).__name__}: {e}")
        print(json.dumps(answer), file=out, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
