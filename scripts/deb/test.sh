#!/bin/bash
# test.sh [PACKAGE] builds the Debian package, has lintian and systemd look at it, and
# installs, runs, upgrades, removes and purges it, in a system that debootstrap makes
# (ROOT=fresh, a minute), or in a copy of this one that is thrown away (ROOT=overlay,
# seconds), or not at all (ROOT=none). It needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=${1:-$(scripts/deb/build.sh bin)}
mode=${ROOT:-fresh}
say() { echo "deb-test: $*"; }
fail() {
	say "FAILED: $*" >&2
	exit 1
}

if command -v lintian >/dev/null; then
	lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$package" || fail "lintian"
	say "lintian is content"
fi

dir=$(mktemp -d)
mkdir "$dir/unpacked" "$dir/units"
dpkg-deb -R "$package" "$dir/unpacked"
if command -v systemd-analyze >/dev/null; then
	# Templates are looked at as instances, and programs where they are here.
	for unit in "$dir"/unpacked/lib/systemd/system/*; do
		sed "s|/usr/bin/twindvr|$dir/unpacked/usr/bin/twindvr|" "$unit" >"$dir/units/$(basename "${unit/@/@job}")"
	done
	systemd-analyze verify --man=no "$dir"/units/*.service "$dir"/units/*.timer || fail "systemd-analyze verify"
	for unit in "$dir"/units/*.service; do
		systemd-analyze security --offline=true --threshold=19 "$unit" >"$dir/rating" || fail "$(tail -n 1 "$dir/rating")"
	done
	say "units verified, exposure under 2.0"
fi

# The same package as a later version with another example.
later=$dir/later.deb
sed -i 's/^Version: .*/Version: 9999.0-1/' "$dir/unpacked/DEBIAN/control"
echo '# a later example' >>"$dir/unpacked/etc/twindvr/twindvr.conf"
dpkg-deb --root-owner-group -Znone -b "$dir/unpacked" "$later" >/dev/null

if [ "$mode" = none ]; then
	rm -rf "$dir"
	exit
fi
root=$dir/root
mkdir "$root"
cp "$package" "$dir/first.deb"
if [ "$mode" = fresh ]; then
	suite=${SUITE:-$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")}
	say "debootstrap $suite"
	debootstrap --variant=minbase --include=adduser,init-system-helpers,man-db "$suite" "$root" >"$dir/debootstrap.log" 2>&1 ||
		fail "debootstrap: $(tail -n 5 "$dir/debootstrap.log")"
fi
# What follows has its own mounts and its own network, which end with it.
export dir root mode
trap 'rm -rf --one-file-system "$dir"' EXIT
unshare --mount --net --pid --fork --kill-child bash -euo pipefail <<'END'
say() { echo "deb-test: $*"; }
fail() {
	say "FAILED: $*" >&2
	exit 1
}
case "$mode" in
overlay)
	mkdir "$dir/tmpfs"
	mount -t tmpfs tmpfs "$dir/tmpfs"
	mkdir "$dir/tmpfs/upper" "$dir/tmpfs/work"
	mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/tmpfs/upper,workdir=$dir/tmpfs/work" "$root"
	;;
fresh)
	mount --bind "$root" "$root"
	;;
esac
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
ip link set lo up
cp "$dir/first.deb" "$dir/later.deb" "$root/tmp/"
rm -f "$root/usr/sbin/policy-rc.d" # of containers: it forbids to start anything
enter=(chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8)
service=("${enter[@]}" setpriv --reuid twindvr --regid twindvr --clear-groups --)
in_root() { "${enter[@]}" "$@"; }
as_service() { "${service[@]}" "$@"; }
# files lists what a package could leave behind.
files() {
	in_root find /etc /usr /lib /var /srv /opt -xdev \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o -print |
		grep -vxE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|/etc/\.pwd\.lock|/etc/systemd/system(/multi-user\.target\.wants)?|/var/lib/systemd(/deb-systemd-helper-(enabled|masked)(/multi-user\.target\.wants)?)?' | sort
}
# A service manager that notes what it is asked.
manager() {
	mkdir -p "$root/run/systemd/system"
	[ -e "$root/usr/bin/systemctl.real" ] || [ ! -e "$root/usr/bin/systemctl" ] || mv "$root/usr/bin/systemctl" "$root/usr/bin/systemctl.real"
	printf '#!/bin/sh\necho "$*" >>/tmp/asked\n' >"$root/usr/bin/systemctl"
	chmod 755 "$root/usr/bin/systemctl"
	: >"$root/tmp/asked"
}
no_manager() {
	rm -rf "$root/run/systemd" "$root/usr/bin/systemctl"
	[ ! -e "$root/usr/bin/systemctl.real" ] || mv "$root/usr/bin/systemctl.real" "$root/usr/bin/systemctl"
}
asked() { grep -qE "$1" "$root/tmp/asked" || fail "the service manager was not asked for $1, only for: $(cat "$root/tmp/asked")"; }

