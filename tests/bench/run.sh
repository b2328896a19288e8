#!/bin/bash
# Runs the benchmarks and prints one table, also kept in build/bench/results.md.
#   BENCH_SECONDS=60   of the figure with fsync; the others scale with it (default 20)
#   BENCH_FOLDER=DIR   where the database lies meanwhile (default: under build/bench)
#   BENCH_SERVER, BENCH_PROGRAM, PYTHON   what is run
#   BENCH_BEFORE=FILE  the server of an earlier commit, for what cannot be switched off
# Arguments name benchmarks: kernel rules muon json step durable many memory history workers surface (default: all).
set -euo pipefail

results=build/bench/results.md
mkdir -p build/bench
folder=$(mktemp -d "${BENCH_FOLDER:-build/bench}/run.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | head -n 1)
system=$(df --output=fstype "$folder" | tail -n 1)
load=$(cut -d ' ' -f 1 /proc/loadavg)
{
    echo "$model, $(nproc) cores, $system, Linux $(uname -r); load before $load; $(date -u +%F)"
    echo
    echo "| figure | ours | limit | ratio | aim | met |"
    echo "|---|---|---|---|---|---|"
    "${BENCH_PROGRAM:-build/release/tests/bench/bench}" -f "$folder" -t "${BENCH_SECONDS:-20}" \
        -s "${BENCH_SERVER:-build/descent}" ${BENCH_BEFORE:+-b "$BENCH_BEFORE"} -p "${PYTHON:-python3}" "$@"
} | tee "$results"
