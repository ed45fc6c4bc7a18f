#!/bin/bash
# Runs every fuzz target of the module for a while: scripts/fuzz.sh [TIME]
# What it finds is kept under the package's testdata/fuzz as a regression seed.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
targets=0
while IFS=: read -r file name; do
	targets=$((targets + 1))
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
echo "$targets fuzz targets, nothing found"
