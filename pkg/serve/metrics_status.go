package serve

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// family is what the metrics of one name have in common.
type family struct {
	name string
	kind prometheus.ValueType
	desc *prometheus.Desc
}

// families are those of statusCollector.
var families []*family

func newFamily(kind prometheus.ValueType, name, help string, labels []string) *family {
	f := &family{name, kind, prometheus.NewDesc(name, help, labels, nil)}
	families = append(families, f)
	return f
}

// gauge is a family of values that go up and down.
func gauge(name, help string, labels ...string) *family {
	return newFamily(prometheus.GaugeValue, name, help, labels)
}

// counter is a family of values that only grow while the process lives.
func counter(name, help string, labels ...string) *family {
	return newFamily(prometheus.CounterValue, name, help, labels)
}

// What a node tells of itself.
var (
	mBuild   = gauge("twindvr_build_info", "Always 1; the labels say what runs.", "version", "goversion")
	mHealthy = gauge("twindvr_healthy", "1 if all streams are healthy and all sources of streams can be reached.")
	mSummed  = gauge("twindvr_status_duration_seconds", "How long it took to find out what these metrics tell.")
)

// What it tells of a stream.
var (
	mStreamHealthy      = gauge("twindvr_stream_healthy", "1 if nothing is wrong with the stream.", "stream")
	mStreamMode         = gauge("twindvr_stream_mode", "1 for the mode that the stream is in, 0 for the others.", "stream", "mode")
	mStreamUnreplicated = gauge("twindvr_stream_unreplicated", "1 if the stream replicates and no peer of it can be reached.", "stream")
	mStreamRetired      = gauge("twindvr_stream_retired", "1 if the stream is no longer configured, and only served and pruned.", "stream")
)

// What it tells of a stream's archive.
var (
	mArchiveUp          = gauge("twindvr_archive_writable", "1 if the archive can be written, as far as is known.", "stream")
	mArchiveDepth       = gauge("twindvr_archive_depth_seconds", "How far back the archive is to be kept.", "stream")
	mArchiveReached     = gauge("twindvr_archive_reached_seconds", "From the oldest to the newest of what is kept.", "stream")
	mArchiveMissing     = gauge("twindvr_archive_missing_seconds", "How much is missing within the depth: the length of all gaps.", "stream")
	mArchiveGaps        = gauge("twindvr_archive_gaps", "Gaps within the depth.", "stream")
	mArchiveDamaged     = gauge("twindvr_archive_damaged_seconds", "For how long damaged segments are shown within the depth.", "stream")
	mArchiveDamagedSegs = gauge("twindvr_archive_damaged_segments", "Segments shown within the depth that were recorded with losses.", "stream")
	mArchivePartialSegs = gauge("twindvr_archive_partial_segments", "Segments shown within the depth that were begun late or ended early.", "stream")
	mArchiveSegments    = gauge("twindvr_archive_segments", "Segments shown within the depth.", "stream")
	mArchiveSize        = gauge("twindvr_archive_size_bytes", "Media shown within the depth.", "stream")
	mArchiveSizeLimit   = gauge("twindvr_archive_size_limit_bytes", "How much of the stream is kept at most; absent without a limit.", "stream")
	mArchiveRate        = gauge("twindvr_archive_bytes_per_second", "The rate of the media of the last two hours.", "stream")
	mArchiveOldest      = gauge("twindvr_archive_oldest_timestamp_seconds", "Where the archive begins.", "stream")
	mArchiveNewest      = gauge("twindvr_archive_newest_timestamp_seconds", "Where the archive ends.", "stream")
	mArchiveKept        = gauge("twindvr_archive_kept_spans", "Spans that are protected from pruning.", "stream")
	mVolumeFree         = gauge("twindvr_volume_free_bytes", "What is free on the volume of archives.", "volume")
	mVolumeSize         = gauge("twindvr_volume_size_bytes", "The size of the volume of archives.", "volume")
	mVolumeMinFree      = gauge("twindvr_volume_min_free_bytes", "What recording leaves free on the volume.", "volume")
	mVolumeFull         = gauge("twindvr_volume_full_in_seconds", "When the volume is as full as its limits allow, at the present rate of all its streams; absent: all of them reach their depth before.", "volume")
	mVerifyRunning      = gauge("twindvr_verify_running", "1 while the archive is read again and checked.", "stream")
	mVerifyEnded        = gauge("twindvr_verify_ended_timestamp_seconds", "When the last complete pass of checking ended.", "stream")
	mVerifyDue          = gauge("twindvr_verify_due_timestamp_seconds", "When the next pass of checking is due.", "stream")
	mVerifyBad          = gauge("twindvr_verify_bad_segments", "Bad segments that the pass under way, or else the last one, has found.", "stream")
	mVerifyFailed       = gauge("twindvr_verify_failed", "1 if the last pass of checking broke off.", "stream")
	mVerifySetAside     = counter("twindvr_verify_set_aside_segments_total", "Segments set aside since their bytes went bad on the disk, by passes and by readers.", "stream")
	mSalvageEntries     = gauge("twindvr_salvage_entries", "Damaged and partial segments of which the packets are kept.", "stream")
	mSalvageSize        = gauge("twindvr_salvage_size_bytes", "Packets of damaged and partial segments that are kept.", "stream")
	mSalvageLimit       = gauge("twindvr_salvage_limit_bytes", "How much of them is kept at most.", "stream")
	mSalvageKept        = counter("twindvr_salvage_kept_total", "Segments of which the packets were kept.", "stream")
	mSalvageDropped     = counter("twindvr_salvage_dropped_total", "Segments of which the packets were dropped: the disk was too slow or too full.", "stream")
)

