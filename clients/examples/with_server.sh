#!/usr/bin/env bash
# Runs a program beside a server of its own: starts the server on a free port with a temporary
# folder, runs the program with its address in DESCENT_URL, and stops the server in order.
#   with_server.sh PROGRAM ARGUMENT ...        DESCENT_BINARY names another server
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
binary=${DESCENT_BINARY:-$root/build/descent}
folder=$(mktemp -d)
server=

clean_up() {
    if [ -n "$server" ]; then
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$binary" serve --listen 127.0.0.1:0 --data "$folder/data" >"$folder/out" 2>"$folder/log" &
server=$!

url=
for _ in $(seq 100); do # ten seconds
    url=$(sed -n 's/^descent listening on //p' "$folder/out")
    if [ -n "$url" ] || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.1
done
if [ -z "$url" ]; then
    echo "with_server: the server did not start; it said:" >&2
    cat "$folder/out" "$folder/log" >&2
    exit 1
fi

if ! DESCENT_URL=$url "$@"; then
    echo "with_server: $1 failed; the server's last words:" >&2
    tail -n 20 "$folder/log" >&2
    exit 1
fi

kill -TERM "$server"
code=0
wait "$server" || code=$?
server=
if [ "$code" -ne 0 ]; then
    echo "with_server: the server ended with $code instead of 0; its last words:" >&2
    tail -n 20 "$folder/log" >&2
    exit 1
fi
echo "The server stopped in order."
