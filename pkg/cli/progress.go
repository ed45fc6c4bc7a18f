package cli

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows how far a long command is: bytes, rate and time left, on a
// terminal only. Elsewhere every method does nothing.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress starts a bar of total bytes; -1 where the total is unknown.
func newProgress(io IO, total int64, label string) *progress {
	if !terminal(io.Err) {
		return &progress{}
	}
	return &progress{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(io.Err),
		progressbar.OptionSetDescription(label),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
	)}
}

// Add moves the bar by n bytes.
func (p *progress) Add(n int64) {
	if p.bar != nil {
		// A bar that cannot be drawn must not stop the work.
		_ = p.bar.Add64(n)
	}
}

// Total corrects the total once it is known better.
func (p *progress) Total(n int64) {
	if p.bar != nil {
		p.bar.ChangeMax64(n)
	}
}

// Done takes the bar off the terminal.
func (p *progress) Done() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Close()
	}
}
