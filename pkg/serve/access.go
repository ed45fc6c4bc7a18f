package serve

import (
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// maxBody bounds the body of a writing call.
const maxBody = 64 << 10

// viewers guards what shows something of the archive or the node: the page,
// playback, downloads.
func (h *Handler) viewers(next http.HandlerFunc) http.Handler {
	return guarded(next, "this node shows its archive to its own machine only", local)
}

// readers guards what the API and the metrics tell.
func (h *Handler) readers(next http.HandlerFunc) http.Handler {
	return guarded(next, "the API answers requests from the node's own machine only", local)
}

// writers guards what changes something. A browser is obeyed only when a page of
// this node itself sent it. A body is JSON of at most 64 KiB and comes at once.
func (h *Handler) writers(next http.HandlerFunc) http.Handler {
	return guarded(func(w http.ResponseWriter, r *http.Request) {
		if err := sameOrigin.Check(r); err != nil {
			m4fhttp.WriteProblem(w, http.StatusForbidden, "a page of another site may not change anything here")
			return
		}
		if r.ContentLength == 0 {
			next(w, r)
			return
		}
		// What a form of another site can send without asking first is never this.
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			w.Header().Set("Connection", "close")
			m4fhttp.WriteProblem(w, http.StatusUnsupportedMediaType, "send the body as Content-Type: application/json")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next(w, r)
	}, "the API takes changes from the node's own machine only", local)
}

// sameOrigin tells a browser's request for another site's page from its own.
var sameOrigin = http.NewCrossOriginProtection()

// guarded lets only those requests through to next that may pass.
func guarded(next http.HandlerFunc, refusal string, may func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !may(r) {
			if r.ContentLength != 0 {
				w.Header().Set("Connection", "close") // the body is not read
			}
			m4fhttp.WriteProblem(w, http.StatusForbidden, "%s", refusal)
			return
		}
		next(w, r)
	})
}

// takesBody says whether a request may carry a body: writing calls of the API.
// One that dawdles is cut off.
func takesBody(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/api/v1/") || r.Method != http.MethodPost {
		return false
	}
	// Where no deadline can be set, what answers bounds the body's length.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
	return true
}

// local says whether a request comes from this machine: not one that a proxy on
// it passes on, nor one of a browser on it that was sent here by another site's
// name for this address.
func local(r *http.Request) bool {
	return fromLoopback(r.RemoteAddr) && localName(r.Host) && !passedOn(r.Header)
}

func fromLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// localName says whether a Host header names an address, or this machine.
func localName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return host == "" || strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil
}

// passedOn says whether a request came through a proxy.
func passedOn(h http.Header) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if h.Get(name) != "" {
			return true
		}
	}
	return false
}
