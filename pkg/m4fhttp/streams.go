package m4fhttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
)

// streamsPath is where the list of a node's streams is; no stream has this path.
const streamsPath = "/m4f/streams"

// maxStreams bounds the streams that a node lists, and those that a client
// takes from a list.
const maxStreams = 10000

// Listed is a stream as a node lists it: a line of the answer to GET
// /m4f/streams.
type Listed struct {
	Name string `json:"name"`
	// TargetDuration of its segments, in ticks; 0: not known yet.
	TargetDuration int64 `json:"target_duration"`
	// Via names the nodes that the stream is configured on because another of
	// them is, from the one that has a stream block for it to the one that
	// lists it. Empty: the stream is served, but no longer recorded.
	Via []string `json:"via"`
}

// Lister is a Provider that knows more of its streams than their names.
type Lister interface {
	// List returns the streams in the order of their names. ErrStarting: they
	// are not all known yet.
	List() ([]Listed, error)
}

// ErrStarting is the error of a Lister that does not know its streams yet.
var ErrStarting = errors.New("this node is starting; ask again in a moment")

// list is what a handler's provider says of its streams.
func (h *Handler) list() ([]Listed, error) {
	if l, ok := h.Provider.(Lister); ok {
		return l.List()
	}
	names, err := h.Provider.Streams()
	if err != nil {
		return nil, err
	}
	var out []Listed
	for _, name := range names[:min(len(names), maxStreams)] {
		s, err := h.Provider.Stream(name)
		if err != nil {
			continue // gone since, or not readable: as good as not there
		}
		target, err := s.Archive().TargetDuration()
		if err != nil {
			continue
		}
		out = append(out, Listed{Name: name, TargetDuration: target, Via: []string{h.NodeID}})
	}
	return out, nil
}

// serveStreams answers with the streams that there are, one a line.
func (h *Handler) serveStreams(w http.ResponseWriter, r *http.Request) error {
	if r.URL.RawQuery != "" {
		return problemf(http.StatusBadRequest, "m4f/streams takes no query")
	}
	list, err := h.list()
	if errors.Is(err, ErrStarting) {
		w.Header().Set("Retry-After", "1")
		return problemf(http.StatusServiceUnavailable, "%v", err)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	l := newLineWriter(&request{w: w, r: r}, false)
	for i := range list[:min(len(list), maxStreams)] {
		err = errors.Join(err, l.line(&list[i]))
	}
	if errors.Join(err, l.end()) != nil {
		cut()
	}
	return nil
}

// Streams asks which streams the peer has; the client's own stream does not
// matter. The names are valid, and each occurs once; they come in the peer's
// order. Streams of which that does not hold are left out and counted. A list of
// more than 10 000 is an error.
func (c *Client) Streams(ctx context.Context) (list []Listed, refused int, err error) {
	seen := map[string]bool{}
	err = c.linesAt(ctx, c.root+streamsPath, "streams", maxStreams, func(line []byte) error {
		l, ok, err := parseListed(line)
		switch {
		case err != nil:
			return err
		case !ok || seen[l.Name]:
			refused++
			return nil
		}
		seen[l.Name] = true
		list = append(list, l)
		return nil
	})
	return list, refused, err
}

// parseListed reads a line of a list; not ok: no such stream can be.
func parseListed(line []byte) (l Listed, ok bool, err error) {
	if err := json.Unmarshal(line, &l); err != nil {
		return l, false, err
	}
	if config.ValidName(l.Name) != nil || archive.ValidName(l.Name) != nil ||
		l.TargetDuration < 0 || l.TargetDuration > archive.MaxDuration || len(l.Via) > maxListed {
		return l, false, nil
	}
	for i := range l.Via {
		l.Via[i] = printable(l.Via[i])
	}
	return l, true, nil
}
