#!/usr/bin/env bash
# descent in eight steps, with nothing but curl. Every answer is checked; a wrong one ends it.
#
#   clients/shell/quickstart.sh                                      a server here, on port 8080
#   DESCENT_URL=http://10.0.0.5:8080 clients/shell/quickstart.sh     another one
set -euo pipefail

url=${DESCENT_URL:-http://127.0.0.1:8080}
folder=$(mktemp -d) # the answers: $folder/head and $folder/body
session=            # the address of the session, once there is one

clean_up() {
    if [ -n "$session" ]; then
        curl --silent --max-time 10 --output /dev/null -X DELETE "$session" || true
    fi
    rm -rf "$folder"
}
trap clean_up EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# Asks the server: curl without its progress bar, headers into one file, the body into another. Then
# shows both, and makes `dense`, the body without blanks, for the checks.
ask() {
    : >"$folder/body" # curl leaves the file alone when there is no body
    curl --silent --show-error --max-time 30 --dump-header "$folder/wire" \
        --output "$folder/body" "$@"
    tr -d '\r' <"$folder/wire" >"$folder/head"
    printf '  %s\n' "$(head -n 1 "$folder/head")"
    if [ -s "$folder/body" ]; then printf '  %s\n' "$(head -c 600 "$folder/body")"; fi
    tr -d ' \n' <"$folder/body" >"$folder/dense"
}

# Claims about the last answer.
status_is() { head -n 1 "$folder/head" | grep -q " $1" || fail "expected status $1"; }
header_has() { grep -qi "^$1" "$folder/head" || fail "expected the header $1"; }
body_has() { grep -qF -- "$1" "$folder/dense" || fail "expected the body to have $1"; }
header() { sed -n "s/^$1: *//Ip" "$folder/head"; }
fail() {
    printf '\n  FAILED: %s. The answer was:\n' "$1" >&2
    cat "$folder/head" "$folder/body" >&2
    exit 1
}

say "Is the server ready? ($url)"
ask "$url/readyz" # 200 when it can take gradients, 503 while it starts or stops
status_is 200

say "1. Create a session: the weights of a tiny model, and the rule that moves them"
ask "$url/v1/sessions" \
    --header 'Content-Type: application/json' \
    --data '{"optimizer": {"name": "sgd", "lr": 0.5},
             "parameters": {"w": [[1.25, 2.25], [3.25, 4.25]], "b": [0.5, 0.75]}}'
status_is 201 # created; Location says where
location=$(header Location) # ".../v1/sessions/ses_...", the id at its end
session="${url%/}/v1/sessions/${location##*/}"

say "2. Send a gradient: the receipt says which step it became"
ask "$session/gradients" \
    --header 'Content-Type: application/json' \
    --data '{"gradients": {"w": [[1, 1], [1, 1]], "b": [1.5, -1.5]}, "loss": 0.7}'
status_is 200
body_has '"status":"applied"'
body_has '"step":1'
body_has '"durable_step":1' # it is on disk: kill -9 cannot take it back

say "3. Fetch the new weights: w - 0.5 * gradient"
ask "$session/parameters"
status_is 200
body_has '"w":[[0.75,1.75],[2.75,3.75]]'
body_has '"b":[-0.25,1.5]'
etag=$(header ETag) # names these weights: lineage and step

say "4. Fetch them only if they are newer than the ones we have: 304, and no body"
ask "$session/parameters" --header "If-None-Match: $etag"
status_is 304
[ ! -s "$folder/body" ] || fail "expected no body"

say "5. Change the learning rate while it trains"
ask "$session" -X PATCH \
    --header 'Content-Type: application/json' \
    --data '{"optimizer": {"lr": 0.25}}'
status_is 200
body_has '"lr":0.25'

say "6. Send a gradient as raw bytes, with a key that makes it safe to repeat"
# Six numbers 1.0 as little-endian float32, in the order of the tensors: w row by row, then b.
for _ in 1 2 3 4 5 6; do printf '\000\000\200\077'; done >"$folder/ones"
ask "$session/gradients" \
    --header 'Content-Type: application/octet-stream' \
    --header 'Idempotency-Key: "quickstart-2"' \
    --data-binary "@$folder/ones"
status_is 200
body_has '"step":2'
body_has '"lr":0.25'

say "   Say the answer was lost: sent again, the same receipt comes, and nothing is applied twice"
ask "$session/gradients" \
    --header 'Content-Type: application/octet-stream' \
    --header 'Idempotency-Key: "quickstart-2"' \
    --data-binary "@$folder/ones"
status_is 200
header_has 'Idempotency-Replayed: true'
body_has '"step":2'
ask "$session/parameters"
body_has '"step":2'
body_has '"w":[[0.5,1.5],[2.5,3.5]]' # 0.25 less than in 3, once
body_has '"b":[-0.5,1.25]'

say "7. A mistake is refused with a reason, and changes nothing"
ask "$session/gradients" \
    --header 'Content-Type: application/json' \
    --data '{"gradients": {"w": [[1, 1, 1]], "b": [0, 0]}}'
status_is 422
header_has 'Content-Type: application/problem+json'
body_has '"code":"shape_mismatch"' # a stable name for programs; `detail` is for people

say "8. Delete the session"
ask "$session" -X DELETE
status_is 204
ask "$session"
status_is 404
body_has '"code":"session_not_found"'
session=

say "All answers were as promised."
