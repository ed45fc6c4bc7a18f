package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/serve"
)

// column is a column of the table of streams.
type column struct {
	name string
	cell func(*serve.StreamStatus) string
	// quiet is what the cell says where there is nothing to say: a column of such
	// cells alone makes room first.
	quiet string
	spare int // the order in which columns make room after that; 0: never
}

var columns = []column{
	{name: "STREAM", cell: func(s *serve.StreamStatus) string { return s.Name }},
	{name: "MODE", cell: modeOf},
	{name: "INPUT", cell: inputOf},
	{name: "LOST", cell: lostOf, quiet: "0", spare: 3},
	{name: "BEHIND", cell: behind, quiet: "-"},
	{name: "COVERS", cell: coversOf, quiet: "-", spare: 1},
	{name: "GAPS", cell: gapsOf, quiet: "0"},
	{name: "DAMAGED", cell: damageOf, quiet: "0", spare: 4},
	{name: "BACKLOG", cell: backlogOf, quiet: "0", spare: 5},
	{name: "DISK", cell: diskOf, quiet: "-", spare: 2},
}

const (
	inputColumn = 2  // of columns
	leastInput  = 14 // characters that it is cut to
)

// table is what is known of streams, in cells.
type table struct {
	columns []column
	rows    [][]string // one a stream, a cell a column
	streams []serve.StreamStatus
}

func newTable(streams []serve.StreamStatus) *table {
	t := &table{columns: columns, streams: streams}
	for i := range streams {
		row := make([]string, len(columns))
		for j, c := range columns {
			row[j] = printable(c.cell(&streams[i]))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// widths are those of the columns, the two spaces between them not counted.
func (t *table) widths() (w []int, total int) {
	w = make([]int, len(t.columns))
	for j, c := range t.columns {
		w[j] = len(c.name)
		for _, row := range t.rows {
			w[j] = max(w[j], utf8.RuneCountInString(row[j]))
		}
		total += w[j] + 2
	}
	return w, total - 2
}

// fit makes the table as narrow as a terminal: the inputs are cut first, then go
// columns that say nothing, then others. It returns the names of those that went
// and said something.
func (t *table) fit(width int) (gone []string) {
	w, total := t.widths()
	if over := total - width; over > 0 {
		most := max(leastInput, w[inputColumn]-over)
		for _, row := range t.rows {
			row[inputColumn] = middle(row[inputColumn], most)
		}
	}
	t.drop(width, func(c *column, j int) bool {
		return c.quiet != "" && !slices.ContainsFunc(t.rows, func(row []string) bool { return row[j] != c.quiet })
	})
	for spare := 1; spare <= len(columns); spare++ {
		t.drop(width, func(c *column, _ int) bool {
			if c.spare == spare {
				gone = append(gone, c.name)
			}
			return c.spare == spare
		})
	}
	return gone
}

// drop takes columns out as long as the table is too wide.
func (t *table) drop(width int, which func(c *column, j int) bool) {
	for j := len(t.columns) - 1; j >= 0; j-- {
		if _, total := t.widths(); total <= width {
			return
		}
		if !which(&t.columns[j], j) {
			continue
		}
		t.columns = slices.Delete(slices.Clone(t.columns), j, j+1)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], j, j+1)
		}
	}
}

// middle cuts a text to so many characters, out of its middle.
func middle(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	head := (most - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(most-1-head):])
}

// lines are the table's, its head first.
func (t *table) lines(p paint) []string {
	w, _ := t.widths()
	line := func(row []string, dye func(j int, cell string) string) string {
		var b strings.Builder
		for j, cell := range row {
			text := cell
			if dye != nil {
				text = dye(j, cell)
			}
			b.WriteString(text)
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", w[j]-utf8.RuneCountInString(cell)+2))
			}
		}
		return b.String()
	}
	names := make([]string, len(t.columns))
	for j, c := range t.columns {
		names[j] = c.name
	}
	out := []string{p.bold(line(names, nil))}
	for i, row := range t.rows {
		s := &t.streams[i]
		out = append(out, line(row, func(j int, cell string) string {
			switch name := t.columns[j].name; {
			case name == "MODE":
				return p.mode(s, cell)
			case (name == "GAPS" || name == "DAMAGED") && cell != "0":
				return p.warn(cell)
			}
			return cell
		}))
	}
	return out
}

// statusLines are what status prints: a line of the node, the table, and what is
// wrong.
func statusLines(st *serve.NodeStatus, p paint, width int, now time.Time) []string {
	var out []string
	if st.Host != "" {
		out = append(out, p.node(st, now))
	}
	t := newTable(st.Streams)
	var gone []string
	if width > 0 {
		gone = t.fit(width)
	}
	out = append(out, t.lines(p)...)
	if len(gone) > 0 {
		slices.Sort(gone)
		out = append(out, p.dim(fmt.Sprintf("(the terminal is too narrow for %s; give a STREAM for all of it)", strings.Join(gone, ", "))))
	}
	return append(out, problemLines(st, p)...)
}

// node is the line that sums up the node.
func (p paint) node(st *serve.NodeStatus, now time.Time) string {
	healthy := 0
	for i := range st.Streams {
		if st.Streams[i].Healthy {
			healthy++
		}
	}
	line := fmt.Sprintf("%s: %s", printable(st.Host), count(len(st.Streams), "stream"))
	if !st.Supervised {
		line += ", served only"
	}
	switch bad := len(st.Streams) - healthy; {
	case bad > 0:
		line += ", " + p.bad(fmt.Sprintf("%d not healthy", bad))
	case !st.Healthy:
		line += ", " + p.bad("a source is not healthy")
	case len(st.Streams) > 0:
		line += ", " + p.good("all healthy")
	}
	return line + fmt.Sprintf("; up %s, version %s", near(now.Sub(st.Started)), printable(st.Version))
}

