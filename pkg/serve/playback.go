package serve

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Healer is a Node that can fetch what its own archive lacks while it is played.
type Healer interface {
	// Offered returns the records of segments that begin in [from, to) or reach
	// into it and that peers have now, as far as the node knows within a second
	// or so. They may include what the archive holds itself, and need not be in
	// order. Playlists list them with what is here: from and to are those of a
	// gap. With ErrUnasked come the records of the peers that could be asked.
	Offered(ctx context.Context, stream string, from, to m4f.UTC) ([]archive.Record, error)
	// Heal fetches what of Offered is in [from, to) and lacks here, and returns
	// when it is in the archive. A span is asked for by many viewers at once and
	// fetched once. An error says that some of it could not be had; ErrUnasked,
	// that a peer might have given it.
	Heal(ctx context.Context, stream string, from, to m4f.UTC) error
}

// ErrUnasked says that a peer could not be asked for what it has.
var ErrUnasked = errors.New("a peer could not be asked")

// play is a request to play something of a stream.
type play struct {
	w       http.ResponseWriter
	r       *http.Request
	query   url.Values // players add words of their own: others are passed over
	name    string     // of the stream
	archive *archive.Stream
	file    string   // what stands behind the stream's name
	parts   []string // the submatches of its pattern
	unasked bool     // a peer that may have what is asked for did not answer
}

// offered is Healer.Offered; a peer that could not be asked is no error, but noted.
func (q *play) offered(ctx context.Context, h Healer, from, to m4f.UTC) ([]archive.Record, error) {
	recs, err := h.Offered(ctx, q.name, from, to)
	if err != nil && q.r.Context().Err() == nil && (errors.Is(err, ErrUnasked) || errors.Is(err, context.DeadlineExceeded)) {
		q.unasked, err = true, nil
	}
	return recs, err
}

// orUnasked is the answer where there is nothing here and a peer that may have it
// could not be asked: it is not known that there is nothing.
func (q *play) orUnasked(err error) error {
	var p *m4fhttp.Problem
	if !q.unasked || !errors.As(err, &p) || p.Status != http.StatusNotFound {
		return err
	}
	q.w.Header().Set("Retry-After", "5")
	return m4fhttp.Problemf(http.StatusServiceUnavailable, "a peer that may have this could not be asked; without it, %s", p.Detail)
}

// playable is a kind of file that streams are played by, at /STREAM/FILE.
type playable struct {
	// pattern matches all of FILE. A file of several parts has as many in any
	// case, so that where the stream's name ends is known.
	pattern *regexp.Regexp
	// shown is how a list of what there is names it; empty: not at all, since it
	// is only found through others.
	shown string
	// serve answers. It returns a *m4fhttp.Problem, or another error, before it
	// has written anything.
	serve func(*play) error
}

// fileOf is a playable by the pattern of all of its name.
func fileOf(pattern, shown string, serve func(*play) error) playable {
	return playable{regexp.MustCompile("^" + pattern + "$"), shown, serve}
}

// routePlayback adds what plays a stream: everything that nothing else has taken.
func (h *Handler) routePlayback() {
	h.playables = slices.Concat(h.hlsFiles(), h.dashFiles(), h.tsFiles(), h.downloadKinds())
	h.mux.Handle("/", h.players(h.playback))
}

// playback finds out which stream a path names, and which file of it.
func (h *Handler) playback(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		m4fhttp.WriteProblem(w, http.StatusMethodNotAllowed, "streams are read with GET")
		return
	}
	q, kind, err := h.find(w, r)
	if err == nil {
		err = permitStream(r, q.name)
	}
	if err == nil {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err = q.orUnasked(kind.serve(q))
	}
	if err != nil {
		h.failPlay(w, r, err)
	}
}

func (h *Handler) failPlay(w http.ResponseWriter, r *http.Request, err error) {
	var p *m4fhttp.Problem
	switch {
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // nobody is there to be told
	case errors.As(err, &p):
	default:
		h.log.Error("request failed", "path", m4fhttp.Clip(r.URL.Path), "from", r.RemoteAddr, "err", err)
		p = m4fhttp.Problemf(http.StatusInternalServerError, "this node could not read its archive; its log says why")
	}
	p.Write(w)
}

// find splits the path into stream and file. Where a stream's name ends like a
// file of several parts begins, the shorter name wins if there is such a stream.
func (h *Handler) find(w http.ResponseWriter, r *http.Request) (*play, *playable, error) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	missing := ""
	for at := range slashes(path) {
		name, file := path[:at], path[at+1:]
		for i := range h.playables {
			kind := &h.playables[i]
			parts := kind.pattern.FindStringSubmatch(file)
			if parts == nil || archive.ValidName(name) != nil {
				continue
			}
			s, err := h.node.Stream(name)
			if errors.Is(err, m4fhttp.ErrNoStream) {
				missing = name
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			return &play{w: w, r: r, query: r.URL.Query(), name: name, archive: s.Archive(), file: file, parts: parts}, kind, nil
		}
	}
	return nil, nil, h.nothing(path, missing)
}

// slashes yields where the slashes of a path are behind which a file may begin,
// the first of them first: at most three parts from the end.
func slashes(path string) func(func(int) bool) {
	return func(yield func(int) bool) {
		var at []int
		for i := len(path) - 1; i > 0 && len(at) < 3; i-- {
			if path[i] == '/' {
				at = append(at, i)
			}
		}
		for _, i := range slices.Backward(at) {
			if !yield(i) {
				return
			}
		}
	}
}

// nothing says what there is where a path leads nowhere.
func (h *Handler) nothing(path, missing string) error {
	have, err := h.node.Streams()
	if err != nil {
		return err
	}
	if missing != "" {
		return m4fhttp.NoStream(missing, have)
	}
	for at := range slashes(path) {
		if slices.Contains(have, path[:at]) {
			var files []string
			for i := range h.playables {
				if f := h.playables[i].shown; f != "" {
					files = append(files, f)
				}
			}
			none := "a stream has no " + m4fhttp.Clip(path[at+1:])
			if path[at+1:] == "" {
				none = "name a file of the stream"
			}
			return m4fhttp.Problemf(http.StatusNotFound, "%s; it has %s (FROM and UTC in Unix seconds, DURATION in seconds)",
				none, strings.Join(files, ", "))
		}
	}
	return m4fhttp.Problemf(http.StatusNotFound, "nothing is served at this address; try /STREAM/index.m3u8, /api/v1/streams, or /STREAM/m4f/info")
}
