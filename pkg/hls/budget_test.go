package hls

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// zeros are as many of them.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n <= 0 {
		return 0, io.EOF
	}
	k := min(int64(len(p)), z.n)
	clear(p[:k])
	z.n -= k
	return int(k), nil
}

// hostile serves video and renditions whose segments are of zeros, and very
// large: with their length ahead, or without.
func hostile(t *testing.T, renditions int, size int64, counted bool) *origin {
	o := newOrigin(t)
	var b strings.Builder
	b.WriteString("#EXTM3U\n")
	for k := range renditions {
		fmt.Fprintf(&b, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"%d\",URI=\"a.m3u8\"\n", k)
	}
	b.WriteString("#EXT-X-STREAM-INF:BANDWIDTH=1000,AUDIO=\"a\"\na.m3u8\n")
	o.put("/all.m3u8", b.String())
	o.put("/a.m3u8", o.list(1, 8, true))
	o.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if !strings.HasSuffix(r.URL.Path, ".ts") {
			return false
		}
		if counted {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.Copy(w, &zeros{size})
		return true
	}
	return o
}

// Whatever a server sends, no more than maxHeld is held of all playlists'
// segments, however many there are.
func TestHostileMemory(t *testing.T) {
	for _, v := range []struct {
		size    int64
		counted bool
	}{{maxAudio - 1, true}, {maxAudio - 1, false}, {1 << 40, false}, {maxSegment, true}} {
		t.Run(fmt.Sprintf("%d %t", v.size, v.counted), func(t *testing.T) {
			o := hostile(t, 4, v.size, v.counted)
			p := mustPull(t, o, "/all.m3u8")
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var wg sync.WaitGroup
			for _, f := range append([]*Follower{p.Main}, p.Audio...) {
				wg.Go(func() {
					// Nothing is released.
					for {
						if _, err := f.Next(ctx); err != nil {
							return
						}
					}
				})
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			most := uint64(0)
			for running := true; running; {
				select {
				case <-done:
					running = false
				case <-time.After(20 * time.Millisecond):
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
				}
			}
			if held := p.Main.client.Held(); held > maxHeld || held == 0 {
				t.Errorf("%d bytes were held", held)
			}
			if most > 600<<20 {
				t.Errorf("%d bytes of heap", most)
			}
		})
	}
}

// Five playlists that are read side by side all go on, though they want more
// than may be fetched ahead, and nothing is lost or held at the end.
func TestBudgetFlows(t *testing.T) {
	for _, counted := range []bool{true, false} {
		o := hostile(t, 4, 24<<20, counted)
		p := mustPull(t, o, "/all.m3u8")
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		all := append([]*Follower{p.Main}, p.Audio...)
		lanes := make([]chan *Delivery, len(all))
		var wg sync.WaitGroup
		for k, f := range all {
			lanes[k] = make(chan *Delivery, 1)
			wg.Go(func() {
				defer close(lanes[k])
				for {
					d, err := f.Next(ctx)
					if err != nil {
						return
					}
					select {
					case lanes[k] <- d:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		n := 0
		last := make([]*Delivery, len(all))
		for k := 0; k < len(all)*8; k++ {
			last[k%len(all)].Release()
			d := <-lanes[k%len(all)]
			if d == nil || len(d.Data) != 24<<20 || d.Missing > 0 {
				t.Errorf("segment %d: missing", k)
				break
			}
			last[k%len(all)] = d
			n++
		}
		for _, d := range last {
			d.Release()
		}
		cancel()
		wg.Wait()
		b := p.Main.client.budget
		if n != 40 || p.stats.Lost.Load() > 0 || b.now != 0 || b.ahead != 0 {
			t.Errorf("%d segments, %d lost; %d and %d bytes are still held", n, p.stats.Lost.Load(), b.now, b.ahead)
		}
	}
}