// problemLines are what is wrong, one a line.
func problemLines(st *serve.NodeStatus, p paint) (out []string) {
	for i := range st.Streams {
		for _, text := range st.Streams[i].Problems {
			out = append(out, p.bad("!")+fmt.Sprintf(" %s: %s", printable(st.Streams[i].Name), printable(text)))
		}
	}
	for i := range st.Sources {
		for _, text := range st.Sources[i].Problems {
			out = append(out, p.bad("!")+fmt.Sprintf(" source %s: %s", printable(st.Sources[i].URL), printable(text)))
		}
	}
	return out
}

func modeOf(s *serve.StreamStatus) string {
	switch {
	case s.Retired:
		return "retired"
	case s.Mode == "":
		return "-"
	case s.Unreplicated:
		return s.Mode + ",unreplicated"
	}
	return s.Mode
}

func inputOf(s *serve.StreamStatus) string {
	for _, in := range s.Inputs {
		if in.Active {
			return in.Name()
		}
	}
	return "-"
}

// lostOf is what the input in use has lost, and how often it was opened anew.
func lostOf(s *serve.StreamStatus) string {
	for i := range s.Inputs {
		in := &s.Inputs[i]
		if !in.Active {
			continue
		}
		if in.Reconnects > 0 {
			return fmt.Sprintf("%d, reopened %d×", lostAt(in), in.Reconnects)
		}
		return fmt.Sprint(lostAt(in))
	}
	return "-"
}

// lostAt is what an input has lost: packets of the transport stream where it is
// one, datagrams otherwise.
func lostAt(in *serve.InputStatus) int64 { return max(in.Lost, in.DatagramsLost+in.Dropped) }

func behind(s *serve.StreamStatus) string {
	if s.Archive.Lag == nil {
		return "-"
	}
	return near(secondsOf(*s.Archive.Lag))
}

// secondsOf is a duration, as far as there are such.
func secondsOf(s float64) time.Duration {
	const most = 290 * 365 * 24 * 3600
	return time.Duration(min(max(s, -most), most) * float64(time.Second))
}

// near is a duration as people say it, in its two largest units.
func near(d time.Duration) string {
	if d < 0 {
		return "-" + near(-d)
	}
	const day = 24 * time.Hour
	d0, h, m, s := int(d/day), int(d%day/time.Hour), int(d%time.Hour/time.Minute), d%time.Minute
	two := func(a int, ua string, b int, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, ua)
		}
		return fmt.Sprintf("%d%s%d%s", a, ua, b, ub)
	}
	switch {
	case d0 >= 10:
		return fmt.Sprintf("%dd", d0)
	case d0 > 0:
		return two(d0, "d", h, "h")
	case h > 0:
		return two(h, "h", m, "m")
	case m > 0:
		return two(m, "m", int(s/time.Second), "s")
	}
	return fmt.Sprintf("%.1fs", s.Truncate(100*time.Millisecond).Seconds())
}

func coversOf(s *serve.StreamStatus) string {
	if s.Archive.Oldest == nil || s.Archive.Newest == nil {
		return "-"
	}
	covers := near(s.Archive.Newest.Sub(*s.Archive.Oldest))
	if s.Archive.Depth == 0 {
		return covers
	}
	return covers + " of " + near(secondsOf(s.Archive.Depth))
}

func gapsOf(s *serve.StreamStatus) string {
	if s.Archive.Gaps == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", s.Archive.Gaps, near(secondsOf(s.Archive.GapSeconds)))
}

func damageOf(s *serve.StreamStatus) string {
	if s.Archive.Damaged == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", s.Archive.Damaged, near(secondsOf(s.Archive.DamagedSeconds)))
}

// listedLate is after how many seconds a segment that a peer has listed and that
// is not here yet is worth showing: a node that hears the source waits for its
// own copy first.
const listedLate = 4

func backlogOf(s *serve.StreamStatus) string {
	b := serve.BacklogOf(s)
	switch {
	case b.Bytes > 0 && b.ETA != nil:
		return fmt.Sprintf("%s, %s left", archive.NearBytes(b.Bytes), near(secondsOf(*b.ETA)))
	case b.Bytes > 0:
		return archive.NearBytes(b.Bytes)
	case b.Pending > 0 && b.Lag > listedLate:
		return fmt.Sprintf("%d listed", b.Pending)
	}
	return "0"
}

// daysText writes a number of days, one below a day in hours and one below two
// hours in minutes.
func daysText(days float64) string {
	switch {
	case days*24*60 < 119.5:
		return count(max(1, int(math.Round(days*24*60))), "minute")
	case days < 1:
		return fmt.Sprintf("%.0f hours", days*24)
	}
	return fmt.Sprintf("%.1f days", days)
}

func diskOf(s *serve.StreamStatus) string {
	if s.Archive.DaysUntilFull != nil && *s.Archive.DaysUntilFull == 0 {
		return "full, " + archive.NearBytes(s.Archive.DiskFree) + " free"
	}
	if s.Archive.DaysUntilFull != nil {
		return "full in " + daysText(*s.Archive.DaysUntilFull)
	}
	if s.Archive.DiskFree == 0 {
		return "-"
	}
	return archive.NearBytes(s.Archive.DiskFree) + " free"
}
