package ingest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// hlsKeys writes a key and the file that tells ffmpeg of it, which it reads
// again for each segment.
func hlsKeys(t *testing.T, n *hlsNginx, name string) {
	t.Helper()
	key := make([]byte, 16)
	rand.Read(key)
	if err := os.WriteFile(n.file(name), key, 0o644); err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf("/%s\n%s\n", name, n.file(name))
	if strings.HasSuffix(name, "1") { // one with an IV of its own
		info += hex.EncodeToString(key) + "\n"
	}
	if err := os.WriteFile(n.file("info.tmp"), []byte(info), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.file("info.tmp"), n.file("info")); err != nil {
		t.Fatal(err)
	}
}

// hlsKind is a way in which ffmpeg writes segments.
type hlsKind struct {
	name, options string
	ticks         int64 // how exact times are: edit lists are in milliseconds
}

// tee is the option of ffmpeg's tee that writes all kinds at once, each into a
// directory of its own, beside a transport stream.
func tee(t *testing.T, n *hlsNginx, kinds []hlsKind) string {
	out := "[f=mpegts]all.ts"
	for _, v := range kinds {
		if err := os.Mkdir(n.file(v.name), 0o755); err != nil {
			t.Fatal(err)
		}
		out += "|[f=hls:hls_time=1:" + v.options + "]" + v.name + "/live.m3u8"
	}
	return out
}

// TestHLSFromNginx records what ffmpeg writes and nginx serves, from its
// begin and once more from somewhere in the middle: all frames are those of the
// transport stream that ffmpeg writes beside it, and both recorders have the
// same segments, dated alike.
func TestHLSFromNginx(t *testing.T) {
	t.Parallel()
	needHLS(t)
	kinds := []hlsKind{
		{"ts", "hls_list_size=6", 0},
		{"fmp4", "hls_list_size=6:hls_segment_type=fmp4", 90},
		{"dated", "hls_list_size=6:hls_flags=program_date_time", 0},
		{"keys", "hls_list_size=6:hls_key_info_file=info:hls_flags=periodic_rekey", 0},
	}
	n := newHLSNginx(t, "")
	hlsKeys(t, n, "key0")
	began := time.Now()
	cmd := hlsEncoder(t, n.root, 10, "-flags", "+global_header", "-f", "tee", tee(t, n, kinds))
	var first, second []*hlsRecording
	for _, v := range kinds {
		list := v.name + "/live.m3u8"
		testkit.Await(t, "playlist", exists(n.file(list)))
		first = append(first, recordHLS(t, n.url(list)))
	}
	list := n.file("keys/live.m3u8")
	testkit.Await(t, "third segment", listed(list, 3))
	hlsKeys(t, n, "key1")
	for _, v := range kinds {
		second = append(second, recordHLS(t, n.url(v.name+"/live.m3u8")))
	}
	testkit.Await(t, "sixth segment", listed(list, 6))
	hlsKeys(t, n, "key2")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for k, v := range kinds {
		t.Run(v.name, func(t *testing.T) {
			a, b := first[k].end(t), second[k].end(t)
			sameFrames(t, hlsFrames(t, a), hlsFrames(t, segmentFile(t, n.file("all.ts"))), v.ticks)
			if c := agree(t, a, b); c < 5 {
				t.Errorf("%d clean segments compared", c)
			}
			for k, s := range a {
				at := s.Header.UTC.Time()
				if s.Header.Damaged() || at.Before(began.Add(-2*time.Second)) || at.After(time.Now()) {
					t.Errorf("segment %d: flags %04b, dated %v; it began at %v", k, s.Header.Flags, at, began)
				}
			}
			if st := first[k].src.Stats(); st.Packets < 10 || st.Lost > 0 || st.Errors > 0 || st.Reconnects > 0 || st.Bytes == 0 {
				t.Errorf("%+v", st)
			}
		})
	}
	if b, err := os.ReadFile(list); err != nil || !bytes.Contains(b, []byte("AES-128")) || !bytes.Contains(b, []byte("key2")) {
		t.Errorf("the stream was not encrypted with several keys: %s", b)
	}
}

// vod writes a playlist with an end, as fast as ffmpeg can, and a transport
// stream of the same beside it.
func vod(t *testing.T, n *hlsNginx, args ...string) {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=8",
		"-f", "lavfi", "-i", "sine=r=48000:d=8", "-f", "lavfi", "-i", "sine=r=48000:f=900:d=8", "-threads", "1", "-flags", "+global_header"}, args...)...)
	cmd.Dir = n.root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
}

