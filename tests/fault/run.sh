#!/bin/sh
# Runs the fault tests of runs.list, one after the other (most of them use all cores), and closes with the sum.
# Usage: tests/fault/run.sh short|long [NAME ...]; DESCENT_BINARY, DESCENT_TESTS and PYTHON say what to run.
# What is skipped says why and is not counted as passed. What ends with 0 has passed only if it says what it counted, by its
# own name, and no count is 0: a test that is not there, or runs another, does not pass.
set -u
cd "$(dirname "$0")/../.." || exit 2
form=$1
shift
: "${DESCENT_BINARY:=$PWD/build/descent}" "${DESCENT_TESTS:=$PWD/build/release/tests/descent-tests}" "${PYTHON:=/usr/bin/python3}"
DESCENT_FAULT_LONG=0
[ "$form" = long ] && DESCENT_FAULT_LONG=1
export DESCENT_BINARY DESCENT_TESTS PYTHON DESCENT_FAULT_LONG
passed=0
failed=0
skipped=
begun=$(date +%s)
said=$(mktemp)
trap 'rm -f "$said" "$said.status"' EXIT
trap 'exit 1' INT TERM

# Whether $1 said what it counted.
counts()
{
    grep -qE "^ *$1: (counted [1-9]|[1-9][0-9]* passed, 0 failed)" "$said" && ! grep -qE "^$1: counted (.*, )?0 " "$said"
}

list=$(grep -v '^ *\(#\|$\)' tests/fault/runs.list)
for name in "$@"; do
    printf '%s\n' "$list" | awk '{print $2}' | grep -qx "$name" || { echo "runs.list has no $name" >&2; exit 2; }
done
while read -r when name counter command <&3; do
    case " $* " in
        '  ') [ "$when" = both ] || [ "$form" = long ] || continue ;;
        *" $name "*) ;;
        *) continue ;;
    esac
    echo "--- $name"
    start=$(date +%s)
    { sh -c "$command" 3<&- 2>&1; echo $? >"$said.status"; } | tee "$said"
    status=$(cat "$said.status")
    if [ "$status" = 0 ] && ! counts "$counter"; then
        echo "$counter does not say what it counted, or counted nothing"
        status=1
    fi
    took=$(($(date +%s) - start))
    case $status in
        0) passed=$((passed + 1)) && echo "--- $name passed in $took s" ;;
        77) skipped="$skipped $name" && echo "--- $name SKIPPED" ;;
        *) failed=$((failed + 1)) && echo "--- $name FAILED with status $status after $took s" ;;
    esac
done 3<<EOF
$list
EOF
[ -z "$skipped" ] || echo "*** NOT TESTED here, although it should be:$skipped ***"
echo "faults: $passed passed, $failed failed, $(echo $skipped | wc -w) skipped in $(($(date +%s) - begun)) s"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
