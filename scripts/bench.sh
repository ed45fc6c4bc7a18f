#!/bin/sh
# Measures what twindvr costs, beside other programs (scripts/bench/README.md).
# BENCHFLAGS are flags of scripts/bench, such as "-runs 5" or "-only udp".
set -eu
cd "$(dirname "$0")/.."
mkdir -p bench
go build -o bench/bench ./scripts/bench
# shellcheck disable=SC2086
exec bench/bench ${BENCHFLAGS:-} "$@"
