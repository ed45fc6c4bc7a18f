package serve

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// month makes an archive of 30 days of 4 s segments below root, stream example, with
// a gap in each seventh hour, another init segment in each fifth and the wrap of
// the clock where it comes, of segments that hold nothing (archive/FORMAT.md).
func month(b testing.TB, root string) {
	inits := [][]byte{initOf(b, "96x64"), initOf(b, "128x96")}
	s, err := archive.Create(filepath.Join(root, "example"), "", archive.Options{TargetDuration: 4 * m4f.Timescale})
	if err != nil {
		b.Fatal(err)
	}
	for h := range 30 * 24 {
		at := begins.Add(time.Duration(h) * time.Hour)
		init := inits[h/5%2]
		for _, part := range [][2]int{{0, 450}, {450, 900}} {
			first := part[0]
			if h%7 == 3 && first > 0 {
				first += 15
			}
			writeExtent(b, s.Dir(), init, at, first, part[1])
		}
	}
}

func initOf(b testing.TB, size string) []byte {
	segs := cutUp(encoded(b, "-f lavfi -i testsrc2=s="+size+":r=25:d=2 -f lavfi -i sine=440:r=48000:d=2 -c:v libx264 -preset ultrafast -g 25 -c:a aac"), 2*time.Second, 0)
	return segs[0].Init
}

