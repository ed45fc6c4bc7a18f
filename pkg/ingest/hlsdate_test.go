package ingest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

// simPackager is a live stream of segments of six seconds in simulated time.
type simPackager struct {
	sim      *clock.Sim
	start    time.Time
	dated    bool          // it writes EXT-X-PROGRAM-DATE-TIME
	wrong    time.Duration // by which that is
	modified bool          // it says when it wrote what
	late     []time.Duration
}

const simSegment = 6 * time.Second

// published is when segment n can be had: some time after its end.
func (p *simPackager) published(n int) time.Time {
	return p.start.Add(time.Duration(n+1)*simSegment + p.late[n%len(p.late)])
}

func (p *simPackager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := p.sim.Now()
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	var n int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d.ts", &n); err == nil {
		if p.modified {
			w.Header().Set("Last-Modified", p.published(n).UTC().Format(http.TimeFormat))
		}
		w.Write(clockedSegment(n))
		return
	}
	last := 0
	for !p.published(last).After(now) {
		last++
	}
	first := max(last-5, 0)
	fmt.Fprintf(w, "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:%d\n", first)
	for n := first; n < last; n++ {
		if p.dated {
			fmt.Fprintf(w, "#EXT-X-PROGRAM-DATE-TIME:%s\n", p.start.Add(time.Duration(n)*simSegment+p.wrong).UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		fmt.Fprintf(w, "#EXTINF:6.000,\n%d.ts\n", n)
	}
}

// clockedSegment is a transport stream of nothing but clock references, ten a
// second, from near the wrap of the clock on.
func clockedSegment(n int) []byte {
	var b []byte
	for k := range 60 {
		p := make([]byte, 188)
		copy(p, []byte{0x47, 0x01, 0x00, 0x20, 183, 0x10})
		base := uint64(1<<33-20*90000+n*6*90000+k*9000) & (1<<33 - 1)
		binary.BigEndian.PutUint32(p[6:], uint32(base>>1))
		p[10] = byte(base) << 7
		b = append(b, p...)
	}
	return b
}

// TestHLSDates has two recorders begin at different times, in simulated time:
// what arrived when differs by a second at most, and is near the truth.
func TestHLSDates(t *testing.T) {
	for _, v := range []struct {
		name            string
		dated, modified bool
		wrong           time.Duration
	}{{"dated", true, false, 0}, {"modified", false, true, 0}, {"neither", false, false, 0}, {"wrongly dated", true, true, -time.Hour}, {"ahead", true, true, 20 * time.Second}} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			sim := clock.NewSim(start)
			p := &simPackager{sim: sim, start: start.Add(-time.Minute), dated: v.dated, wrong: v.wrong, modified: v.modified}
			for range 7 {
				p.late = append(p.late, time.Duration(rand.IntN(300))*time.Millisecond)
			}
			server := httptest.NewServer(p)
			defer server.Close()
			stop := make(chan bool)
			ticking := make(chan bool)
			go func() {
				defer close(ticking)
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						sim.Advance(25 * time.Millisecond)
					}
				}
			}()
			defer func() { close(stop); <-ticking }()
			var dates [2]map[int64]time.Time
			done := make(chan bool)
			for k, delay := range []time.Duration{0, 9300 * time.Millisecond} {
				go func() {
					defer func() { done <- true }()
					<-sim.After(delay)
					dates[k] = arrivals(t, sim, "hls"+strings.TrimPrefix(server.URL, "http")+"/live.m3u8", start.Add(36*time.Second))
				}()
			}
			<-done
			<-done
			both := 0
			for media, a := range dates[0] {
				truth := p.start.Add(time.Duration(media) * time.Millisecond)
				if d := a.Sub(truth); d > 2*time.Second || d < -500*time.Millisecond {
					t.Errorf("media time %d ms is dated %v late", media, d)
				}
				if b, ok := dates[1][media]; ok {
					both++
					if d := a.Sub(b); d > time.Second || d < -time.Second {
						t.Errorf("media time %d ms is dated %v apart", media, d)
					}
				}
			}
			if both < 150 {
				t.Errorf("%d times compared", both)
			}
		})
	}
}

// arrivals reads a source up to a time and returns when what arrived, by media
// time in milliseconds.
func arrivals(t *testing.T, sim *clock.Sim, url string, until time.Time) map[int64]time.Time {
	out := map[int64]time.Time{}
	src, err := Open(t.Context(), url, Options{Clock: sim})
	if err != nil {
		t.Error(err)
		return out
	}
	defer src.Close()
	for sim.Now().Before(until) {
		b, err := src.Read(t.Context())
		if err != nil {
			t.Error(err)
			return out
		}
		if m, ok := parsePCR(b.Datagrams[0]); ok {
			out[(m.pcr/300-(1<<33-20*90000)+1<<34)%(1<<33)/90] = b.Arrived
		}
		if b.Arrived.After(sim.Now()) {
			t.Errorf("what arrives at %v is dated %v", sim.Now(), b.Arrived)
		}
	}
	return out
}
