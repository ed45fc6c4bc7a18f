#!/bin/sh
# Measures recording beside ffmpeg and beside the floor (scripts/bench/README.md).
# BENCHFLAGS are flags of scripts/bench, such as "-runs 5" or "-streams 20".
set -eu
cd "$(dirname "$0")/.."
mkdir -p bench
go build -o bench/bench ./scripts/bench
# shellcheck disable=SC2086
exec bench/bench ${BENCHFLAGS:-} "$@"
