#!/usr/bin/env python3
"""The README's table of rules: names, formulas and state from the catalogue of the server at DESCENT_URL, speed from
build/bench/rules.csv and muon.csv (`make bench`). Nothing in it is typed.

    rules_table.py            writes it between the markers in README.md
    rules_table.py --check    fails when what comes from the catalogue is not what the README says
"""

import csv
import json
import os
import pathlib
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- rules: made by `make rules-table` -->\n", "<!-- end of rules -->\n"
HEAD = (
    "| rule | update | state | ns a parameter | of the triad's bytes/s | PyTorch's time |\n"
    "|---|---|---|---|---|---|\n"
)


def catalogue():
    with urllib.request.urlopen(os.environ["DESCENT_URL"] + "/v1/optimizers") as answer:
        return json.load(answer)["optimizers"]


def state(rule):
    """'m, v, (x)': what is in brackets is kept only where a hyperparameter asks for it."""
    words = []
    for slot in rule["slots"]:
        name = slot["name"] if slot["per"] == "parameter" else "%s a %s" % (slot["name"], slot["per"])
        words.append("(%s)" % name if slot["optional"] else name)
    words += [scalar["name"] for scalar in rule["scalars"]]
    return ", ".join(words) or "none"


def cell(text):
    return text.replace("|", "\\|")


def described(rule):
    return "| `%s` | `%s` | %s |" % (rule["name"], cell(rule["formula"]), cell(state(rule)))


def measured():
    """name -> the last three cells."""
    cells = {}
    folder = ROOT / "build/bench"
    for row in csv.DictReader(open(folder / "rules.csv", encoding="utf-8")):
        if row["parameters"] != "16000000":
            continue
        alone, torch = float(row["alone_ns"]), float(row["torch_ns"])
        best = alone or float(row["step_ns"])
        times = "%.1f times" % (torch / best) if torch else ""
        cells[row["rule"]] = " %.2f%s | %.2f | %s |" % (best, "" if alone else " with norms", float(row["share"]), times)
    for row in csv.DictReader(open(folder / "muon.csv", encoding="utf-8")):
        cells["muon"] = " %s, %sx%s | %.2f of sgemm | |" % (row["ns"], row["rows"], row["columns"], float(row["share"]))
    return cells


def main():
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rules = catalogue()
    if sys.argv[1:] == ["--check"]:
        rows = table[len(HEAD) :].splitlines()
        wanted = [described(rule) for rule in rules]
        wrong = [row for row, want in zip(rows, wanted) if not row.startswith(want)]
        if not table.startswith(HEAD) or len(rows) != len(wanted) or wrong:
            print("README.md: the table of rules is not the catalogue's: run `make bench BENCH='rules muon'`, then")
            print("`make rules-table`. Rows at fault: %d of %d, %d wanted" % (len(wrong), len(rows), len(wanted)))
            print("\n".join(wrong[:3]))
            return 1
        print("README.md: %d rules as in the catalogue" % len(rows))
        return 0
    cells = measured()
    lines = [described(rule) + cells.get(rule["name"], " | | |") for rule in rules]
    README.write_text(before + BEGIN + HEAD + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
