package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// result is what came of a scenario.
type result struct {
	*scenario
	seed    uint64
	bitrate int64
	length  time.Duration
	took    time.Duration
	network string
	outcome *outcome
	counts  map[string]int
	notes   []string
	faults  []string
	err     error
}

// skipped says that the scenario cannot run on this machine.
func (r *result) skipped() bool { return errors.As(r.err, new(*errSkip)) }

func (r *result) failed() bool {
	return !r.skipped() && (r.err != nil || len(r.faults) > 0 || r.outcome == nil)
}

func (r *result) summary() string {
	switch {
	case r.skipped():
		return "skipped: " + r.err.Error()
	case r.err != nil:
		return fmt.Sprintf("FAILED after %v: %v", r.took.Round(time.Second), r.err)
	case r.failed():
		return fmt.Sprintf("FAILED after %v: %d faults, the first: %s", r.took.Round(time.Second), len(r.faults), r.faults[0])
	}
	return fmt.Sprintf("ended as it must, after %v", r.took.Round(time.Second))
}

// tableHead is the head of the table of figures.
const tableHead = `| scenario | for | ended | faults | pictures sent | missing | excused | segments | clean on all, one, none | together | due | of them clean | s to settle | heal delay, s: median, 99 %, most | datagrams lost | MB between, % of media | MB memory | command |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

// table writes the figures as Markdown.
func table(results []*result) string {
	var b strings.Builder
	b.WriteString(tableHead)
	for _, r := range results {
		b.WriteString(r.row() + "\n")
	}
	return b.String()
}

func (r *result) row() string {
	ended := "as it must"
	switch {
	case r.skipped():
		ended = "not run: " + r.err.Error()
	case r.failed():
		ended = "**FAILED**"
	}
	cells := []string{r.name, r.length.String(), ended, r.made()}
	if o := r.outcome; o != nil {
		cells = append(cells, fmt.Sprint(o.pictures), fmt.Sprint(o.missing), fmt.Sprint(o.excused), fmt.Sprint(o.segments),
			fmt.Sprintf("%d, %d, %d", o.cleanAll, o.cleanOne, o.cleanNone), fmt.Sprint(o.together), fmt.Sprint(o.due), share(int64(o.healed), int64(o.due)),
			fmt.Sprintf("%.0f", o.settled.Seconds()), delays(o.delays), r.lostDatagrams(), r.moved(), fmt.Sprint(o.peak>>20))
	} else {
		cells = append(cells, slices.Repeat([]string{""}, 13)...)
	}
	cells = append(cells, fmt.Sprintf("`make chaos SCENARIO=%s SEED=%d TIME=%v BITRATE=%d`", r.name, r.seed, r.length, r.bitrate))
	return "| " + strings.Join(cells, " | ") + " |"
}

// made lists the faults that were made on purpose.
func (r *result) made() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.counts)) {
		list = append(list, fmt.Sprintf("%d %s", r.counts[name], name))
	}
	list = append(list, r.notes...)
	if r.outcome != nil && r.outcome.stalls > 0 {
		list = append(list, fmt.Sprintf("the machine stalled %d times", r.outcome.stalls))
	}
	if r.outcome != nil && r.outcome.dated > 100*time.Millisecond {
		list = append(list, fmt.Sprintf("times of segments up to %.1f s apart", r.outcome.dated.Seconds()))
	}
	return strings.Join(list, ", ")
}

func (r *result) lostDatagrams() string {
	o := r.outcome
	if o.datagrams == 0 {
		return ""
	}
	var list []string
	for i := range o.lost {
		list = append(list, fmt.Sprint(o.lost[i]+o.blocked[i]))
	}
	return fmt.Sprintf("%s of %d", strings.Join(list, ", "), o.datagrams)
}

func (r *result) moved() string {
	o := r.outcome
	if o.media == 0 {
		return fmt.Sprintf("%.2f", float64(o.between)/1e6)
	}
	return fmt.Sprintf("%.1f, %.1f %%", float64(o.between)/1e6, 100*float64(o.between)/float64(o.media))
}

func share(n, of int64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f %%", 100*float64(n)/float64(of))
}

func delays(list []time.Duration) string {
	if len(list) == 0 {
		return ""
	}
	list = slices.Sorted(slices.Values(list))
	at := func(p float64) float64 { return list[int(p*float64(len(list)-1))].Seconds() }
	return fmt.Sprintf("%.1f, %.1f, %.1f", at(0.5), at(0.99), at(1))
}

// The figures stand between these lines of the page.
const (
	figuresBegin = "<!-- figures: written by make chaos FIGURES=CHAOS.md -->\n"
	figuresEnd   = "<!-- end of the figures -->\n"
)

// keepFigures replaces the rows of the scenarios that ran, and leaves the
// others as they are.
func keepFigures(page string, results []*result) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), figuresBegin)
	old, after, ok2 := strings.Cut(rest, figuresEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q for the figures to stand between", page, strings.TrimSpace(figuresBegin), strings.TrimSpace(figuresEnd))
	}
	rows := map[string]string{}
	for line := range strings.Lines(old) {
		if cells := strings.Split(line, " | "); len(cells) > 2 {
			rows[strings.TrimPrefix(cells[0], "| ")] = line
		}
	}
	for _, r := range results {
		if !r.skipped() {
			rows[r.name] = r.row() + "\n"
		}
	}
	var out strings.Builder
	out.WriteString(before + figuresBegin + "\n" + tableHead)
	for _, s := range scenarios {
		out.WriteString(rows[s.name])
	}
	out.WriteString("\n" + figuresEnd + after)
	return os.WriteFile(page, []byte(out.String()), 0o644)
}
