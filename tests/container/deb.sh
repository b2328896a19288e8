#!/usr/bin/env bash
# Tests build/deb/descent_*.deb: lintian, the same bytes when built again, and a life in a minimal
# Debian without systemd (installed, run by hand, upgraded, removed, purged) and in one with it (the
# service as the unit confines it). `make check-deb` builds the package and calls this.
#
#   tests/container/deb.sh      as root, or as one who may sudo; PYTHON names the interpreter
#
# DEB_SYSTEMD=no: systemd cannot boot in a container on this machine, and that half is left out. DEB_SYSTEMD=auto: it is left
# out, and said so, where systemd turns out not to boot.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=tests/container/storage.sh
. tests/container/storage.sh
log=$folder/deb.log
image=localhost/debian:12-slim
data=/var/lib/descent
container= # which one `inside` is about

inside() { podman exec "$container" "$@"; }
as_descent() { podman exec --user descent --workdir "$data" "$container" "$@"; }
refused() { # refused COMMAND ...: what the service's user must not be able to do
    if as_descent "$@" 2>/dev/null; then fail "$*: should not work"; fi
}
apt() { inside env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@" >>"$log" 2>&1; }
await() { # await WHAT COMMAND ...: until it works, half a minute
    local deadline=$((SECONDS + 30))

    until "${@:2}" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$1 after 30 s"
        sleep 0.1
    done
}
same_state() { "$python" "$here/replacement.py" "$1" "$storage/expected.json"; }

# open NAME OPTION ...: a container of $image, on the machine's network: apt needs it, and the
# clients are outside.
open() {
    container=$1
    podman run --detach --pull never --name "$1" --network host \
        --volume "$PWD/build/deb:/package:ro" "${@:2}" >>"$log"
}

purged() {
    apt purge descent
    is "left after a purge" "" "$(inside find / -xdev -path /proc -prune -o -path /sys -prune -o \
        -path /package -prune -o -path '/var/lib/apt/*' -prune -o -name '*descent*' -print | tr '\n' ' ')"
    if inside getent passwd descent; then fail "the user is still there"; fi
}

# --- without systemd ------------------------------------------------------------------------------
serve_by_hand() {
    podman exec --detach --user descent --workdir "$data" "$container" \
        descent serve --config /etc/descent/descent.conf --listen "$listen" >>"$log"
    await "no server" as_descent descent health --listen "$listen"
}

stop_by_hand() {
    inside sh -c 'kill -TERM $(pidof descent)'
    await "the server still runs" inside sh -c '! pidof descent'
}

life_without_systemd() {
    open plain "$image" sleep infinity
    inside rm /etc/dpkg/dpkg.cfg.d/slim # which keeps manual pages and documentation out
    apt update
    apt install "/package/$package"
    is "program" "$(build/descent --version)" "$(inside descent --version)"
    is "user" "descent:$data:/usr/sbin/nologin" "$(inside getent passwd descent | cut -d : -f 1,6,7)"
    is "data" "descent:descent 750" "$(inside stat -c '%U:%G %a' "$data")"
    is "damaged files" "" "$(inside dpkg --verify descent)"
    for file in /lib/systemd/system/descent.service /usr/share/man/man1/descent.1.gz \
        /usr/share/bash-completion/completions/descent /usr/share/doc/descent/copyright; do
        inside test -s "$file" || fail "there is no $file"
    done
    inside sh -c 'zcat /usr/share/man/man1/descent.1.gz | grep -q optimizer' || fail "no manual page"

    serve_by_hand
    is "runs as" descent "$(inside sh -c 'stat -c %U /proc/$(pidof descent)')"
    for path in / /etc/descent /usr/bin /var/lib /var/log; do refused touch "$path/file"; done
    refused sh -c 'echo >>/etc/descent/descent.conf'
    same_state before
    inside descent token create --config /etc/descent/descent.conf >>"$log" 2>&1
    is "what root makes belongs to" descent "$(inside stat -c %U "$data/tokens.json")"
    stop_by_hand

    inside sh -c 'echo "# changed here" >>/etc/descent/descent.conf'
    apt install --reinstall "/package/$package"
    is "options" "# changed here" "$(inside tail -n 1 /etc/descent/descent.conf)"
    serve_by_hand
    same_state after
    stop_by_hand

    apt remove descent
    if inside sh -c 'command -v descent'; then fail "the program is still there"; fi
    inside test -s "$data/descent.db" || fail "the data is gone"
    inside test -s /etc/descent/descent.conf || fail "the options are gone"
    purged
}

# --- with systemd ---------------------------------------------------------------------------------
property() { inside systemctl show --value --property "$1" descent; }
pid() { property MainPID; }
of_process() { inside awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(pid)/status"; }

boots() {
    open booted --systemd=always --cap-add SYS_ADMIN,SYS_PTRACE --security-opt seccomp=unconfined \
        --security-opt apparmor=unconfined localhost/with-systemd /sbin/init || return 1
    local deadline=$((SECONDS + 30))

    until inside sh -c 'systemctl is-system-running | grep -qE "running|degraded"' >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

life_with_systemd() {
    apt install systemd systemd-sysv
    # What an administrator may have put there before: also the way to another port.
    inside sh -c 'mkdir -p /etc/systemd/system/descent.service.d /etc/systemd/system/descent.socket.d
        printf "[Service]\nEnvironment=DESCENT_LISTEN=%s\nWatchdogSec=2\n" "$0" >/etc/systemd/system/descent.service.d/port.conf
        printf "[Socket]\nListenStream=\nListenStream=%s\n" "$0" >/etc/systemd/system/descent.socket.d/port.conf' "$listen"
    podman commit --quiet "$container" localhost/with-systemd >>"$log"
    if ! boots; then
        if [ "${DEB_SYSTEMD:-yes}" = auto ]; then
            say "NOT CHECKED under systemd: it does not boot in a container on this machine"
            return
        fi
        fail "systemd does not run in a container on this machine (DEB_SYSTEMD=no leaves this half out)"
    fi
    apt install "/package/$package"
    await "the service is not active" inside systemctl is-active descent
    is "enabled" enabled "$(inside systemctl is-enabled descent)"
    is "runs as" descent "$(inside stat -c %U "/proc/$(pid)")"
    is "capabilities" 0000000000000000 "$(of_process CapBnd)"
    is "new privileges are barred" 1 "$(of_process NoNewPrivs)"
    is "system calls are filtered" 2 "$(of_process Seccomp)"
    is "files of the service" "descent 750" "$(inside stat -c '%U %a' "$data")"
    same_state before
    inside systemctl reload descent
    inside systemctl restart descent
    await "not ready" inside descent health --listen "$listen"
    same_state after
    apt remove descent
    apt install "/package/$package"
    await "not active again after a removal" inside systemctl is-active descent
    is "warnings of the sandbox" "" "$(inside journalctl --unit descent --priority warning --output cat)"

    inside systemctl kill --signal STOP descent # it hangs: the watchdog sees it
    await "the watchdog sees nothing" inside sh -c '[ "$(systemctl show --value -p NRestarts descent)" = 1 ]'
    await "not active again" inside systemctl is-active descent

    inside systemctl disable --now --quiet descent
    inside sh -ec "$(sed -n '/postrotate/,/endscript/{//!p}' api/package/descent.logrotate)" ||
        fail "rotating the log of a server that does not run"
    inside systemctl enable --now --quiet descent.socket # a purge takes the link away, too
    is "before a connection" inactive "$(inside systemctl is-active descent || true)"
    await "the socket starts nothing" inside descent health --listen "$listen"
    is "after it" active "$(inside systemctl is-active descent)"
    apt install --reinstall "/package/$package"
    is "after an upgrade still" disabled "$(inside systemctl is-enabled descent || true)"
    inside rm -r /etc/systemd/system/descent.service.d /etc/systemd/system/descent.socket.d
    purged
    is "processes" "" "$(inside pidof descent || true)"
}

# --- the test -------------------------------------------------------------------------------------
package=$(cd build/deb && ls descent_*.deb)
begin
: >"$log"

say "$package"
api/package/deb/build.sh "$storage/again" >>"$log"
cmp "build/deb/$package" "$storage/again/$package" || fail "another build has other bytes"
lintian --fail-on error,warning "build/deb/$package" 2>>"$log" || fail "lintian"
printf '  the same bytes twice; lintian finds no mistake\n'

say "Its life in a minimal Debian (build/container/deb.log)"
make_base >>"$log" 2>&1
listen=127.0.0.1:$(free_port)
export DESCENT_URL=http://$listen
life_without_systemd

if [ "${DEB_SYSTEMD:-yes}" = no ]; then
    say "Under systemd: left out (DEB_SYSTEMD=no)"
else
    say "Under systemd"
    life_with_systemd
fi

say "The package does what it should."
