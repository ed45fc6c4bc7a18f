package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is what the command gives.
type report struct {
	Machine string            `json:"machine"`
	CPUs    int               `json:"cpus"`
	Kernel  string            `json:"kernel"`
	Go      string            `json:"go"`
	Peers   map[string]string `json:"peers"` // versions, or that they are missing
	Tables  []*table          `json:"tables"`
}

// table is what one measurement gave.
type table struct {
	Name     string    `json:"name"`
	About    string    `json:"about"`
	At       time.Time `json:"at"`
	Revision string    `json:"revision"` // of the program
	Runs     int       `json:"runs"`
	Short    bool      `json:"short,omitempty"`
	Busy     float64   `json:"busy"` // part of the CPU time that went into other work before
	Took     float64   `json:"took"` // s
	Failed   string    `json:"failed,omitempty"`
	Rows     []row     `json:"rows"`
	Targets  []target  `json:"targets"`
	Notes    []string  `json:"notes,omitempty"`
}

// row is one contender in one case.
type row struct {
	Case    string  `json:"case"`
	X       float64 `json:"x"` // the case as a number
	Who     string  `json:"who"`
	Missing string  `json:"missing,omitempty"`
	Values  []value `json:"values,omitempty"`
}

// value is what the runs gave of one metric.
type value struct {
	Metric  string    `json:"metric"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"` // median, or the highest where that counts
	Lowest  float64   `json:"lowest"`
	Highest float64   `json:"highest"`
	All     []float64 `json:"all"` // in the order of the runs
	metric  *metric
}

// target is what a figure must reach.
type target struct {
	What    string  `json:"what"`
	Want    string  `json:"want"` // such as "≤ 4 s/GB"
	Got     string  `json:"got"`
	Value   float64 `json:"value"`
	Verdict string  `json:"verdict"` // met, missed, or why it is not judged
}

// add adds what the runs of a contender gave.
func (t *table) add(name string, x float64, c contender, runs []sample) {
	r := row{Case: name, X: x, Who: c.name, Missing: c.missing}
	seen := map[*metric]bool{}
	for _, s := range runs {
		for m := range s {
			if seen[m] {
				continue
			}
			seen[m] = true
			v := value{Metric: m.name, Unit: m.unit, metric: m, All: (compared{"": runs}).values("", m)}
			v.Value, v.Lowest, v.Highest = median(v.All), slices.Min(v.All), slices.Max(v.All)
			if m.most {
				v.Value = v.Highest
			}
			r.Values = append(r.Values, v)
		}
	}
	slices.SortFunc(r.Values, func(a, b value) int { return a.metric.order - b.metric.order })
	t.Rows = append(t.Rows, r)
}

