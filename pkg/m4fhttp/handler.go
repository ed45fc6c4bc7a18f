package m4fhttp

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sync/semaphore"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// infix separates a stream's name from what is asked of it.
const infix = "/m4f/"

// Provider is where a handler finds streams: the directories below a root, or
// a running node.
type Provider interface {
	// Streams returns the names of the streams that there are, sorted.
	Streams() ([]string, error)
	// Stream returns the stream of a valid name. The error wraps ErrNoStream
	// where there is none.
	Stream(name string) (Stream, error)
}

// Stream is a stream as a handler serves it.
type Stream interface {
	Archive() *archive.Stream
	// Live is the state of the stream beside its archive. Its Chain ends with the
	// node itself where something is recorded.
	Live() Live
}

// ErrNoStream is wrapped by a Provider that has no stream of a name.
var ErrNoStream = errors.New("no such stream")

// NewNodeID returns a name for a running node. It is random, so that cloned
// disks do not look like loops.
func NewNodeID() string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("m4fhttp: no randomness: %v", err))
	}
	return hex.EncodeToString(b[:])
}

// Options are what a Handler needs.
type Options struct {
	Provider Provider
	Auth     *Auth  // nil: open to everybody
	NodeID   string // from NewNodeID
	Log      *slog.Logger
	Clock    clock.Clock
}

// Handler answers M4F over HTTP for every stream of a Provider. Match tells
// which requests are its own.
type Handler struct {
	Options
	salvage  *semaphore.Weighted // bytes of salvage in memory
	asked    asked               // segments, lately
	together together            // segments that followers are sent
}

// NewHandler returns a handler. Without a key it logs that M4F is open.
func NewHandler(o Options) *Handler {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.NodeID == "" {
		o.NodeID = NewNodeID()
	}
	if o.Auth == nil {
		o.Auth = NewAuth(nil, o.Clock, o.Log)
	}
	if o.Auth.Open() {
		o.Log.Warn("M4F is open to everybody who reaches this port; a cluster key closes it")
	}
	return &Handler{Options: o, salvage: semaphore.NewWeighted(salvageMemory)}
}

// Match says whether a request is one of M4F over HTTP.
func Match(r *http.Request) bool { return strings.Contains(r.URL.Path, infix) }

// request is a request that is authorised and whose stream exists.
type request struct {
	w      http.ResponseWriter
	r      *http.Request
	query  url.Values
	name   string
	stream Stream
	key    string // the hash of the one that it was granted with
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if RefuseBody(w, r) {
		return
	}
	key, ok := h.Auth.allow(w, r)
	if !ok {
		return
	}
	if err := h.serve(w, r, key); err != nil {
		h.fail(w, r, err)
	}
}

// fail answers with the problem that err is or stands for.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	switch {
	case r.Context().Err() != nil:
		// The server stops, or the client has gone: no answer is better than
		// an empty one.
		panic(http.ErrAbortHandler)
	case errors.As(err, &p):
	default:
		h.Log.Error("request failed", "path", clip(r.URL.Path), "from", r.RemoteAddr, "err", err)
		p = problemf(http.StatusInternalServerError, "this node could not read its archive; its log says why")
	}
	p.write(w)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, key string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return problemf(http.StatusMethodNotAllowed, "M4F is read with GET")
	}
	if r.URL.Path == streamsPath {
		return h.serveStreams(w, r)
	}
	at := strings.LastIndex(r.URL.Path, infix)
	if at < 1 {
		return problemf(http.StatusNotFound, "nothing is here; M4F is at /STREAM/m4f/info and beside it")
	}
	name, what := r.URL.Path[1:at], r.URL.Path[at+len(infix):]
	if err := config.ValidName(name); err != nil {
		return problemf(http.StatusBadRequest, "%s", clip(err.Error()))
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problemf(http.StatusBadRequest, "the query cannot be read: %s", clip(err.Error()))
	}
	serve, allowed := h.route(what)
	if serve == nil {
		return problemf(http.StatusNotFound, "there is no m4f/%s; there is info, changes, hours, minutes, outline, segments, coverage, media, live and salvage", clip(what))
	}
	for key, values := range query {
		if !strings.Contains(allowed, key+" ") {
			return problemf(http.StatusBadRequest, "m4f/%s takes no %s; it takes: %s", what, clip(key), allowed)
		}
		if len(values) > 1 {
			return problemf(http.StatusBadRequest, "%s is given %d times", key, len(values))
		}
	}
	s, err := h.Provider.Stream(name)
	if errors.Is(err, ErrNoStream) {
		have, err := h.Provider.Streams()
		if err != nil {
			return err
		}
		return noStream(name, have)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return serve(&request{w, r, query, name, s, key})
}