// What it tells of a stream's inputs; those that are peers have no packets.
var (
	mInputActive      = gauge("twindvr_input_active", "1 for the input that the stream is recorded from.", "stream", "input")
	mInputUp          = gauge("twindvr_input_up", "1 if the input delivers.", "stream", "input")
	mInputPosition    = gauge("twindvr_input_position", "The input's place in the configuration, 0 for the first.", "stream", "input")
	mInputLast        = gauge("twindvr_input_last_data_timestamp_seconds", "When data last came.", "stream", "input")
	mInputClock       = gauge("twindvr_input_clock_disagreement_seconds", "By how much the times of a peer and of this node disagree for what the input delivers; 0: they do not.", "stream", "input")
	mInputBytes       = counter("twindvr_input_received_bytes_total", "Bytes received.", "stream", "input")
	mInputSegments    = counter("twindvr_input_segments_total", "Segments completed, or fetched from a peer.", "stream", "input")
	mInputDamaged     = counter("twindvr_input_damaged_segments_total", "Segments completed with losses.", "stream", "input")
	mInputUnwritten   = counter("twindvr_input_unwritten_segments_total", "Segments dropped since the disk was too slow.", "stream", "input")
	mInputPackets     = counter("twindvr_input_packets_total", "Transport packets received.", "stream", "input")
	mInputLost        = counter("twindvr_input_lost_packets_total", "Transport packets known to be missing.", "stream", "input")
	mInputErrored     = counter("twindvr_input_errored_packets_total", "Transport packets with an error.", "stream", "input")
	mInputDatagrams   = counter("twindvr_input_datagrams_total", "Datagrams, or blocks of a connection, received.", "stream", "input")
	mInputDropped     = counter("twindvr_input_dropped_datagrams_total", "Datagrams that the kernel dropped.", "stream", "input")
	mInputTruncated   = counter("twindvr_input_truncated_datagrams_total", "Datagrams longer than the longest readable.", "stream", "input")
	mInputDatagramsNo = counter("twindvr_input_lost_datagrams_total", "Datagrams that never came, by their numbers.", "stream", "input")
	mInputReordered   = counter("twindvr_input_reordered_datagrams_total", "Datagrams put back into their order.", "stream", "input")
	mInputDuplicates  = counter("twindvr_input_duplicate_datagrams_total", "Datagrams that came again.", "stream", "input")
	mInputRecovered   = counter("twindvr_input_recovered_datagrams_total", "Datagrams recovered by error correction, a second path or retransmission.", "stream", "input")
	mInputErrors      = counter("twindvr_input_errors_total", "Packets, requests or playlists that failed or made no sense.", "stream", "input")
	mInputReconnects  = counter("twindvr_input_reconnects_total", "Attempts to open the input after the first.", "stream", "input")
)