// note says something that the reader of the table must know.
func (t *table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// atMost judges the median of the values; without any, a contender was missing.
func (t *table) atMost(what string, values []float64, limit float64, unit string) {
	t.judge(what, values, "≤", limit, unit)
}

// atLeast is like atMost.
func (t *table) atLeast(what string, values []float64, limit float64, unit string) {
	t.judge(what, values, "≥", limit, unit)
}

// highest makes the highest of the values the one that is judged.
func highest(values []float64) []float64 {
	if len(values) == 0 {
		return nil
	}
	return []float64{slices.Max(values)}
}

func (t *table) judge(what string, values []float64, sign string, limit float64, unit string) {
	g := target{What: what, Want: strings.TrimSpace(fmt.Sprintf("%s %s %s", sign, figure(limit), unit)), Got: "-"}
	switch {
	case len(values) == 0:
		g.Verdict = "not judged: " + t.whyNot()
	case t.Short:
		g.Verdict = "not judged: -short"
	}
	if len(values) > 0 {
		g.Value = median(values)
		g.Got = figure(g.Value)
		if len(values) > 1 {
			g.Got += fmt.Sprintf(" (%s–%s)", figure(slices.Min(values)), figure(slices.Max(values)))
		}
		g.Got = strings.TrimSpace(g.Got + " " + unit)
	}
	if g.Verdict == "" {
		g.Verdict = "missed"
		if sign == "≤" && g.Value <= limit || sign == "≥" && g.Value >= limit {
			g.Verdict = "met"
		}
	}
	t.Targets = append(t.Targets, g)
}

func (t *table) whyNot() string {
	for _, r := range t.Rows {
		if r.Missing != "" {
			return r.Missing
		}
	}
	return "not measured"
}

// figure writes a number with three digits, or all of those before the point.
func figure(v float64) string {
	digits := 0
	if a := math.Abs(v); a > 0 && a < 100 {
		digits = min(2-int(math.Floor(math.Log10(a))), 6)
	}
	s := fmt.Sprintf("%.*f", digits, v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func newReport(b *bench) *report {
	r := &report{CPUs: runtime.NumCPU(), Go: runtime.Version(), Peers: map[string]string{}}
	for _, p := range peers {
		r.Peers[p.name] = "missing"
		if path := b.peers[p.name]; path != "" {
			r.Peers[p.name] = version(path, p.version)
		}
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
				r.Machine = strings.TrimSpace(v)
			}
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(release))
	}
	return r
}

// busy is the part of the CPU time, from 0 to 1, that is not idle for a while.
func busy(ctx context.Context, while time.Duration) float64 {
	idle, all := cpuTimes()
	_ = pause(ctx, while)
	idle2, all2 := cpuTimes()
	if all2 == all {
		return 0
	}
	return 1 - (idle2-idle)/(all2-all)
}

// cpuTimes are those of /proc/stat (proc_stat(5)): idle, waiting for disks
// included, and of all kinds.
func cpuTimes() (idle, all float64) {
	b, _ := os.ReadFile("/proc/stat") // without it, nobody is warned
	first, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(first) {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil || i > 8 { // the name; guests, who are counted already
			continue
		}
		if all += n; i == 4 || i == 5 {
			idle += n
		}
	}
	return idle, all
}

// version is the first number in what a program says of itself.
func version(path string, args ...string) string {
	out, _ := exec.Command(path, args...).CombinedOutput() // what fails has no version
	for _, f := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" /\n", r) }) {
		if f[0] >= '0' && f[0] <= '9' {
			return f
		}
	}
	return "of unknown version"
}

// head writes what was measured on.
func (r *report) head(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, Linux %s, %s", r.Machine, r.CPUs, r.Kernel, r.Go)
	for _, p := range peers {
		fmt.Fprintf(w, ", %s %s", p.name, r.Peers[p.name])
	}
	fmt.Fprintln(w)
}

// summary says which targets were missed.
func (r *report) summary(w io.Writer) {
	count := map[string]int{}
	var missed []string
	for _, t := range r.Tables {
		for _, g := range t.Targets {
			verdict, _, _ := strings.Cut(g.Verdict, ":")
			if count[verdict]++; verdict == "missed" {
				missed = append(missed, fmt.Sprintf("- %s: %s: %s, and not %s", t.Name, g.What, g.Got, g.Want))
			}
		}
		if t.Failed != "" {
			missed = append(missed, fmt.Sprintf("- %s failed: %s", t.Name, t.Failed))
		}
	}
	fmt.Fprintf(w, "\nWhat has to be reached: %d met, %d missed, %d not judged.\n", count["met"], count["missed"], count["not judged"])
	if len(missed) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(missed, "\n"))
	}
}

// print writes a table as Markdown that is also readable as it is.
func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "\n## %s: %s\n\n", t.Name, t.About)
	fmt.Fprintf(w, "%s, twindvr %s; runs: %d; %.0f s\n", t.At.Format(time.DateTime), t.Revision, t.Runs, t.Took)
	if t.Busy > 0.1 {
		fmt.Fprintf(w, "\nOther work took %.0f %% of the CPU time when the bench began. What CPU time it took itself can be compared; what depends "+
			"on the clock, and losses, cannot.\n", 100*t.Busy)
	}
	if t.Failed != "" {
		fmt.Fprintf(w, "\nFailed: %s\n", t.Failed)
	}
	if len(t.Rows) > 0 {
		fmt.Fprintln(w)
		markdown(w, t.cells(), 2)
	}
	if len(t.Targets) > 0 {
		cells := [][]string{{"target", "", "measured", "verdict"}}
		for _, g := range t.Targets {
			cells = append(cells, []string{g.What, g.Want, g.Got, g.Verdict})
		}
		fmt.Fprintln(w)
		markdown(w, cells, 4)
	}
	for _, n := range t.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
}

