package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Supervised is a Node that records and replicates its streams. What it adds is
// refused by the API of any other. Errors of its methods that are a *m4fhttp.Problem
// are answered as such.
type Supervised interface {
	Node
	// Peers returns the peers of a stream.
	Peers(stream string) []Peer
	// Backfill begins to fetch what peers have of a span.
	Backfill(BackfillOrder) (*Backfill, error)
	// Reread reads the configuration again and applies it. It goes on when the
	// context ends, which is no error of its.
	Reread(ctx context.Context) (*Reload, error)
	// Feed is what happens to the streams.
	Feed() *Feed
}

// Peer is a peer of a stream that can be asked. Its client has the stream's name
// there.
type Peer struct {
	URL    string // as PeerStatus has it
	Client *m4fhttp.Client
}

// routeAPI adds what is below /api/v1/. openapi.json describes it.
func (h *Handler) routeAPI() {
	read := func(path, params string, fn func(*call) (any, error)) {
		h.mux.Handle("GET "+apiPath+path, h.readers(h.api(params, fn)))
	}
	write := func(method, path, params string, fn func(*call) (any, error)) {
		h.mux.Handle(method+" "+apiPath+path, h.writers(h.api(params, fn)))
	}
	read("streams", "", func(*call) (any, error) { return h.node.Status(), nil })
	read("coverage", "stream from to step node", h.coverage)
	read("gaps", "stream from to limit", h.gaps)
	read("peers", "", h.peers)
	read("backlog", "stream", h.backlog)
	read("events", "stream from to limit", h.events)
	read("keeps", "stream", h.keeps)
	write("POST", "keeps", "", h.keep)
	write("DELETE", "keeps/{name}", "stream", h.release)
	write("POST", "backfill", "", h.backfill)
	write("POST", "reload", "", h.reload)
	h.mux.Handle("GET "+apiPath+"events/live", h.readers(h.eventsLive))
	h.mux.Handle("GET "+apiPath+"openapi.json", h.readers(h.openAPI))
	no, play := h.readers(noCall), h.players(h.playback)
	h.mux.HandleFunc(apiPath, func(w http.ResponseWriter, r *http.Request) {
		if h.isStream(r.URL.Path) {
			play.ServeHTTP(w, r)
			return
		}
		no.ServeHTTP(w, r)
	})
}

// apiPath is what the API lies below.
const apiPath = "/api/v1/"

// apiCalls are the methods that each call takes. The name of a kept span is not
// looked at.
var apiCalls = map[string]string{
	"streams": "GET, HEAD", "coverage": "GET, HEAD", "gaps": "GET, HEAD", "peers": "GET, HEAD", "backlog": "GET, HEAD",
	"events": "GET, HEAD", "events/live": "GET, HEAD", "openapi.json": "GET, HEAD",
	"keeps": "GET, HEAD, POST", "keeps/NAME": "DELETE", "backfill": "POST", "reload": "POST",
}

// noCall answers what no call of the API takes.
func noCall(w http.ResponseWriter, r *http.Request) {
	call := strings.TrimPrefix(r.URL.Path, apiPath)
	if name, ok := strings.CutPrefix(call, "keeps/"); ok && name != "" && !strings.Contains(name, "/") {
		call = "keeps/NAME"
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // the body is not read
	}
	if methods, ok := apiCalls[call]; ok {
		w.Header().Set("Allow", methods)
		m4fhttp.WriteProblem(w, http.StatusMethodNotAllowed, "%s%s takes %s, not %s", apiPath, call, methods, m4fhttp.Clip(r.Method))
		return
	}
	none := "the API has no " + m4fhttp.Clip(call)
	if call == "" {
		none = "name a call of the API"
	}
	m4fhttp.WriteProblem(w, http.StatusNotFound, "%s; it has %s, and %sopenapi.json describes them",
		none, strings.Join(slices.Sorted(maps.Keys(apiCalls)), ", "), apiPath)
}

// isStream says whether a path below the API is a file of a stream whose name
// begins so.
func (h *Handler) isStream(path string) bool {
	have, err := h.node.Streams()
	return err == nil && slices.ContainsFunc(have, func(name string) bool { return strings.HasPrefix(path, "/"+name+"/") })
}

