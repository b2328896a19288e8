#!/usr/bin/env python3
"""A test that cannot fail proves nothing: breaks one promise after the other and demands that its
test fails, and that the same test passes with nothing broken.

The table is service/core/bugs.def; the program is the flavour `points`. A test that rests on chance
has three tries to notice. Exit status: 0 all were noticed, 1 not.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ROW = re.compile(r'^BUG\((\w+),\s*"([^"]*)",\s*"([^"]*)"\)', re.MULTILINE)
TRIES, LIMIT_S = 3, 120
SCRIPTS = {"kills": "kill_loop.py", "power": "power_loss.py", "device": "device_error.py"}
SKIPPED = 77


@dataclass
class Outcome:
    test: str
    passed: bool = False
    noticed: bool = False
    skipped: bool = False
    words: str = ""
    tries: int = 0
    seconds: float = 0.0


def run(outcome, bug, folder):
    kind, _, rest = outcome.test.partition(" ")
    environment = {**os.environ, "DESCENT_BUG": bug, "DESCENT_BINARY": f"{folder}/descent"}
    if kind == "suite":
        suite, _, environment["CK_RUN_CASE"] = rest.partition(" ")
        if not environment["CK_RUN_CASE"]:
            del environment["CK_RUN_CASE"]
        command = [f"{folder}/tests/descent-tests", suite]
    elif kind in SCRIPTS:
        command = [sys.executable, os.path.join(HERE, SCRIPTS[kind]), *rest.split()]
    else:
        raise SystemExit(f"no such kind of test: {outcome.test}")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    out = done.stdout + done.stderr
    words = [line for line in out.splitlines()
             if (re.search(r":[FE]:", line) if kind == "suite" else line.startswith("FAILED:"))]
    outcome.passed = done.returncode == 0
    outcome.skipped = done.returncode == SKIPPED
    # Not a crash of the test, nor a mistake in it: it says what is wrong.
    outcome.noticed = done.returncode == 1 and bool(words)
    outcome.words = (words or [out[-800:]])[0]


def trial(test, bug, folder):
    """Runs the test until it says what is expected of it, within its tries."""
    outcome, begun = Outcome(test), time.monotonic()
    while outcome.tries < (TRIES if bug and not test.startswith("suite") else 1):
        outcome.tries += 1
        run(outcome, bug, folder)
        if outcome.noticed or outcome.skipped:
            break
    outcome.seconds = time.monotonic() - begun
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=os.path.join(ROOT, "build/points"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("bugs", nargs="*", help="only these")
    options = parser.parse_args()
    with open(os.path.join(ROOT, "service/core/bugs.def"), encoding="utf-8") as table:
        rows = [(name, promise, test) for name, promise, tests in ROW.findall(table.read())
                for test in tests.split("; ")]
    unknown = set(options.bugs) - {name for name, _, _ in rows}
    if unknown or not rows:
        raise SystemExit(f"no such bug: {', '.join(unknown)}")
    rows = [row for row in rows if not options.bugs or row[0] in options.bugs]
    bad, noticed, skipped, begun = 0, 0, 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        sound = pool.map(lambda test: trial(test, "", options.folder),
                         sorted({test for _, _, test in rows}))
        broken = pool.map(lambda row: trial(row[2], row[0], options.folder), rows)
        for outcome in sound:
            if outcome.skipped:
                print(f"  *** NOT TESTED with nothing broken: {outcome.test} ***", outcome.words)
                continue
            print(f"  {'passes' if outcome.passed else 'FAILS'} with nothing broken: "
                  f"{outcome.test} ({outcome.seconds:.1f} s)", flush=True)
            if not outcome.passed:
                print("   ", outcome.words)
                bad += 1
        for (name, promise, _), outcome in zip(rows, broken):
            skipped += outcome.skipped
            if outcome.skipped:
                print(f"  *** NOT TESTED: {name}: {outcome.test} ***")
                continue
            noticed += outcome.noticed
            print(f"  {'noticed' if outcome.noticed else 'NOT NOTICED'}: {name}: {promise} "
                  f"({outcome.seconds:.1f} s, try {outcome.tries})\n      {outcome.words[:200]}",
                  flush=True)
            bad += not outcome.noticed
    print(f"seeded: counted {noticed} times a broken promise that was noticed")
    print(f"seeded bugs: {len(rows)}, {bad} trouble, {skipped} not tested, "
          f"{time.monotonic() - begun:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
