package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/render"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// inTheatre is an archive with half a minute of numbered pictures.
func inTheatre(t *testing.T) *theatre {
	t.Helper()
	return newTheatre(t, recorded(t, 30*time.Second, 2*time.Second)...)
}

// exported is what export writes of a stream.
func exported(t *testing.T, s *archive.Stream, format render.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := render.Export(context.Background(), bounded{s}, &b, render.Options{Format: format}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type bounded struct{ *archive.Stream }

func (b bounded) Bounds() (oldest, newest m4f.UTC, err error) {
	info, err := b.Info()
	return info.Oldest, info.Newest, err
}

// TestDownload: a span as a file, with its name and length ahead of it, and all
// that a client may ask of parts of it.
func TestDownload(t *testing.T) {
	x := inTheatre(t)
	want := exported(t, x.stream, render.MP4)
	path := "/example/" + spanName(0, 30, ".mp4")
	code, body, head := x.ask(t, http.MethodGet, path)
	if code != http.StatusOK || body != string(want) {
		t.Fatalf("%d, %d bytes, want %d, or others", code, len(body), len(want))
	}
	tag := head.Get("ETag")
	for name, value := range map[string]string{
		"Content-Length": strconv.Itoa(len(want)), "Content-Type": "video/mp4", "Accept-Ranges": "bytes",
		"Content-Disposition": "attachment; filename=example_2026-11-22T12-00-00Z_30s.mp4",
	} {
		if got := head.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if tag == "" {
		t.Error("no ETag")
	}
	size := len(want)
	for _, c := range []struct {
		method, header, value string
		ifRange               string
		code, from, to        int
	}{
		{"GET", "Range", "bytes=0-99", "", 206, 0, 100},
		{"GET", "Range", "bytes=1000000-", "", 206, 1000000, size},
		{"GET", "Range", "bytes=-500", "", 206, size - 500, size},
		{"GET", "Range", fmt.Sprintf("bytes=%d-%d", size-1, size+5), "", 206, size - 1, size},
		{"GET", "Range", fmt.Sprintf("bytes=%d-", size), "", 416, 0, 0},
		{"GET", "Range", "bytes=0-1,5-9", "", 200, 0, size},
		{"GET", "Range", "bytes=5-99999999999999999999", "", 206, 5, size},
		{"GET", "Range", "bytes=-99999999999999999999", "", 206, 0, size},
		{"GET", "Range", "BYTES=7-9", "", 206, 7, 10},
		{"GET", "Range", "bytes=99999999999999999999-", "", 416, 0, 0},
		{"GET", "Range", "bytes=-0", "", 416, 0, 0},
		{"GET", "Range", fmt.Sprintf("bytes=%d-", size), `"other"`, 200, 0, size},
		{"GET", "Range", "items=0-5", "", 200, 0, size},
		{"GET", "Range", "abc", "", 200, 0, size},
		{"GET", "Range", "bytes=5-2", "", 200, 0, size},
		{"GET", "Range", "bytes=-", "", 200, 0, size},
		{"GET", "Range", "bytes=--5", "", 200, 0, size},
		{"GET", "Range", "bytes=x-5", "", 200, 0, size},
		{"GET", "Range", "bytes=400-500", tag, 206, 400, 501},
		{"GET", "Range", "bytes=400-500", `"other"`, 200, 0, size},
		{"GET", "If-None-Match", tag, "", 304, 0, 0},
		{"HEAD", "", "", "", 200, 0, 0},
		{"HEAD", "Range", "bytes=7-9", "", 206, 0, 0},
	} {
		headers := []string{}
		if c.header != "" {
			headers = append(headers, c.header, c.value)
		}
		if c.ifRange != "" {
			headers = append(headers, "If-Range", c.ifRange)
		}
		code, body, head := x.ask(t, c.method, path, headers...)
		if code != c.code || code < 300 && body != string(want[c.from:c.to]) {
			t.Errorf("%s %v: %d and %d bytes, want %d and %d, or others", c.method, headers, code, len(body), c.code, c.to-c.from)
		}
		if code == 206 && c.method == "GET" && head.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", c.from, c.to-1, size) {
			t.Errorf("%v: Content-Range %q", headers, head.Get("Content-Range"))
		}
		if code == 416 && (head.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) || head.Get("Content-Type") != "application/problem+json" ||
			head.Get("Content-Disposition") != "" || head.Get("ETag") != "" || !strings.Contains(body, `"detail"`)) {
			t.Errorf("%v: %q, %v", headers, body, head)
		}
		if c.method == "HEAD" && c.header == "" && head.Get("Content-Length") != strconv.Itoa(size) {
			t.Errorf("HEAD: Content-Length %q", head.Get("Content-Length"))
		}
	}
}

// TestDownloadRefuses: what makes no sense, and what there is nothing of.
func TestDownloadRefuses(t *testing.T) {
	x := inTheatre(t)
	for path, want := range map[string]int{
		"/example/" + spanName(3600, 60, ".mp4"):     404,
		"/example/" + spanName(3600, 60, ".ts"):      404,
		"/example/archive-0-10.mp4":                  400,
		"/example/archive-1764000000-0.mp4":          400,
		"/example/archive-9999999999-9999999999.mp4": 404,
		"/example/archive-12345678901-1.mp4":         404,
		"/other/" + spanName(0, 10, ".mp4"):          404,
		"/example/preview-0.mp4":                     400,
		"/example/preview-1764000000.mp4":            404,
	} {
		code, body, _ := x.ask(t, http.MethodGet, path)
		if code != want || !strings.Contains(body, `"detail"`) {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}

// TestDownloadOfTS: a transport stream has a length, too, and the pictures and
// sounds of the archive.
func TestDownloadOfTS(t *testing.T) {
	x := inTheatre(t)
	path := "/example/" + spanName(0, 30, ".ts")
	code, body, head := x.ask(t, http.MethodGet, path)
	if code != http.StatusOK || head.Get("Content-Length") != strconv.Itoa(len(body)) || len(body)%188 != 0 || head.Get("Content-Type") != "video/mp2t" {
		t.Fatalf("%d, %d bytes, %v", code, len(body), head)
	}
	for _, from := range []int{0, 188, 100_000, len(body) / 2, len(body) - 1} {
		if code, part, _ := x.ask(t, http.MethodGet, path, "Range", fmt.Sprintf("bytes=%d-", from)); code != 206 || part != body[from:] {
			t.Errorf("from byte %d on: %d and %d bytes, want %d, or others", from, code, len(part), len(body)-from)
		}
	}
	testkit.Need(t, "ffmpeg", "ffprobe")
	dir := t.TempDir()
	sums := map[string][]string{}
	for name, b := range map[string][]byte{"download.ts": []byte(body), "export.ts": exported(t, x.stream, render.TS), "export.mp4": exported(t, x.stream, render.MP4)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		sums[name] = decodedPictures(t, file)
	}
	if got := sums["download.ts"]; len(got) != 750 || !slices.Equal(got, sums["export.ts"]) || !slices.Equal(got, sums["export.mp4"]) {
		t.Errorf("%d pictures, exports have %d and %d, or others", len(got), len(sums["export.ts"]), len(sums["export.mp4"]))
	}
}

// decodedPictures is the hash of each picture of a file.
func decodedPictures(t *testing.T, file string) (sums []string) {
	t.Helper()
	out, says := testkit.Run(t, "ffmpeg", "-v", "warning", "-i", file, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-")
	if says != "" {
		t.Errorf("ffmpeg says of %s: %s", file, says)
	}
	for _, l := range strings.Split(out, "\n") {
		if f := strings.Split(l, ","); len(f) >= 6 && !strings.HasPrefix(l, "#") {
			sums = append(sums, strings.TrimSpace(f[5]))
		}
	}
	return sums
}

// TestDownloadWithClients: curl goes on where it was cut off, and mediainfo and
// ffprobe find what there is.
func TestDownloadWithClients(t *testing.T) {
	testkit.Need(t, "curl", "ffprobe")
	x := inTheatre(t)
	dir := t.TempDir()
	for _, ext := range []string{".mp4", ".ts"} {
		path := "/example/" + spanName(2, 20, ext)
		whole := filepath.Join(dir, "whole"+ext)
		testkit.Run(t, "curl", "-sS", "--fail", "-o", whole, x.URL+path)
		want, err := os.ReadFile(whole)
		if err != nil {
			t.Fatal(err)
		}
		cut := filepath.Join(dir, "cut"+ext)
		if err := os.WriteFile(cut, want[:len(want)/3], 0o600); err != nil {
			t.Fatal(err)
		}
		testkit.Run(t, "curl", "-sS", "--fail", "-C", "-", "-o", cut, x.URL+path)
		if got, err := os.ReadFile(cut); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: what was gone on with differs (%v)", ext, err)
		}
		testkit.Run(t, "curl", "-sS", "--fail", "-OJ", "--output-dir", dir, x.URL+path)
		if got, err := os.ReadFile(filepath.Join(dir, "example_2026-11-22T12-00-02Z_20s"+ext)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: under its own name it differs (%v)", ext, err)
		}
		var video, sound int
		for _, s := range x.play(t, path) {
			if s.Type == "video" {
				video = s.frames()
			} else {
				sound = s.frames()
			}
		}
		if video != 500 || sound < 936 || sound > 938 {
			t.Errorf("%s: %d pictures and %d sounds", ext, video, sound)
		}
		out, _ := testkit.Run(t, "ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", whole)
		if d, err := strconv.ParseFloat(strings.TrimSpace(out), 64); err != nil || d < 19.9 || d > 20.2 {
			t.Errorf("%s: ffprobe says that it lasts %s s", ext, strings.TrimSpace(out))
		}
	}
	testkit.Need(t, "mediainfo")
	for _, ext := range []string{".mp4", ".ts"} {
		out, _ := testkit.Run(t, "mediainfo", "--Inform=Video;%Format% %Duration%", filepath.Join(dir, "whole"+ext))
		var format string
		var ms float64
		if _, err := fmt.Sscan(out, &format, &ms); err != nil || format != "AVC" || ms < 19_900 || ms > 20_200 {
			t.Errorf("%s: mediainfo says %q", ext, out)
		}
	}
}

// TestDownloadEndsEarly: where a segment is no longer there the connection ends,
// and nobody takes that for the end of the file. A range well behind it is
// still served of the same file.
func TestDownloadEndsEarly(t *testing.T) {
	segs := recorded(t, 30*time.Second, 2*time.Second)
	x := newTheatre(t, segs[:2]...)
	x.add(t, archive.Replicated, segs[2:4]...)
	x.add(t, archive.Live, segs[4:]...)
	path := "/example/" + spanName(0, 30, ".mp4")
	_, want, head := x.ask(t, http.MethodGet, path)
	files, err := filepath.Glob(filepath.Join(x.stream.Dir(), "*", "*", "*", "*", "*.mp4"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, x.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=1-")
	r.Header.Set("If-Range", head.Get("ETag"))
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil || len(b) >= len(want)-1 || !strings.HasPrefix(want[1:], string(b)) {
		t.Errorf("%d bytes of %d and %v, want an error and what was right", len(b), len(want)-1, err)
	}
	if code, part, _ := x.ask(t, http.MethodGet, path, "Range", "bytes=-1000", "If-Range", head.Get("ETag")); code != 206 || part != want[len(want)-1000:] {
		t.Errorf("the end of the same file: %d and %d bytes, or others", code, len(part))
	}
}

// TestClientsThatClose: a player that seeks or closes is no news; what the archive
// does not give is.
func TestClientsThatClose(t *testing.T) {
	x := newTheatre(t, cutUp(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 30 * time.Second, Bitrate: 6_000_000}), 2*time.Second, 0)...)
	var log testkit.Log
	x.h.log = log.Logger()
	for _, ext := range []string{".mp4", ".ts"} {
		for range 20 {
			c, err := net.Dial("tcp", x.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "GET /example/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", spanName(0, 30, ext))
			if _, err := io.ReadFull(c, make([]byte, 70_000)); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}
	x.Close() // waits for the requests
	if s := log.String(); s != "" {
		t.Errorf("the log says %s", s)
	}
	for err, want := range map[error]bool{
		&net.OpError{Op: "readfrom", Err: os.NewSyscallError("sendfile", syscall.EPIPE)}: true,
		&net.OpError{Op: "write", Err: syscall.ECONNRESET}:                               true,
		clientError{errors.New("stream closed")}:                                         true,
		os.ErrDeadlineExceeded:                                                           true,
		&net.OpError{Op: "readfrom", Err: os.NewSyscallError("sendfile", syscall.EIO)}:   false,
		archive.ErrNoSegment:                                                             false,
		io.ErrUnexpectedEOF:                                                              false,
	} {
		if clientGone(err) != want {
			t.Errorf("%v: of the client: %v, want %v", err, !want, want)
		}
	}
}

// TestPreviewPlays: a picture that ffmpeg decodes, and that is kept for a while.
func TestPreviewPlays(t *testing.T) {
	testkit.Need(t, "ffprobe")
	x := inTheatre(t)
	path := fmt.Sprintf("/example/preview-%d.mp4", begins.Unix()+13)
	code, body, head := x.ask(t, http.MethodGet, path)
	if code != http.StatusOK || len(body) > 64<<10 || head.Get("Content-Type") != "video/mp4" || !strings.Contains(head.Get("Cache-Control"), "max-age=3600") {
		t.Errorf("%d, %d bytes, %v", code, len(body), head)
	}
	if p := x.play(t, path); len(p) != 1 || p[0].frames() != 1 || p[0].Codec != "h264" {
		t.Errorf("%+v", p)
	}
	if code, _, _ := x.ask(t, http.MethodGet, path, "If-None-Match", head.Get("ETag")); code != http.StatusNotModified {
		t.Errorf("asked again: %d", code)
	}
}

// TestTSPlaylist: ffmpeg plays the segments of a playlist of transport streams
// without a complaint, over a gap too.
func TestTSPlaylist(t *testing.T) {
	testkit.Need(t, "ffprobe")
	segs := recorded(t, 30*time.Second, 2*time.Second)
	for name, c := range map[string]struct {
		segs     []*m4f.Segment
		pictures int
	}{"whole": {segs, 750}, "with a gap": {slices.Concat(segs[:4], segs[7:]), 600}} {
		t.Run(name, func(t *testing.T) {
			x := newTheatre(t, c.segs...)
			x.clock.Advance(time.Minute)
			for _, s := range x.play(t, "/example/"+spanName(0, 30, ".m3u8")+"?format=ts") {
				if n := s.frames(); s.Type == "video" && n != c.pictures {
					t.Errorf("%d pictures, want %d", n, c.pictures)
				}
			}
		})
	}
}
