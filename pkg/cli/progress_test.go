package cli

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// pty is a terminal: what is written to tty is shown, what is typed is read there.
type pty struct {
	master, tty *os.File
	shown       testkit.Log
	done        chan struct{}
}

// newPTY opens a terminal of 100 columns.
func newPTY(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system gives no terminals: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skipf("this system gives no terminals: %v", err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this system gives no terminals: %v", err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	p := &pty{master: master, tty: tty, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.shown.Write(buf[:n])
			if err != nil { // EIO: nobody has the terminal open any more
				return
			}
		}
	}()
	t.Cleanup(func() { p.close() })
	return p
}

// close ends the terminal and returns all that was shown.
func (p *pty) close() string {
	p.tty.Close()
	<-p.done
	p.master.Close()
	return p.shown.String()
}

// terminalOf is the process's streams with a terminal as the standard error.
func terminalOf(p *pty, env map[string]string) IO {
	sys := System()
	sys.Err = p.tty
	sys.LookupEnv = func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	return sys
}

const csi = "\x1b["

// A bar shows bytes, rate and time left, in colours unless they are not wanted; log
// lines and a total that changes do not disturb it.
func TestProgress(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"colours": {"TERM": "xterm"}, "NO_COLOR": {"TERM": "xterm", "NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}, "empty NO_COLOR": {"TERM": "xterm", "NO_COLOR": ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPTY(t)
			io := terminalOf(p, env)
			bar := newProgress(io, -1, "verify")
			log := slog.New(slog.NewTextHandler(newBesideBar(io.Err), nil))
			bar.Add(1 << 20)
			bar.Total(4 << 20)
			bar.Add(1 << 20)
			time.Sleep(110 * time.Millisecond) // the bar is drawn ten times a second
			bar.Add(1 << 20)
			log.Info("something is told")
			bar.Add(1 << 20) // all, but more comes
			bar.Total(8 << 20)
			time.Sleep(110 * time.Millisecond)
			bar.Add(1 << 20)
			bar.Done()
			bar.Done()
			bar.Add(1)
			text := p.close()
			for _, want := range []string{"verify", `\d+%`, `B/s`, `62%`, `\(5\.2/8\.4 MB, `, `\[\d+s:\d+s\]`} {
				if !regexp.MustCompile(want).MatchString(text) {
					t.Errorf("no %s is shown", want)
				}
			}
			if line := regexp.MustCompile(`[\r\n]time=.*msg="something is told"\r\n`).FindString(text); line == "" {
				t.Error("the log has no line of its own")
			}
			if shown, want := strings.Contains(text, csi), name == "colours" || name == "empty NO_COLOR"; shown != want {
				t.Errorf("colours: %v, want %v", shown, want)
			}
			if lines := strings.Split(text, "\r"); strings.TrimSpace(lines[len(lines)-1]) != "" {
				t.Errorf("the bar is still there: %q", lines[len(lines)-1])
			}
			if t.Failed() {
				t.Logf("%q", text)
			}
		})
	}
}

// Where nobody looks there is no bar.
func TestProgressElsewhere(t *testing.T) {
	var out bytes.Buffer
	sys := System()
	sys.Err = &out
	bar := newProgress(sys, 10, "x")
	bar.Add(5)
	bar.Total(20)
	if err := bar.Beside(func() error { out.WriteString("line"); return nil }); err != nil || out.String() != "line" {
		t.Errorf("%q, %v", out.String(), err)
	}
	bar.Done()
}

// onTerminal starts the program as the shell of a terminal does, so that Ctrl-C
// there reaches it.
func onTerminal(t *testing.T, p *pty, stdout io.Writer, args ...string) *exec.Cmd {
	t.Helper()
	cmd := twindvr(args...)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.tty, stdout, p.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

// waitShown waits until the terminal shows something.
func waitShown(t *testing.T, p *pty, what string) {
	t.Helper()
	re := regexp.MustCompile(what)
	for end := time.Now().Add(patience); !re.MatchString(p.shown.String()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is not shown: %q", what, p.shown.String())
		}
	}
}

// interrupt types Ctrl-C when the bar is there, and returns what is shown in the end.
func interrupt(t *testing.T, p *pty, cmd *exec.Cmd) string {
	t.Helper()
	waitShown(t, p, `\d+%.*B/s`)
	if _, err := p.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitTrouble {
		t.Errorf("exit status %d, %v", code, err)
	}
	text := p.close()
	if !strings.Contains(text, "twindvr: interrupted") {
		t.Errorf("it shows %q", text)
	}
	return text
}

// segmentsIn is how many segments the view of an archive has.
func segmentsIn(t *testing.T, dir string) int {
	t.Helper()
	s, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	els, err := s.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(els)
}

// Ctrl-C at a terminal leaves what the next run goes on from.
func TestInterrupt(t *testing.T) {
	data, ids, _ := sampleM4F(t)
	full := filepath.Join(t.TempDir(), "full")
	record := twindvr("record", full, "--sync", "off")
	record.Stdin = bytes.NewReader(data)
	if err := record.Run(); err != nil {
		t.Fatal(err)
	}
	rate := fmt.Sprint(len(data) / 8) // so that it takes eight seconds

	t.Run("backfill", func(t *testing.T) {
		p, dir := newPTY(t), filepath.Join(t.TempDir(), "part")
		cmd := onTerminal(t, p, nil, "backfill", dir, full, "--limit-rate", rate, "--jobs", "1")
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if s, err := archive.Open(dir); err == nil {
				if els, err := s.Span(0, 0); err == nil && len(els) > 1 {
					break
				}
			}
			if time.Now().After(end) {
				t.Fatalf("nothing is fetched: %q", p.shown.String())
			}
		}
		if text := interrupt(t, p, cmd); !strings.Contains(text, "goes on from there") {
			t.Errorf("it shows %q", text)
		}
		had := segmentsIn(t, dir)
		if had < 2 || had >= len(ids) {
			t.Errorf("%d of %d segments were there", had, len(ids))
		}
		out, err := twindvr("backfill", dir, full).Output()
		if want := fmt.Sprintf("fetched: %d segments", len(ids)-had); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("the next run: %q, %v, want %s", out, err, want)
		}
	})
	t.Run("verify", func(t *testing.T) {
		p := newPTY(t)
		text := interrupt(t, p, onTerminal(t, p, nil, "verify", full, "--limit-rate", "262144"))
		if !strings.Contains(text, "what was found is set aside") {
			t.Errorf("it shows %q", text)
		}
		if err := twindvr("verify", full, "--quiet").Run(); err != nil {
			t.Errorf("the next run: %v", err)
		}
	})
	t.Run("export", func(t *testing.T) {
		p := newPTY(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := onTerminal(t, p, w, "export", full)
		w.Close()
		drained := make(chan struct{})
		go func() { // a reader that is slow until it is over
			defer close(drained)
			defer r.Close()
			for b := make([]byte, 4096); ; {
				if _, err := r.Read(b); err != nil {
					return
				}
				if !strings.Contains(p.shown.String(), "^C") {
					time.Sleep(2 * time.Millisecond)
				}
			}
		}()
		interrupt(t, p, cmd)
		<-drained
	})
}
