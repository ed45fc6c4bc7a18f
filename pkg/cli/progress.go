package cli

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long command is: bytes, rate and time left, on a
// terminal only. Elsewhere every method does nothing. It is safe for concurrent use.
type progress struct {
	io    IO
	label string

	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil: nothing is shown yet, or no longer
	done  int64
	total int64 // -1: unknown
	over  bool
}

// newProgress starts a bar of total bytes; -1 where the total is unknown: then it is
// shown once it is known.
func newProgress(io IO, total int64, label string) *progress {
	p := &progress{io: io, label: label, total: total, over: !terminal(io.Err)}
	p.draw()
	return p
}

// draw makes the bar, where there is to be one.
func (p *progress) draw() {
	if p.over || p.bar != nil || p.total < 0 {
		return
	}
	label := p.label
	theme := progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}
	colours := colourful(p.io, p.io.Err)
	if colours {
		theme.Saucer, theme.SaucerHead = "[green]=[reset]", "[green]>[reset]"
		label = "[bold]" + label + "[reset]"
	}
	p.bar = progressbar.NewOptions64(p.most(),
		progressbar.OptionSetWriter(p.io.Err),
		progressbar.OptionSetDescription(label),
		progressbar.OptionEnableColorCodes(colours),
		progressbar.OptionSetTheme(theme),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)
	shownBar.set(p)
	// A bar that cannot be drawn must not stop the work.
	_ = p.bar.Add64(p.done)
}

// colourful says whether what w shows may be in colours: on a terminal that has
// some, where NO_COLOR is not set (no-color.org).
func colourful(io IO, w any) bool {
	no, _ := io.LookupEnv("NO_COLOR")
	kind, _ := io.LookupEnv("TERM")
	return no == "" && kind != "" && kind != "dumb" && terminal(w)
}

// most is the total as the bar is told. A bar that has reached its total is over,
// but more may come: of what is recorded or found meanwhile.
func (p *progress) most() int64 { return max(p.total, p.done+1) }

// Add moves the bar by n bytes.
func (p *progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done += n; p.bar == nil {
		return
	}
	if p.done >= p.total {
		p.bar.ChangeMax64(p.most())
	}
	_ = p.bar.Add64(n)
}

// Total corrects the total once it is known better.
func (p *progress) Total(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n == p.total {
		return
	}
	if p.total = n; p.bar != nil {
		p.bar.ChangeMax64(p.most())
	}
	p.draw()
}

// Done takes the bar off the terminal.
func (p *progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.bar == nil {
		return
	}
	_ = p.bar.Clear()
	_ = p.bar.Exit()
	p.bar = nil
	shownBar.clear(p)
}

// Beside writes something to the terminal that is no part of the bar, which goes
// away for as long.
func (p *progress) Beside(write func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		return write()
	}
	_ = p.bar.Clear()
	err := write()
	_ = p.bar.RenderBlank()
	return err
}

// shown is the bar on the terminal, if there is one.
type shown struct {
	mu  sync.Mutex
	bar *progress
}

var shownBar shown

func (s *shown) set(p *progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bar = p
}

func (s *shown) clear(p *progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar == p {
		s.bar = nil
	}
}

// besideBar is a writer to the terminal that a bar is drawn on, too: the log.
type besideBar struct{ w io.Writer }

// newBesideBar returns w, or where it is a terminal a writer that keeps what is
// written and a bar apart.
func newBesideBar(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); !ok || !terminal(f) {
		return w
	}
	return besideBar{w}
}

// Write implements io.Writer.
func (b besideBar) Write(p []byte) (n int, err error) {
	shownBar.mu.Lock()
	bar := shownBar.bar
	shownBar.mu.Unlock()
	if bar == nil {
		return b.w.Write(p)
	}
	err = bar.Beside(func() (err error) { n, err = b.w.Write(p); return err })
	return n, err
}

// stopped is the error of a command that was interrupted, with a hint at how to go
// on from there.
type stopped struct {
	err  error
	hint string
}

func (e *stopped) Error() string { return e.err.Error() }
func (e *stopped) Unwrap() error { return e.err }

// stoppedAt adds a hint to an error of a command that ended since ctx did.
func stoppedAt(ctx context.Context, err error, hint string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return &stopped{err, hint}
}
