#!/bin/bash
# Runs the fuzz targets of the module for a while: scripts/fuzz.sh [TIME [PART]]
# PART is K/N: of N parts the one numbered K from 0; without it every target.
# What it finds is kept under the package's testdata/fuzz as a regression seed.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
part=${2:-0/1}
[[ $part =~ ^([0-9]+)/([1-9][0-9]*)$ ]] || {
	echo "scripts/fuzz.sh: $part is no part; it is K/N" >&2
	exit 2
}
which=${BASH_REMATCH[1]} of=${BASH_REMATCH[2]}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
targets=0
while IFS=: read -r file name; do
	targets=$((targets + 1))
	[ $((targets % of)) = $((which % of)) ] || continue
	echo "$(dirname "$file") $name for $time"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 20x -parallel 2 >"$log" 2>&1 || {
		# Go sometimes takes the end of the time for a failure of the target
		# (go.dev/issue/75804, mended in Go 1.27); a failure of its own names its input.
		if grep -q '^    context deadline exceeded$' "$log" && ! grep -qiE 'failing input|panic' "$log"; then
			continue
		fi
		cat "$log"
		exit 1
	}
done < <(grep -rEo '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' pkg | sed -E 's/:func /:/' | sort)
if [ "$targets" = 0 ]; then
	echo "scripts/fuzz.sh: no fuzz target found" >&2
	exit 1
fi
echo "part $part of $targets fuzz targets, nothing found"
