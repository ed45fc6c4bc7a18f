#!/bin/bash
# rules.sh holds the metrics of a running node, the alert rules and the dashboard to
# what promtool says of them. It needs bin/twindvr, curl and jq.
set -euo pipefail
cd "$(dirname "$0")/.."
promtool=$(scripts/promtool.sh)
dir=$(mktemp -d)
pids=()
end() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
	wait
	rm -rf "$dir"
}
trap end EXIT

"$promtool" check rules scripts/alerts.yml
"$promtool" test rules scripts/alerts_test.yml

# Each question of the dashboard is one that Prometheus understands.
jq -r '[.panels[] | .targets[]? | .expr] | to_entries[] | "      - {record: \"a:b:c\(.key)\", expr: \(.value | gsub("\\$(instance|stream)"; ".*") | @json)}"' \
	scripts/dashboard.json >"$dir/exprs"
[ "$(wc -l <"$dir/exprs")" -gt 20 ]
{
	printf 'groups:\n  - name: dashboard\n    rules:\n'
	cat "$dir/exprs"
} >"$dir/dashboard.yml"
"$promtool" check rules "$dir/dashboard.yml"

# told says whether metrics tell of a segment in an archive.
told() { grep -q '^twindvr_archive_segments{.*} [1-9]' "$1"; }

# What two nodes tell, of which one follows the other. The addresses are of this
# script alone, so that it runs beside other nodes.
a=127.91.$((RANDOM % 256)).$((RANDOM % 254 + 1))
b=127.92.$((RANDOM % 256)).$((RANDOM % 254 + 1))
cat >"$dir/a.conf" <<END
http $a:8081;
event_sink http://$a:9/;
stream x { url udp://$a:5000; dvr $dir/a 1d; segment_duration 1s; }
END
cat >"$dir/b.conf" <<END
http $b:8081;
source $a { dvr $dir/b 1d replicate; }
END
bin/twindvr testsrc "udp://$a:5000" 2>/dev/null &
pids+=($!)
for n in a b; do
	bin/twindvr supervise "$dir/$n.conf" 2>"$dir/$n.log" &
	pids+=($!)
done
for _ in $(seq 300); do
	curl -sf "http://$a:8081/metrics" >"$dir/a.prom" || true
	curl -sf "http://$b:8081/metrics" >"$dir/b.prom" || true
	told "$dir/a.prom" && told "$dir/b.prom" && break
	sleep 0.1
done
for n in a b; do
	told "$dir/$n.prom" || {
		echo "node $n tells nothing of a segment"
		tail -n 20 "$dir/$n.log"
		exit 1
	}
	"$promtool" check metrics <"$dir/$n.prom"
done
