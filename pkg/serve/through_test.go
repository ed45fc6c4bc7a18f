package serve

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// hung is a node whose peers take requests and do not answer.
type hung struct {
	fake
	unasked bool // it is known that they do not
	asked   int
}

func (n *hung) Offered(ctx context.Context, _ string, _, _ m4f.UTC) ([]archive.Record, error) {
	n.asked++
	if n.unasked {
		return nil, ErrUnasked
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(2 * time.Second):
		return nil, ErrUnasked
	}
}

func (n *hung) Heal(ctx context.Context, _ string, _, _ m4f.UTC) error {
	if n.unasked {
		return ErrUnasked
	}
	<-ctx.Done()
	return ctx.Err()
}

// hungTheatre is a node with hung peers and some of a recording.
func hungTheatre(t *testing.T, n *hung, segs ...*m4f.Segment) *Handler {
	t.Helper()
	dir := t.TempDir()
	s, err := archive.Create(dir+"/example", "", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	(&theatre{stream: s}).add(t, archive.Live, segs...)
	n.fake = fake{m4fhttp.NewRoot(dir)}
	h := handlerOf(n)
	sim := clock.NewSim(begins)
	sim.Advance(4 * time.Hour)
	h.play.clock = sim
	return h
}

func askHung(h http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPeersThatHang: what peers may have is not said to be nowhere while they cannot
// be asked.
func TestPeersThatHang(t *testing.T) {
	segs := recorded(t, 10*time.Second, 2*time.Second)
	for _, unasked := range []bool{false, true} {
		h := hungTheatre(t, &hung{unasked: unasked}, segs...)
		synctest.Test(t, func(t *testing.T) {
			at := begins.Unix() + 3*3600
			for _, path := range []string{
				spanName(600, 60, ".mp4"), spanName(600, 60, ".ts"), spanName(600, 60, ".m3u8"), spanName(600, 60, ".mpd"),
				fmt.Sprintf("preview-%d.mp4", at), fmt.Sprintf("hls/ts/%d000-4000.ts", at), fmt.Sprintf("hls/va/%d000-4000-eef4f2ca.m4s", at),
			} {
				w := askHung(h, "/example/"+path)
				if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			}
			if w := askHung(h, "/example/"+spanName(0, 10, ".mp4")); w.Code != http.StatusOK {
				t.Errorf("what is here: %d", w.Code)
			}
			if w := askHung(h, "/example/"+spanName(600, 0, ".m3u8")); w.Code != http.StatusNotFound {
				t.Errorf("nothing that anybody has: %d", w.Code)
			}
		})
	}
}

// TestManyGapsAndPeersThatHang: a download waits for peers for some seconds in all,
// however many gaps there are.
func TestManyGapsAndPeersThatHang(t *testing.T) {
	segs := recorded(t, 60*time.Second, 2*time.Second)
	var some []*m4f.Segment
	for i := 0; i < len(segs); i += 2 {
		some = append(some, segs[i])
	}
	n := &hung{}
	h := hungTheatre(t, n, some...)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := askHung(h, "/example/"+spanName(0, 60, ".mp4"))
		if took := time.Since(began); w.Code != http.StatusOK || took > 4*time.Second || n.asked < 2 {
			t.Errorf("%d after %s, %d gaps asked about", w.Code, took, n.asked)
		}
	})
}
