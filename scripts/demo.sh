#!/bin/bash
# Two nodes on this machine record one multicast source, one is killed and
# comes back, and both archives end equal. Needs nothing but the built program;
# everything it makes is in demo/, which is removed at the start. DEMO_PORT is the
# first of two TCP ports that it takes, and the UDP port of the source.
set -euo pipefail
cd "$(dirname "$0")/.."

twindvr=bin/twindvr
dir=demo
port1=${DEMO_PORT:-18081}
port2=$((port1 + 1))
group="udp://224.1.2.3:${DEMO_PORT:-1234}?interface=127.0.0.1"
name=example_stream
pids=()
declare -A runs # the ids of those that are to go on, by name

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*" >&2; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; tail -n 20 "$dir"/*.log >&2 || true; exit 1; }

end() {
	for p in "${pids[@]}"; do
		kill -9 "$p" 2>/dev/null || true
	done
	wait 2>/dev/null || true
}
trap end EXIT

# spawn NAME COMMAND...: runs a command in the background; its id is in $pid.
spawn() {
	local who=$1 log=$dir/$1.log
	shift
	"$@" >>"$log" 2>&1 &
	pid=$!
	pids+=("$pid")
	runs[$who]=$pid
	disown "$pid"
}

# field PORT FIELD: one field of a node's status.
field() {
	"$twindvr" status --json ":$1" 2>/dev/null | grep -o "\"$2\":[^,}]*" | head -n 1 | cut -d: -f2- | tr -d '"'
}

# ended NAME: tells why a program that was to go on has ended.
ended() {
	printf 'demo: %s has ended: %s\n' "$1" "$(tail -n 1 "$dir/$1.log")" >&2
	printf 'demo: where a port is taken, choose others: DEMO_PORT=28081 make demo\n' >&2
	exit 1
}

# await SECONDS TEXT COMMAND...: waits for a command to succeed, while all programs run.
await() {
	local until=$((SECONDS + $1)) what=$2 who
	shift 2
	until "$@"; do
		for who in "${!runs[@]}"; do
			kill -0 "${runs[$who]}" 2>/dev/null || ended "$who"
		done
		[ $SECONDS -lt $until ] || fail "not in time: $what"
		sleep 0.2
	done
}

mode_is() { [ "$(field "$1" mode)" = "$2" ]; }
whole_since() { # DIR TIME: whether a segment of the node's own is whole since
	"$twindvr" ls --segments --json --from "$2" "$1" 2>/dev/null | grep '"origin":"live"' | grep -q '"partial":false'
}
equal() { "$twindvr" diff-archive "$dir/node1/$name" "$dir/node2/$name" >/dev/null 2>&1; }

rm -rf "$dir"
mkdir -p "$dir"

say "Two nodes, configured as the cross-replication example has it"
cat >"$dir/node1.conf" <<EOF
http 127.0.0.1:$port1;
stream $name {
  url $group;
  url m4f://127.0.0.1:$port2/$name;
  dvr $PWD/$dir/node1 3d replicate=1500k;   # 1.5 MB/s, so that its progress can be seen
}
EOF
cat >"$dir/node2.conf" <<EOF
http 127.0.0.1:$port2;
stream $name {
  url m4f://127.0.0.1:$port1/$name;
  url $group;
  dvr $PWD/$dir/node2 3d replicate=1500k;
}
EOF
sed "s,$PWD/,/," "$dir/node1.conf"
printf -- '--\n'
sed "s,$PWD/,/," "$dir/node2.conf"
for f in node1 node2; do
	"$twindvr" supervise --check "$dir/$f.conf" 2>/dev/null || fail "the configuration of $f is refused"
done

say "A multicast source of 6 Mbit/s, and both nodes"
spawn source "$twindvr" testsrc "$group" --bitrate 6M
source=$pid
spawn node1 "$twindvr" supervise "$dir/node1.conf"
node1=$pid
spawn node2 "$twindvr" supervise "$dir/node2.conf"
node2=$pid
await 20 "node 1 is in normal mode" mode_is "$port1" normal
await 20 "node 2 is in normal mode" mode_is "$port2" normal
await 30 "node 1 records" whole_since "$dir/node1/$name" -1m
await 30 "node 2 records" whole_since "$dir/node2/$name" -1m

say "Normal mode: node 1 records the source, node 2 follows node 1 and hears the source too"
run "$twindvr" status ":$port1" || true
run "$twindvr" status ":$port2" || true

say "Node 1 is killed (SIGKILL)"
unset "runs[node1]"
kill -9 "$node1"
killed=$(date +%s)
await 30 "node 2 is in emergency mode" mode_is "$port2" emergency

say "Emergency mode: node 2 records the source itself; nothing was lost meanwhile"
run "$twindvr" status ":$port2" || true
await 30 "node 2 records" whole_since "$dir/node2/$name" "$killed"
sleep 15

say "Node 1 comes back"
spawn node1 "$twindvr" supervise "$dir/node1.conf"
node1=$pid
await 20 "node 1 is in recovery mode" mode_is "$port1" recovery
say "Recovery mode: node 1 records the source again and fetches from node 2 what it missed"
for _ in $(seq 40); do
	mode_is "$port1" recovery || break
	printf 'missing %6.1f s, %9d bytes to fetch\n' "$(field "$port1" gap_seconds)" "$(field "$port1" backlog_bytes)"
	sleep 0.5
done
await 20 "node 1 is in normal mode" mode_is "$port1" normal
await 20 "node 2 is in normal mode" mode_is "$port2" normal
run "$twindvr" status ":$port1"
run "$twindvr" status ":$port2"

say "The source ends, then the nodes"
unset "runs[source]"
kill "$source"
# The segment that was open when the source went is written when its loss is
# noticed, and then exchanged.
await 40 "node 1 has noticed" mode_is "$port1" offline
await 40 "node 2 has noticed" mode_is "$port2" offline
await 30 "both archives are equal" equal
await 30 "the last segments are written" test "$(field "$port1" gaps)" = 0
kill "$node1" "$node2"
for _ in $(seq 50); do
	kill -0 "$node1" 2>/dev/null || kill -0 "$node2" 2>/dev/null || break
	sleep 0.1
done

say "Both archives are whole and equal"
run "$twindvr" ls "$dir/node1/$name" || fail "node 1's archive has gaps or damage"
run "$twindvr" ls "$dir/node2/$name" || fail "node 2's archive has gaps or damage"
run "$twindvr" diff-archive "$dir/node1/$name" "$dir/node2/$name" || fail "the archives differ"
for n in 1 2; do
	run "$twindvr" export "$dir/node$n/$name" -o "$dir/node$n.mp4" || fail "the export of node $n failed"
done
sums=$(cd "$dir" && sha256sum node1.mp4 node2.mp4)
printf '%s\n' "$sums"
[ "$(printf '%s\n' "$sums" | cut -d' ' -f1 | sort -u | wc -l)" = 1 ] || fail "the exports differ"
say "done in $SECONDS s: the exports are the same, byte for byte (demo/node1.mp4, demo/node2.mp4)"
