#!/bin/sh
# Fuzzes the targets that are named, FUZZ_JOBS at a time for FUZZ_SECONDS each: first the inputs that once broke them,
# then from the seeds. An input that breaks one is left in build/fuzz/found; it goes to tests/fuzz/crashes/TARGET with
# its fix.
set -u
: "${FUZZ_SECONDS:=60}" "${FUZZ_JOBS:=$(nproc)}"
export FUZZ_SECONDS
mkdir -p build/fuzz/found build/fuzz/log
one='
target=$1
mkdir -p build/fuzz/corpus/$target
log=build/fuzz/log/$target
dict=tests/fuzz/$target.dict
[ -e $dict ] && dict=-dict=$dict || dict=
crashes=
[ -d tests/fuzz/crashes/$target ] && crashes=tests/fuzz/crashes/$target
build/fuzz/tests/fuzz/$target -max_total_time=$FUZZ_SECONDS -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 $dict \
    -artifact_prefix=build/fuzz/found/$target- build/fuzz/corpus/$target tests/fuzz/corpus/$target $crashes >$log 2>&1
status=$?
execs=$(sed -n "s/^stat::number_of_executed_units: *//p" $log)
cover=$(sed -n "s/.* cov: \([0-9]*\) .*/\1/p" $log | tail -n 1)
printf "  %-12s %9s inputs, coverage %s" $target "${execs:-?}" "${cover:-?}"
if [ $status = 0 ]; then echo; else echo " FAILED"; tail -n 40 $log; fi
exit $status'
if printf '%s\n' "$@" | xargs -P "$FUZZ_JOBS" -I '{}' sh -c "$one" fuzz '{}'; then
    echo "no input broke a parser"
else
    echo "an input broke a parser: see build/fuzz/found"
    exit 1
fi
