package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// readAll reads a source to its end.
func readAll(t *testing.T, s Source) []byte {
	t.Helper()
	var all []byte
	for {
		b, err := s.Read(t.Context())
		if err == io.EOF {
			if _, err := s.Read(t.Context()); err != io.EOF {
				t.Errorf("Read after the end = %v", err)
			}
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Datagrams) != 1 || len(b.Datagrams[0]) == 0 || b.Arrived.IsZero() {
			t.Fatalf("batch %+v", b)
		}
		all = append(all, b.Datagrams[0]...)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestFile(t *testing.T) {
	want := randomBytes(3*blockSize + 1234)
	path := filepath.Join(t.TempDir(), "a 100%:b.ts")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{path, "file:" + path, "file://" + path,
		"file://localhost" + strings.ReplaceAll(strings.ReplaceAll(path, "%", "%25"), " ", "%20")} {
		s := open(t, url, Options{})
		if got := readAll(t, s); sha256.Sum256(got) != sha256.Sum256(want) {
			t.Errorf("%s: %d bytes, want %d", url, len(got), len(want))
		}
		if st := s.Stats(); st.Packets != 4 || st.Bytes != uint64(len(want)) {
			t.Errorf("%s: stats %+v", url, st)
		}
	}
}

func TestEmptyFile(t *testing.T) {
	if got := readAll(t, open(t, "/dev/null", Options{})); len(got) != 0 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct{ url, want string }{
		{"", "no path"},
		{"file:", "no path"},
		{"nosuch.ts", "open nosuch.ts: file does not exist in " + dir},
		{dir, "source " + dir + ": is a directory; name a file in it"},
		{"file://elsewhere/x.ts", "not this machine"},
	} {
		if _, err := Open(t.Context(), c.url, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want %q in it", c.url, err, c.want)
		}
	}
	if _, err := Open(t.Context(), "nosuch.ts", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestReadErrorNamesFileAndOffset(t *testing.T) {
	s := open(t, "/proc/self/mem", Options{}) // nothing is mapped at 0
	if _, err := s.Read(t.Context()); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "reading /proc/self/mem at byte 0") {
		t.Errorf("Read = %v", err)
	}
}

func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		done <- err
	}()
	cancel() // before there is a writer
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Read = %v", err)
	}
	want := randomBytes(5 << 20)
	go func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = w.Write(want)
			err = errors.Join(err, w.Close())
		}
		done <- err
	}()
	if got := readAll(t, s); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStdinPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := open(t, "-", Options{Stdin: r})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Read = %v", err)
	}
	go func() {
		w.Write([]byte("one two"))
		w.Close()
	}()
	if got := readAll(t, s); string(got) != "one two" {
		t.Errorf("got %q", got)
	}
}

func TestStdinReader(t *testing.T) {
	s := open(t, "-", Options{Stdin: iotest.HalfReader(strings.NewReader("one two"))})
	if got := readAll(t, s); string(got) != "one two" {
		t.Errorf("got %q", got)
	}
	s = open(t, "-", Options{Stdin: io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errors.New("cable cut")))})
	var err error
	for err == nil {
		_, err = s.Read(t.Context())
	}
	if err.Error() != "reading standard input at byte 3: cable cut" {
		t.Error(err)
	}
}
