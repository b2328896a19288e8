#!/bin/sh
# Puts promtool into build/tools where there is none: out of Debian's package, which is not installed, for it would
# start a daemon. Needs neither root nor anything that the package depends on.
set -eu
if command -v promtool >/dev/null || [ -x build/tools/promtool ]; then
    exit 0
fi
echo "fetching promtool"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
download()
{
    (cd "$folder" && apt-get download -qq prometheus 2>"$folder/errors")
}
if ! download; then
    as=
    [ "$(id -u)" = 0 ] || as=sudo
    $as apt-get update -qq
    download || { cat "$folder/errors" >&2; exit 1; }
fi
dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
mkdir -p build/tools
mv "$folder/usr/bin/promtool" build/tools/
