package node_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// salvageIn is what a node's archive holds of a stream's packets. Entries come
// and go while it is read.
func salvageIn(t *testing.T, dir string) (*salvage.Store, []salvage.Entry) {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		return nil, nil
	}
	all, err := a.Salvage().Entries(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a.Salvage(), all
}

// TestNodeKeepsSalvage gives one node three streams of a lossy source: packets
// of their damaged segments are kept within the limit, or not where that is off, and
// where they cannot be kept recording goes on.
func TestNodeKeepsSalvage(t *testing.T) {
	t.Parallel()
	ports := []int{freeUDP(t), freeUDP(t), freeUDP(t)}
	n := newNode(t, "node", fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream keeps { url udp://127.0.0.1:%d; dvr %%DIR 3d; segment_duration 1s; salvage 2M 1h; }
stream off { url udp://127.0.0.1:%d; dvr %%DIR 3d; segment_duration 1s; salvage off; }
stream cannot { url udp://127.0.0.1:%d; dvr %%DIR 3d; segment_duration 1s; }
`, ports[0], ports[1], ports[2]))
	n.up()
	within(t, 20*time.Second, "the node is up", func() bool {
		_, err := os.Stat(filepath.Join(n.stream("cannot"), "stream.json"))
		return err == nil
	})
	if err := os.WriteFile(filepath.Join(n.stream("cannot"), salvage.DirName), []byte("a file"), 0o640); err != nil {
		t.Fatal(err)
	}
	args := []string{"testsrc", "--bitrate", "3M"}
	for _, p := range ports {
		args = append(args, fmt.Sprintf("udp://127.0.0.1:%d?loss=1%%25", p))
	}
	start(t, "source", args...)
	// Three damaged segments of 1 s fill 2M with what belongs to them.
	within(t, time.Minute, "salvage is kept and dropped by its limit", func() bool {
		st := n.status()
		if st == nil || len(st.Streams) != 3 {
			return false
		}
		s := map[string]int64{}
		for _, one := range st.Streams {
			a := one.Archive
			if a.Damaged < 6 {
				return false
			}
			s[one.Name] = a.Salvage.Kept
			switch one.Name {
			case "keeps":
				if a.Salvage.Limit != 2<<20 || a.Salvage.Age != 3600 || a.Salvage.Bytes > 2<<20 || a.Salvage.Error != "" {
					t.Fatalf("keeps: %+v", a.Salvage)
				}
			case "off":
				if a.Salvage.Limit != 0 || a.Salvage.Entries != 0 {
					t.Fatalf("off: %+v", a.Salvage)
				}
			case "cannot":
				if a.Salvage.Entries != 0 || a.Error != "" || a.Salvage.Limit != 1<<30 {
					t.Fatalf("cannot: %+v, %s", a.Salvage, a.Error)
				}
				if a.Salvage.Dropped < 4 || a.Salvage.Error == "" {
					return false
				}
			}
		}
		return s["keeps"] >= 5 && s["off"] == 0 && s["cannot"] == 0
	})
	if _, err := os.Stat(filepath.Join(n.stream("off"), salvage.DirName)); err == nil {
		t.Error("salvage is off and has a directory")
	}
	if c := strings.Count(n.text(), "packets of damaged segments cannot be kept"); c != 1 {
		t.Errorf("it is told %d times that packets cannot be kept", c)
	}
	checkEvent(t, n.stream("cannot"), "packets of damaged segments could not be kept")
	if code := n.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	checkSalvage(t, n.stream("keeps"))
}

func checkEvent(t *testing.T, dir, msg string) {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	events, err := a.Events(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range events {
		if e.Kind == event.Disk && strings.Contains(e.Msg, msg) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d events that %s", found, msg)
	}
}

// checkSalvage wants every entry to be cut again as it was recorded, and its
// files to be a transport stream for anybody.
func checkSalvage(t *testing.T, dir string) {
	t.Helper()
	store, all := salvageIn(t, dir)
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("nothing is kept")
	}
	var inodes int64
	for _, e := range all {
		c, err := store.Read(e)
		if err != nil {
			t.Error(err)
			continue
		}
		h := &e.Segments[0]
		found := false
		for _, s := range segment.Resegment(c, e.Program, e.Target) {
			found = found || s.Header.ID == h.ID
		}
		if !found && !h.Partial() { // it ended with the node
			t.Errorf("%s: cut again it does not give its segment %s", e.Name, h.ID)
		}
		if has, err := a.Has(h.ID, h.UTC); err != nil || !has {
			t.Errorf("%s: the archive does not have its segment: %v", e.Name, err)
		}
		inodes += int64(c.Len())
	}
	u, err := store.Usage()
	if err != nil || u.Entries != len(all) || len(all) > 1 && u.Bytes >= inodes*salvage.PacketSize {
		t.Errorf("%+v of %d entries with %d packets in all: they share none, %v", u, len(all), inodes, err)
	}
	files, err := filepath.Glob(filepath.Join(store.Dir(), all[0].Name, "*.ts"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "format=format_name:stream=codec_name", "-of", "csv", files[0]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mpegts") || !strings.Contains(string(out), "h264") {
		t.Errorf("ffprobe: %v: %s", err, out)
	}
	if n := m4f.UTCOf(time.Now()); all[len(all)-1].End() > n.Add(m4f.Timescale) {
		t.Errorf("salvage of the future: %v", all[len(all)-1].End().Time())
	}
}
