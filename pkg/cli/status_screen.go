package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/twindvr/twindvr/pkg/serve"
)

// paint colours text for a terminal; the zero value leaves it as it is.
type paint struct{ on bool }

// newPaint colours where the output is a terminal that can, and NO_COLOR
// (no-color.org) is not set.
func newPaint(io IO) paint {
	no, set := io.LookupEnv("NO_COLOR")
	kind, _ := io.LookupEnv("TERM")
	return paint{terminal(io.Out) && (!set || no == "") && kind != "dumb"}
}

func (p paint) dye(code, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string { return p.dye("1", s) }
func (p paint) dim(s string) string  { return p.dye("2", s) }
func (p paint) good(s string) string { return p.dye("32", s) }
func (p paint) warn(s string) string { return p.dye("33", s) }
func (p paint) bad(s string) string  { return p.dye("1;31", s) }

// mode colours the mode of a stream.
func (p paint) mode(s *serve.StreamStatus, text string) string {
	switch {
	case s.Mode == serve.Offline || s.Unreplicated || !s.Healthy && s.Mode != serve.Emergency:
		return p.bad(text)
	case s.Mode == serve.Emergency || s.Mode == serve.Recovery:
		return p.warn(text)
	case s.Retired || s.Mode == "":
		return p.dim(text)
	}
	return p.good(text)
}

// screenSize is that of the terminal that the output is; 0: it is none.
func screenSize(out io.Writer) (width, height int) {
	f, ok := out.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// watchEvery is how often --watch draws.
const watchEvery = 2 * time.Second

// watch draws what lines returns again and again until the context ends, which is
// how one leaves it. An error of the first time is returned; later ones are
// shown, and what was known stays below them.
func watch(ctx context.Context, out IO, lines func(ctx context.Context, height int) ([]string, error)) error {
	s := &screen{out: out.Out, p: newPaint(out)}
	defer s.close()
	var last []string
	for {
		width, height := screenSize(out.Out)
		now, err := lines(ctx, height)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && last == nil:
			return err
		case err != nil:
			now = append([]string{s.p.bad("! ") + err.Error() + "; trying again", ""}, last...)
		default:
			last = now
		}
		if err := s.draw(now, width, height); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-out.Clock.After(watchEvery):
		}
	}
}

// screen is what watch draws on: a terminal is drawn over in place, and anything
// else gets one picture behind the other.
type screen struct {
	out   io.Writer
	p     paint
	drawn bool
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearAll   = "\x1b[2J"
	goHome     = "\x1b[H"
	clearLine  = "\x1b[K" // to its end
	clearBelow = "\x1b[J"
)

// draw shows lines, as many as there is room for.
func (s *screen) draw(lines []string, width, height int) error {
	var b strings.Builder
	if !terminal(s.out) {
		if s.drawn {
			b.WriteString("\n")
		}
		s.drawn = true
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
		_, err := io.WriteString(s.out, b.String())
		return err
	}
	if !s.drawn {
		b.WriteString(hideCursor + clearAll)
		s.drawn = true
	}
	b.WriteString(goHome)
	if most := max(height-1, 1); height > 0 && len(lines) > most {
		more := len(lines) - most + 1
		lines = append(append([]string{}, lines[:most-1]...), s.p.dim(fmt.Sprintf("… and %s more", count(more, "line"))))
	}
	for _, l := range lines {
		b.WriteString(cut(l, width) + clearLine + "\r\n")
	}
	b.WriteString(clearBelow)
	_, err := io.WriteString(s.out, b.String())
	return err
}

// cut takes from a line what is beyond a width: it would go on in the next one.
// What sets colours takes no room.
func cut(line string, width int) string {
	if width <= 0 {
		return line
	}
	var b strings.Builder
	escape := false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case width == 0:
			continue
		default:
			width--
		}
		b.WriteRune(r)
	}
	return b.String()
}

// close leaves the terminal as it was found, below what was drawn.
func (s *screen) close() {
	if s.drawn && terminal(s.out) {
		_, _ = io.WriteString(s.out, showCursor) // there is nobody to tell
	}
}
