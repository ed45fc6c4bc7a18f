package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// recorder starts what records n UDP streams of consecutive ports.
type recorder func(dir string, first, n int) ([]*process, error)

// senderCPU is what sending cost, of which no recorder is charged anything.
var senderCPU = newMetric("sender", "s", 1).asDetail()

// measureUDP measures recording UDP streams.
func (b *bench) measureUDP(ctx context.Context, t *table) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	all := b
	for _, n := range b.streams {
		b := all.udpCase(n)
		t.Runs = max(t.Runs, b.runs)
		contend := func(name string, whole bool, start recorder) contender {
			return contender{name: name, run: func(ctx context.Context) (sample, error) { return b.udp(ctx, name, start, whole, n) }}
		}
		ffmpeg := b.peer("ffmpeg", "ffmpeg", func(ctx context.Context, path string) (sample, error) {
			return b.udp(ctx, "ffmpeg", ffmpegs(path), false, n)
		})
		if most := 50 * runtime.NumCPU(); n > most && ffmpeg.missing == "" {
			ffmpeg.missing = fmt.Sprintf("has CPU time for %d at most", most)
		}
		c, err := b.compare(ctx, t, many(n, "stream"), float64(n), []contender{
			contend("floor", true, func(dir string, first, n int) ([]*process, error) {
				return one(start(syscall.SIGTERM, self, "floor", dir, fmt.Sprint(first), fmt.Sprint(n)))
			}),
			contend("twindvr", false, b.supervise("")),
			ffmpeg,
		})
		if err != nil {
			return err
		}
		t.atMost("lost, "+many(n, "stream"), highest(c.values("twindvr", lost)), 0, "pictures")
		if n == judgedStreams {
			t.atMost("CPU, "+many(n, "stream"), c.values("twindvr", cpuPerGB), 4, "s/GB")
		}
		if n >= judgedStreams {
			t.atMost("memory, "+many(n, "stream"), c.values("twindvr", perStream), 12, "MB a stream")
		}
	}
	t.note("Lost are pictures; of the floor, datagrams. %d streams are recorded for longer and more often than the others.", judgedStreams)
	return nil
}

// judgedStreams is the number of streams that a CPU time has to be reached with.
const judgedStreams = 20

// udpCase is the bench with what a number of streams is measured with, unless it is said: longer
// and more often where the CPU time is judged, so that starting and stopping weigh little.
func (b *bench) udpCase(n int) *bench {
	one := *b
	if n == judgedStreams && !b.short {
		one.runs, one.duration = 5, time.Minute
	}
	if b.allRuns > 0 {
		one.runs = b.allRuns
	}
	if b.asked > 0 {
		one.duration = b.asked
	}
	return &one
}

func one(p *process, err error) ([]*process, error) { return []*process{p}, err }

// supervise records all streams in one process. more are statements for every stream.
func (b *bench) supervise(more string) recorder {
	return func(dir string, first, n int) ([]*process, error) {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		var conf strings.Builder
		fmt.Fprintf(&conf, "http %s;\n", addr)
		for i := range n {
			fmt.Fprintf(&conf, "stream s%03d {\n  url udp://127.0.0.1:%d;\n  dvr %s 1d;\n%s}\n", i, first+i, filepath.Join(dir, "archive"), more)
		}
		path := filepath.Join(dir, "bench.conf")
		if err := os.WriteFile(path, []byte(conf.String()), 0o600); err != nil {
			return nil, err
		}
		if err := os.Mkdir(filepath.Join(dir, "archive"), 0o755); err != nil {
			return nil, err
		}
		return one(start(syscall.SIGTERM, b.twindvr, "supervise", path))
	}
}

// ffmpegs records each stream in a process of its own, as ffmpeg does. Each ends
// by itself when no data has come for a while: asked to end while its source is
// silent, it loses what it holds.
func ffmpegs(path string) recorder {
	return func(dir string, first, n int) ([]*process, error) {
		patience := 10*time.Second + time.Duration(n)*200*time.Millisecond // all have to start
		var list []*process
		for i := range n {
			p, err := startFFmpeg(path, fmt.Sprintf("udp://127.0.0.1:%d?buffer_size=%d&timeout=%d", first+i, 8<<20, patience.Microseconds()),
				filepath.Join(dir, fmt.Sprintf("%03d.mp4", i)))
			if err != nil {
				kill(list)
				return nil, err
			}
			list = append(list, p)
		}
		return list, nil
	}
}

