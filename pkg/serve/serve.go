// Package serve is the HTTP side of a running node: M4F, the playing and downloading
// of streams, the API, the metrics, the page, and who may use which. It declares
// what a node must offer; package node fulfils it.
package serve

import (
	"cmp"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
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
	// Access says who may see and change what; nil: the machine itself alone.
	Access *Access
}

// Handler answers every request to a node: M4F for those with the cluster key,
// everything else for whom its Access lets in.
type Handler struct {
	node Node
	m4f  *m4fhttp.Handler
	mux  *http.ServeMux
	log  *slog.Logger

	metrics *metrics
	counted http.Handler // answer, with its requests counted

	access *Access

	nodeID    string
	reads     chan struct{} // a token for each request that reads archives
	followers atomic.Int32  // of events

	play      *player
	playables []playable
}

// NewHandler returns a Handler.
func NewHandler(o Options) *Handler {
	h := &Handler{
		node: o.Node,
		m4f:  m4fhttp.NewHandler(m4fhttp.Options{Provider: o.Node, Auth: o.Auth, NodeID: o.NodeID, Log: o.Log}),
		mux:  http.NewServeMux(),
		log:  cmp.Or(o.Log, slog.Default()),

		access: o.Access,
		nodeID: o.NodeID, reads: make(chan struct{}, maxReads),
	}
	h.play = newPlayer(o.Node, clock.System)
	if h.access == nil {
		h.access = NewAccess(&config.Access{}, nil, h.log)
	}
	h.routeAPI()
	h.routeMetrics()
	h.routePage()
	h.routePlayback()
	h.counted = h.metrics.measured(http.HandlerFunc(h.answer))
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.counted.ServeHTTP(w, r) }

func (h *Handler) answer(w http.ResponseWriter, r *http.Request) {
	if m4fhttp.Match(r) {
		h.m4f.ServeHTTP(w, r)
		return
	}
	if h.access.cors(w, r) {
		return
	}
	if !takesBody(w, r) && m4fhttp.RefuseBody(w, r) {
		return
	}
	h.mux.ServeHTTP(w, r)
}
