#!/usr/bin/env python3
"""Runs what README.md shows in curl and Python against the server at DESCENT_URL, as it stands there but for the
address: every command must end with 0 and no answer may be a mistake; what is known beforehand is compared."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ADDRESS = "http://127.0.0.1:8080"
# curl ends with 0 whatever the server answers, unless it is told otherwise.
SHELL = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body --max-time 30 "$@"; }\n'


def blocks(language):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [block.replace(ADDRESS, os.environ["DESCENT_URL"])
            for block in re.findall(r"^```%s\n(.*?)^```$" % language, text, re.MULTILINE | re.DOTALL)]


def run(command, text):
    done = subprocess.run([*command, text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit("%s\n%s ended with %d" % (done.stdout, " ".join(command), done.returncode))
    return done.stdout


def check(condition, words, output):
    if not condition:
        sys.exit("%s\n%s" % (output, words))


def main():
    curls = [re.sub(r"^make serve.*\n", "", block, flags=re.MULTILINE) for block in blocks("sh") if "curl " in block]
    pythons = blocks("python")
    check(len(curls) == 7 and len(pythons) == 1, "README.md has other blocks than this test knows", "")

    output = run(["bash", "-c"], SHELL + "".join(curls))
    check("\n304\n" in output, "what did not change is not a 304", output)
    check('"name":"lamb"' in output, "there is no session of lamb", output)
    check('"average":"ema"' in output, "there is no average", output)
    check(output.count('"received":2,"expected":2') >= 3 and "\n202\n" in output, "there are no rounds of two", output)
    check('"members"' in output and '"last_seen"' in output, "there are no workers", output)
    check('"gradient":{"w":[2,1]}' in output and '"snapshot":1,"snapshot_due":false' in output, "there is no SVRG", output)
    check('"lineage":1' in output and '"state_hash"' in output, "there is no past", output)
    check('"off_policy":true' in output and '"converted"' in output, "there are no forks", output)

    check("206 Partial Content" in output and "Content-Digest: sha-256=:" in output, "there is no part with a digest", output)
    check("event: step\n" in output and "id: 0-1" in output, "there are no events", output)
    check('descent_steps_total{result="applied"}' in output, "there are no figures", output)

    output = run([sys.executable, "-c"], pythons[0])
    loss = float(output.split()[0])
    check(loss < 0.01, "100 steps did not train", output)
    print("README.md: %d curl commands and a loop in Python" % sum(block.count("curl ") for block in curls))


if __name__ == "__main__":
    main()
