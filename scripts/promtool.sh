#!/bin/sh
# promtool.sh prints the path of promtool: the machine's, or the one of Debian's
# package prometheus, unpacked into bin/ without installing the server.
set -eu
if command -v promtool; then
	exit
fi
cd "$(dirname "$0")/.."
if [ ! -x bin/promtool ]; then
	command -v apt-get >/dev/null || {
		echo "promtool is not installed; it comes with Prometheus" >&2
		exit 1
	}
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	chmod 755 "$dir"
	if ! (cd "$dir" && apt-get download -qq prometheus) >&2; then
		apt-get update -qq >&2
		(cd "$dir" && apt-get download -qq prometheus) >&2
	fi
	dpkg-deb --fsys-tarfile "$dir"/prometheus_*.deb | tar -x -C "$dir" ./usr/bin/promtool
	mkdir -p bin
	mv "$dir/usr/bin/promtool" bin/promtool
fi
echo "$PWD/bin/promtool"
