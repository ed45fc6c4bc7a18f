package serve

import (
	"fmt"
	"time"
)

// The modes of a stream, worst first; the first that holds is the stream's.
const (
	Offline   = "offline"   // no input works
	Emergency = "emergency" // the first input does not work, a later one does
	Recovery  = "recovery"  // gaps or damage are being filled from a peer
	Normal    = "normal"
)

// NodeStatus is the answer to GET /api/v1/streams.
type NodeStatus struct {
	Node    string    `json:"node"` // random for each process
	Host    string    `json:"host"` // the machine's name
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Supervised: the node records, replicates and prunes. Else it only serves
	// archives (serve-m4f).
	Supervised bool           `json:"supervised"`
	Healthy    bool           `json:"healthy"`
	Streams    []StreamStatus `json:"streams"`
	// Sources are the other nodes whose streams are recorded as they list them.
	Sources []SourceStatus `json:"sources,omitempty"`
}

// SourceStatus is what a node knows of another that a source block names.
type SourceStatus struct {
	URL       string     `json:"url"`
	Reachable bool       `json:"reachable"`
	Heard     *time.Time `json:"heard,omitempty"` // when it last listed its streams
	Listed    int        `json:"listed"`          // streams that it has, but for those that it has from this node
	Streams   []string   `json:"streams"`         // the names of those that are taken
	Problems  []string   `json:"problems"`        // sentences
}

// StreamStatus is what a node knows of one stream. Times are RFC 3339,
// durations seconds, sizes bytes.
type StreamStatus struct {
	Name    string `json:"name"`
	Mode    string `json:"mode"`
	Healthy bool   `json:"healthy"`
	// Unreplicated: the stream replicates and no peer of it can be reached.
	Unreplicated bool `json:"unreplicated"`
	// Problems are sentences for the operator, one for each reason that the
	// stream is not healthy.
	Problems []string      `json:"problems"`
	Inputs   []InputStatus `json:"inputs"`
	Peers    []PeerStatus  `json:"peers"`
	Archive  ArchiveStatus `json:"archive"`
	// Backfill is the one that was asked for last, since the node began.
	Backfill *Backfill `json:"backfill,omitempty"`
	// Retired: the stream is no longer configured; it is served and pruned.
	Retired bool `json:"retired"`
}

// InputStatus is one of a stream's inputs, in the order of the configuration.
type InputStatus struct {
	URL     string     `json:"url"`               // without credentials
	Program uint16     `json:"program,omitempty"` // recorded of it; 0: the lowest
	State   string     `json:"state"`             // good, waiting, closed, silent, failed
	Active  bool       `json:"active"`
	Standby string     `json:"standby,omitempty"` // hot or cold, of an input behind the first
	Error   string     `json:"error,omitempty"`   // why it does not work
	Since   *time.Time `json:"since,omitempty"`   // since when it is good

	// Of the transport stream, as its continuity counters tell.
	Packets int64 `json:"packets"` // transport packets
	Lost    int64 `json:"lost"`    // transport packets known to be missing
	Errored int64 `json:"errored"` // transport packets with an error

	// Of what carries it: datagrams, or blocks of a connection.
	Datagrams     int64 `json:"datagrams"`
	Bytes         int64 `json:"bytes"`          // received
	Dropped       int64 `json:"dropped"`        // by the kernel
	Truncated     int64 `json:"truncated"`      // longer than the longest readable
	DatagramsLost int64 `json:"datagrams_lost"` // that never came, by their numbers
	Reordered     int64 `json:"reordered"`      // put back into their order
	Duplicates    int64 `json:"duplicates"`     // came again
	Recovered     int64 `json:"recovered"`      // by error correction, a second path or retransmission
	Errors        int64 `json:"errors"`         // packets, requests or playlists that made no sense or failed
	Reconnects    int64 `json:"reconnects"`     // attempts after the first

	Segments   int64      `json:"segments"`            // completed
	Damaged    int64      `json:"damaged"`             // of them
	Unwritten  int64      `json:"unwritten"`           // segments dropped because the disk was too slow
	ClockError float64    `json:"clock_error_seconds"` // by how much a peer's offset disagrees; 0: it does not
	LastData   *time.Time `json:"last_data,omitempty"` // when data last came
	LastSeg    *time.Time `json:"last_segment_completed,omitempty"`
}

// Name tells the input from others for an operator.
func (in *InputStatus) Name() string { return InputName(in.URL, in.Program) }

// InputName is the URL of an input, with the program that is recorded of it: the
// streams of one multiplex have one URL.
func InputName(url string, program uint16) string {
	if program == 0 {
		return url
	}
	return fmt.Sprintf("%s program %d", url, program)
}