files >"$dir/before"
say "installing, without a service manager"
in_root dpkg -i /tmp/first.deb >"$dir/log" 2>&1 || fail "install: $(cat "$dir/log")"
in_root getent passwd twindvr | grep -q ':/var/lib/twindvr:/usr/sbin/nologin$' || fail "the user is $(in_root getent passwd twindvr)"
[ "$(in_root stat -c '%U:%G %a' /var/lib/twindvr)" = "twindvr:twindvr 750" ] || fail "/var/lib/twindvr is $(in_root stat -c '%U:%G %a' /var/lib/twindvr)"
[ "$(in_root stat -c '%U:%G %a' /etc/twindvr)" = "root:twindvr 750" ] || fail "/etc/twindvr is $(in_root stat -c '%U:%G %a' /etc/twindvr)"
[ -L "$root/etc/systemd/system/multi-user.target.wants/twindvr.service" ] || fail "the service is not enabled"
first=$(in_root twindvr --version)
for page in twindvr twindvr-supervise twindvr.conf; do
	in_root man -w "$page" >/dev/null || fail "no manual page $page"
done
[ -z "$(in_root dpkg -V twindvr)" ] || fail "dpkg -V: $(in_root dpkg -V twindvr)"

say "running it as installed"
as_service twindvr supervise --check /etc/twindvr/twindvr.conf 2>"$dir/log" || fail "the example: $(cat "$dir/log")"
"${service[@]}" twindvr supervise /etc/twindvr/twindvr.conf 2>"$dir/node" &
"${service[@]}" twindvr testsrc udp://127.0.0.1:5000 2>"$dir/source" &
for n in $(seq 300); do
	as_service twindvr ls --json /var/lib/twindvr/example >"$dir/ls" 2>/dev/null && as_service twindvr status >"$dir/status" 2>&1 && [ -s "$dir/ls" ] && break
	[ "$n" != 300 ] || fail "nothing is recorded: $(tail -n 5 "$dir/node" "$dir/source" "$dir/status")"
	sleep 0.1
done
in_root sh -c 'ls /var/lib/twindvr/example/*/*/*/*/*.mp4' >"$dir/media"
kill %1 %2
wait

say "upgrading, with a changed configuration"
sed -i 's/^http .*/http 127.0.0.1:8099; # ours/' "$root/etc/twindvr/twindvr.conf"
in_root chmod 0700 /etc/twindvr
manager
in_root dpkg -i --force-confdef --force-confold /tmp/later.deb >"$dir/log" 2>&1 </dev/null || fail "upgrade: $(cat "$dir/log")"
grep -q '8099; # ours' "$root/etc/twindvr/twindvr.conf" || fail "the configuration was not kept"
[ "$(in_root stat -c %a /etc/twindvr)" = 700 ] || fail "the mode of /etc/twindvr was not kept"
asked 'restart.* twindvr.service|restart twindvr.service'
asked 'daemon-reload'
[ "$(in_root sh -c 'ls /var/lib/twindvr/example/*/*/*/*/*.mp4')" = "$(cat "$dir/media")" ] || fail "the archive has changed"

say "disabling, then upgrading again: it stays disabled"
no_manager
rm "$root/etc/systemd/system/multi-user.target.wants/twindvr.service" # what systemctl disable does
in_root dpkg -i --force-confold /tmp/later.deb >"$dir/log" 2>&1 </dev/null || fail "upgrade: $(cat "$dir/log")"
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/twindvr.service" ] || fail "it was enabled again"

say "removing"
manager
mkdir -p "$root/etc/systemd/system/timers.target.wants"
ln -s /lib/systemd/system/twindvr-verify@.timer "$root/etc/systemd/system/timers.target.wants/twindvr-verify@x.timer"
in_root dpkg -r twindvr >"$dir/log" 2>&1 || fail "remove: $(cat "$dir/log")"
asked 'stop.* twindvr.service|stop twindvr.service'
[ ! -e "$root/usr/bin/twindvr" ] || fail "the program is still there"
grep -q '8099; # ours' "$root/etc/twindvr/twindvr.conf" || fail "removing took the configuration"
no_manager

say "purging: archives stay, all else goes"
in_root dpkg -P twindvr >"$dir/log" 2>&1 || fail "purge: $(cat "$dir/log")"
[ "$(in_root sh -c 'ls /var/lib/twindvr/example/*/*/*/*/*.mp4')" = "$(cat "$dir/media")" ] || fail "purging took the archive"
rmdir "$root/etc/systemd/system/timers.target.wants" 2>/dev/null || true
files | grep -v '^/var/lib/twindvr' >"$dir/after"
diff "$dir/before" "$dir/after" || fail "purging left files"

say "again, without archives"
rm -rf "$root/var/lib/twindvr"
in_root dpkg -i /tmp/first.deb >"$dir/log" 2>&1 || fail "install: $(cat "$dir/log")"
[ "$(in_root twindvr --version)" = "$first" ] || fail "another version"
in_root dpkg -P twindvr >"$dir/log" 2>&1 || fail "purge: $(cat "$dir/log")"
files >"$dir/after"
diff "$dir/before" "$dir/after" || fail "purging left files"
say "installed, ran, upgraded, removed and purged ($mode root)"
END
