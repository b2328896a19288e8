#!/bin/sh
# Makes FOLDER/descent_VERSION_ARCH.deb of what is built, build/deb unless it is given; `make deb`
# calls it. The same sources give the same bytes: every time in it is that of the changelog's last
# entry. What was in FOLDER is gone.
#
#   build.sh [FOLDER]
set -eu
cd "$(dirname "$0")/../../.."
here=api/package/deb
folder=$(realpath -m "${1:-build/deb}")
root=$folder/root

version=$(dpkg-parsechangelog -l $here/changelog -S Version)
program=$(build/descent --version)
if [ "descent ${version%-*}" != "$program" ]; then
    echo "build.sh: $here/changelog is of $version, the program is $program" >&2
    exit 1
fi
: "${SOURCE_DATE_EPOCH:=$(dpkg-parsechangelog -l $here/changelog -S Timestamp)}"
export SOURCE_DATE_EPOCH LC_ALL=C
umask 022

rm -rf "$folder"
mkdir -p "$root/DEBIAN" "$folder/debian"
make --no-print-directory install DESTDIR="$root" PREFIX=/usr SYSCONFDIR=/etc UNITDIR=/lib/systemd/system >/dev/null
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/descent"
install -D -m 644 api/package/descent.logrotate "$root/etc/logrotate.d/descent"
install -D -m 644 $here/lintian-overrides "$root/usr/share/lintian/overrides/descent"

doc=$root/usr/share/doc/descent
mkdir -p "$doc"
{
    cat $here/copyright
    sed '1,/^$/d; 1,/^$/d; s/^$/./; s/^/ /' LICENSE
} >"$doc/copyright"
cp $here/changelog "$doc/changelog.Debian"
cp CHANGELOG.md "$doc/changelog"
gzip -9 -n "$doc/changelog.Debian" "$doc/changelog" "$root/usr/share/man/man1/descent.1"

# --- what dpkg is told ---
cp $here/control "$folder/debian/control"
depends=$(cd "$folder" && dpkg-shlibdeps -O -e"$root/usr/bin/descent" 2>/dev/null | sed 's/^shlibs:Depends=//')
architecture=$(dpkg --print-architecture)
size=$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f 1)
{
    sed -n '/^Package:/p' $here/control
    printf 'Source: descent\nVersion: %s\nArchitecture: %s\n' "$version" "$architecture"
    sed -n '/^Maintainer:/p' $here/control
    printf 'Installed-Size: %s\n' "$size"
    sed -n '/^Depends:/p' $here/control | sed "s/\${shlibs:Depends}/$depends/"
    sed -n '/^Section:/p; /^Priority:/p' $here/control
    sed -n '/^Description:/,$p' $here/control
} | sed '/^Source: /d' >"$root/DEBIAN/control"
(cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"
(cd "$root" && find . -path ./DEBIAN -prune -o -path ./etc -prune -o -type f -print | sed 's|^\./||' |
    sort | xargs md5sum) >"$root/DEBIAN/md5sums"
install -m 755 $here/postinst $here/prerm $here/postrm "$root/DEBIAN"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
find "$root" -type d -exec chmod 755 {} +
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$root" "$folder" >/dev/null
rm -rf "$root" "$folder/debian"
echo "  DEB     ${folder#"$PWD/"}/descent_${version}_$architecture.deb"