// PeerStatus is a peer that the archive is followed at.
type PeerStatus struct {
	URL        string     `json:"url"`
	Reachable  bool       `json:"reachable"`
	Replicates bool       `json:"replicates"` // gaps and damage are filled from it
	Error      string     `json:"error,omitempty"`
	Heard      *time.Time `json:"heard,omitempty"`
	Mode       string     `json:"mode,omitempty"` // what the peer says of itself
	// Pending counts segments that the peer has listed and that are not looked
	// at yet; Lag is for how long the oldest of them has been.
	Pending int     `json:"pending"`
	Lag     float64 `json:"lag_seconds"`
	// Reconciling: the archives are being compared or filled. Backlog is what
	// is still to come; ETA is when, at the present rate.
	Reconciling bool  `json:"reconciling"`
	Backlog     int64 `json:"backlog_bytes"`
	// BacklogSeconds is how much media that is, by the archive's bytes a second.
	BacklogSeconds float64  `json:"backlog_seconds"`
	ETA            *float64 `json:"eta_seconds,omitempty"`
	Segments       int64    `json:"segments"` // fetched
	Copied         int64    `json:"copied"`   // made locally, for a better flag
	Bytes          int64    `json:"bytes"`    // fetched
	Unfilled       int      `json:"unfilled"` // segments the last comparison could not get
	// Mended segments were made of packets of both nodes; MendPackets were fetched
	// for them, and MendBytes with what was compared to find them.
	Mended      int64 `json:"mended"`
	MendPackets int64 `json:"mend_packets"`
	MendBytes   int64 `json:"mend_bytes"`
	TrafficIn   int64 `json:"traffic_in_bytes"`
	TrafficOut  int64 `json:"traffic_out_bytes"`
	// ClockOffset is by how much the peer's clock is ahead of this node's, to within
	// the delay between them; absent: it does not say.
	ClockOffset *float64 `json:"clock_offset_seconds,omitempty"`
}

// ArchiveStatus is the state of a stream's archive.
type ArchiveStatus struct {
	Dir     string     `json:"dir"`
	Error   string     `json:"error,omitempty"` // why nothing can be written
	Oldest  *time.Time `json:"oldest,omitempty"`
	Newest  *time.Time `json:"newest,omitempty"`
	Horizon *time.Time `json:"horizon,omitempty"`
	Depth   float64    `json:"depth_seconds"`
	// Lag is how far the newest segment's end lies behind the clock.
	Lag        *float64 `json:"lag_seconds,omitempty"`
	Gaps       int      `json:"gaps"`
	GapSeconds float64  `json:"gap_seconds"`
	Damaged    int      `json:"damaged"` // segments of the view
	// DamagedSeconds is for how long damaged segments are shown.
	DamagedSeconds float64 `json:"damaged_seconds"`
	Partial        int     `json:"partial"` // segments of the view
	Segments       int     `json:"segments"`
	Bytes          int64   `json:"bytes"`
	BytesPerSec    float64 `json:"bytes_per_second"` // of the last two hours
	// Reached is the time from Oldest to Newest, which Depth limits.
	Reached      float64 `json:"depth_reached_seconds"`
	Kept         int     `json:"kept"`                       // spans protected from pruning
	SizeLimit    int64   `json:"size_limit_bytes,omitempty"` // of the stream
	PercentLimit int     `json:"percent_limit,omitempty"`    // of the volume in use
	MinFree      int64   `json:"min_free_bytes"`             // on the volume
	Volume       string  `json:"volume,omitempty"`           // the path of dvr, which other streams share
	DiskSize     int64   `json:"disk_size_bytes"`
	DiskFree     int64   `json:"disk_free_bytes"`
	// DaysUntilFull is when no more than MinFree is left, or PercentLimit is
	// reached, at the present rate of all streams on the volume. Absent: all of them
	// reach their depth or size before.
	DaysUntilFull *float64      `json:"days_until_full,omitempty"`
	Verify        VerifyStatus  `json:"verify"`
	Salvage       SalvageStatus `json:"salvage"`
}

// SalvageStatus is what is kept of the packets of damaged and partial segments
// until they are healed.
type SalvageStatus struct {
	Entries int     `json:"entries"`
	Bytes   int64   `json:"bytes"`
	Limit   int64   `json:"limit_bytes"` // as configured; 0: nothing is kept
	Age     float64 `json:"age_seconds"` // as configured
	Kept    int64   `json:"kept"`        // copies, since the node began
	Dropped int64   `json:"dropped"`     // copies that the disk was too slow or too full for
	Error   string  `json:"error,omitempty"`
}