// cells are the rows, with a column for each metric that any has.
func (t *table) cells() [][]string {
	var columns []*metric
	for _, r := range t.Rows {
		for _, v := range r.Values {
			if m := v.kind(); !slices.ContainsFunc(columns, m.same) {
				columns = append(columns, m)
			}
		}
	}
	head := []string{"case", "who"}
	for _, m := range columns {
		head = append(head, m.heading())
	}
	list := [][]string{head}
	for _, r := range t.Rows {
		line := []string{r.Case, r.Who}
		for i, m := range columns {
			text := "-"
			if r.Missing != "" && i == 0 {
				text = r.Missing
			}
			for _, v := range r.Values {
				if k := v.kind(); k.same(m) {
					text = v.text(k)
				}
			}
			line = append(line, text)
		}
		list = append(list, line)
	}
	return list
}

// kind is the metric of a value, which one that was read from a file does not know.
func (v value) kind() *metric {
	if v.metric == nil {
		for _, m := range known {
			if m.name == v.Metric && m.unit == v.Unit {
				return m
			}
		}
		return &metric{name: v.Metric, unit: v.Unit, digits: 2}
	}
	return v.metric
}

func (m *metric) same(o *metric) bool { return m.name == o.name && m.unit == o.unit }

func (v value) text(m *metric) string {
	s := m.text(v.Value)
	if lo, hi := m.text(v.Lowest), m.text(v.Highest); lo != hi && !m.detail {
		s += fmt.Sprintf(" (%s–%s)", lo, hi)
	}
	return s
}

// markdown writes a table whose first columns are left-aligned.
func markdown(w io.Writer, cells [][]string, left int) {
	width := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			width[i] = max(width[i], len([]rune(c)), 3)
		}
	}
	for n, line := range cells {
		for i, c := range line {
			space := strings.Repeat(" ", width[i]-len([]rune(c)))
			if i < left {
				fmt.Fprintf(w, "| %s%s ", c, space)
			} else {
				fmt.Fprintf(w, "| %s%s ", space, c)
			}
		}
		fmt.Fprintln(w, "|")
		if n > 0 {
			continue
		}
		for i := range line {
			if i < left {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width[i]+2))
			} else {
				fmt.Fprintf(w, "|%s:", strings.Repeat("-", width[i]+1))
			}
		}
		fmt.Fprintln(w, "|")
	}
}

// keep takes over the tables of an earlier report, if it is of the same machine.
func (r *report) keep(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return // the first
	}
	var old report
	if json.Unmarshal(b, &old) != nil || old.Machine != r.Machine || old.CPUs != r.CPUs {
		return
	}
	for _, t := range old.Tables {
		r.put(t)
	}
}

// put puts a table in its place, instead of an earlier one.
func (r *report) put(t *table) {
	place := func(t *table) int {
		return slices.IndexFunc(measurements, func(m measurement) bool { return m.name == t.Name })
	}
	r.Tables = slices.DeleteFunc(r.Tables, func(o *table) bool { return o.Name == t.Name })
	r.Tables = append(r.Tables, t)
	slices.SortStableFunc(r.Tables, func(a, b *table) int { return place(a) - place(b) })
}

// save writes results.json and results.md.
func (r *report) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return r.write(filepath.Join(dir, "results.md"))
}

// write writes all tables as a page.
func (r *report) write(path string) error {
	var b strings.Builder
	fmt.Fprint(&b, "# Results\n\nWritten by `make bench`; README.md says how to read them.\n\n")
	r.head(&b)
	r.summary(&b)
	for _, t := range r.Tables {
		t.print(&b)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
