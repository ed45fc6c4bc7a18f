#!/bin/bash
# Installs what the tests need and this machine lacks, from Debian's packages.
set -euo pipefail

missing=()
command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || missing+=(ffmpeg)
command -v curl >/dev/null || missing+=(curl)
command -v jq >/dev/null || missing+=(jq)
command -v mediainfo >/dev/null || missing+=(mediainfo)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
# The page is tested in a real browser, where npm is there to build it.
if command -v npm >/dev/null; then
	command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}" >&2
if ! command -v apt-get >/dev/null; then
	echo "scripts/deps.sh: the tests need ${missing[*]}; install them with this system's package manager" >&2
	exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
	as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q </dev/null >&2
"${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null >&2
