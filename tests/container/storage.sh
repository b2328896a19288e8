# Sourced by the tests of this folder, as root or as one who may sudo: podman and buildah in a
# storage of their own under build/container, which is gone afterwards, whatever happens; what stays
# is the base image's tar file and the log of the build. PYTHON names the interpreter.
# shellcheck shell=bash
here=$PWD/tests/container
folder=$PWD/build/container
storage=$folder/storage
runtime=/run/descent-$(cksum <<<"$folder" | cut -d ' ' -f 1) # podman wants it short
python=${PYTHON:-/usr/bin/python3}
log=$folder/build.log
mkdir -p "$folder" # before sudo: whoever calls us must be able to remove it
if [ "$(id -u)" != 0 ]; then exec sudo -- env PYTHON="$python" DEB_SYSTEMD="${DEB_SYSTEMD:-}" "$here/$(basename "$0")"; fi

export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
export TMPDIR=$storage/tmp
export CONTAINERS_CONF=$here/containers.conf
export DISABLE_HC_SYSTEMD=true # no timer in the machine's systemd: the test asks for health itself

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() {
    printf '\n  FAILED: %s\n' "$*" >&2
    exit 1
}
is() { # is WHAT EXPECTED FOUND
    [ "$2" = "$3" ] || fail "$1: expected $2, found $3"
    printf '  %s: %s\n' "$1" "$3"
}

in_storage() { command "$1" --root "$storage/images" --runroot "$runtime/run" "${@:2}"; }
podman() { in_storage podman --tmpdir "$runtime/libpod" "$@" 9>&-; } # a container keeps no lock
buildah() { in_storage buildah "$@"; }
inspect() { podman inspect --format "$2" "$1"; }

# Also what a killed run has left behind.
remove_storage() {
    [ ! -e "$storage" ] || podman rm --all --force --time 5 >/dev/null 2>&1 || true
    findmnt --raw --noheadings --output TARGET |
        { grep -F -e "$storage/" -e "$runtime/" || true; } | sort -r |
        while read -r target; do umount "$target" || umount --lazy "$target"; done
    rm -rf --one-file-system "$storage" "$runtime"
}

clean_up() {
    local code=$?
    set +e # all of it, whatever fails
    if [ "$code" != 0 ]; then
        tail -n 30 "$log"
        podman ps --all
        podman ps --all --quiet | while read -r id; do
            podman logs --tail 30 "$id"
            podman exec "$id" journalctl --lines 30 --no-pager 2>/dev/null
        done
    fi >&2
    remove_storage
    exit "$code"
}

# The storage is ours and empty, until the script ends.
begin() {
    exec 9>"$folder/lock"
    flock 9 # two runs would share the storage
    trap clean_up EXIT
    trap 'exit 1' INT TERM
    remove_storage
    mkdir -p "$TMPDIR"
}

# The image localhost/debian:12-slim.
make_base() {
    local tar

    tar=$("$here/base.sh" "$folder")
    podman import "$tar" localhost/debian:12-slim
}

free_port() {
    "$python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'
}
