#!/bin/sh
# Runs the C tests of a flavour, several suites at a time (most of their time is waiting), and closes with the sum.
# Usage: tests/run.sh PROGRAM [SUITE ...]; JOBS (default: twice the cores) at a time.
set -u
program=$1
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^SUITE(\([a-z_0-9]*\))/\1/p' tests/suites.def)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

printf '%s\n' "$@" | xargs -P "${JOBS:-$((2 * $(nproc)))}" -I '{}' \
    sh -c '"$0" "$1" >"$2/$1" 2>&1 && touch "$2/$1.passed"
           sed -n "s/^\([0-9]*\) passed, \([0-9]*\) failed$/  $1: \1 passed, \2 failed/p" "$2/$1"' \
    "$program" '{}' "$folder"
passed=0
failed=0
for suite in "$@"; do
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$folder/$suite" | tail -n 1)
    if [ ! -e "$folder/$suite.passed" ] || [ -z "$counts" ]; then
        cat "$folder/$suite"
        case $counts in
            '') counts='0 1' ;; # it ended before it could count
            *' 0') counts="${counts% 0} 1" ;;
        esac
    fi
    passed=$((passed + ${counts%% *}))
    failed=$((failed + ${counts##* }))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