// What it tells of peers, and of nodes whose streams are recorded as they list them.
var (
	mPeerUp          = gauge("twindvr_peer_up", "1 if the peer can be reached.", "stream", "peer")
	mPeerReplicates  = gauge("twindvr_peer_replicates", "1 if gaps and damage are filled from the peer.", "stream", "peer")
	mPeerHeard       = gauge("twindvr_peer_heard_timestamp_seconds", "When the peer last said anything.", "stream", "peer")
	mPeerClock       = gauge("twindvr_peer_clock_offset_seconds", "By how much the peer's clock is ahead of this node's, to within the delay between them.", "stream", "peer")
	mPeerPending     = gauge("twindvr_peer_pending_segments", "Segments that the peer has listed and that are not looked at yet.", "stream", "peer")
	mPeerLag         = gauge("twindvr_peer_lag_seconds", "For how long the oldest of the pending segments has been pending: the lag of replication.", "stream", "peer")
	mPeerReconciling = gauge("twindvr_peer_reconciling", "1 while the archives are compared or filled.", "stream", "peer")
	mPeerBacklog     = gauge("twindvr_peer_backlog_bytes", "What is still to be fetched of it.", "stream", "peer")
	mPeerETA         = gauge("twindvr_peer_backlog_done_in_seconds", "When that is fetched, at the present rate.", "stream", "peer")
	mPeerUnfilled    = gauge("twindvr_peer_unfilled_segments", "Segments that the last comparison could not get.", "stream", "peer")
	mPeerSegments    = counter("twindvr_peer_fetched_segments_total", "Segments fetched.", "stream", "peer")
	mPeerBytes       = counter("twindvr_peer_fetched_bytes_total", "Bytes of media fetched.", "stream", "peer")
	mPeerCopied      = counter("twindvr_peer_copied_segments_total", "Segments that got better flags, of which the peer knew.", "stream", "peer")
	mPeerMended      = counter("twindvr_peer_mended_segments_total", "Segments made of packets of both nodes.", "stream", "peer")
	mPeerMendPackets = counter("twindvr_peer_mend_packets_total", "Packets fetched for them.", "stream", "peer")
	mPeerMendBytes   = counter("twindvr_peer_mend_bytes_total", "Bytes fetched for them, with what was compared to find them.", "stream", "peer")
	mPeerTraffic     = counter("twindvr_peer_traffic_bytes_total", "Bytes that went over connections to the peer, in each direction.", "stream", "peer", "direction")
	mSourceUp        = gauge("twindvr_source_up", "1 if the node of a source block can be reached.", "source")
	mSourceListed    = gauge("twindvr_source_listed_streams", "Streams that it has.", "source")
	mSourceTaken     = gauge("twindvr_source_taken_streams", "Streams that are taken of it.", "source")
)

// modes are those that a stream can be in.
var modes = []string{Normal, Recovery, Emergency, Offline}

// statusCollector tells of a node what its status says when it is asked.
type statusCollector struct{ node Node }

// Describe implements prometheus.Collector.
func (c statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	began := time.Now()
	st := c.node.Status()
	took := time.Since(began)
	t := teller{ch}
	t.put(mBuild, 1, st.Version, runtime.Version())
	t.put(mHealthy, is(st.Healthy))
	t.put(mSummed, took.Seconds())
	for i := range st.Streams {
		t.stream(&st.Streams[i])
	}
	t.volumes(st.Streams)
	for i := range st.Sources {
		s := &st.Sources[i]
		t.put(mSourceUp, is(s.Reachable), s.URL)
		t.put(mSourceListed, float64(s.Listed), s.URL)
		t.put(mSourceTaken, float64(len(s.Streams)), s.URL)
	}
}

// teller sends metrics.
type teller struct{ ch chan<- prometheus.Metric }

func (t teller) put(f *family, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(f.desc, f.kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(f.desc, err)
	}
	t.ch <- m
}

// count tells a counter.
func (t teller) count(f *family, n int64, labels ...string) { t.put(f, float64(n), labels...) }

// at tells a time, where there is one.
func (t teller) at(f *family, at *time.Time, labels ...string) {
	if at != nil {
		t.put(f, float64(at.UnixMilli())/1000, labels...)
	}
}

