package replicate

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// A segment that a peer begins to give and then holds back does not keep those
// from being taken that the peer lists after it.
func TestHungFetchHoldsUpNothing(t *testing.T) {
	hung := spec{n: 1}.make(t).Header.ID.String()
	release := make(chan struct{})
	var asked atomic.Int64
	b := newArchive(t, spec{n: 0})
	p := servePeer(t, b, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, hung) {
				asked.Add(1)
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	a := newArchive(t)
	f := startFollowing(t, a, p, FollowOptions{})
	until(t, "what was there", has(t, a, spec{n: 0}))
	appendAll(t, b, spec{n: 1})
	until(t, "asked for what hangs", func() bool { return asked.Load() > 0 })
	appendAll(t, b, clean(2, 8)...)
	until(t, "those behind it", has(t, a, clean(2, 8)...))
	// It is asked for again, and that holds up nothing either.
	until(t, "asked again", func() bool { return asked.Load() > 1 })
	appendAll(t, b, clean(8, 10)...)
	until(t, "those that come later", has(t, a, clean(8, 10)...))
	if has(t, a, spec{n: 1})() || f.Stats().Pending != 1 {
		t.Errorf("%+v", f.Stats())
	}
	close(release)
	until(t, "all", has(t, a, clean(0, 10)...))
	sameView(t, a, b)
}