// route finds what answers, and the words that its query may have, each with a
// space behind it.
func (h *Handler) route(what string) (serve func(*request) error, allowed string) {
	switch what {
	case "info":
		return h.serveInfo, "nothing "
	case "changes":
		return h.endless(h.serveChanges), "cursor "
	case "hours":
		return h.serveHours, "from to "
	case "minutes":
		return h.serveMinutes, "from to ranges "
	case "outline":
		return h.serveOutline, "from to ranges "
	case "segments":
		return h.serveSegments, "from to "
	case "coverage":
		return h.serveCoverage, "from to step "
	case "media":
		return h.serveSpan, "from to "
	case "live":
		return h.endless(h.serveLive), "after "
	case "salvage":
		return h.serveSalvage, "from to "
	}
	if id, ok := strings.CutPrefix(what, "media/"); ok && !strings.Contains(id, "/") {
		return func(q *request) error { return h.serveMedia(q, id) }, "nothing "
	}
	if of, ok := strings.CutPrefix(what, "salvage/"); ok {
		return h.routeSalvage(of)
	}
	return nil, ""
}

// span reads from and to: RFC 3339, or Unix seconds. Absent they are 0, the
// beginning and the end.
func (q *request) span() (from, to m4f.UTC, err error) {
	for _, v := range []struct {
		name string
		dst  *m4f.UTC
	}{{"from", &from}, {"to", &to}} {
		text := q.query.Get(v.name)
		if text == "" {
			continue
		}
		if *v.dst, err = parseTime(text); err != nil {
			return 0, 0, problemf(http.StatusBadRequest, "%s=%s is no time; write it as 2026-11-22T12:00:00Z or as Unix seconds", v.name, clip(text))
		}
	}
	if to != 0 && to <= from {
		return 0, 0, problemf(http.StatusBadRequest, "to is not after from")
	}
	return from, to, nil
}

func parseTime(s string) (m4f.UTC, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && n <= int64(maxTime)/m4f.Timescale {
		return m4f.UTC(n * m4f.Timescale), nil
	}
	var t Time
	if err := t.UnmarshalText([]byte(s)); err != nil {
		return 0, err
	}
	return m4f.UTC(t), nil
}

// serveInfo answers with what there is of the stream.
func (h *Handler) serveInfo(q *request) error {
	info, err := h.info(q)
	if err != nil {
		return err
	}
	body, err := json.Marshal(info)
	if err != nil {
		return err
	}
	body = append(body, '\n')
	q.w.Header().Set("Content-Type", "application/json")
	q.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// The client is gone if this fails; there is nobody to tell.
	_, _ = q.w.Write(body)
	return nil
}

func (h *Handler) info(q *request) (*Info, error) {
	a := q.stream.Archive()
	have, err := a.Info()
	if err != nil {
		return nil, err
	}
	info := &Info{
		Node:           h.NodeID,
		Stream:         q.name,
		TargetDuration: have.TargetDuration,
		Rules:          have.Rules,
		Live:           h.live(q.stream),
	}
	if have.Horizon != 0 {
		info.Horizon = ptr(Time(have.Horizon))
	}
	if have.Newest == 0 {
		return info, nil
	}
	info.Oldest, info.Newest = ptr(Time(have.Oldest)), ptr(Time(have.Newest))
	last, err := newest(a, have.Newest)
	if err != nil || last == nil {
		return info, err
	}
	info.Timeline = &Timeline{MediaTime: last.MediaTime, UTC: Time(last.UTC)}
	info.Tracks = tracks(a, last)
	return info, nil
}

func ptr[T any](v T) *T { return &v }

// live is the stream's state; what is recorded came through this node last.
func (h *Handler) live(s Stream) Live {
	l := s.Live()
	if l.Chain == nil {
		l.Chain = []string{h.NodeID}
	}
	if l.SourceAge != nil { // milliseconds will do
		l.SourceAge = ptr(math.Round(*l.SourceAge*1000) / 1000)
	}
	return l
}

// newest finds the last segment of the view that ends at end.
func newest(a *archive.Stream, end m4f.UTC) (*archive.Element, error) {
	view, err := a.Span(end.Add(-1), end)
	if err != nil || len(view) == 0 {
		return nil, err
	}
	return &view[len(view)-1], nil
}

// tracks reads the init segment of an element. One that has gone since, or
// whose init segment cannot be read, has none.
func tracks(a *archive.Stream, e *archive.Element) []Track {
	media, err := a.OpenElement(e)
	if err != nil {
		return nil
	}
	defer media.Close()
	init, err := m4f.ParseInit(media.Init)
	if err != nil {
		return nil
	}
	var list []Track
	for _, t := range init.Tracks {
		list = append(list, Track{
			PID:        t.Config.PID,
			StreamType: t.Config.StreamType,
			Codec:      t.Config.Codec.String(),
			Language:   t.Language,
		})
	}
	return list
}