// writeExtent writes the segments first to end of an hour, of 4 s each.
func writeExtent(b testing.TB, dir string, init []byte, hour time.Time, first, end int) {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := func(p []byte) []byte { return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, table)) }
	be := binary.BigEndian
	id := m4f.Identify(init, nil)
	head := append([]byte("TWDVRIDX"), 0, 1, 0, 64, 0, 96, 1, 0)
	head = append(head, id[:]...)
	head = be.AppendUint32(head, uint32(len(init)))
	idx := sum(append(head, make([]byte, 8)...))
	const size = 64 // of media, which nothing reads
	off := int64(len(init))
	media := append([]byte{}, init...)
	for i := first; i < end; i++ {
		utc := m4f.UTCOf(hour.Add(time.Duration(i) * 4 * time.Second))
		h := m4f.Header{ID: m4f.Identify(nil, be.AppendUint64(nil, uint64(utc))), Init: id, MediaTime: int64(utc) & (m4f.Wrap - 1), UTC: utc,
			Duration: 4 * m4f.Timescale, Flags: m4f.Keyframe, Length: size}
		media = append(h.AppendBox(media), make([]byte, size)...)
		r := append([]byte{}, h.ID[:]...)
		r = be.AppendUint64(r, uint64(h.MediaTime))
		r = be.AppendUint64(r, uint64(h.UTC))
		r = be.AppendUint32(r, h.Duration)
		r = be.AppendUint16(r, uint16(h.Flags))
		r = append(r, 1, 0)
		r = append(r, make([]byte, 8)...)
		r = be.AppendUint64(r, uint64(off))
		r = be.AppendUint32(r, size)
		r = be.AppendUint32(r, uint32(i-first))
		r = be.AppendUint64(r, uint64(hour.UnixMilli()))
		idx = append(idx, sum(append(r, 0, 0, 0, 0))...)
		off += m4f.HeaderBoxSize + size
	}
	at := hour.Add(time.Duration(first) * 4 * time.Second)
	path := filepath.Join(dir, at.Format("2006/01/02/15"))
	name := filepath.Join(path, at.Format("0405.000"))
	err := os.MkdirAll(path, 0o750)
	if err == nil {
		err = os.WriteFile(name+".idx", idx, 0o640)
	}
	if err == nil {
		err = os.WriteFile(name+".mp4", media, 0o640)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPlaylist: a playlist of any hour of 30 days within 50 ms, of a day within
// 500 ms; cold is the first one that a node is asked for.
func BenchmarkPlaylist(b *testing.B) {
	testkit.Need(b, "ffmpeg")
	root := b.TempDir()
	month(b, root)
	ask := func(b *testing.B, x *stage, path string, least int) {
		code, text := x.get(path)
		if n := strings.Count(text, "#EXTINF") + strings.Count(text, "<S "); code != http.StatusOK || n < least {
			b.Fatal(path, code, n, text[:min(len(text), 300)])
		}
	}
	open := func() *stage { return &stage{h: handlerOf(fake{m4fhttp.NewRoot(root)})} }
	name := func(day, hours int, ext string) string {
		return fmt.Sprintf("archive-%d-%d%s", begins.Add(time.Duration(day)*24*time.Hour).Unix(), hours*3600, ext)
	}
	for _, c := range []struct {
		name, path string
		least      int
	}{
		{"hour", "/example/hls/va/" + name(17, 1, ".m3u8"), 880},
		{"day", "/example/hls/va/" + name(17, 24, ".m3u8"), 21000},
		{"day-dash", "/example/" + name(17, 24, ".mpd"), 10},
	} {
		coldAndWarm(b, c.name, open, func(b *testing.B, x *stage) {
			x.h.play.lists = newRecent[listKey, *spanList](keepLists)
			ask(b, x, c.path, c.least)
		})
	}
	b.Run("any-hour", func(b *testing.B) {
		x := open()
		worst, n := time.Duration(0), 0
		for b.Loop() {
			began := time.Now()
			ask(b, x, "/example/hls/va/"+fmt.Sprintf("archive-%d-3600.m3u8", begins.Add(time.Duration(n*31%719)*time.Hour+25*time.Minute).Unix()), 870)
			worst = max(worst, time.Since(began))
			n++
		}
		b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
	})
}

// BenchmarkViewers: how late 1 000 viewers of one live stream get its playlist and
// its segments. Each asks for the list every 4 s, as players do, and then for what
// is new in it; the stream goes on as the clock does.
func BenchmarkViewers(b *testing.B) {
	const viewers = 1000
	segs := cutUp(testkit.Stream(b, testsrc.Options{StartPTS: 90000, Duration: 120 * time.Second, Bitrate: 2_000_000}), 4*time.Second, time.Since(begins)-32*time.Second)
	root := b.TempDir()
	x := newTheatreAt(b, root, segs[:8]...)
	x.h.play.clock = clock.System
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: viewers, MaxConnsPerHost: viewers}}
	defer client.CloseIdleConnections()
	began := time.Now()
	var worstList, worstSegment, bytes, late atomic.Int64
	note := func(worst *atomic.Int64, d time.Duration) {
		for {
			w := worst.Load()
			if int64(d) <= w || worst.CompareAndSwap(w, int64(d)) {
				return
			}
		}
	}
	get := func(path string) (string, time.Duration) {
		t := time.Now()
		res, err := client.Get(x.URL + path)
		if err != nil {
			b.Error(err)
			return "", 0
		}
		defer res.Body.Close()
		if strings.HasSuffix(path, ".m4s") {
			n, _ := io.Copy(io.Discard, res.Body)
			bytes.Add(n)
			return "", time.Since(t)
		}
		text, _ := io.ReadAll(res.Body)
		return string(text), time.Since(t)
	}
	for b.Loop() {
		var all sync.WaitGroup
		stop := make(chan struct{})
		all.Go(func() { // the recorder
			for i := 8; i < len(segs); i++ {
				select {
				case <-time.After(4 * time.Second):
				case <-stop:
					return
				}
				x.add(b, archive.Live, segs[i])
			}
		})
		for v := range viewers {
			all.Go(func() {
				time.Sleep(time.Duration(v) * 4 * time.Second / viewers)
				last := ""
				for range 4 {
					text, d := get("/example/hls/va/index.m3u8")
					note(&worstList, d)
					list := uris(text)
					if uri := list[len(list)-1]; uri != last {
						last = uri
						_, d = get("/example/hls/va/" + uri)
						note(&worstSegment, d)
						if d > 4*time.Second {
							late.Add(1)
						}
					}
					time.Sleep(4*time.Second - d)
				}
			})
		}
		time.Sleep(17 * time.Second)
		close(stop)
		all.Wait()
	}
	b.ReportMetric(float64(worstList.Load())/1e6, "ms-worst-list")
	b.ReportMetric(float64(worstSegment.Load())/1e6, "ms-worst-segment")
	b.ReportMetric(float64(late.Load()), "late")
	b.ReportMetric(float64(bytes.Load())/1e6/time.Since(began).Seconds(), "MB/s")
}
