package serve

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

const (
	// maxSpans bounds the spans of an answer; where there would be more, they are
	// merged further.
	maxSpans = 10000
	// askPeer is how long a peer may take to answer for somebody who waits.
	askPeer = 8 * time.Second
)

// Coverage is what an archive has of a span of time.
type Coverage struct {
	Stream  string         `json:"stream"`
	Node    string         `json:"node,omitempty"` // the peer's URL; absent: this node
	From    Time           `json:"from"`
	To      Time           `json:"to"`
	Step    int64          `json:"step"` // seconds
	Oldest  *Time          `json:"oldest,omitempty"`
	Newest  *Time          `json:"newest,omitempty"`
	Horizon *Time          `json:"horizon,omitempty"`
	Spans   []CoverageSpan `json:"spans"`
	Kept    []KeptSpan     `json:"kept"`
}

// CoverageSpan is a stretch of time in one state. A run of stretches shorter than
// the step is one, in the worst of their states.
type CoverageSpan struct {
	From     Time               `json:"from"`
	To       Time               `json:"to"`
	State    string             `json:"state"` // live, replicated, healed, damaged, missing
	Segments int                `json:"segments"`
	Bytes    int64              `json:"bytes"`
	Seconds  map[string]float64 `json:"seconds,omitempty"` // in each state, of one that was merged
}

// KeptSpan is a span that pruning leaves.
type KeptSpan struct {
	Name string `json:"name"`
	From Time   `json:"from"`
	To   Time   `json:"to"`
}

// coverage answers with what the archive of this node, or of a peer, has of a span.
func (h *Handler) coverage(c *call) (any, error) {
	a, from, to, err := h.archiveSpan(c)
	if err != nil {
		return nil, err
	}
	step, err := c.number("step", 0, 0, m4fhttp.MaxStep)
	if err != nil {
		return nil, err
	}
	out := &Coverage{Stream: c.query.Get("stream"), Node: c.query.Get("node"), Spans: []CoverageSpan{}, Kept: []KeptSpan{}}
	var cover *m4fhttp.Coverage
	if out.Node == "" {
		err = h.reading(c.r.Context(), func() (err error) {
			cover, err = m4fhttp.CoverageOf(a, from, to, int64(step), maxSpans)
			return err
		})
	} else {
		cover, err = h.coverageAt(c.r.Context(), out.Stream, out.Node, from, to, int64(step))
	}
	if err != nil {
		return nil, err
	}
	out.fill(cover, from, to)
	return out, nil
}

// coverageAt asks a peer of a stream.
func (h *Handler) coverageAt(ctx context.Context, stream, node string, from, to m4f.UTC, step int64) (*m4fhttp.Coverage, error) {
	s, err := h.supervised()
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, p := range s.Peers(stream) {
		if p.URL != node {
			urls = append(urls, p.URL)
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, askPeer)
		defer cancel()
		cover, err := p.Client.Coverage(ctx, from, to, step)
		if err != nil && ctx.Err() == context.DeadlineExceeded {
			err = m4fhttp.Problemf(http.StatusGatewayTimeout, "peer %s does not answer in time", p.URL)
		}
		return cover, err
	}
	if len(urls) == 0 {
		return nil, m4fhttp.Problemf(http.StatusNotFound, "the stream %s has no peers", stream)
	}
	return nil, m4fhttp.Problemf(http.StatusNotFound, "%s is no peer of the stream %s; its peers are %s", m4fhttp.Clip(node), stream, strings.Join(urls, ", "))
}

func (out *Coverage) fill(c *m4fhttp.Coverage, from, to m4f.UTC) {
	out.Step, out.Oldest, out.Newest, out.Horizon = c.Step, timeOf(c.Oldest), timeOf(c.Newest), timeOf(c.Horizon)
	if from == 0 {
		from = c.Oldest
		if len(c.Stretches) > 0 {
			from = min(from, c.Stretches[0].From) // kept, from before the horizon
		}
	}
	if to == 0 {
		to = max(c.Newest, from)
	}
	out.From, out.To = Time(from), Time(to)
	for i := range c.Stretches {
		x := &c.Stretches[i]
		s := CoverageSpan{From: Time(x.From), To: Time(x.To), State: x.State.String(), Segments: x.Segments, Bytes: x.Bytes}
		if x.Mixed != nil {
			s.Seconds = map[string]float64{}
			for st := range archive.NumStates {
				if t := x.Ticks(st); t > 0 {
					s.Seconds[st.String()] = seconds(t)
				}
			}
		}
		out.Spans = append(out.Spans, s)
	}
	for _, k := range c.Kept {
		out.Kept = append(out.Kept, KeptSpan{k.Name, Time(k.From), Time(k.To)})
	}
}
