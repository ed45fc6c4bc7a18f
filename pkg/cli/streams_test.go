package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

var updateStreams = flag.Bool("update", false, "write STREAMS.md anew")

const (
	streamsDoc    = "../../STREAMS.md"
	streamsScript = "../../scripts/make-streams.sh"
)

const streamsHead = `# Streams and what becomes of them

Each stream here goes through ` + "`twindvr ingest | twindvr record`" + `, and comes back by ` + "`twindvr export`" + ` as MP4 and,
with ` + "`--format ts`" + `, as a transport stream. *In* is how many frames ffmpeg reads of a track of the source, *MP4* and *TS*
how many it reads of what was exported. They are compared one by one, from the first keyframe on: pictures as they are
decoded, sound as it is coded, data by its packets. (An MP4 file holds the PES packets and sections of a data track whole.) *identical* says that all are the same; otherwise the table says which are not there and why.

This page is written by ` + "`go test ./pkg/cli -run TestStreams -update`" + ` and fails the tests when it is not what they find.
`

var streamTables = []struct{ dir, head string }{
	{"", `
## Streams made by ffmpeg

` + "`scripts/make-streams.sh DIR`" + ` makes them: one for every codec and trait that ffmpeg can encode.
Of the multiplex of twelve programs each is recorded by ` + "`--program`" + `.
`},
	{"ts", `
## Real streams

Captures and samples from the test assets of androidx/media (` + "`media3-`" + `, Apache-2.0) and of TSDuck
(` + "`tsduck-`" + `, BSD-2-Clause). Tests read them from the ` + "`ts`" + ` directory of ` + "`TWINDVR_TESTDATA`" + `.
`},
	{"hard", `
## Hard streams

Made from ffmpeg's test sources, then cut, delayed and spliced; each broke some simpler way of segmentation. Tests read
them from the ` + "`hard`" + ` directory of ` + "`TWINDVR_TESTDATA`" + `. Many more are made by the tests of ` + "`pkg/segment`" + ` themselves.
`},
}

// streamNotes say why a track does not come back frame by frame.
var streamNotes = map[string]string{
	"media3-sample_scte35 600": "all are ahead of the first picture",
}

