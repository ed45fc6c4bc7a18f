package serve

import (
	"net/url"
	"slices"
	"strings"
	"time"
)

// Peers are the nodes that a node follows.
type Peers struct {
	Peers []PeerNode `json:"peers"`
}

// PeerNode is another node, with the streams that are followed there.
type PeerNode struct {
	URL        string       `json:"url"` // without a stream
	Reachable  bool         `json:"reachable"`
	Replicates bool         `json:"replicates"`
	Error      string       `json:"error,omitempty"`
	Heard      *time.Time   `json:"heard,omitempty"`
	Lag        float64      `json:"lag_seconds"`
	Backlog    int64        `json:"backlog_bytes"`
	ETA        *float64     `json:"eta_seconds,omitempty"`
	TrafficIn  int64        `json:"traffic_in_bytes"`
	TrafficOut int64        `json:"traffic_out_bytes"`
	Streams    []PeerStream `json:"streams"`
}

// PeerStream is a stream that is followed at a peer.
type PeerStream struct {
	Stream string     `json:"stream"` // its name here
	Peer   PeerStatus `json:"peer"`
}

// peers answers with the nodes that this one follows.
func (h *Handler) peers(*call) (any, error) {
	if _, err := h.supervised(); err != nil {
		return nil, err
	}
	st := h.node.Status()
	byURL := map[string]*PeerNode{}
	out := &Peers{Peers: []PeerNode{}}
	var order []string
	for i := range st.Streams {
		s := &st.Streams[i]
		for _, p := range s.Peers {
			at := nodeOf(p.URL)
			n := byURL[at]
			if n == nil {
				n = &PeerNode{URL: at, Reachable: true}
				byURL[at], order = n, append(order, at)
			}
			n.add(s.Name, p)
		}
	}
	slices.Sort(order)
	for _, at := range order {
		out.Peers = append(out.Peers, *byURL[at])
	}
	return out, nil
}

// nodeOf is the URL of a peer without the stream.
func nodeOf(peer string) string {
	u, err := url.Parse(peer)
	if err != nil || u.Host == "" {
		return peer
	}
	return strings.TrimSuffix((&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), "/")
}

// add counts a stream in.
func (n *PeerNode) add(stream string, p PeerStatus) {
	n.Reachable = n.Reachable && p.Reachable
	n.Replicates = n.Replicates || p.Replicates
	if n.Error == "" {
		n.Error = p.Error
	}
	if p.Heard != nil && (n.Heard == nil || p.Heard.After(*n.Heard)) {
		n.Heard = p.Heard
	}
	n.Lag, n.Backlog = max(n.Lag, p.Lag), n.Backlog+p.Backlog
	n.ETA = longest(n.ETA, p.ETA)
	n.TrafficIn, n.TrafficOut = n.TrafficIn+p.TrafficIn, n.TrafficOut+p.TrafficOut
	n.Streams = append(n.Streams, PeerStream{stream, p})
}

// longest is the longer of two times that may not be known.
func longest(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// Backlog is what replication has still to fetch.
type Backlog struct {
	Bytes   int64           `json:"bytes"`
	Seconds float64         `json:"seconds"` // of media
	ETA     *float64        `json:"eta_seconds,omitempty"`
	Streams []StreamBacklog `json:"streams"`
}

// StreamBacklog is what replication of a stream has still to fetch.
type StreamBacklog struct {
	Stream      string        `json:"stream"`
	Bytes       int64         `json:"bytes"`
	Seconds     float64       `json:"seconds"` // of media
	ETA         *float64      `json:"eta_seconds,omitempty"`
	Reconciling bool          `json:"reconciling"`
	Pending     int           `json:"pending"`
	Lag         float64       `json:"lag_seconds"`
	Unfilled    int           `json:"unfilled"`
	Missing     float64       `json:"missing_seconds"`
	Peers       []PeerBacklog `json:"peers"`
}

// PeerBacklog is what is to be fetched from one peer.
type PeerBacklog struct {
	URL         string   `json:"url"`
	Reachable   bool     `json:"reachable"`
	Reconciling bool     `json:"reconciling"`
	Bytes       int64    `json:"bytes"`
	Seconds     float64  `json:"seconds"` // of media
	ETA         *float64 `json:"eta_seconds,omitempty"`
	Pending     int      `json:"pending"`
	Lag         float64  `json:"lag_seconds"`
	Unfilled    int      `json:"unfilled"`
}

// backlog answers with what replication has still to fetch.
func (h *Handler) backlog(c *call) (any, error) {
	if _, err := h.supervised(); err != nil {
		return nil, err
	}
	only := c.query.Get("stream")
	if only != "" {
		if _, err := h.archiveOf(only); err != nil {
			return nil, err
		}
	}
	st := h.node.Status()
	out := &Backlog{Streams: []StreamBacklog{}}
	for i := range st.Streams {
		s := &st.Streams[i]
		if len(s.Peers) == 0 || only != "" && s.Name != only {
			continue
		}
		b := BacklogOf(s)
		out.Bytes, out.Seconds, out.ETA = out.Bytes+b.Bytes, out.Seconds+b.Seconds, longest(out.ETA, b.ETA)
		out.Streams = append(out.Streams, b)
	}
	return out, nil
}

// BacklogOf is what replication of a stream has still to fetch. Several peers are
// filled from side by side, and mostly have the same to give: the one with the
// most counts.
func BacklogOf(s *StreamStatus) StreamBacklog {
	out := StreamBacklog{Stream: s.Name, Missing: s.Archive.GapSeconds, Peers: []PeerBacklog{}}
	for i := range s.Peers {
		p := &s.Peers[i]
		b := PeerBacklog{
			URL: p.URL, Reachable: p.Reachable, Reconciling: p.Reconciling, Bytes: p.Backlog, Seconds: p.BacklogSeconds, ETA: p.ETA,
			Pending: p.Pending, Lag: p.Lag, Unfilled: p.Unfilled,
		}
		if b.Bytes > out.Bytes {
			out.Bytes, out.Seconds = b.Bytes, b.Seconds
		}
		out.ETA = longest(out.ETA, b.ETA)
		out.Reconciling = out.Reconciling || b.Reconciling
		out.Pending, out.Lag, out.Unfilled = max(out.Pending, b.Pending), max(out.Lag, b.Lag), max(out.Unfilled, b.Unfilled)
		out.Peers = append(out.Peers, b)
	}
	return out
}