// is is a yes or no as a number.
func is(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (t teller) stream(s *StreamStatus) {
	t.put(mStreamHealthy, is(s.Healthy), s.Name)
	t.put(mStreamRetired, is(s.Retired), s.Name)
	t.archive(s.Name, &s.Archive)
	if s.Retired {
		return
	}
	for _, mode := range modes {
		t.put(mStreamMode, is(s.Mode == mode), s.Name, mode)
	}
	t.put(mStreamUnreplicated, is(s.Unreplicated), s.Name)
	for i := range s.Inputs {
		t.input(s.Name, i, &s.Inputs[i])
	}
	seen := map[string]int{}
	for i := range s.Peers {
		t.peer(s.Name, Unique(seen, s.Peers[i].URL), &s.Peers[i])
	}
}

// Unique makes a label of a name that may come twice.
func Unique(seen map[string]int, name string) string {
	if seen[name]++; seen[name] > 1 {
		return fmt.Sprintf("%s #%d", name, seen[name])
	}
	return name
}

func (t teller) archive(name string, a *ArchiveStatus) {
	t.put(mArchiveUp, is(a.Error == ""), name)
	t.put(mArchiveDepth, a.Depth, name)
	t.put(mArchiveReached, a.Reached, name)
	t.put(mArchiveMissing, a.GapSeconds, name)
	t.put(mArchiveGaps, float64(a.Gaps), name)
	t.put(mArchiveDamaged, a.DamagedSeconds, name)
	t.put(mArchiveDamagedSegs, float64(a.Damaged), name)
	t.put(mArchivePartialSegs, float64(a.Partial), name)
	t.put(mArchiveSegments, float64(a.Segments), name)
	t.put(mArchiveSize, float64(a.Bytes), name)
	if a.SizeLimit > 0 {
		t.put(mArchiveSizeLimit, float64(a.SizeLimit), name)
	}
	t.put(mArchiveRate, a.BytesPerSec, name)
	t.at(mArchiveOldest, a.Oldest, name)
	t.at(mArchiveNewest, a.Newest, name)
	t.put(mArchiveKept, float64(a.Kept), name)
	v := &a.Verify
	t.put(mVerifyRunning, is(v.Running), name)
	t.at(mVerifyEnded, v.Ended, name)
	t.at(mVerifyDue, v.Due, name)
	t.put(mVerifyBad, float64(v.Bad), name)
	t.put(mVerifyFailed, is(v.Error != ""), name)
	t.count(mVerifySetAside, v.SetAside, name)
	s := &a.Salvage
	t.put(mSalvageEntries, float64(s.Entries), name)
	t.put(mSalvageSize, float64(s.Bytes), name)
	t.put(mSalvageLimit, float64(s.Limit), name)
	t.count(mSalvageKept, s.Kept, name)
	t.count(mSalvageDropped, s.Dropped, name)
}

// volumes tells of each volume once. What the streams of one say of it is of about
// the same time.
func (t teller) volumes(streams []StreamStatus) {
	full := map[string]*float64{}
	for i := range streams {
		a := &streams[i].Archive
		if a.Volume == "" || a.DiskSize == 0 {
			continue
		}
		days, seen := full[a.Volume]
		if !seen {
			t.put(mVolumeFree, float64(a.DiskFree), a.Volume)
			t.put(mVolumeSize, float64(a.DiskSize), a.Volume)
			t.put(mVolumeMinFree, float64(a.MinFree), a.Volume)
		}
		if d := a.DaysUntilFull; days == nil || d != nil && *d < *days {
			full[a.Volume] = d
		}
	}
	for volume, days := range full {
		if days != nil {
			t.put(mVolumeFull, *days*24*time.Hour.Seconds(), volume)
		}
	}
}

func (t teller) input(stream string, i int, in *InputStatus) {
	l := []string{stream, in.Name()}
	t.put(mInputActive, is(in.Active), l...)
	t.put(mInputUp, is(in.State == "good"), l...)
	t.put(mInputPosition, float64(i), l...)
	t.at(mInputLast, in.LastData, l...)
	t.count(mInputBytes, in.Bytes, l...)
	t.count(mInputSegments, in.Segments, l...)
	if strings.HasPrefix(in.URL, "m4f") {
		return
	}
	t.put(mInputClock, in.ClockError, l...)
	for _, c := range []struct {
		f *family
		n int64
	}{
		{mInputDamaged, in.Damaged}, {mInputUnwritten, in.Unwritten}, {mInputPackets, in.Packets}, {mInputLost, in.Lost},
		{mInputErrored, in.Errored}, {mInputDatagrams, in.Datagrams}, {mInputDropped, in.Dropped}, {mInputTruncated, in.Truncated},
		{mInputDatagramsNo, in.DatagramsLost}, {mInputReordered, in.Reordered}, {mInputDuplicates, in.Duplicates},
		{mInputRecovered, in.Recovered}, {mInputErrors, in.Errors}, {mInputReconnects, in.Reconnects},
	} {
		t.count(c.f, c.n, l...)
	}
}

func (t teller) peer(stream, name string, p *PeerStatus) {
	l := []string{stream, name}
	t.put(mPeerUp, is(p.Reachable), l...)
	t.put(mPeerReplicates, is(p.Replicates), l...)
	t.at(mPeerHeard, p.Heard, l...)
	if p.ClockOffset != nil {
		t.put(mPeerClock, *p.ClockOffset, l...)
	}
	t.put(mPeerPending, float64(p.Pending), l...)
	t.put(mPeerLag, p.Lag, l...)
	t.put(mPeerReconciling, is(p.Reconciling), l...)
	t.put(mPeerBacklog, float64(p.Backlog), l...)
	if p.ETA != nil {
		t.put(mPeerETA, *p.ETA, l...)
	}
	t.put(mPeerUnfilled, float64(p.Unfilled), l...)
	t.count(mPeerSegments, p.Segments, l...)
	t.count(mPeerBytes, p.Bytes, l...)
	t.count(mPeerCopied, p.Copied, l...)
	t.count(mPeerMended, p.Mended, l...)
	t.count(mPeerMendPackets, p.MendPackets, l...)
	t.count(mPeerMendBytes, p.MendBytes, l...)
	t.count(mPeerTraffic, p.TrafficIn, append(l, "in")...)
	t.count(mPeerTraffic, p.TrafficOut, append(l, "out")...)
}
