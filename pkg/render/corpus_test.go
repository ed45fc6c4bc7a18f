package render

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCorpusExplore(t *testing.T) {
	needFFmpeg(t)
	for _, path := range corpus(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			ts, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			segs := record(ts, time.Second)
			if len(segs) == 0 {
				t.Skip("no segments")
			}
			for _, fast := range []bool{false, true} {
				name, res := export(t, newMemory(segs...), Options{Faststart: fast})
				t.Logf("%v %+v", fast, res)
				for _, s := range probe(t, name) {
					t.Logf("%+v", s)
				}
			}
			for _, s := range probe(t, path) {
				t.Logf("source %+v", s)
			}
		})
	}
}
