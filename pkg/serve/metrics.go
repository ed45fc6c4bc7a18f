package serve

import (
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Measured is a node that measures more than its status tells.
type Measured interface {
	// Collectors are of what it measures, with names that begin with twindvr_ and
	// are not those of this package.
	Collectors() []prometheus.Collector
}

// routeMetrics adds the metrics, in the formats of Prometheus.
func (h *Handler) routeMetrics() {
	h.metrics = newMetrics(h.node)
	log := promLog{h.log}
	h.mux.Handle("GET /metrics", h.readers(promhttp.HandlerFor(h.metrics.registry, promhttp.HandlerOpts{
		ErrorLog: log,
		// One series that cannot be told must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	}).ServeHTTP))
}

// maxScrapes bounds how many ask for the metrics at once.
const maxScrapes = 4

// promLog has errors of the Prometheus library in the log.
type promLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l promLog) Println(v ...any) {
	for _, x := range v {
		if err, ok := x.(error); ok {
			if clientGone(err) {
				return
			}
			l.log.Warn("some metrics cannot be told", "err", err)
			return
		}
	}
}

// metrics are those of one Handler.
type metrics struct {
	registry *prometheus.Registry
	classes  map[string]func(http.Handler) http.Handler
}

func newMetrics(n Node) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		statusCollector{n},
	)
	if n, ok := n.(Measured); ok {
		m.registry.MustRegister(n.Collectors()...)
	}
	m.measureHTTP()
	return m
}

// The kinds of request that are told apart.
var requestKinds = []string{"m4f", "api", "metrics", "playlist", "media", "page"}

// requestKind is one of requestKinds.
func requestKind(r *http.Request) string {
	p := r.URL.Path
	switch {
	case m4fhttp.Match(r):
		return "m4f"
	case strings.HasPrefix(p, "/api/"):
		return "api"
	case p == "/metrics":
		return "metrics"
	}
	switch path.Ext(p) {
	case ".m3u8", ".mpd":
		return "playlist"
	case ".mp4", ".m4s", ".m4a", ".m4v", ".ts", ".jpg":
		return "media"
	}
	return "page"
}

// measureHTTP makes what counts requests.
func (m *metrics) measureHTTP() {
	kind := []string{"kind"}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "twindvr_http_requests_total", Help: "HTTP requests that were answered, by kind and status.",
	}, []string{"kind", "code", "method"})
	under := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "twindvr_http_requests_in_flight", Help: "HTTP requests under way.",
	}, kind)
	size := prometheus.NewSummaryVec(prometheus.SummaryOpts{
		Name: "twindvr_http_response_size_bytes", Help: "Bytes of the bodies of HTTP responses.",
	}, kind)
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "twindvr_http_request_duration_seconds", Help: "How long HTTP requests took. Those that have no end, as of peers that follow, count when they are over.",
		Buckets: []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, kind)
	m.registry.MustRegister(requests, under, size, took)
	m.classes = make(map[string]func(http.Handler) http.Handler, len(requestKinds))
	for _, k := range requestKinds {
		l := prometheus.Labels{"kind": k}
		r, s, t, u := requests.MustCurryWith(l), size.MustCurryWith(l), took.MustCurryWith(l), under.With(l)
		m.classes[k] = func(next http.Handler) http.Handler {
			return promhttp.InstrumentHandlerInFlight(u, promhttp.InstrumentHandlerDuration(t,
				promhttp.InstrumentHandlerResponseSize(s, promhttp.InstrumentHandlerCounter(r, next))))
		}
	}
}

// measured counts the requests that next answers.
func (m *metrics) measured(next http.Handler) http.Handler {
	by := make(map[string]http.Handler, len(m.classes))
	for k, wrap := range m.classes {
		by[k] = wrap(next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { by[requestKind(r)].ServeHTTP(w, r) })
}