var vodH264 = []string{"-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-sc_threshold", "0", "-c:a", "aac", "-map", "0:v", "-map", "1:a"}

// TestHLSEnded reads playlists that have an end, to it: their segments as byte
// ranges of one file, and codecs of all kinds in fragmented MP4.
func TestHLSEnded(t *testing.T) {
	for _, v := range []struct {
		name   string
		args   []string
		hls    string
		tracks []m4f.Codec
		langs  string
		ticks  int64
	}{
		{"ts ranges", vodH264, "hls_flags=single_file", []m4f.Codec{m4f.CodecH264, m4f.CodecAAC}, "und und", 0},
		{"fmp4 ranges", vodH264, "hls_segment_type=fmp4:hls_flags=single_file", []m4f.Codec{m4f.CodecH264, m4f.CodecAAC}, "und und", 90},
		{"hevc", []string{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=25:open-gop=1:bframes=3:pools=1", "-tag:v", "hvc1",
			"-c:a:0", "ac3", "-c:a:1", "eac3", "-map", "0:v", "-map", "1:a", "-map", "2:a", "-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra"},
			"hls_segment_type=fmp4", []m4f.Codec{m4f.CodecHEVC, m4f.CodecAC3, m4f.CodecEAC3}, "und deu fra", 90},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			needHLS(t)
			n := newHLSNginx(t, "")
			vod(t, n, append(v.args, "-f", "tee", "[f=hls:hls_time=1:hls_list_size=0:"+v.hls+"]vod.m3u8|[f=mpegts]all.ts")...)
			segs := recordHLS(t, n.url("vod.m3u8")).end(t)
			sameFrames(t, hlsFrames(t, segs), hlsFrames(t, segmentFile(t, n.file("all.ts"))), v.ticks)
			init, err := m4f.ParseInit(segs[0].Init)
			if err != nil {
				t.Fatal(err)
			}
			langs := ""
			for k, x := range init.Tracks {
				if k < len(v.tracks) && x.Config.Codec != v.tracks[k] {
					t.Errorf("track %d is %v", k, x.Config.Codec)
				}
				langs += x.Language + " "
			}
			if v.hls != "hls_flags=single_file" && strings.TrimSpace(langs) != v.langs {
				t.Errorf("languages %q, want %q", langs, v.langs)
			}
		})
	}
}

// TestHLSVariants takes the variant that is asked for, and audio renditions of
// fragmented MP4 as further tracks.
func TestHLSVariants(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	vod(t, n, "-map", "0:v", "-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-sc_threshold", "0",
		"-b:v:0", "100k", "-s:v:0", "160x90", "-b:v:1", "400k", "-s:v:1", "320x180", "-c:a", "aac",
		"-var_stream_map", "v:0,agroup:a v:1,agroup:a a:0,agroup:a,language:eng,default:yes a:1,agroup:a,language:fra", "-master_pl_name", "all.m3u8",
		"-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init_%v.mp4", "v%v.m3u8")
	for variant, width := range map[string]uint16{"": 320, "?variant=0": 160, "?a=b&variant=160x90": 160, "?variant=1": 320} {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			segs := recordHLS(t, n.url("all.m3u8"+variant)).end(t)
			init, err := m4f.ParseInit(segs[0].Init)
			if err != nil || len(init.Tracks) != 3 {
				t.Fatalf("%d tracks, %v", len(init.Tracks), err)
			}
			if init.Tracks[0].Width != width || init.Tracks[1].Language != "eng" || init.Tracks[2].Language != "fra" {
				t.Errorf("%d pixels, want %d; languages %s and %s", init.Tracks[0].Width, width, init.Tracks[1].Language, init.Tracks[2].Language)
			}
			f := hlsFrames(t, segs)
			if len(f[0]) != 200 || len(f[1]) < 375 || len(f[2]) < 375 {
				t.Errorf("%d, %d and %d frames", len(f[0]), len(f[1]), len(f[2]))
			}
			for k, s := range segs {
				if s.Header.Damaged() || s.Header.Partial() != (k == 0 || k == len(segs)-1) && k > 1 {
					t.Errorf("segment %d of %d: flags %04b", k, len(segs), s.Header.Flags)
				}
			}
		})
	}
	_, err := Open(t.Context(), n.url("all.m3u8?variant=7"), Options{})
	if err == nil || !strings.Contains(err.Error(), "320x180") {
		t.Errorf("%v", err)
	}
}

