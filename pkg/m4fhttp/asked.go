package m4fhttp

import (
	"sync"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxAsked bounds the identities remembered, of 32 bytes each.
const maxAsked = 1 << 12

// asked remembers the segments that were asked for last. Media goes from its file
// to the socket without passing through the program, so that nobody has looked at
// it. Peers check what they get, and one to which a segment came in order does not
// ask for it again: a segment that is asked for twice is looked at before it is
// sent.
type asked struct {
	mu   sync.Mutex
	ids  map[m4f.Identity]bool
	ring []m4f.Identity
	next int
}

// again says whether an identity was asked for before, and remembers it. One that
// was is forgotten: it is looked at once for every second time.
func (a *asked) again(id m4f.Identity) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids[id] {
		delete(a.ids, id)
		return true
	}
	if a.ids == nil {
		a.ids = make(map[m4f.Identity]bool)
	}
	if len(a.ring) < maxAsked {
		a.ring = append(a.ring, id)
	} else {
		delete(a.ids, a.ring[a.next])
		a.ring[a.next] = id
		a.next = (a.next + 1) % maxAsked
	}
	a.ids[id] = true
	return false
}