// TestStreams compares STREAMS.md with what becomes of the streams.
func TestStreams(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"ffmpeg", "ffprobe", "bash"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("no %s in PATH: 62 streams not compared", p)
		}
	}
	if testing.Short() {
		t.Skip("-short: 62 streams not compared")
	}
	want, err := os.ReadFile(streamsDoc)
	if err != nil && !*updateStreams {
		t.Fatal(err)
	}
	var doc strings.Builder
	doc.WriteString(streamsHead)
	for _, table := range streamTables {
		doc.WriteString(table.head)
		paths := streamFiles(t, table.dir)
		if paths == nil { // not to be had here: left as it is
			_, section, found := strings.Cut(string(want), table.head)
			if end := strings.Index(section, "\n## "); end >= 0 {
				section = section[:end]
			}
			if *updateStreams || !found {
				t.Fatalf("TWINDVR_TESTDATA is not set, and %s does not hold what is to be said of its streams", streamsDoc)
			}
			t.Logf("TWINDVR_TESTDATA is not set: %d rows of table %q not compared", strings.Count(section, "\n|")-2, table.dir)
			doc.WriteString(section)
			continue
		}
		doc.WriteString("\n| stream | track | in | MP4 | TS | |\n|---|---|--:|--:|--:|---|\n")
		for _, path := range paths {
			for _, row := range streamRows(t, path) {
				fmt.Fprintf(&doc, "| %s |\n", strings.Join(row, " | "))
			}
		}
	}
	if *updateStreams {
		if err := os.WriteFile(streamsDoc, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, old := strings.Split(doc.String(), "\n"), strings.Split(string(want), "\n")
	for k := range max(len(got), len(old)) {
		g, w := "", ""
		if k < len(got) {
			g = got[k]
		}
		if k < len(old) {
			w = old[k]
		}
		if g != w {
			t.Fatalf("line %d of %s is\n%s\nand should be\n%s", k+1, streamsDoc, w, g)
		}
	}
}

// streamFiles returns the streams of a table, nil if there are none here.
func streamFiles(t *testing.T, dir string) []string {
	root := os.Getenv("TWINDVR_TESTDATA")
	if dir == "" {
		root, dir = madeStreams(t), "."
	}
	if root == "" {
		return nil
	}
	m, err := filepath.Glob(filepath.Join(root, dir, "*.ts"))
	if err != nil || len(m) == 0 {
		t.Fatalf("no streams in %s: %v", filepath.Join(root, dir), err)
	}
	return m
}

// madeStreams returns a directory of the streams that the script makes, or has
// made in an earlier run.
func madeStreams(t *testing.T) string {
	script, err := os.ReadFile(streamsScript)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(script)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("twindvr-made-%d-%x", os.Getuid(), sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	tmp, err := os.MkdirTemp("", "twindvr-making-")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("bash", streamsScript, tmp).CombinedOutput(); err != nil {
		os.RemoveAll(tmp)
		t.Fatalf("%s: %v\n%s", streamsScript, err, out)
	}
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// probed is a track as ffprobe tells of it.
type probed struct {
	Index  int
	Codec  string `json:"codec_name"`
	Type   string `json:"codec_type"`
	ID     string
	frames []string
	pid    uint16
}

// readStream returns the tracks of a file and the hashes of their frames:
// pictures decoded, all else as it is coded.
func readStream(t *testing.T, path string) []*probed {
	t.Helper()
	far := []string{"-probesize", "100M", "-analyzeduration", "100M"}
	out, err := exec.Command("ffprobe", append(far, "-v", "fatal", "-show_streams", "-of", "json", path)...).Output()
	if err != nil {
		t.Fatalf("ffprobe %s: %v", path, err)
	}
	var p struct{ Streams []*probed }
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-v", "fatal", "-nostdin", "-copyts"}, append(far, "-i", path)...)
	n := 0
	byOutput := map[int]*probed{}
	for _, s := range p.Streams {
		if id, err := strconv.ParseUint(s.ID, 0, 16); err == nil {
			s.pid = uint16(id)
		}
		if s.Type != "video" && s.Type != "audio" {
			continue
		}
		args = append(args, "-map", fmt.Sprintf("0:%d", s.Index))
		switch {
		case s.Type == "video" || s.Codec == "aac_latm": // its framing differs
		case s.Codec == "aac":
			args = append(args, fmt.Sprintf("-c:%d", n), "copy", fmt.Sprintf("-bsf:%d", n), "aac_adtstoasc")
		default:
			args = append(args, fmt.Sprintf("-c:%d", n), "copy")
		}
		byOutput[n] = s
		n++
	}
	if n > 0 {
		out, err := exec.Command("ffmpeg", append(args, "-fps_mode", "passthrough", "-f", "framemd5", "-")...).Output()
		if err != nil && len(out) == 0 {
			t.Fatalf("ffmpeg %s: %v", strings.Join(args, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Split(line, ",")
			if k, err := strconv.Atoi(strings.TrimSpace(f[0])); err == nil && len(f) > 5 && byOutput[k] != nil {
				byOutput[k].frames = append(byOutput[k].frames, strings.TrimSpace(f[5]))
			}
		}
	}
	for _, s := range p.Streams {
		if s.Type != "video" && s.Type != "audio" {
			s.frames = packetsOf(t, path, s.Index)
		}
	}
	return p.Streams
}

// packetsOf returns the hashes of the packets of a data track.
func packetsOf(t *testing.T, path string, index int) (hashes []string) {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "fatal", "-select_streams", strconv.Itoa(index), "-show_packets", "-show_data_hash", "md5",
		"-show_entries", "packet=data_hash", "-of", "csv=p=0", path).Output()
	if err != nil {
		t.Fatalf("ffprobe %s: %v", path, err)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			hashes = append(hashes, line)
		}
	}
	return hashes
}

// streamRows are the rows of the table for a stream: one a track.
func streamRows(t *testing.T, path string) (rows [][]string) {
	name := strings.TrimSuffix(filepath.Base(path), ".ts")
	programs := []string{""}
	if name == "twelve-programs" {
		programs = nil
		for k := range 12 {
			programs = append(programs, strconv.Itoa(k+1))
		}
	}
	var in []*probed
	for _, program := range programs {
		label := name
		if program != "" {
			label += ", program " + program
		}
		dir := t.TempDir()
		tracks, err := recordStream(t, path, program, filepath.Join(dir, "stream"))
		if err != nil {
			rows = append(rows, []string{label, "", "", "", "", "nothing recorded: " + err.Error()})
			continue
		}
		if in == nil {
			in = readStream(t, path)
		}
		mp4, ts := filepath.Join(dir, "out.mp4"), filepath.Join(dir, "out.ts")
		exportStream(t, filepath.Join(dir, "stream"), mp4, "mp4")
		exportStream(t, filepath.Join(dir, "stream"), ts, "ts")
		inMP4, inTS := readStream(t, mp4), readStream(t, ts)
		for k, c := range tracks {
			src := withPID(in, c.PID)
			if src == nil {
				src = &probed{Codec: "unknown to ffmpeg"}
			}
			var m []string
			if k < len(inMP4) {
				m = inMP4[k].frames
			}
			row := []string{label, fmt.Sprintf("%d, %s", c.PID, c.Codec), strconv.Itoa(len(src.frames)), strconv.Itoa(len(m)), "", ""}
			var again []string
			if s := withPID(inTS, c.PID); s != nil {
				again = s.frames
			}
			row[4] = strconv.Itoa(len(again))
			if c.Codec.IsData() {
				row[2], row[3], row[5] = strconv.Itoa(len(src.frames)), strconv.Itoa(len(m)), verdict(c, src.frames, again)
			} else if a, b := verdict(c, src.frames, m), verdict(c, src.frames, again); a == b {
				row[5] = a
			} else {
				row[5] = "MP4: " + a + "; TS: " + b
			}
			if strings.Contains(row[5], "differ") {
				note, ok := streamNotes[fmt.Sprintf("%s %d", name, c.PID)]
				if !ok {
					t.Errorf("%s: %s: %s", name, strings.Join(row[:5], " | "), row[5])
				}
				row[5] = note
			}
			rows = append(rows, row)
			if label != "" {
				t.Log(label)
			}
			label = ""
		}
	}
	return rows
}

func withPID(tracks []*probed, pid uint16) *probed {
	for _, s := range tracks {
		if s.pid == pid {
			return s
		}
	}
	return nil
}

// verdict compares the frames of a track with those of the source.
func verdict(c m4f.TrackConfig, src, got []string) string {
	if c.Codec.IsData() && len(src) == 0 {
		return "kept; ffmpeg reads no such packets"
	}
	if len(got) == 0 && len(src) > 0 {
		return "differ: none is there"
	}
	for tail := range 2 {
		head := len(src) - tail - len(got)
		if head < 0 || !slices.Equal(src[head:len(src)-tail], got) {
			continue
		}
		var but []string
		if head > 0 {
			but = append(but, ahead(head, !c.Codec.IsAudio()))
		}
		if tail > 0 {
			but = append(but, "the last one is cut off")
		}
		if len(but) == 0 {
			return "identical"
		}
		return "identical; " + strings.Join(but, "; ")
	}
	if c.Codec == m4f.CodecLATM && len(src)-len(got) <= 1 && len(src) >= len(got) {
		// What a decoder makes of a frame hangs on those before, here and there.
		return "as many frames, but for those ahead; not compared by ffmpeg, which does not take LATM apart"
	}
	k := 0
	for k < min(len(src), len(got)) && src[k] == got[k] {
		k++
	}
	return fmt.Sprintf("differ from number %d on", k)
}

// ahead says why the first frames of a track are not there.
func ahead(n int, inPlace bool) string {
	first := fmt.Sprintf("the first %d are", n)
	if n == 1 {
		first = "the first is"
	}
	if inPlace {
		return first + " ahead of the first keyframe"
	}
	return first + " dated before the first keyframe"
}

// recordStream records a program of a file and returns its tracks, in the order
// of an export, or why there is nothing to record.
func recordStream(t *testing.T, path, program, dir string) ([]m4f.TrackConfig, error) {
	t.Helper()
	var stream, errs bytes.Buffer
	args := []string{"ingest", path, "--log-level", "error"}
	if program != "" {
		args = append(args, "--program", program)
	}
	sys := System()
	sys.In, sys.Out, sys.Err = nil, &stream, &errs
	if Main(args, sys) == exitTrouble || stream.Len() == 0 {
		s := segment.New(segment.Config{Unpaced: true, Start: 1}, func(*m4f.Segment) {})
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(b)
		s.Close()
		if err := s.Diagnose(); err != nil {
			return nil, err
		}
		return nil, errors.New(strings.TrimSpace(errs.String()))
	}
	recorded := stream.Bytes()
	sys.In, sys.Out = bytes.NewReader(recorded), io.Discard
	if status := Main([]string{"record", dir, "--log-level", "error"}, sys); status == exitTrouble {
		t.Fatalf("record %s: %s", path, &errs)
	}
	return tracksOf(t, recorded), nil
}

func exportStream(t *testing.T, dir, out, format string) {
	t.Helper()
	var errs bytes.Buffer
	sys := System()
	sys.In, sys.Out, sys.Err = nil, io.Discard, &errs
	if status := Main([]string{"export", dir, "--output", out, "--format", format, "--log-level", "error"}, sys); status == exitTrouble {
		t.Fatalf("export --format %s: %s", format, &errs)
	}
}
