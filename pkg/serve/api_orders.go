package serve

import (
	"net/http"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// How a backfill stands.
const (
	BackfillWaiting = "waiting"
	BackfillRunning = "running"
	BackfillDone    = "done"
	BackfillFailed  = "failed"
)

// Backfill is a backfill that was asked for.
type Backfill struct {
	Stream string     `json:"stream"`
	From   Time       `json:"from"`
	To     Time       `json:"to"`
	Peers  []string   `json:"peers"` // one after the other
	State  string     `json:"state"`
	Began  time.Time  `json:"began"`
	Ended  *time.Time `json:"ended,omitempty"`
	Peer   string     `json:"peer,omitempty"` // that is being fetched from, or was last
	// Segments and Bytes were fetched, or made out of packets; LeftBytes are about
	// how many are to come from this peer, and Left counts segments that could not
	// be had.
	Segments  int      `json:"segments"`
	Bytes     int64    `json:"bytes"`
	LeftBytes int64    `json:"left_bytes"`
	Left      int      `json:"left_segments"`
	ETA       *float64 `json:"eta_seconds,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// BackfillOrder is a backfill that is asked for. From 0 is the beginning of what
// the archive keeps, to 0 now; an empty peer is all of the stream's.
type BackfillOrder struct {
	Stream   string
	From, To m4f.UTC
	Peer     string
}

// newBackfill is a BackfillOrder as it comes.
type newBackfill struct {
	Stream string `json:"stream"`
	From   *Time  `json:"from"`
	To     *Time  `json:"to"`
	Peer   string `json:"peer"`
}

// backfill has what peers have of a span fetched.
func (h *Handler) backfill(c *call) (any, error) {
	s, err := h.supervised()
	if err != nil {
		return nil, err
	}
	var n newBackfill
	if err := c.body(&n); err != nil {
		return nil, err
	}
	if _, err := h.archiveOf(n.Stream); err != nil {
		return nil, err
	}
	o := BackfillOrder{Stream: n.Stream, Peer: n.Peer}
	if n.From != nil {
		o.From = m4f.UTC(*n.From)
	}
	if n.To != nil {
		o.To = m4f.UTC(*n.To)
	}
	if o.To != 0 && o.To <= o.From {
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "to is not after from")
	}
	b, err := s.Backfill(o)
	if err != nil {
		return nil, err
	}
	h.log.Info("a backfill was asked for", "stream", b.Stream, "from", b.From, "to", b.To, "peers", b.Peers, "by", c.r.RemoteAddr)
	c.status = http.StatusAccepted
	return b, nil
}

// Reload is what reading the configuration again changed.
type Reload struct {
	Applied bool     `json:"applied"` // false: it goes on
	File    string   `json:"file"`
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Changed []string `json:"changed"`
	Other   []string `json:"other"` // words outside of streams
}

// reload reads the configuration again.
func (h *Handler) reload(c *call) (any, error) {
	s, err := h.supervised()
	if err != nil {
		return nil, err
	}
	if c.r.ContentLength != 0 {
		var none struct{}
		if err := c.body(&none); err != nil {
			return nil, err
		}
	}
	h.log.Info("a reload was asked for", "by", c.r.RemoteAddr)
	out, err := s.Reread(c.r.Context())
	if err != nil {
		return nil, err
	}
	if !out.Applied {
		c.status = http.StatusAccepted
	}
	return out, nil
}
