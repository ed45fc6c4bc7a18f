package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever a file holds, it is understood the same way each time, or every
// mistake has a place inside the file.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(seeds) < 3 {
		f.Fatalf("%d seeds in testdata, %v", len(seeds), err)
	}
	for _, path := range seeds {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("stream a { url udp://h:1 dvr /s 3d 10G 90% replicate=8Mbit }; } \"x"))
	f.Add([]byte(`stream a { url rtp://10.0.0.1:5,[::1]:5?fec=on&program=3; url "srt://:9000?passphrase=a%20b&latency=2s";
		url http://u:p@h/x?y=z; url hlss://h/x?variant=1280x720; url rtsps://h/c?fingerprint=00 standby=hot; dvr /s 3d; }`))
	f.Add([]byte("source h:1 { only a b; except c; dvr /s 1d 5G 5% replicate; salvage off } source m4fs://[::1] {dvr /s 1d;} min_free 5%; verify 1d 1M; salvage 1G 1h; tls_ca x;"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("x.conf", src, sources())
		again, err2 := Parse("x.conf", src, sources())
		if err != nil {
			if err2 == nil || err.Error() != err2.Error() {
				t.Fatalf("once %v, then %v", err, err2)
			}
			checkPlaces(t, src, err)
			return
		}
		if err2 != nil || !Compare(c, again).Empty() {
			t.Fatalf("once understood, then %v", err2)
		}
		for _, s := range c.Sources {
			if s.DVR.Root == "" || s.Peer.Host == "" || s.Peer.Port == 0 || s.SourceTimeout <= 0 {
				t.Fatalf("source lacks something: %+v", s)
			}
			c.Streams = append(c.Streams, s.Stream("sport/hd", DefaultSegmentDuration))
		}
		for _, s := range c.Streams {
			if s.Salvage.Off == (s.Salvage.Bytes > 0) || s.Salvage.Off == (s.Salvage.Age > 0) || s.DVR.Size < 0 || s.DVR.Percent < 0 || s.DVR.Percent > 99 {
				t.Fatalf("stream with odd limits: %+v", s)
			}
			if len(s.Inputs) == 0 || !strings.HasPrefix(s.DVR.Dir, "/") || s.DVR.Depth <= 0 || s.SegmentDuration <= 0 {
				t.Fatalf("stream lacks something: %+v", s)
			}
			if rel, err := filepath.Rel(s.DVR.Root, s.DVR.Dir); err != nil || rel != s.Name {
				t.Fatalf("stream %q lies at %q below %q", s.Name, rel, s.DVR.Root)
			}
		}
	})
}

func checkPlaces(t *testing.T, src []byte, err error) {
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 {
		t.Fatalf("%T %v", err, err)
	}
	lines := strings.Split(string(src), "\n")
	before := Pos{1, 1}
	for _, e := range all {
		if e.Line < 1 || e.Line > len(lines) || e.Col < 1 || e.Col > len(lines[e.Line-1])+2 {
			t.Fatalf("no such place: %v", e)
		}
		if e.Pos.before(before) < 0 {
			t.Fatalf("out of order: %v", err)
		}
		before = e.Pos
		if strings.ContainsAny(e.Msg, "\n\r\x00") {
			t.Fatalf("not a line: %q", e.Msg)
		}
	}
}

// A file written from a description is read back as that description.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawConfig(t)
		text := write(t, want)
		got, err := Parse("x.conf", []byte(text), sources())
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := Compare(want, got); !diff.Empty() {
			t.Fatalf("%+v\n%s", diff, text)
		}
	})
}

