package cli

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
)

// The help of status names every field of its JSON and every column.
func TestStatusHelp(t *testing.T) {
	words := strings.FieldsFunc(newStatusCmd(System()).Long, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	seen := 0
	for _, of := range []any{serve.StreamStatus{}, serve.InputStatus{}, serve.PeerStatus{}, serve.ArchiveStatus{}} {
		for f := range reflect.TypeOf(of).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if seen++; !slices.Contains(words, name) {
				t.Errorf("%T: %q is not in the help", of, name)
			}
		}
	}
	for _, c := range columns {
		if seen++; !slices.Contains(words, c.name) {
			t.Errorf("column %s is not in the help", c.name)
		}
	}
	if seen < 60 {
		t.Errorf("%d fields and columns were looked at", seen)
	}
}

// Two streams of one multiplex are told apart.
func TestStatusShowsProgram(t *testing.T) {
	st := serve.StreamStatus{Inputs: []serve.InputStatus{{URL: "udp://h:1"}, {URL: "udp://h:1", Program: 3, Active: true}}}
	if got := inputOf(&st); got != "udp://h:1 program 3" {
		t.Errorf("the input is shown as %q", got)
	}
}

// status is that of a node with a stream that is well and one that is not.
func twoStreams() *serve.NodeStatus {
	lag, eta, days := 1.95, 80.0, 12.0
	oldest := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	newest := oldest.Add(71*time.Hour + 30*time.Minute)
	bad := serve.StreamStatus{
		Name: "sport/hd", Mode: serve.Emergency, Problems: []string{"the first input does not work: it is \x1b[2Jsilent"},
		Inputs: []serve.InputStatus{
			{URL: "udp://239.255.1.2:1234?interface=eth0", State: "silent", Lost: 7, LastData: &newest},
			{URL: "m4f://b.example.com:8081/sport/hd", State: "good", Active: true, Reconnects: 3, Since: &oldest},
		},
		Peers: []serve.PeerStatus{{URL: "m4f://b.example.com:8081/sport/hd", Reachable: true, Replicates: true, Reconciling: true, Backlog: 120e6, BacklogSeconds: 180, ETA: &eta, Segments: 4, Bytes: 10e6}},
		Archive: serve.ArchiveStatus{
			Dir: "/storage/sport/hd", Oldest: &oldest, Newest: &newest, Depth: 3 * 24 * 3600, Lag: &lag, Gaps: 2, GapSeconds: 72, Damaged: 3, DamagedSeconds: 12, Partial: 1,
			Segments: 64000, Bytes: 190e9, BytesPerSec: 760e3, DiskFree: 1e12, DaysUntilFull: &days, Kept: 1,
		},
	}
	well := bad
	well.Name, well.Mode, well.Healthy, well.Problems = "news", serve.Normal, true, nil
	well.Peers = nil
	well.Inputs = []serve.InputStatus{{URL: "rtp://239.255.1.3:5004", State: "good", Active: true}}
	well.Archive.Gaps, well.Archive.GapSeconds, well.Archive.Damaged, well.Archive.DamagedSeconds = 0, 0, 0, 0
	return &serve.NodeStatus{Host: "dvr1", Version: "1.0", Supervised: true, Started: oldest, Streams: []serve.StreamStatus{well, bad}}
}

// The table fits any terminal, and says most where there is most room.
func TestStatusTableFits(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	wide := strings.Join(statusLines(twoStreams(), paint{}, 0, now), "\n")
	want := `dvr1: 2 streams, 1 not healthy; up 3d, version 1.0
STREAM    MODE       INPUT                              LOST            BEHIND  COVERS         GAPS       DAMAGED    BACKLOG                DISK
news      normal     rtp://239.255.1.3:5004             0               1.9s    2d23h of 3d    0          0          0                      full in 12.0 days
sport/hd  emergency  m4f://b.example.com:8081/sport/hd  0, reopened 3×  1.9s    2d23h of 3d    2 (1m12s)  3 (12.0s)  120.0 MB, 1m20s left  full in 12.0 days
! sport/hd: the first input does not work: it is ?[2Jsilent`
	squeeze := func(s string) string { return regexp.MustCompile(` {2,}`).ReplaceAllString(s, "  ") }
	if squeeze(wide) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", wide, want)
	}
	for width := 60; width < 200; width++ {
		lines := statusLines(twoStreams(), paint{}, width, now)
		for _, l := range lines[1:4] {
			if n := utf8.RuneCountInString(l); n > width {
				t.Errorf("%d columns: %d characters: %s", width, n, l)
			}
		}
		for _, name := range []string{"STREAM", "MODE", "INPUT", "BEHIND", "GAPS"} {
			if !strings.Contains(lines[1], name) {
				t.Errorf("%d columns: %s is gone: %s", width, name, lines[1])
			}
		}
	}
}

