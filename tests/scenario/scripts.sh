#!/bin/sh
# The tests that drive the server from outside: the curl quickstart, the Python client, what README.md shows, crashes,
# scale, a full disk, care of the data folder.
# DESCENT_BINARY and PYTHON say what to run. Prints one line a test; the output of what fails, or is skipped
# (exit status 77: this user cannot run it), is shown.
set -u
here=$(dirname "$0")
root=$(cd "$here/../.." && pwd)
: "${DESCENT_BINARY:=$root/build/descent}" "${PYTHON:=/usr/bin/python3}"
export DESCENT_BINARY PYTHON
passed=0
failed=0
skipped=0
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

run()
{
    name=$1
    shift
    printf '  %-28s ' "$name"
    start=$(date +%s)
    "$@" >"$folder/log" 2>&1
    status=$?
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        echo "passed ($(($(date +%s) - start)) s)"
    elif [ $status = 77 ]; then
        skipped=$((skipped + 1))
        echo "SKIPPED"
        cat "$folder/log"
    else
        failed=$((failed + 1))
        echo "FAILED"
        cat "$folder/log"
    fi
}

quickstart()
{
    "$DESCENT_BINARY" serve --listen 127.0.0.1:0 --data "$folder/data" >"$folder/ready" 2>"$folder/server" &
    server=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/^descent listening on //p' "$folder/ready")
        [ -n "$url" ] && break
        sleep 0.1
    done
    DESCENT_URL=$url "$root/clients/shell/quickstart.sh" || return 1
    kill -TERM "$server"
    wait "$server"
    status=$?
    server=
    return $status
}

python_client()
{
    cd "$root/clients/python" && "$PYTHON" -m unittest -q
}

run quickstart quickstart
run python_client python_client
run openapi_lint "$PYTHON" "$root/tests/contract/lint.py"
run rules_table "$root/clients/examples/with_server.sh" "$PYTHON" "$root/tests/bench/rules_table.py" --check
run readme "$root/clients/examples/with_server.sh" "$PYTHON" "$root/tests/readme.py"
run gallery "$root/clients/examples/with_server.sh" "$PYTHON" "$root/clients/examples/gallery.py" \
    --only sgd muon --picture "$folder/gallery.png"
for demo in svrg staleness federated; do
    run "$demo" "$root/clients/examples/with_server.sh" "$PYTHON" "$root/clients/examples/$demo.py" \
        --quick --picture "$folder/$demo.png"
done
# Without named points, which this program does not have; `make check-kill` has them.
run kill_loop timeout --kill-after=30 600 "$PYTHON" "$root/tests/fault/kill_loop.py" --binary "$DESCENT_BINARY" --kills 25
for script in "$root"/tests/scenario/*.py; do
    run "$(basename "$script" .py)" timeout --kill-after=30 600 "$PYTHON" "$script" # who hangs fails
done
echo "scripts: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
