package serve

import (
	"context"
	"slices"
	"sync"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Whether a gap can be filled.
const (
	FillPeer    = "peer"    // a peer has some of it, and it is filled from there
	FillAsked   = "asked"   // a peer has some of it; it comes when it is played or asked for
	Filling     = "filling" // it is being fetched
	FillNobody  = "nobody"  // no peer has any of it
	FillUnknown = "unknown" // not all peers could be asked, and the others have nothing of it
)

// Gaps are the gaps of an archive.
type Gaps struct {
	Stream string      `json:"stream"`
	From   Time        `json:"from"`
	To     Time        `json:"to"`
	More   bool        `json:"more"`
	Gaps   []Gap       `json:"gaps"`
	Peers  []AskedPeer `json:"peers"`
}

// Gap is a span that no segment covers.
type Gap struct {
	From    Time    `json:"from"`
	To      Time    `json:"to"`
	Seconds float64 `json:"seconds"`
	Cause   Cause   `json:"cause"`
	Fill    string  `json:"fill"`
	// Peer is the one that has most of it, of those that gaps are filled from where
	// there are any, and PeerSeconds how much.
	Peer        string  `json:"peer,omitempty"`
	PeerSeconds float64 `json:"peer_seconds,omitempty"`
}

// Cause says why a gap is there.
type Cause struct {
	Msg  string `json:"msg"`
	Kind string `json:"kind,omitempty"` // of the event that says why
	Time *Time  `json:"time,omitempty"` // of that event
}

// AskedPeer is a peer that was asked for what is missing.
type AskedPeer struct {
	URL   string `json:"url"`
	Error string `json:"error,omitempty"`
}

// gaps answers with the gaps of an archive.
func (h *Handler) gaps(c *call) (any, error) {
	a, from, to, err := h.archiveSpan(c)
	if err != nil {
		return nil, err
	}
	limit, err := c.number("limit", 1000, 1, 5000)
	if err != nil {
		return nil, err
	}
	var gaps []archive.Gap
	out := &Gaps{Stream: c.query.Get("stream"), Gaps: []Gap{}, Peers: []AskedPeer{}}
	err = h.reading(c.r.Context(), func() (err error) {
		gaps, out.More, err = a.LastGaps(from, to, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	info, err := a.Info()
	if err != nil {
		return nil, err
	}
	if from == 0 {
		from = info.Oldest
	}
	if to == 0 {
		to = max(info.Newest, from)
	}
	out.From, out.To = Time(from), Time(to)
	for i := range gaps {
		g := &gaps[i]
		x := Gap{From: Time(g.From), To: Time(g.To), Seconds: seconds(int64(g.To - g.From)), Cause: Cause{Msg: g.Cause}}
		if e := g.Event; e != nil {
			x.Cause.Kind, x.Cause.Time = e.Kind, timeOf(m4f.UTCOf(e.Time))
		}
		out.Gaps = append(out.Gaps, x)
	}
	h.fillStates(c.r.Context(), out)
	return out, nil
}

// sliver is how many seconds of a gap are nothing: nodes may differ by as much in
// where it begins and ends.
const sliver = 0.25

// fillStates finds out whether the gaps can be filled.
func (h *Handler) fillStates(ctx context.Context, out *Gaps) {
	s, ok := h.node.(Supervised)
	if !ok {
		for i := range out.Gaps {
			out.Gaps[i].Fill = FillUnknown
		}
		return
	}
	if len(out.Gaps) == 0 {
		return
	}
	covers := out.ask(ctx, s.Peers(out.Stream))
	filling, fills := h.filling(out.Stream)
	for i := range out.Gaps {
		g := &out.Gaps[i]
		g.choose(out.Peers, covers, fills)
		if g.Peer != "" && slices.Contains(filling, g.Peer) {
			g.Fill = Filling
		}
	}
}

// ask asks the peers what they have of the gaps; nil: one does not say.
func (out *Gaps) ask(ctx context.Context, peers []Peer) []*m4fhttp.Coverage {
	covers := make([]*m4fhttp.Coverage, len(peers))
	out.Peers = make([]AskedPeer, len(peers))
	from, to := m4f.UTC(out.Gaps[0].From), m4f.UTC(out.Gaps[len(out.Gaps)-1].To)
	ctx, cancel := context.WithTimeout(ctx, askPeer)
	defer cancel()
	var asked sync.WaitGroup
	for i, p := range peers {
		asked.Go(func() {
			var err error
			out.Peers[i].URL = p.URL
			// Months of many short stretches are told in parts of five thousand.
			if covers[i], err = p.Client.Coverage(ctx, from, to, int64(to-from)/m4f.Timescale/5000); err != nil {
				covers[i], out.Peers[i].Error = nil, err.Error()
			}
		})
	}
	asked.Wait()
	return covers
}

// choose chooses the peer for the gap by what each has of it; fills are those that it
// is filled from without being asked for.
func (g *Gap) choose(peers []AskedPeer, covers []*m4fhttp.Coverage, fills map[string]bool) {
	g.Fill = FillNobody
	for i, cover := range covers {
		if cover == nil {
			if g.Peer == "" {
				g.Fill = FillUnknown
			}
			continue
		}
		sec := seconds(ticksShown(cover.Stretches, m4f.UTC(g.From), m4f.UTC(g.To)))
		state := FillAsked
		if fills[peers[i].URL] {
			state = FillPeer
		}
		better := state == FillPeer && g.Fill != FillPeer || (state == FillPeer) == (g.Fill == FillPeer) && sec > g.PeerSeconds
		if sec > sliver && better {
			g.Peer, g.PeerSeconds, g.Fill = peers[i].URL, sec, state
		}
	}
}

// filling returns the peers from which a stream is being filled, and those from
// which it is without being asked.
func (h *Handler) filling(stream string) (urls []string, fills map[string]bool) {
	fills = map[string]bool{}
	for _, s := range h.node.Status().Streams {
		if s.Name != stream {
			continue
		}
		for _, p := range s.Peers {
			fills[p.URL] = fills[p.URL] || p.Replicates
			if p.Reconciling && p.Backlog > 0 {
				urls = append(urls, p.URL)
			}
		}
		if b := s.Backfill; b != nil && b.State == BackfillRunning {
			urls = append(urls, b.Peer)
		}
	}
	return urls, fills
}

// ticksShown is how many ticks of [from, to) stretches show something of. Of a merged
// one that reaches beyond it counts what lies in it, in proportion.
func ticksShown(all []archive.Stretch, from, to m4f.UTC) int64 {
	i, _ := slices.BinarySearchFunc(all, from, func(x archive.Stretch, at m4f.UTC) int {
		if x.To <= at {
			return -1
		}
		return 1
	})
	sum := int64(0)
	for ; i < len(all) && all[i].From < to; i++ {
		x := &all[i]
		whole := int64(x.To - x.From)
		in := int64(min(x.To, to) - max(x.From, from))
		sum += int64(float64(whole-x.Ticks(archive.StateMissing)) / float64(whole) * float64(in))
	}
	return sum
}
