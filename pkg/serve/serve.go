package serve

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Node is a running node as the HTTP side sees it.
type Node interface {
	m4fhttp.Provider
	Status() NodeStatus
}

// Options are what a Handler needs.
type Options struct {
	Node   Node
	Auth   *m4fhttp.Auth
	NodeID string
	Log    *slog.Logger
}

// Handler answers every request to a node: M4F for those with the cluster key,
// the API for loopback only.
type Handler struct {
	node Node
	m4f  *m4fhttp.Handler
	mux  *http.ServeMux
}

// NewHandler returns a Handler.
func NewHandler(o Options) *Handler {
	h := &Handler{
		node: o.Node,
		m4f:  m4fhttp.NewHandler(m4fhttp.Options{Provider: o.Node, Auth: o.Auth, NodeID: o.NodeID, Log: o.Log}),
		mux:  http.NewServeMux(),
	}
	h.mux.Handle("GET /api/v1/streams", loopbackOnly(h.streams))
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		m4fhttp.WriteProblem(w, http.StatusNotFound, "nothing is served at this address; try /api/v1/streams, or /STREAM/m4f/info")
	})
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m4fhttp.Match(r) {
		h.m4f.ServeHTTP(w, r)
		return
	}
	if m4fhttp.RefuseBody(w, r) {
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *Handler) streams(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// The status has been sent; an error of writing is the client's going.
	_ = json.NewEncoder(w).Encode(h.node.Status())
}

// loopbackOnly refuses requests that do not come from this machine: also those
// that a proxy on it passes on, and those of a browser on it that was sent here
// by another site's name for this address.
func loopbackOnly(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r.RemoteAddr) || !localName(r.Host) || passedOn(r.Header) {
			m4fhttp.WriteProblem(w, http.StatusForbidden, "the API answers requests from the node's own machine only")
			return
		}
		next(w, r)
	})
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
