#!/bin/sh
# Lints api/openapi.json, with Redocly's linter and our own, and drives a server with requests that are generated from
# it. What the linter needs is installed under build/ by tests/contract/lint/package-lock.json, once; without npm or its
# registry that fails. PYTHON and DESCENT_BINARY say what to run; SEED makes the same requests again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${DESCENT_BINARY:=$root/build/descent}" "${PYTHON:=/usr/bin/python3}"
export DESCENT_BINARY PYTHONDONTWRITEBYTECODE=1
tools=$root/build/contract

if ! cmp -s "$here/lint/package-lock.json" "$tools/installed"; then
    echo "installing Redocly's linter under build/contract"
    rm -rf "$tools"
    mkdir -p "$tools"
    cp "$here/lint/package.json" "$here/lint/package-lock.json" "$here/lint/.npmrc" "$tools"
    (cd "$tools" && npm ci --loglevel=error >/dev/null) || {
        echo "npm could not install it: is its registry within reach?" >&2
        exit 1
    }
    cp "$here/lint/package-lock.json" "$tools/installed"
fi
# It tells nobody that it runs, and asks nobody for newer versions.
cd "$root"
REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true CI=true \
    "$tools/node_modules/.bin/redocly" lint api/openapi.json --config "$here/lint/redocly.yaml" --format stylish
"$PYTHON" "$here/lint.py"
"$PYTHON" "$here/generated.py" ${SEED:+--seed "$SEED"}
