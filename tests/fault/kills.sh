#!/bin/sh
# The kill loop in two worlds at a time. Usage: tests/fault/kills.sh short|long (build/points/descent is there)
# short: every named point once and some dozens of random moments; long: more than 500 kills.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
: "${PYTHON:=/usr/bin/python3}" "${DESCENT_BINARY:=$root/build/points/descent}"
export DESCENT_BINARY
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

world()
{
    "$PYTHON" "$root/tests/fault/kill_loop.py" "$@"
}

case ${1:-} in
short)
    # What needs waiting waits beside the rest, with those who use history.
    world --points slow,history --kills 4 --promised \
        --sessions sgd32,slices64,rare32,churn,past32,late32,lapse64,back64 >"$folder/second" 2>&1 &
    second=$!
    world --points quick --kills 16 --sessions plain
    ;;
long)
    world --points all --rounds 3 --kills 90 --promised >"$folder/second" 2>&1 &
    second=$!
    world --points all --rounds 3 --kills 90
    ;;
*)
    echo "usage: $0 short|long" >&2
    exit 2
    ;;
esac
first=$?
wait "$second"
status=$?
cat "$folder/second"
[ $first = 0 ] && [ $status = 0 ]