// The details of a stream say all of it, in lines for people.
func TestStatusDetails(t *testing.T) {
	st := twoStreams()
	cause := serve.Time(m4f.UTCOf(*st.Streams[1].Archive.Oldest))
	gaps := &serve.Gaps{Gaps: []serve.Gap{
		{From: cause, To: cause + 60*m4f.Timescale, Seconds: 60, Cause: serve.Cause{Msg: "the input is silent"}, Fill: serve.Filling, Peer: "m4f://b.example.com:8081/sport/hd", PeerSeconds: 60},
		{From: cause, To: cause + 12*m4f.Timescale, Seconds: 12, Cause: serve.Cause{Msg: "not recorded"}, Fill: serve.FillNobody},
	}}
	text := strings.Join(streamLines(st, &st.Streams[1], gaps, paint{}, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)), "\n")
	for _, want := range []string{
		"sport/hd on dvr1: emergency, not healthy\n! the first input does not work",
		"  udp://239.255.1.2:1234?interface=eth0: silent\n    last heard 2026-11-23 11:30:00 UTC, 30m ago\n    0 B received, 7 packets lost",
		"* m4f://b.example.com:8081/sport/hd: good\n",
		"covers    2026-11-20 12:00:00 to 2026-11-23 11:30:00 UTC: 2d23h of 3d, 1.9s behind",
		"190.0 GB in 64000 segments, 6.1 Mbit/s", "full in 12.0 days, 1.0 TB free", "2 (1m12s)", "3 (12.0s), 1 partial", "kept      1 span",
		"120.0 MB to fetch, 3m of media, 1m20s left",
		"2026-11-20T12:00:00.000Z  1m      the input is silent; being filled (1m of it at m4f://b.example.com:8081/sport/hd)",
		"2026-11-20T12:00:00.000Z  12.0s   not recorded; nobody has it",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
}

func TestStatusArguments(t *testing.T) {
	for _, c := range []struct {
		args                 string
		url, details, refuse string
	}{
		{"", "", "", ""}, {"http://h:1", "http://h:1", "", ""}, {":8082", ":8082", "", ""}, {"[::1]:80", "[::1]:80", "", ""}, {"sport/hd", "", "sport/hd", ""},
		{"h:80 h:80", "h:80", "h:80", ""}, {"a:b", "", "a:b", ""}, {"http://h x", "http://h", "x", ""},
	} {
		var o statusOptions
		if err := o.take(strings.Fields(c.args)); err != nil || o.url != c.url || o.details != c.details {
			t.Errorf("%q: %q %q %v", c.args, o.url, o.details, err)
		}
	}
	o := statusOptions{stream: "x"}
	if o.take([]string{"y"}) == nil {
		t.Error("two streams are taken")
	}
}

func TestNear(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 1990 * time.Millisecond: "1.9s", 59 * time.Second: "59.0s", 72 * time.Second: "1m12s", time.Hour: "1h", 61 * time.Minute: "1h1m",
		26 * time.Hour: "1d2h", 72 * time.Hour: "3d", 30*24*time.Hour + time.Hour: "30d", -time.Minute: "-1m",
	} {
		if got := near(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// What is cut is cut by what is seen, and colours end where they began.
func TestCut(t *testing.T) {
	p := paint{true}
	for in, want := range map[string]string{
		"abcdef": "abcd", "abc": "abc", p.bad("ab") + "cdef": p.bad("ab") + "cd", p.bad("abcdef"): p.bad("abcd"), "äöüßx": "äöüß",
	} {
		if got := cut(in, 4); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
