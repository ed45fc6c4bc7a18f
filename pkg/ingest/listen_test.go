package ingest

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListens(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]bool{
		"srt://:9000": true, "srt://0.0.0.0:9000": true, "srt://10.0.0.1:9000?mode=listener": true,
		"srt://10.0.0.1:9000": false, "srt://nowhere": false, "udp://:9000": false, "x.ts": false,
		fifo: true, "file:" + fifo: true, filepath.Dir(fifo): false,
	} {
		if got := Listens(url); got != want {
			t.Errorf("%s: %v", url, got)
		}
	}
}