// call is a request to the API.
type call struct {
	r      *http.Request
	w      http.ResponseWriter
	query  url.Values
	status int    // of the answer, where it is not 200
	stream string // whose kept spans are meant
}

// api makes a handler of a function that returns what is to be answered as JSON;
// nil answers nothing (204). params are the words that the query may have.
func (h *Handler) api(params string, fn func(*call) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := &call{r: r, w: w, status: http.StatusOK}
		err := c.parse(strings.Fields(params))
		var v any
		if err == nil {
			v, err = fn(c)
		}
		if err != nil {
			h.refuse(c, err)
			return
		}
		c.answer(v)
	}
}

// parse reads the query. A word that is not known is a mistake, not one to pass
// over: it would be answered with what was not asked for.
func (c *call) parse(params []string) error {
	var err error
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return m4fhttp.Problemf(http.StatusBadRequest, "the query cannot be read: %s", m4fhttp.Clip(err.Error()))
	}
	for name, values := range c.query {
		switch {
		case name == "token": // of whoever reads with a link
		case !slices.Contains(params, name) && len(params) == 0:
			return m4fhttp.Problemf(http.StatusBadRequest, "this takes no query; leave %s out", m4fhttp.Clip(name))
		case !slices.Contains(params, name):
			return m4fhttp.Problemf(http.StatusBadRequest, "this takes no %s; it takes %s", m4fhttp.Clip(name), strings.Join(params, ", "))
		case len(values) > 1:
			return m4fhttp.Problemf(http.StatusBadRequest, "%s is given %d times; give it once", name, len(values))
		}
	}
	return nil
}

// zipAnswerFrom is from which size on, in bytes, an answer in JSON is worth compressing.
const zipAnswerFrom = 1 << 10

// answer writes a value as JSON.
func (c *call) answer(v any) {
	header := c.w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if v == nil {
		c.w.WriteHeader(http.StatusNoContent)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		m4fhttp.WriteProblem(c.w, http.StatusInternalServerError, "the answer cannot be written: %v", err)
		return
	}
	body = append(body, '\n')
	header.Set("Content-Type", "application/json")
	header.Add("Vary", "Accept-Encoding")
	if len(body) >= zipAnswerFrom && m4fhttp.TakesGzip(c.r) {
		header.Set("Content-Encoding", "gzip")
		body = gzipped(body)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(c.status)
	_, _ = c.w.Write(body) // the client has gone if this fails
}

// refuse answers with the problem that an error is or stands for.
func (h *Handler) refuse(c *call, err error) {
	var p *m4fhttp.Problem
	var gone *m4fhttp.PeerError
	var keep *archive.KeepError
	var write *archive.WriteError
	switch {
	case c.r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the server stops, or the client has gone
	case errors.As(err, &gone): // ahead of the problem that the peer may have answered with
		p = peerProblem(gone)
	case errors.As(err, &p):
	case errors.As(err, &keep):
		p = keepProblem(keep, c.stream)
	case errors.As(err, &write):
		p = m4fhttp.Problemf(http.StatusInsufficientStorage, "%v", err)
	default:
		h.log.Error("a request to the API failed", "path", m4fhttp.Clip(c.r.URL.Path), "from", c.r.RemoteAddr, "err", err)
		p = m4fhttp.Problemf(http.StatusInternalServerError, "this node could not read its archive; its log says why")
	}
	if c.r.ContentLength != 0 {
		c.w.Header().Set("Connection", "close") // the body may not be read to its end
	}
	p.Write(c.w)
}

// peerProblem is what a peer's failure is to whoever asked through this node.
func peerProblem(err *m4fhttp.PeerError) *m4fhttp.Problem {
	status := http.StatusBadGateway
	if errors.Is(err, m4fhttp.ErrSilent) || errors.Is(err, m4fhttp.ErrSlow) || errors.Is(err, context.DeadlineExceeded) {
		status = http.StatusGatewayTimeout
	}
	return m4fhttp.Problemf(status, "%v", err)
}

// keepProblem is what is wrong with a kept span, without where its stream lies.
func keepProblem(err *archive.KeepError, stream string) *m4fhttp.Problem {
	status := http.StatusUnprocessableEntity
	switch {
	case errors.Is(err, fs.ErrNotExist):
		status = http.StatusNotFound
	case errors.Is(err, fs.ErrExist):
		status = http.StatusConflict
	}
	shown := *err
	shown.Dir, shown.Reason = stream, strings.ReplaceAll(err.Reason, err.Dir+"/", "")
	return m4fhttp.Problemf(status, "%v", &shown)
}

// supervised returns the node where it is one that records.
func (h *Handler) supervised() (Supervised, error) {
	s, ok := h.node.(Supervised)
	if !ok {
		return nil, m4fhttp.Problemf(http.StatusNotImplemented, "this is no supervised node: serve-m4f only reads the archives below a directory; ask the node that records them (twindvr supervise)")
	}
	return s, nil
}

// archiveOf finds the archive of the stream that a request names.
func (h *Handler) archiveOf(name string) (*archive.Stream, error) {
	if name == "" {
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "stream is missing: the name of the stream, as ?stream=example")
	}
	s, err := h.node.Stream(name)
	if errors.Is(err, m4fhttp.ErrNoStream) {
		return nil, h.noStream(name)
	}
	if err != nil {
		return nil, err
	}
	return s.Archive(), nil
}

