#!/bin/sh
# Holds the house to its plan: who may include whom, tables against files, no dead symbols, one format.
# Usage: tests/tidy.sh BUILD_FOLDER (with all objects built)
set -u
build=$1
failed=0

complain()
{
    printf '%s\n' "$*" >&2
    failed=1
}

# --- layers: $1 the files, $2 an expression of what they may include besides their own folder ---
layer()
{
    for file in $1; do
        [ -f "$file" ] || continue
        own=$(dirname "$file")/
        grep -ho '^#include "[^"]*"' "$file" | cut -d'"' -f2 | while read -r include; do
            case $include in "$own"*) continue ;; esac
            printf '%s\n' "$include" | grep -qE "^($2)" || echo "$file may not include $include"
        done
    done
}
core='service/core/'
tensor="$core|service/tensor/"
kernel="$tensor|service/kernel/"
optim="$kernel|service/optim/"
api="$tensor|service/optim/(optimizer|schedule|preset)\\.h|service/session/(engine|spec)\\.h|api/"
breaches=$(
    layer 'service/core/*' "$core"
    layer 'service/tensor/*' "$tensor"
    layer 'service/kernel/*' "$kernel"
    layer 'service/optim/*' "$optim"
    layer 'service/optim/rules/*' "$optim"
    layer 'service/optim/schedules/*' "$optim"
    layer 'service/session/*' "$optim|storage/store\\.h"
    layer 'storage/*' "$core"
    for file in api/*.[ch] api/*/*.[ch]*; do
        case $file in
            api/main.c) ;; # alone sees every layer
            api/command_*) layer "$file" "$api|storage/store\\.h" ;; # some work where no engine runs
            *) layer "$file" "$api" ;;
        esac
    done
)
[ -z "$breaches" ] || complain "$breaches"

# --- libraries: $1 header, $2 the only files that may include it ---
library()
{
    for file in $(grep -lr "#include <$1>" api service storage 2>/dev/null); do
        printf '%s\n' "$file" | grep -qE "^($2)$" || complain "$file may not include <$1>"
    done
}
library microhttpd.h 'api/server\.c|api/server_[a-z]*\.[ch]|api/guard\.[ch]|api/watch\.[ch]|api/range\.[ch]'
library jansson.h 'api/.*'
library 'gnutls/[a-z]*.h' 'api/(crypto|tls)\.c'
library zstd.h 'api/coding/zstd\.c'
library zlib.h 'api/coding/gzip\.c'
library sqlite3.h 'storage/sqlite[a-z_]*\.[ch]'
library cblas.h 'service/kernel/blas\.c'

# --- tables against files, both ways: $1 table, $2 the macro's pattern with the name as \1, $3 folder, $4 prefix, $5 suffix ---
table()
{
    names=$(sed -n "s/^$2.*/\\1/p" "$1" | sort)
    files=$(for file in $3/$4*$5; do basename "$file" "$5" | sed "s/^$4//"; done | sort)
    for name in $names; do
        printf '%s\n' "$files" | grep -qx "$name" || complain "$1 has $name, but there is no $3/$4$name$5"
    done
    [ "${6:-}" = one-way ] && return
    for file in $files; do
        printf '%s\n' "$names" | grep -qx "$file" || complain "$3/$4$file$5 is not in $1"
    done
}
table service/optim/optimizers.def 'OPTIMIZER(\([a-z_0-9]*\))' service/optim/rules '' .c
table service/optim/schedules.def 'SCHEDULE(\([a-z_0-9]*\))' service/optim/schedules '' .c
table storage/stores.def 'STORE(\([a-z_0-9]*\))' storage '' .c one-way
table api/codecs.def 'CODEC(\([a-z_0-9]*\))' api/codec '' .c one-way
table tests/fuzz/targets.def 'TARGET(\([a-z_0-9]*\))' tests/fuzz fuzz_ .c
table api/codings.def 'CODING(\([a-z_0-9]*\))' api/coding '' .c
table api/commands.def 'COMMAND(\([a-z_]*\),' api command_ .c one-way
table api/routes.def 'ROUTE([A-Z]*, "[^"]*", \([a-z_]*\),' api/endpoint '' .c
suites=$(sed -n 's/^\(SUITE\|FAULT\)(\([a-z_0-9]*\))/\2/p' tests/suites.def | sort)
files=$(ls tests/*/test_*.c | sed 's|.*/test_||; s|\.c$||' | sort)
[ "$suites" = "$files" ] || complain "tests/suites.def and tests/*/test_*.c differ: $(printf '%s\n%s\n' "$suites" "$files" | sort | uniq -u | tr '\n' ' ')"
[ -z "$(printf '%s\n' "$suites" | uniq -d)" ] || complain "tests/suites.def names a suite twice"

# --- named points and breakable promises: each stands in the code once or more, and is in its table; no build but `points` has them ---
for kind in POINT BUG; do
    table=service/core/$(printf %s "$kind" | tr A-Z a-z)s.def
    names=$(sed -n "s/^$kind(\([a-z_0-9]*\),.*/\1/p" "$table" | sort)
    used=$(grep -rhoE --include='*.c' "\b$kind\([a-z_0-9]+\)" api service storage tests/fault | sed "s/.*(\(.*\))/\1/" | grep -vx name | sort -u)
    [ -z "$(printf '%s\n' "$names" | uniq -d)" ] || complain "$table names one twice"
    [ "$names" = "$used" ] || complain "$table and the uses of $kind differ: $(printf '%s\n%s\n' "$names" "$used" | sort | uniq -u | tr '\n' ' ')"
done
traces=$(nm "$build/descent" | grep -E 'point_pass|bug_wanted'; grep -aoE 'DESCENT_(POINT|BUG)' "$build/descent" | sort -u)
[ -z "$traces" ] || complain "$build/descent can be killed or broken by its environment: $(echo $traces)"

# --- dead symbols: every exported function is used in another object ---
nm -g --defined-only $(find "$build" -name '*.o') 2>/dev/null | awk 'NF == 3 && $2 == "T" {print $3}' | sort -u >"$build/defined"
nm -u $(find "$build" -name '*.o') 2>/dev/null | awk 'NF == 2 {print $2}' | sort -u >"$build/used"
dead=$(comm -23 "$build/defined" "$build/used" | grep -vE '^main$|\.(resolver|default|avx2|arch_x86_64_v4)$')
[ -z "$dead" ] || complain "exported but never used elsewhere: $(echo $dead)"

# --- format ---
unformatted=$(git ls-files '*.c' '*.h' '*.cc' | xargs -P "$(nproc)" -n 40 clang-format --dry-run -Werror 2>&1 |
    sed -n 's/^\([^:]*\):.*error.*/\1/p' | sort -u)
[ -z "$unformatted" ] || complain "not formatted (make format): $(echo $unformatted)"
long=$(git ls-files '*.c' '*.h' | xargs awk 'length > 100 {print FILENAME ":" FNR}')
[ -z "$long" ] || complain "longer than 100 columns: $(echo $long)"

[ $failed = 0 ] && echo "tidy: layers, tables, symbols and format are in order"
exit $failed