// startFFmpeg has ffmpeg record an input to a file.
func startFFmpeg(path, input, file string) (*process, error) {
	return start(nil, path, "-nostdin", "-loglevel", "error", "-y", "-i", input, "-map", "0", "-c", "copy", "-bsf:a", "aac_adtstoasc",
		"-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof", file)
}

// udp measures one recorder with n streams. whole says that it writes the
// transport stream as it is.
func (b *bench) udp(ctx context.Context, name string, start recorder, whole bool, n int) (sample, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r, err := b.record(ctx, dir, start, n)
	if err != nil {
		return nil, err
	}
	bytes, missing, err := count(dir, whole, r.sent, n)
	if err != nil {
		return nil, err
	}
	r.s[lost] = float64(missing)
	r.s.use(r.used, bytes)
	return r.s, nil
}

// recording is how streams were recorded.
type recording struct {
	s    sample // memory, and what the sender needed
	used usage  // by the recorder
	sent *sending
	took time.Duration // to send
}

// record has n streams recorded into a directory while they are sent.
func (b *bench) record(ctx context.Context, dir string, start recorder, n int) (r recording, err error) {
	first := freePorts(n)
	procs, err := start(dir, first, n)
	if err != nil {
		return r, err
	}
	if err := waitBound(ctx, procs, first, n); err != nil {
		kill(procs)
		return r, err
	}
	peak := watchMemory(procs)
	began := time.Now()
	sent, cpu, err := b.send(first, n)
	r.sent, r.took = sent, time.Since(began)
	time.Sleep(time.Second) // for what is still on its way
	r.s = sample{perStream: float64(peak()) / 1e6 / float64(n), senderCPU: cpu.cpu().Seconds()}
	if err != nil {
		kill(procs)
		return r, err
	}
	r.used, err = stopAll(procs)
	return r, err
}

// sending is what the test source says at its end.
type sending struct {
	Frames  uint64                `json:"frames"`
	Outputs []testsrc.OutputStats `json:"outputs"`
}

// send sends the test stream to n ports, in real time.
func (b *bench) send(first, n int) (*sending, usage, error) {
	p := command(nil, b.twindvr, "testsrc", "--json", "--bitrate", fmt.Sprint(b.bitrate), "--duration", b.duration.String(),
		"--count", fmt.Sprint(n), fmt.Sprintf("udp://127.0.0.1:%d", first))
	var out strings.Builder
	p.Stdout = &out
	if err := p.Start(); err != nil {
		return nil, usage{}, err
	}
	// A real source has a machine of its own. Without the right to it, the
	// sender competes with the recorders.
	syscall.Setpriority(syscall.PRIO_PROCESS, p.Process.Pid, -10)
	u, err := stopWithin([]*process{p}, b.duration)
	if err != nil {
		return nil, u, err
	}
	if late := strings.Count(p.stderr.String(), "late="); late > 0 {
		fmt.Fprintf(os.Stderr, "the sender could not keep up %d times: the machine is too busy\n", late)
	}
	s := &sending{}
	return s, u, json.Unmarshal([]byte(out.String()), s)
}

// count returns the bytes recorded below dir, and how much of what was sent is
// missing: datagrams of a transport stream, pictures otherwise.
func count(dir string, whole bool, sent *sending, n int) (bytes, lost int64, err error) {
	var found int64
	streams := map[string]map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		// Of an archive, media alone: no packets that are kept to heal what is not
		// whole, as what was begun in is.
		if ext := filepath.Ext(path); err != nil || !d.Type().IsRegular() || !whole && ext != ".mp4" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		bytes += int64(len(b))
		if whole {
			return nil
		}
		// The files of one stream lie in one directory, or there is only one.
		key := streamOf(dir, path)
		if streams[key] == nil {
			streams[key] = map[uint64]bool{}
		}
		for _, f := range testsrc.FrameNumbers(b) {
			streams[key][f] = true
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if whole {
		var want int64
		for _, o := range sent.Outputs {
			want += int64(o.Bytes)
		}
		return bytes, (want - bytes) / 1316, nil
	}
	for _, s := range streams {
		found += int64(len(s))
	}
	return bytes, int64(n)*int64(sent.Frames) - found, nil
}

// streamOf names the stream that a file belongs to: DIR/archive/STREAM/… or
// DIR/STREAM.mp4.
func streamOf(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	if parts := strings.Split(rel, "/"); len(parts) > 2 && parts[0] == "archive" {
		return parts[1]
	}
	return rel
}
