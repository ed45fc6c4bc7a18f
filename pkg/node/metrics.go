package node

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/serve"
)

// diskBuckets are from what a cache takes to what a disk that hangs for a while
// does, in seconds.
var diskBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// measures are what a node measures while it works.
type measures struct {
	write, sync     *prometheus.HistogramVec // by volume
	bytes, segments *prometheus.CounterVec   // by stream and origin

	mu    sync.Mutex
	disks map[string]fsx.FS // by volume
}

func newMeasures() *measures {
	volume, origin := []string{"volume"}, []string{"stream", "origin"}
	return &measures{
		write: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "twindvr_archive_write_duration_seconds", Help: "How long writes to files of archives took.", Buckets: diskBuckets,
		}, volume),
		sync: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "twindvr_archive_sync_duration_seconds", Help: "How long fsync and fdatasync of files of archives took.", Buckets: diskBuckets,
		}, volume),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "twindvr_archive_added_bytes_total", Help: "Media added to the archive, by how it came.",
		}, origin),
		segments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "twindvr_archive_added_segments_total", Help: "Segments added to the archive, by how they came.",
		}, origin),
		disks: map[string]fsx.FS{},
	}
}

// disk is the file system of a volume, measured.
func (m *measures) disk(fsys fsx.FS, volume string) fsx.FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disks[volume] == nil {
		if fsys == nil {
			fsys = fsx.OS
		}
		write, sync := m.write.WithLabelValues(volume), m.sync.WithLabelValues(volume)
		m.disks[volume] = fsx.Timed(fsys, fsx.Timings{
			Write: func(d time.Duration) { write.Observe(d.Seconds()) },
			Sync:  func(d time.Duration) { sync.Observe(d.Seconds()) },
		})
	}
	return m.disks[volume]
}

// added returns what counts the segments that are added to a stream.
func (m *measures) added(stream string) func(*archive.Record) {
	type pair struct{ segments, bytes prometheus.Counter }
	by := map[archive.Origin]pair{}
	for _, o := range []archive.Origin{archive.Live, archive.Replicated, archive.Healed} {
		by[o] = pair{m.segments.WithLabelValues(stream, o.String()), m.bytes.WithLabelValues(stream, o.String())}
	}
	return func(r *archive.Record) {
		p, ok := by[r.Origin]
		if !ok {
			p = pair{m.segments.WithLabelValues(stream, r.Origin.String()), m.bytes.WithLabelValues(stream, r.Origin.String())}
		}
		p.segments.Inc()
		p.bytes.Add(float64(r.Length))
	}
}

// Collectors implements serve.Measured.
func (n *Node) Collectors() []prometheus.Collector {
	return []prometheus.Collector{n.measures.write, n.measures.sync, n.measures.bytes, n.measures.segments, eventCollector{n}}
}

// eventCollector tells how many events there were, and what became of them.
type eventCollector struct{ n *Node }

var (
	dEvents      = prometheus.NewDesc("twindvr_events_total", "Events, by stream and kind (twindvr.conf(5)).", []string{"stream", "kind"}, nil)
	dSwitches    = prometheus.NewDesc("twindvr_stream_switches_total", "How often another input was taken to record from, the first choice included.", []string{"stream"}, nil)
	dSinkUp      = prometheus.NewDesc("twindvr_event_sink_up", "0 if the last attempt to send events to the receiver has failed.", []string{"receiver"}, nil)
	dSinkWaiting = prometheus.NewDesc("twindvr_event_sink_waiting", "Events that wait for the receiver.", []string{"receiver"}, nil)
	dSinkSent    = prometheus.NewDesc("twindvr_event_sink_sent_total", "Events that the receiver took.", []string{"receiver"}, nil)
	dSinkDropped = prometheus.NewDesc("twindvr_event_sink_dropped_total", "Events dropped: the receiver did not take them in time, or refused them.", []string{"receiver"}, nil)
	dSinkFailed  = prometheus.NewDesc("twindvr_event_sink_failures_total", "Attempts to send events that failed.", []string{"receiver"}, nil)
)

// Describe implements prometheus.Collector.
func (c eventCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{dEvents, dSwitches, dSinkUp, dSinkWaiting, dSinkSent, dSinkDropped, dSinkFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c eventCollector) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d, kind, v, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(d, err)
		}
		ch <- m
	}
	counts := c.n.counts.all()
	for k, v := range counts {
		put(dEvents, prometheus.CounterValue, float64(v), k.stream, k.kind)
	}
	for _, s := range c.n.all() {
		put(dSwitches, prometheus.CounterValue, float64(counts[countKey{s.cfg.Name, event.Switch}]), s.cfg.Name)
	}
	seen := map[string]int{}
	for _, st := range c.n.sinks.stats() {
		to := serve.Unique(seen, st.Target)
		up := 1.0
		if st.Error != nil {
			up = 0
		}
		put(dSinkUp, prometheus.GaugeValue, up, to)
		put(dSinkWaiting, prometheus.GaugeValue, float64(st.Waiting), to)
		put(dSinkSent, prometheus.CounterValue, float64(st.Sent), to)
		put(dSinkDropped, prometheus.CounterValue, float64(st.Dropped), to)
		put(dSinkFailed, prometheus.CounterValue, float64(st.Failed), to)
	}
}
