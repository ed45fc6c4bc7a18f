#!/bin/bash
# Runs the benchmarks of the hot paths at a revision and in this work tree, in turn,
# and compares them with benchstat: scripts/bench-compare.sh REV
#
# COUNT (default 6, below which benchstat sees no difference) is how often, BENCHTIME
# (default 0.3s) how long each, BENCH a regular expression of those wanted.
set -euo pipefail
cd "$(dirname "$0")/.."

# The benchmarks of what costs the most: package, then their names.
hot='
pkg/mpegts     Demuxer
pkg/segment    Segmenter
pkg/m4f        Build|Reader
pkg/ingest     UDPRead|RTP|SRTReceive
pkg/archive    Append|Month|View|Totals
pkg/m4fhttp    Media|Live
pkg/replicate  Diff|Backfill
pkg/salvage    Merge|Blocks
pkg/render     Download
pkg/serve      Playlist|Viewers|Coverage|Metrics
'

refuse() {
	echo "bench-compare: $*" >&2
	exit 2
}

[ $# = 1 ] && [ -n "$1" ] || refuse 'which revision? make bench-compare REV=HEAD~1'
count=${COUNT:-6} benchtime=${BENCHTIME:-0.3s} bench=${BENCH:-.}
[[ $count =~ ^[1-9][0-9]*$ ]] || refuse "COUNT=$count is not a number above 0"
[[ $benchtime =~ ^[0-9.]+(ms|s|m|x)$ ]] || refuse "BENCHTIME=$benchtime is not a time such as 0.3s, or a number such as 100x"
commit=$(git rev-parse --verify --quiet --end-of-options "$1^{commit}") || refuse "there is no revision $1"
name=$(git describe --tags --always "$commit")
here=$PWD

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$tmp/old"
git archive "$commit" | tar -x -C "$tmp/old"

# The lines of hot that are wanted.
wanted=$(while read -r package names; do
	names=$(tr '|' '\n' <<<"$names" | grep -E -e "$bench" | paste -sd '|') || true
	[ -z "$names" ] || echo "$package $names"
done <<<"$hot")
[ -n "$wanted" ] || refuse "no benchmark of a hot path is named $bench"

# build SIDE TREE: the test programs of a tree, as SIDE-PACKAGE.test.
build() {
	local package
	while read -r package _; do
		if [ -d "$2/$package" ]; then
			(cd "$2" && go test -trimpath -c -o "$tmp/$1-${package##*/}.test" "./$package") || {
				echo "bench-compare: $package does not build in $2" >&2
				exit 1
			}
		else
			echo "bench-compare: $name has no $package" >&2
		fi
	done <<<"$wanted"
}

# measure SIDE TREE PACKAGE NAMES: one run of the benchmarks of a package.
measure() {
	local program=$tmp/$1-${3##*/}.test
	[ -x "$program" ] || return 0
	(cd "$2/$3" && "$program" -test.run '^$' -test.bench "^Benchmark($4)\$" -test.benchtime "$benchtime" -test.benchmem) \
		>"$tmp/out" 2>"$tmp/err" || {
		cat "$tmp/out" "$tmp/err" >&2
		echo "bench-compare: $3 fails in $2" >&2
		exit 1
	}
	cat "$tmp/out" >>"$tmp/$1.txt"
}

build old "$tmp/old"
build new "$here"
: >"$tmp/old.txt"
: >"$tmp/new.txt"
for ((i = 1; i <= count; i++)); do
	while read -r package names; do
		echo "$i of $count: $package ($names)" >&2
		measure old "$tmp/old" "$package" "$names"
		measure new "$here" "$package" "$names"
	done <<<"$wanted"
done
go tool benchstat "$name=$tmp/old.txt" "this tree=$tmp/new.txt"
