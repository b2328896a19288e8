#!/usr/bin/env bash
# Makes a minimal Debian 12 as a tar file, from where this machine's apt gets its packages. It
# stands in for debian:12-slim where no registry can be reached.
#
#   base.sh FOLDER      prints the tar file in FOLDER; made only if it is not there yet
#
# The image's apt goes the same way as the machine's: same mirrors, same Acquire options (proxies,
# checks), same certificates.
# shellcheck disable=SC2016 # the $(FIELD)s are apt's, not the shell's
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

folder=$1
suite=bookworm
root=

clean_up() {
    rm -f "$folder"/base-*.part
    if [ -n "$root" ]; then
        umount "$root/proc" "$root/sys" 2>/dev/null || true # debootstrap's, when interrupted
        rm -rf --one-file-system "$root"
    fi
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# What apt knows of Debian's own sources, in the given form: `apt-get indextargets` reads every
# format of /etc/apt/sources.list*, and lists only what an update has fetched.
sources() {
    apt-get indextargets --format "$1" 'Created-By: Packages' 'Origin: Debian' "${@:2}" | sort -u
}

[ -n "$(sources '$(SITE)')" ] || apt-get update >&2
mirror=$(sources '$(SITE)' "Codename: $suite" 'Component: main' | head -n 1)
if [ -z "$mirror" ]; then
    echo "base.sh: no source of Debian $suite in /etc/apt/sources.list*; add one" >&2
    exit 1
fi
sources_list=$(sources 'deb $(SITE) $(RELEASE) $(COMPONENT)')
# Not the files of apt.conf.d: their hooks (and Proxy-Auto-Detect) call what is not in the image.
acquire=$(apt-config dump | grep '^Acquire::' |
    grep -vE '^Acquire::(IndexTargets|Changelogs|https?::Proxy-?Auto-?Detect)')

# Another mirror, another file.
key=$(printf '%s\n' "$sources_list" "$acquire" | cat - "$0" | sha256sum | head -c 16)
tar=$folder/base-$key.tar
if [ ! -e "$tar" ]; then
    root=$(mktemp -d "$folder/root.XXXXXX")
    # debootstrap downloads by wget, which knows nothing of apt's proxy.
    eval "$(apt-config shell proxy Acquire::http::Proxy secure_proxy Acquire::https::Proxy)"
    [[ ${proxy:-} != http* ]] || export http_proxy=$proxy # not "DIRECT"
    [[ ${secure_proxy:-} != http* ]] || export https_proxy=$secure_proxy
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >&2

    # As debian:12-slim is: no documentation, no caches, no waiting for the disk while unpacking.
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
        "$root"/usr/share/{doc,man,locale}/*
    printf '%s\n' force-unsafe-io 'path-exclude /usr/share/doc/*' 'path-exclude /usr/share/man/*' \
        'path-exclude /usr/share/locale/*' >"$root/etc/dpkg/dpkg.cfg.d/slim"
    printf '%s\n' "$sources_list" >"$root/etc/apt/sources.list"
    printf '%s\n' "$acquire" >"$root/etc/apt/apt.conf.d/90machine"
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then # for mirrors behind https
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt \
            "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    rm -f "$folder"/base-*.tar
    tar --create --numeric-owner --one-file-system --file "$tar.part" --directory "$root" .
    mv "$tar.part" "$tar" # whole, or not there
fi
echo "$tar"