// TestHLSOutages kills nginx and ffmpeg while a stream is recorded: nothing is
// lost that the playlist still lists afterwards.
func TestHLSOutages(t *testing.T) {
	t.Parallel()
	needHLS(t)
	const options = "hls_list_size=30:start_number=7:hls_flags=append_list+discont_start"
	kinds := []hlsKind{{"ts", options, 0}, {"fmp4", options + ":hls_segment_type=fmp4", 0}}
	n := newHLSNginx(t, "")
	to := tee(t, n, kinds)
	cmd := hlsEncoder(t, n.root, 60, "-flags", "+global_header", "-f", "tee", to)
	var rec []*hlsRecording
	for _, v := range kinds {
		testkit.Await(t, "playlist", exists(n.file(v.name+"/live.m3u8")))
		rec = append(rec, recordHLS(t, n.url(v.name+"/live.m3u8")))
	}
	all := func(ok func(r *hlsRecording) bool) func() bool {
		return func() bool { return ok(rec[0]) && ok(rec[1]) }
	}
	testkit.Await(t, "segments", all(func(r *hlsRecording) bool { return len(r.all()) >= 1 }))
	n.kill()
	testkit.Await(t, "failures", all(func(r *hlsRecording) bool { return r.src.Stats().Errors > 1 }))
	n.start()
	testkit.Await(t, "return", all(func(r *hlsRecording) bool { return r.src.Stats().Reconnects == 1 }))
	cmd.Process.Kill()
	cmd.Wait()
	if err := hlsEncoder(t, n.root, 4, "-flags", "+global_header", "-f", "tee", to).Wait(); err != nil {
		t.Fatal(err)
	}
	for k, v := range kinds {
		t.Run(v.name, func(t *testing.T) {
			segs := rec[k].end(t)
			// What a recorder has that comes when all is over.
			want := recordHLS(t, n.url(v.name+"/live.m3u8")).end(t)
			sameFrames(t, hlsFrames(t, segs), hlsFrames(t, want), 0)
			if c := agreeOnly(t, segs, want); c < 4 {
				t.Errorf("%d clean segments compared", c)
			}
			jumps := 0
			for _, s := range segs {
				if s.Header.Damaged() {
					t.Errorf("damaged: %+v", s.Header)
				}
				if s.Header.Flags&m4f.Discontinuity != 0 {
					jumps++
				}
			}
			if st := rec[k].src.Stats(); jumps != 1 || st.Lost != 0 {
				t.Errorf("%d timelines begin after the first; %+v", jumps, st)
			}
		})
	}
}

// TestHLSClose ends a source while it waits for everything it can wait for.
func TestHLSClose(t *testing.T) {
	needHLS(t)
	n := newHLSNginx(t, "")
	vod(t, n, append(vodH264, "-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_flags", "omit_endlist", "live.m3u8")...)
	src, err := Open(t.Context(), n.url("live.m3u8"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for err == nil {
		_, err = src.Read(ctx)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
}

func TestHLSURLs(t *testing.T) {
	for _, v := range []struct{ url, want, choice, err string }{
		{"hls://a/b.m3u8", "http://a/b.m3u8", "", ""},
		{"hlss://u:p@a:8443/b.m3u8?token=a%2Fb&variant=2&x", "https://u:p@a:8443/b.m3u8?token=a%2Fb&x", "2", ""},
		{"https://a/b.m3u8?variant=1280x720#t", "https://a/b.m3u8", "1280x720", ""},
		{"hls://a/b.m3u8?&&a=1", "http://a/b.m3u8?&&a=1", "", ""},
		{"hls://a/b.m3u8?variant=", "", "", "leave it out"},
		{"hls://a/b.m3u8?variant=best", "", "", "want an index"},
		{"hls:///b.m3u8", "", "", "no host"},
		{"hls://a b/c", "", "", "invalid character"},
	} {
		u, choice, err := parseHLS(v.url)
		switch {
		case v.err != "":
			var ue *URLError
			if !errors.As(err, &ue) || !strings.Contains(err.Error(), v.err) {
				t.Errorf("%s: %v, want %q", v.url, err, v.err)
			}
			if strings.HasPrefix(v.url, "hls") && Check(v.url) == nil {
				t.Errorf("%s passes Check", v.url)
			}
		case err != nil || u.String() != v.want || choice != v.choice:
			t.Errorf("%s: %v, %q, %v", v.url, u, choice, err)
		}
	}
}
