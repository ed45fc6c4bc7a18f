package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// TestVerifyAndHeal turns bits in the archive of one of two running nodes, in the
// media, in a header box and in an index. Its own passes find them, the peer heals
// the segment, and both views are equal again; the figures and the log say so.
func TestVerifyAndHeal(t *testing.T) {
	t.Parallel()
	source := multicast()
	main, standby := pair(t, source, "segment_duration 1s;")
	for _, n := range []*testNode{main, standby} {
		b, err := os.ReadFile(n.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n.config, append([]byte("verify 1h 100M;\n"), b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, "source", "testsrc", source, "--bitrate", "1M")
	main.up()
	standby.up()
	dir := main.stream(example)
	var els []archive.Element
	within(t, time.Minute, "both nodes have six segments", func() bool {
		els = cleanIn(main)
		return len(els) >= 6 && len(cleanIn(standby)) >= 6
	})
	// Where segments are, as anyone can read it: an extent is plain MP4.
	files, err := segmentsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	media, header := files[els[3].ID], files[els[4].ID]
	main.stop()
	passDue(t, dir)
	turnBit(t, media.path, media.offset+m4f.HeaderBoxSize+500)
	turnBit(t, header.path, header.offset+100)
	turnBit(t, strings.TrimSuffix(header.path, "mp4")+"idx", 64+96+20)

	main.up()
	within(t, time.Minute, "the bad segment is set aside", func() bool {
		return strings.Contains(main.text(), "set aside")
	})
	within(t, time.Minute, "the peer has healed it", func() bool {
		a, err := archive.Open(dir)
		if err != nil {
			return false
		}
		rec, err := a.OpenMedia(els[3].ID, els[3].UTC)
		if err != nil {
			return false
		}
		defer rec.Close()
		return rec.Origin == archive.Healed
	})
	within(t, time.Minute, "the pass has ended", func() bool { return strings.Contains(main.text(), "damage was found") })
	found := main.text()
	main.stop()
	passDue(t, dir)
	main.up()
	within(t, time.Minute, "a pass finds nothing", func() bool {
		st := main.status()
		if st == nil || len(st.Streams) == 0 {
			return false
		}
		v := st.Streams[0].Archive.Verify
		return v.Ended != nil && !v.Running && v.Bad+v.Mended == 0 && v.Segments > 0
	})
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range els {
		if _, err := a.ReadElement(&els[i]); err != nil {
			t.Errorf("segment %d: %v", i, err)
		}
	}
	b, err := os.ReadFile(header.path)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := m4f.ParseHeaderBox(b[header.offset:]); err != nil || h.ID != els[4].ID {
		t.Errorf("the header box: %+v, %v", h, err)
	}
	if status := main.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if strings.Count(found, "the archive is damaged on the disk") < 3 {
		t.Error("the log does not say what was found")
	}
	if n := strings.Count(standby.text(), "damaged on the disk"); n != 0 {
		t.Errorf("the other node found %d", n)
	}
}

// passDue has the next pass over a stream of a node that is down begin at once: the
// last one is made to have ended long ago.
func passDue(t *testing.T, dir string) {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetVerifyState(archive.VerifyState{Ended: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
}

// cleanIn is what a node's archive shows of whole, clean segments.
func cleanIn(n *testNode) []archive.Element { return cleanBelow(n.stream(example)) }

// place is where a segment's header box is.
type place struct {
	path   string
	offset int64
}

// segmentsIn reads the extents of a stream.
func segmentsIn(dir string) (map[m4f.Identity]place, error) {
	out := map[m4f.Identity]place{}
	files, err := extentsOf(dir)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for off := 0; off+8 <= len(b); {
			n := int(b[off])<<24 | int(b[off+1])<<16 | int(b[off+2])<<8 | int(b[off+3])
			if n < 8 {
				return nil, fmt.Errorf("%s: a box of %d bytes", path, n)
			}
			if h, err := m4f.ParseHeaderBox(b[off:]); err == nil {
				out[h.ID] = place{path, int64(off)}
			}
			off += n
		}
	}
	return out, nil
}

func turnBit(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// extentsOf lists the extents of a stream.
func extentsOf(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "*/*/*/*/*.mp4"))
}
