package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/serve"
)

type statusOptions struct {
	url     string
	stream  string
	keyFile string
	json    bool
}

// AddFlags adds the command's flags.
func (o *statusOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.stream, "stream", "", "show the stream of this `NAME` only")
	fs.StringVar(&o.keyFile, "api-key-file", "", "present the key of the API in `FILE`, the node's api_read_key_file")
	fs.BoolVar(&o.json, "json", false, "write one JSON object for each stream")
}

func newStatusCmd(io IO) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [URL]",
		Short: "Show what a running node is doing",
		Long: fmt.Sprintf(`Show what a running node is doing: for each stream its mode, the input in use, how
far the archive lies behind the clock, gaps and damage within its depth, what
replication has still to do and until when, and when the disk is full.

  STREAM   its name
  MODE     normal; recovery: gaps or damage are being filled from a peer;
           emergency: the first input does not work, a later one does;
           offline: no input works; retired: no longer configured;
           ,unreplicated follows where no peer can be reached
  INPUT    the input in use
  LOST     packets that the input in use has lost since the node began, and how
           often it was opened anew
  BEHIND   from the end of the newest segment to now
  COVERS   time from the oldest segment to the newest, gaps included, of the depth
  GAPS     gaps within the configured depth, and seconds missing
  DAMAGED  segments recorded with loss, of all within the depth
  BACKLOG  bytes to be fetched and time left, or segments that a peer has
           listed and that are late
  DISK     when the volume is as full as its limits allow at the present rate of all
           its streams, or what is free on it where that never comes

What is wrong with a stream follows the table, one line each, and what is wrong
with a node whose streams are recorded as it lists them (a source block).

With --json a stream is an object with these fields. Times are RFC 3339,
durations seconds, sizes bytes; what is not known is left out.

  name, mode, healthy, unreplicated, retired
  problems        sentences
  inputs          a list, each with
    url, program, active, standby, error, since, last_data
    state         good, waiting, closed, silent or failed
    packets, lost, errored
                  packets of the transport stream: received, known to be missing
                  by their continuity counters, marked as wrong
    datagrams, bytes, dropped, truncated
                  what carried them: received, dropped by the kernel, too long
    datagrams_lost, reordered, duplicates, recovered
                  by the transport's own numbers (RTP, SRT)
    errors        packets, requests or playlists that made no sense or failed
    reconnects    attempts to open the input after the first
    segments, damaged, unwritten, last_segment_completed
    clock_error_seconds
  peers           a list, each with
    url, reachable, replicates, error, heard, mode
    pending       segments listed and not yet looked at, lag_seconds for how long
    reconciling, backlog_bytes, backlog_seconds (of media), eta_seconds
    segments, copied, bytes, unfilled, traffic_in_bytes, traffic_out_bytes
    clock_offset_seconds
                  how far the peer's clock is ahead of this node's
    mended, mend_packets, mend_bytes
                  segments made of packets of both nodes, packets fetched for
                  them, and bytes with what was compared to find them
  archive
    dir, error, oldest, newest, horizon, lag_seconds
    depth_seconds as configured, gaps, gap_seconds
    segments, damaged, damaged_seconds, partial, bytes, bytes_per_second
    depth_reached_seconds, kept (spans), size_limit_bytes, percent_limit
    disk_free_bytes, disk_size_bytes, min_free_bytes, days_until_full
    salvage       packets of damaged and partial segments, kept until they are
                  healed: entries, bytes, limit_bytes and age_seconds as
                  configured, kept and dropped since the node began, error
    verify        how its bytes were last read again: running, began, at, ended,
                  due, segments, bytes, bad (set aside), mended (places), error;
                  set_aside since the node began
  backfill        the one that the API was asked for last: stream, from, to,
                  peers, state (waiting, running, done, failed), began, ended,
                  peer, segments, bytes, left_bytes, left_segments,
                  eta_seconds, error

URL is that of a node; http://127.0.0.1:%d unless given. The API answers the node's
own machine, and who has a key of it (api_read_key in twindvr.conf(5)).

Exit status: 0 every stream and source is healthy, 1 one is not, 2 trouble.`, config.DefaultPort),
		Example: `  twindvr status
  twindvr status --stream sport/hd --json http://127.0.0.1:8082`,
		Args: wantArgs("[URL]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.url = args[0]
			}
			return runStatus(cmd.Context(), o, io)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func runStatus(ctx context.Context, o statusOptions, io IO) error {
	base, err := nodeURL(o.url)
	if err != nil {
		return err
	}
	key := ""
	if o.keyFile != "" {
		if key, err = config.LoadAPIKey(o.keyFile); err != nil {
			return err
		}
	}
	st, err := fetchStatus(ctx, base, key)
	if err != nil {
		return err
	}
	if o.stream != "" {
		if err := onlyStream(st, o.stream); err != nil {
			return err
		}
	}
	if o.json {
		out := newJSONLines(io.Out)
		for i := range st.Streams {
			if err := out.Write(&st.Streams[i]); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
	} else if err := printStatus(io.Out, st); err != nil {
		return err
	}
	if !st.Healthy {
		return &StatusError{}
	}
	return nil
}

// nodeURL reads a node's address: a URL, HOST:PORT or :PORT.
func nodeURL(s string) (string, error) {
	if s == "" {
		return fmt.Sprintf("http://127.0.0.1:%d", config.DefaultPort), nil
	}
	if !strings.Contains(s, "://") {
		if strings.HasPrefix(s, ":") {
			s = "127.0.0.1" + s
		}
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is no address of a node; write http://HOST:PORT, or https://HOST:PORT where it speaks TLS", s)
	}
	return u.Scheme + "://" + u.Host, nil
}

// maxStatus bounds a node's answer in bytes.
const maxStatus = 64 << 20

// fetchStatus asks a node, with a key of its API unless that is empty.
func fetchStatus(ctx context.Context, base, key string) (*serve.NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/streams", nil)
	if err != nil {
		return nil, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("no node answers at %s: %w", base, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("node at %s: %w", base, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p struct{ Detail string }
		if json.Unmarshal(body, &p) == nil && p.Detail != "" {
			return nil, fmt.Errorf("node at %s: %s", base, p.Detail)
		}
		return nil, fmt.Errorf("node at %s answers %s; is it a twindvr supervise?", base, resp.Status)
	}
	var st serve.NodeStatus
	if err := json.Unmarshal(body, &st); err != nil {
		return nil, fmt.Errorf("what answers at %s is no node: %w", base, err)
	}
	return &st, nil
}

func onlyStream(st *serve.NodeStatus, name string) error {
	var names []string
	for _, s := range st.Streams {
		if s.Name == name {
			st.Streams, st.Healthy = []serve.StreamStatus{s}, s.Healthy
			return nil
		}
		names = append(names, s.Name)
	}
	return fmt.Errorf("the node has no stream %s; it has %s", name, strings.Join(names, ", "))
}

// printStatus writes a table, and under it the problems, one a line.
func printStatus(w io.Writer, st *serve.NodeStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "STREAM\tMODE\tINPUT\tLOST\tBEHIND\tCOVERS\tGAPS\tDAMAGED\tBACKLOG\tDISK")
	for i := range st.Streams {
		s := &st.Streams[i]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, modeOf(s), inputOf(s), lostOf(s), behind(s), coversOf(s), gapsOf(s), damageOf(s), backlogOf(s), diskOf(s))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i := range st.Streams {
		for _, p := range st.Streams[i].Problems {
			if _, err := fmt.Fprintf(w, "! %s: %s\n", st.Streams[i].Name, p); err != nil {
				return err
			}
		}
	}
	for i := range st.Sources {
		for _, p := range st.Sources[i].Problems {
			if _, err := fmt.Fprintf(w, "! source %s: %s\n", st.Sources[i].URL, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func modeOf(s *serve.StreamStatus) string {
	switch {
	case s.Retired:
		return "retired"
	case s.Unreplicated:
		return s.Mode + ",unreplicated"
	}
	return s.Mode
}

func inputOf(s *serve.StreamStatus) string {
	for _, in := range s.Inputs {
		if in.Active {
			return in.Name()
		}
	}
	return "-"
}

// lostOf is what the input in use has lost: packets of the transport stream
// where it is one, datagrams otherwise.
func lostOf(s *serve.StreamStatus) string {
	for _, in := range s.Inputs {
		if !in.Active {
			continue
		}
		lost := fmt.Sprint(max(in.Lost, in.DatagramsLost+in.Dropped))
		if in.Reconnects > 0 {
			return fmt.Sprintf("%s, reopened %d times", lost, in.Reconnects)
		}
		return lost
	}
	return "-"
}

func behind(s *serve.StreamStatus) string {
	if s.Archive.Lag == nil {
		return "-"
	}
	return (time.Duration(*s.Archive.Lag * float64(time.Second))).Truncate(100 * time.Millisecond).String()
}

func coversOf(s *serve.StreamStatus) string {
	if s.Archive.Oldest == nil || s.Archive.Newest == nil {
		return "-"
	}
	covers := s.Archive.Newest.Sub(*s.Archive.Oldest).Truncate(time.Second).String()
	if s.Archive.Depth == 0 {
		return covers
	}
	depth := time.Duration(s.Archive.Depth * float64(time.Second))
	if depth%time.Hour == 0 {
		return fmt.Sprintf("%s of %dh", covers, depth/time.Hour)
	}
	return covers + " of " + depth.String()
}

func gapsOf(s *serve.StreamStatus) string {
	if s.Archive.Gaps == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%.1f s)", s.Archive.Gaps, s.Archive.GapSeconds)
}

func damageOf(s *serve.StreamStatus) string {
	return fmt.Sprintf("%d of %d", s.Archive.Damaged, s.Archive.Segments)
}

// listedLate is after how many seconds a segment that a peer has listed and that
// is not here yet is worth showing: a node that hears the source waits for its
// own copy first.
const listedLate = 4

func backlogOf(s *serve.StreamStatus) string {
	var bytes int64
	pending := 0
	eta := -1.0
	for _, p := range s.Peers {
		bytes += p.Backlog
		if p.Lag > listedLate {
			pending += p.Pending
		}
		if p.ETA != nil {
			eta = max(eta, *p.ETA)
		}
	}
	switch {
	case bytes > 0 && eta >= 0:
		return fmt.Sprintf("%s, %s left", archive.NearBytes(bytes), time.Duration(eta*float64(time.Second)).Round(time.Second))
	case bytes > 0:
		return archive.NearBytes(bytes)
	case pending > 0:
		return fmt.Sprintf("%d listed", pending)
	}
	return "0"
}

// daysText writes a number of days, one below a day in hours and one below two
// hours in minutes.
func daysText(days float64) string {
	switch {
	case days*24*60 < 119.5:
		return count(max(1, int(math.Round(days*24*60))), "minute")
	case days < 1:
		return fmt.Sprintf("%.0f hours", days*24)
	}
	return fmt.Sprintf("%.1f days", days)
}

func diskOf(s *serve.StreamStatus) string {
	if s.Archive.DaysUntilFull != nil && *s.Archive.DaysUntilFull == 0 {
		return "full, " + archive.NearBytes(s.Archive.DiskFree) + " free"
	}
	if s.Archive.DaysUntilFull != nil {
		return "full in " + daysText(*s.Archive.DaysUntilFull)
	}
	if s.Archive.DiskFree == 0 {
		return "-"
	}
	return archive.NearBytes(s.Archive.DiskFree) + " free"
}
