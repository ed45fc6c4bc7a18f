package serve

import (
	"context"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// maxBody bounds the body of a writing call.
const maxBody = 64 << 10

// guarded hands on the requests that may does not refuse.
func guarded(may func(*http.Request) *refusal, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if no := may(r); no != nil {
			no.write(w, r)
			return
		}
		m4fhttp.Trust(r.Context())
		next(w, r)
	})
}

// viewers guards what shows more than one stream: the page.
func (h *Handler) viewers(next http.HandlerFunc) http.Handler {
	return guarded(func(r *http.Request) *refusal {
		g, no := h.access.view(r)
		if no == nil && g.token != nil && !g.token.all() {
			return &refusal{status: http.StatusForbidden, why: "this token opens a stream, not the page"}
		}
		return no
	}, next)
}

// players guards what plays a stream. Whoever answers asks permit for each stream
// and span before the first byte: a request with a token that it was not asked
// for is refused.
func (h *Handler) players(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, no := h.access.view(r)
		if no != nil {
			no.write(w, r)
			return
		}
		m4fhttp.Trust(r.Context())
		if g.token != nil {
			r = r.WithContext(context.WithValue(r.Context(), grantKey{}, g))
		}
		if g.known {
			w = &permitted{ResponseWriter: w, grant: g}
		}
		next(w, r)
	})
}

// readers guards what the API and the metrics tell.
func (h *Handler) readers(next http.HandlerFunc) http.Handler {
	return guarded(h.access.read, func(w http.ResponseWriter, r *http.Request) {
		r, done := h.access.hold(r, h.access.read)
		defer done()
		next(w, r)
	})
}

// writers guards what changes something. A body is JSON of at most 64 KiB and comes
// at once.
func (h *Handler) writers(next http.HandlerFunc) http.Handler {
	return guarded(h.access.write, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			next(w, r)
			return
		}
		// What a form of another site can send without asking first is never this.
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			no := &refusal{status: http.StatusUnsupportedMediaType, why: "send the body as Content-Type: application/json"}
			no.write(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next(w, r)
	})
}

// sameOrigin tells a browser's request for another site's page from its own.
var sameOrigin = http.NewCrossOriginProtection()

// takesBody says whether a request may carry a body: writing calls of the API.
// One that dawdles is cut off.
func takesBody(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, apiPath) || r.Method != http.MethodPost {
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
