#!/usr/bin/env bash
# Builds the image of the Dockerfile and tests a container of it from outside. Needs no Docker
# engine and no registry, only apt (see base.sh) and what `make container` installs.
#
#   tests/container/run.sh      as root, or as one who may sudo; PYTHON names the interpreter
#
# Everything happens in storage of its own under build/container, which is gone afterwards, whatever
# happens; what stays is the base image's tar file and the log of the build.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=tests/container/storage.sh
. tests/container/storage.sh
image=localhost/descent-test
volume=descent-test
memory=$((256 * 1024 * 1024))
processes=100

make_image() {
    make_base
    buildah bud --format docker --network host --pull-never --isolation chroot --tag "$image" .
}

# --- a container ----------------------------------------------------------------------------------
# start NAME OPTION ...: a container as restricted as can be, and its server ready.
start() {
    local name=$1 deadline=$((SECONDS + 30))

    podman run --detach --name "$name" --pull never --read-only --read-only-tmpfs=false \
        --cap-drop ALL --security-opt no-new-privileges --memory "$memory" \
        --pids-limit "$processes" --volume "$volume:/var/lib/descent" "${@:2}" "$image" >/dev/null
    until podman healthcheck run "$name" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$name is not healthy after 30 s"
        sleep 0.2
    done
    is "$name is" healthy "$(inspect "$name" '{{.State.Health.Status}}')"
}

stop() {
    podman stop --time 30 "$1" >/dev/null
    is "$1 ended at SIGTERM with" 0 "$(inspect "$1" '{{.State.ExitCode}}')"
    podman rm "$1" >/dev/null
}

of_process() { # of_process NAME FIELD: what the kernel says of the server's process
    awk -v field="$2:" '$1 == field { print $2 }' "/proc/$(inspect "$1" '{{.State.Pid}}')/status"
}

of_cgroup() { # of_cgroup NAME FILE2 FILE1: the first of them that is there (cgroup v2, v1)
    podman exec "$1" sh -c 'cd /sys/fs/cgroup && cat "$0" 2>/dev/null || cat "$1"' "${@:2}"
}

refused() { # refused NAME COMMAND ...: what must not work inside
    if podman exec "$@" 2>/dev/null; then fail "${*:2}: should not work"; fi
}

# --- the test -------------------------------------------------------------------------------------
begin

say "The image (build/container/build.log)"
make_image >"$log" 2>&1
podman images --format '  {{.Repository}}: {{.Size}}' "$image"

say "A container of it, on the machine's network: the clients are outside"
listen=127.0.0.1:$(free_port)
export DESCENT_URL=http://$listen
start first --network host --env DESCENT_LISTEN="$listen"
is "user" 10001 "$(of_process first Uid)"
is "capabilities" 0000000000000000 "$(of_process first CapBnd)"
is "memory" "$memory" "$(of_cgroup first memory.max memory/memory.limit_in_bytes)"
is "processes" "$processes" "$(of_cgroup first pids.max pids/pids.max)"
for path in /tmp /run /usr/local/bin /; do refused first touch "$path/file"; done
refused first descent health --listen 127.0.0.1:1 # where nobody listens

say "The Python client's tests"
(cd clients/python && "$python" -m unittest)

say "Another container on the same volume goes on where this one stopped, and asks for tokens"
"$python" "$here/replacement.py" before "$storage/expected.json"
stop first
start second --network host --env DESCENT_LISTEN="$listen" --env DESCENT_AUTH=on
if "$python" "$here/replacement.py" after "$storage/expected.json" >/dev/null 2>&1; then
    fail "who has no token was served"
fi
DESCENT_TOKEN=$(podman exec second descent token create 2>/dev/null) \
    "$python" "$here/replacement.py" after "$storage/expected.json"
stop second

say "A container as the image is, with no option set, on a network of its own"
start third --network none
stop third

say "The container does what it should."