func drawConfig(t *rapid.T) *Config {
	millis := func(label string, least, most time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(int64(least/time.Millisecond), int64(most/time.Millisecond)).Draw(t, label)) * time.Millisecond
	}
	c := &Config{HTTP: fmt.Sprintf(":%d", rapid.IntRange(1, 65535).Draw(t, "port"))}
	c.ClusterKeys = rapid.SliceOfN(rapid.StringMatching(`[a-z"'\\ #;{}ü“]{1,8}`), 0, 2).Draw(t, "keys")
	c.MinFree = Free{Bytes: rapid.Int64Range(0, 1<<40).Draw(t, "free")}
	c.Verify = Verify{Every: millis("verify", minVerifyEvery, maxDepth), Rate: rapid.Int64Range(minVerifyRate, 1<<40).Draw(t, "verify rate")}
	for i := range rapid.IntRange(1, 4).Draw(t, "streams") {
		s := &Stream{Name: fmt.Sprintf("%s%d/x", rapid.StringMatching(`[a-zü ][a-zü .]{0,5}`).Draw(t, "name"), i)}
		s.SegmentDuration = millis("segment", MinSegmentDuration, MaxSegmentDuration)
		s.Salvage = Salvage{Bytes: rapid.Int64Range(minSalvage, 1<<40).Draw(t, "salvage"), Age: millis("age", minSalvageAge, maxDepth)}
		peer := false
		for j := range rapid.IntRange(1, 3).Draw(t, "inputs") {
			in := &Input{
				SourceTimeout:   millis("timeout", minTimeout, time.Hour),
				ReturnAfter:     millis("return", 0, time.Hour),
				MaxRetryTimeout: millis("retry", minTimeout, time.Hour),
			}
			if rapid.Bool().Draw(t, "peer") {
				in.Peer = &Peer{rapid.SampledFrom([]string{"m4f", "m4fs"}).Draw(t, "scheme"), rapid.SampledFrom([]string{"b.example", "::1", "10.0.0.1"}).Draw(t, "host"), j + 1, "a b/ü"}
				in.URL, peer = in.Peer.String(), true
			} else {
				in.URL = fmt.Sprintf("udp://239.0.0.%d:1234", j+1)
				in.Standby = rapid.SampledFrom([]Standby{Cold, Hot}).Draw(t, "standby")
				in.Program = rapid.Uint16Range(1, 65535).Draw(t, "program")
			}
			s.Inputs = append(s.Inputs, in)
		}
		s.DVR = DVR{Root: "/storage", Dir: "/storage/" + s.Name, Depth: millis("depth", minDepth, maxDepth), Mounted: rapid.Bool().Draw(t, "mounted")}
		if rapid.Bool().Draw(t, "sized") {
			s.DVR.Size = rapid.Int64Range(minSize>>10, 1<<30).Draw(t, "size") << 10
		}
		s.DVR.Percent = rapid.IntRange(0, 99).Draw(t, "percent")
		if peer && rapid.Bool().Draw(t, "replicate") {
			s.DVR.Replicate = true
			s.DVR.ReplicateRate = rapid.Int64Range(0, 1<<40).Draw(t, "rate")
			s.DVR.ReplicationPort = rapid.IntRange(0, 65535).Draw(t, "replication port")
		}
		c.Streams = append(c.Streams, s)
	}
	return c
}

// write writes a configuration with random white space, quotes and comments.
func write(t *rapid.T, c *Config) string {
	var b strings.Builder
	space := func() {
		b.WriteString(rapid.SampledFrom([]string{" ", "\n", "\t", "  ", " # a; comment {\n", "\r\n"}).Draw(t, "space"))
	}
	say := func(words ...string) {
		for _, w := range words {
			space()
			if strings.ContainsAny(w, " \"'\\#;{}“") {
				w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
			}
			b.WriteString(w)
		}
	}
	end := func() { b.WriteString(";") }
	say("http", strings.TrimPrefix(c.HTTP, ":"))
	end()
	if len(c.ClusterKeys) > 0 {
		say(append([]string{"cluster_key"}, c.ClusterKeys...)...)
		end()
	}
	say("min_free", fmt.Sprintf("%.10fK", float64(c.MinFree.Bytes)/1024))
	end()
	say("verify", FormatDuration(c.Verify.Every), fmt.Sprint(c.Verify.Rate))
	end()
	for _, s := range c.Streams {
		say("stream", s.Name)
		b.WriteString("{")
		say("segment_duration", FormatDuration(s.SegmentDuration))
		end()
		say("salvage", fmt.Sprint(s.Salvage.Bytes), FormatDuration(s.Salvage.Age))
		end()
		for _, in := range s.Inputs {
			say(rapid.SampledFrom([]string{"url", "input"}).Draw(t, "word"), in.URL,
				"source_timeout="+FormatDuration(in.SourceTimeout), "return_after="+FormatDuration(in.ReturnAfter),
				"max_retry_timeout="+FormatDuration(in.MaxRetryTimeout))
			if in.Peer == nil {
				say("standby="+in.Standby.String(), fmt.Sprintf("program=%d", in.Program))
			}
			end()
		}
		say("dvr", s.DVR.Root, FormatDuration(s.DVR.Depth))
		if s.DVR.Size > 0 {
			say(fmt.Sprintf("%dK", s.DVR.Size>>10))
		}
		if s.DVR.Percent > 0 {
			say(fmt.Sprintf("%d%%", s.DVR.Percent))
		}
		if s.DVR.Replicate && s.DVR.ReplicateRate > 0 {
			say(fmt.Sprintf("replicate=%d", s.DVR.ReplicateRate))
		} else if s.DVR.Replicate {
			say("replicate")
		}
		if s.DVR.ReplicationPort > 0 {
			say(fmt.Sprintf("replication_port=%d", s.DVR.ReplicationPort))
		}
		if s.DVR.Mounted {
			say("mounted")
		}
		end()
		b.WriteString("}")
	}
	return b.String()
}
