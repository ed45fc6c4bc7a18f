package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/serve"
)

type statusOptions struct {
	url     string
	stream  string // only this one
	details string // all of this one
	keyFile string
	json    bool
	watch   bool
}

// AddFlags adds the command's flags.
func (o *statusOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.stream, "stream", "", "show the stream of this `NAME` only")
	fs.StringVar(&o.keyFile, "api-key-file", "", "present the key of the API in `FILE`, the node's api_read_key_file")
	fs.BoolVar(&o.json, "json", false, "write one JSON object for each stream")
	fs.BoolVar(&o.watch, "watch", false, "show it again every two seconds, until Ctrl-C")
}

func newStatusCmd(io IO) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [URL] [STREAM]",
		Short: "Show what a running node is doing",
		Long: fmt.Sprintf(`Show what a running node is doing: for each stream its mode, the input in use, how
far the archive lies behind the clock, gaps and damage within its depth, what
replication has still to do and until when, and when the disk is full. With the
name of a STREAM: all that is known of that one, with its newest gaps, why they
are there and who has what is missing.

  STREAM   its name
  MODE     normal; recovery: gaps or damage are being filled from a peer;
           emergency: the first input does not work, a later one does;
           offline: no input works; retired: no longer configured;
           ,unreplicated follows where no peer can be reached
  INPUT    the input in use
  LOST     packets that the input in use has lost since the node began, and how
           often it was opened anew (×)
  BEHIND   from the end of the newest segment to now
  COVERS   time from the oldest segment to the newest, gaps included, of the depth
  GAPS     gaps within the configured depth, and how much is missing
  DAMAGED  segments within the depth recorded with loss, and how long they last
  BACKLOG  bytes to be fetched and time left, or segments that a peer has
           listed and that are late
  DISK     when the volume is as full as its limits allow at the present rate of all
           its streams, or what is free on it where that never comes

Where a terminal is too narrow, inputs are shortened and columns left out, those
first that say nothing. Colours are used on a terminal only, and not where
NO_COLOR is set. --watch goes on when the node is away for a while.

What is wrong with a stream follows the table, one line each, and what is wrong
with a node whose streams are recorded as it lists them (a source block).

With --json a stream is an object with these fields. Times are RFC 3339,
durations seconds, sizes bytes; what is not known is left out. With a STREAM the
object has gap_list, too, as GET /api/v1/gaps answers it.

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

URL is that of a node, and nothing behind it: http://HOST:PORT, HOST:PORT or :PORT;
http://127.0.0.1:%d unless given. A STREAM whose name looks like one comes
behind the URL of the node, or in --stream. The API answers
the node's own machine, and who has a key of it (api_read_key in twindvr.conf(5)).

Exit status: 0 every stream and source is healthy, 1 one is not, 2 trouble.`, config.DefaultPort),
		Example: `  twindvr status
  twindvr status sport/hd
  twindvr status --watch http://127.0.0.1:8082
  twindvr status --stream sport/hd --json http://127.0.0.1:8082`,
		Args: wantArgs("[URL]", "[STREAM]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.take(args); err != nil {
				return usageError{cmd, err}
			}
			return runStatus(cmd.Context(), &o, io)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

// take reads the arguments: a node's address, a stream, or one behind the other.
func (o *statusOptions) take(args []string) error {
	if len(args) > 0 && (len(args) == 2 || isNode(args[0])) {
		o.url, args = args[0], args[1:]
	}
	if len(args) > 0 {
		if o.stream != "" {
			return fmt.Errorf("unexpected argument %q beside --stream %s; give one of them", args[0], o.stream)
		}
		o.details = args[0]
	}
	return nil
}

// isNode says whether an argument is a node's address: names of streams seldom
// look like one.
func isNode(arg string) bool {
	if strings.Contains(arg, "://") {
		return true
	}
	_, port, err := net.SplitHostPort(arg)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func runStatus(ctx context.Context, o *statusOptions, io IO) error {
	c, err := newAPIClient(o.url, o.keyFile)
	if err != nil {
		return err
	}
	if o.url == "" && o.details != "" {
		c.hint = fmt.Sprintf("; %s was taken for a stream of that node, another node is named ahead of the stream", printable(o.details))
	}
	if o.watch && !o.json {
		return watch(ctx, io, func(ctx context.Context, height int) ([]string, error) {
			lines, _, err := o.look(ctx, c, io, height > 0)
			return lines, err
		})
	}
	for {
		healthy, err := o.once(ctx, c, io)
		switch {
		case o.watch && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case o.watch:
			select {
			case <-ctx.Done():
				return nil
			case <-io.Clock.After(watchEvery):
			}
		case !healthy:
			return &StatusError{}
		default:
			return nil
		}
	}
}

// once prints what is known now.
func (o *statusOptions) once(ctx context.Context, c *apiClient, io IO) (healthy bool, err error) {
	if o.json {
		return o.printJSON(ctx, c, io)
	}
	lines, healthy, err := o.look(ctx, c, io, false)
	if err != nil {
		return false, err
	}
	_, err = fmt.Fprintln(io.Out, strings.Join(lines, "\n"))
	return healthy, err
}

// look asks the node and writes what it says in lines. With worst, what is wrong
// comes first: there may not be room for all of it.
func (o *statusOptions) look(ctx context.Context, c *apiClient, io IO, worst bool) (lines []string, healthy bool, err error) {
	st, gaps, err := o.ask(ctx, c)
	if err != nil {
		return nil, false, err
	}
	p, now := newPaint(io), io.Clock.Now()
	if o.details != "" {
		return streamLines(st, &st.Streams[0], gaps, p, now), st.Healthy, nil
	}
	if worst {
		slices.SortStableFunc(st.Streams, func(a, b serve.StreamStatus) int {
			switch {
			case a.Healthy == b.Healthy:
				return 0
			case b.Healthy:
				return -1
			}
			return 1
		})
	}
	width, _ := screenSize(io.Out)
	return statusLines(st, p, width, now), st.Healthy, nil
}

// ask asks the node for its status, and for the gaps of a stream that is shown in
// all details.
func (o *statusOptions) ask(ctx context.Context, c *apiClient) (*serve.NodeStatus, *serve.Gaps, error) {
	st, err := c.status(ctx)
	if err != nil {
		return nil, nil, err
	}
	if name := cmp.Or(o.details, o.stream); name != "" {
		if err := onlyStream(st, name); err != nil {
			return nil, nil, err
		}
	}
	if o.details == "" {
		return st, nil, nil
	}
	gaps, err := c.gaps(ctx, o.details, shownGaps)
	return st, gaps, err
}

// statusLine is a line of status --json.
type statusLine struct {
	*serve.StreamStatus
	GapList *serve.Gaps `json:"gap_list,omitempty"`
}

func (o *statusOptions) printJSON(ctx context.Context, c *apiClient, io IO) (healthy bool, err error) {
	st, gaps, err := o.ask(ctx, c)
	if err != nil {
		return false, err
	}
	out := newJSONLines(io.Out)
	for i := range st.Streams {
		if err := out.Write(statusLine{&st.Streams[i], gaps}); err != nil {
			return false, err
		}
	}
	return st.Healthy, out.Flush()
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