// archiveSpan finds the archive of the stream that a request names, and reads the span.
func (h *Handler) archiveSpan(c *call) (a *archive.Stream, from, to m4f.UTC, err error) {
	if a, err = h.archiveOf(c.query.Get("stream")); err != nil {
		return nil, 0, 0, err
	}
	from, to, err = c.span()
	return a, from, to, err
}

func (h *Handler) noStream(name string) error {
	have, err := h.node.Streams()
	if err != nil {
		return err
	}
	return m4fhttp.NoStream(name, have)
}

// names are the stream that the request names, or else all.
func (h *Handler) names(c *call) ([]string, error) {
	if name := c.query.Get("stream"); name != "" {
		if _, err := h.archiveOf(name); err != nil {
			return nil, err
		}
		return []string{name}, nil
	}
	return h.node.Streams()
}

// span reads from and to; absent they are 0.
func (c *call) span() (from, to m4f.UTC, err error) {
	for _, v := range []struct {
		name string
		dst  *m4f.UTC
	}{{"from", &from}, {"to", &to}} {
		if text := c.query.Get(v.name); text != "" {
			if *v.dst, err = parseTime(text); err != nil {
				return 0, 0, m4fhttp.Problemf(http.StatusBadRequest, "%s=%s is no time; %s", v.name, m4fhttp.Clip(text), writeTime)
			}
		}
	}
	if to != 0 && to <= from {
		return 0, 0, m4fhttp.Problemf(http.StatusBadRequest, "to is not after from")
	}
	return from, to, nil
}

// number reads a whole number of the query.
func (c *call) number(name string, otherwise, least, most int) (int, error) {
	text := c.query.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, m4fhttp.Problemf(http.StatusBadRequest, "%s=%s is no whole number from %d to %d", name, m4fhttp.Clip(text), least, most)
	}
	return n, nil
}

// reading runs what reads much of an archive, a few at a time: whoever asks waits,
// and what records does not.
func (h *Handler) reading(ctx context.Context, fn func() error) error {
	select {
	case h.reads <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.reads }()
	return fn()
}

// maxReads is how many requests read archives at once.
const maxReads = 2

// body reads a JSON object; a field that is not known, a second value and another
// type are refused.
func (c *call) body(v any) error {
	dec := json.NewDecoder(c.r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.More() {
		err = errors.New("something follows the object")
	}
	var kind *json.UnmarshalTypeError
	var long *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &long):
		return m4fhttp.Problemf(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", long.Limit)
	case errors.As(err, &kind) && kind.Type == timeType:
		return m4fhttp.Problemf(http.StatusBadRequest, "%s is no time in the body: %s; %s", m4fhttp.Clip(kind.Field), m4fhttp.Clip(kind.Value), writeTime)
	case errors.As(err, &kind):
		return m4fhttp.Problemf(http.StatusBadRequest, "%s is a %s in the body; it is to be another type, see /api/v1/openapi.json", m4fhttp.Clip(kind.Field), kind.Value)
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "json: unknown field "); ok {
		return m4fhttp.Problemf(http.StatusBadRequest, "the body has a field %s, which this does not take; see /api/v1/openapi.json", m4fhttp.Clip(name))
	}
	return m4fhttp.Problemf(http.StatusBadRequest, "the body is no JSON object as this takes it: %s", m4fhttp.Clip(text))
}
