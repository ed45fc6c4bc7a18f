package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// measurement is one question that the bench answers, in one table.
type measurement struct {
	name  string // for -only
	about string // what is measured, as the heading of its table
	runs  int    // how often, unless -runs says
	run   func(*bench, context.Context, *table) error
}

// measurements in the order in which they run. One calls b.compare for each of its
// cases, with those to be measured side by side, then t.atMost or t.atLeast for
// each figure that has to be reached, on what b.compare returned.
var measurements = []measurement{
	{"udp", "UDP streams to an archive", 2, (*bench).measureUDP},
	{"many", "as many UDP streams as the machine bears, for some time", 1, (*bench).measureMany},
	{"fast", "one UDP stream of 800 Mbit/s", 3, (*bench).measureFast},
	{"startup", "from the start of supervise to when all streams are heard", 5, (*bench).measureStartup},
	{"file", "a file to an archive", 5, (*bench).measureFile},
	{"serve", "segments to peers, beside nginx", 5, (*bench).measureServe},
	{"follow", "followers of one stream", 3, (*bench).measureFollow},
	{"backfill", "an empty archive from a node, beside curl", 5, (*bench).measureBackfill},
	{"twins", "what two nodes tell each other that both hear the source", 3, (*bench).measureTwins},
	{"failover", "from one input to the next", 5, (*bench).measureFailover},
	{"diff", "diff-archive of two archives of 4 s segments", 5, (*bench).measureDiff},
	{"open", "long and many archives", 5, (*bench).measureOpen},
}

// metric is something that is measured.
type metric struct {
	name, unit string
	digits     int  // after the point
	most       bool // of several runs the highest counts, not the median
	detail     bool // printed without its spread
	order      int  // of the columns
}

// known are all metrics.
var known []*metric

func newMetric(name, unit string, digits int) *metric {
	m := &metric{name: name, unit: unit, digits: digits, order: len(known)}
	known = append(known, m)
	return m
}

// What several measurements have.
var (
	cpuPerGB  = newMetric("CPU", "s/GB", 2) // user and system, of all processes from start to end
	userCPU   = newMetric("user", "s/GB", 2).asDetail()
	systemCPU = newMetric("system", "s/GB", 2).asDetail()
	perSecond = newMetric("speed", "MB/s", 0)
	perStream = newMetric("memory", "MB a stream", 1) // largest sum of the processes' proportional set sizes
	lost      = newMetric("lost", "", 0).ofMost()     // what, the measurement says
)

func (m *metric) asDetail() *metric { m.detail = true; return m }
func (m *metric) ofMost() *metric   { m.most = true; return m }

func (m *metric) heading() string { return strings.TrimSpace(m.name + " " + m.unit) }

func (m *metric) text(v float64) string { return fmt.Sprintf("%.*f", m.digits, v) }

// sample is what one run gave.
type sample map[*metric]float64

// use adds the CPU time used for so many bytes.
func (s sample) use(u usage, bytes int64) {
	if gb := float64(bytes) / 1e9; gb > 0 {
		s[userCPU], s[systemCPU] = u.user.Seconds()/gb, u.system.Seconds()/gb
		s[cpuPerGB] = s[userCPU] + s[systemCPU]
	}
}

func (s sample) String() string {
	var b strings.Builder
	for i, m := range slices.SortedFunc(maps.Keys(s), func(a, b *metric) int { return a.order - b.order }) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s %s", m.name, m.text(s[m]), m.unit)
	}
	return b.String()
}

// contender is one of those measured side by side.
type contender struct {
	name    string
	missing string // why it cannot be measured; empty: it can
	run     func(context.Context) (sample, error)
}

// compared is what a case gave: for each contender its runs, in their order.
type compared map[string][]sample

// values are what the runs of one contender gave of a metric.
func (c compared) values(who string, m *metric) []float64 {
	var list []float64
	for _, s := range c[who] {
		if v, ok := s[m]; ok {
			list = append(list, v)
		}
	}
	return list
}

// ratio is who's figure divided by that of peer, of each round.
func (c compared) ratio(who, peer string, m *metric) []float64 {
	return pairs(c.values(who, m), c.values(peer, m), func(a, b float64) float64 { return a / b })
}

// above is who's figure less that of peer, of each round.
func (c compared) above(who, peer string, m *metric) []float64 {
	return pairs(c.values(who, m), c.values(peer, m), func(a, b float64) float64 { return a - b })
}

func pairs(a, b []float64, f func(a, b float64) float64) []float64 {
	var list []float64
	for i := range min(len(a), len(b)) {
		list = append(list, f(a[i], b[i]))
	}
	return list
}

// compare measures the contenders of one case in turn, so many times: what else
// the machine does meets them all. x is the case as a number, for the plots.
func (b *bench) compare(ctx context.Context, t *table, name string, x float64, list []contender) (compared, error) {
	found := compared{}
	for i := range b.runs {
		for _, c := range list {
			if c.missing != "" || !b.wanted(c.name) {
				continue
			}
			s, err := c.run(ctx)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", name, c.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s, %s, %s (%d of %d): %s\n", t.Name, name, c.name, i+1, b.runs, s)
			found[c.name] = append(found[c.name], s)
		}
	}
	for _, c := range list {
		if c.missing != "" || b.wanted(c.name) {
			t.add(name, x, c, found[c.name])
		}
	}
	return found, nil
}

// wanted says whether -who lets a contender through.
func (b *bench) wanted(name string) bool { return len(b.who) == 0 || slices.Contains(b.who, name) }

// pick is full, or small with -short.
func pick[T any](b *bench, full, small T) T {
	if b.short {
		return small
	}
	return full
}

// peers are programs to compare with, and how they tell their version.
var peers = []struct{ name, version string }{
	{"ffmpeg", "-version"},
	{"nginx", "-v"},
	{"curl", "--version"},
}

// findPeers looks for all peers and says which are missing.
func (b *bench) findPeers() {
	b.peers = map[string]string{}
	for _, p := range peers {
		path := lookPath(p.name)
		if path == "" {
			fmt.Fprintf(os.Stderr, "%s is missing (apt-get install %s): nothing to compare with\n", p.name, p.name)
		}
		b.peers[p.name] = path
	}
}

// lookPath also looks where the servers are, which is not in everybody's PATH.
func lookPath(name string) string {
	for _, n := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	return ""
}

// peer is a contender that needs the program of the name program, whose path run gets.
func (b *bench) peer(name, program string, run func(ctx context.Context, path string) (sample, error)) contender {
	c := contender{name: name, run: func(ctx context.Context) (sample, error) { return run(ctx, b.peers[program]) }}
	if b.peers[program] == "" {
		c.missing = program + " is missing"
	}
	return c
}
