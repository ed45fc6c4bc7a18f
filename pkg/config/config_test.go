package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/ingest"
)

// sources are those that the program is built with.
func sources() Sources {
	return Sources{Schemes: ingest.Schemes(), Program: ingest.SplitProgram, Check: ingest.Check, Shared: ingest.Shared, Redact: ingest.Redact}
}

func load(t *testing.T, name string) *Config {
	t.Helper()
	c, err := Load(filepath.Join("testdata", name), sources())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The two files that the project's users come with are valid as they are.
func TestPastedPair(t *testing.T) {
	for _, v := range []struct {
		file    string
		source  int
		standby Standby
	}{{"seed-main.conf", 0, Cold}, {"seed-replica.conf", 1, Hot}} {
		c := load(t, v.file)
		if c.HTTP != ":8081" || len(c.ClusterKeys) != 0 || len(c.Streams) != 1 {
			t.Fatalf("%s: %+v", v.file, c)
		}
		s := c.Streams[0]
		want := DVR{Pos: s.DVR.Pos, Root: "/storage", Dir: "/storage/example_stream", Depth: 72 * time.Hour, Replicate: true}
		if s.Name != "example_stream" || s.DVR != want || s.SegmentDuration != 4*time.Second || len(s.Inputs) != 2 {
			t.Errorf("%s: %+v", v.file, s)
		}
		source, peer := s.Inputs[v.source], s.Inputs[1-v.source]
		if source.URL != "udp://224.1.2.3:1234" || source.Peer != nil || source.Standby != v.standby ||
			source.SourceTimeout != 10*time.Second || source.ReturnAfter != 10*time.Second {
			t.Errorf("%s: source %+v", v.file, source)
		}
		if p := peer.Peer; p == nil || p.Scheme != "m4f" || !strings.HasPrefix(p.Host, "flussonic_") || p.Port != 8081 || p.Stream != "example" {
			t.Errorf("%s: peer %+v", v.file, peer)
		}
	}
}

func TestUDPAddresses(t *testing.T) {
	for _, url := range []string{
		"udp://224.1.2.3:1234", "udp://@224.1.2.3:1234/", "udp://:1234", "udp://[ff02::1%eth0]:1234", "udp://[::1]:1",
		"udp://239.0.0.1:5?interface=eth0&source=10.0.0.1&buffer_size=8M", "udp://host.example:5",
	} {
		if _, err := Parse("x.conf", []byte("stream a { url "+url+"; dvr /s 1d; }"), sources()); err != nil {
			t.Error(err)
		}
	}
}

// Every kind of source is an input. Behind a peer those that cost their sender
// nothing are heard all the time.
func TestEveryKindOfSource(t *testing.T) {
	for url, standby := range map[string]Standby{
		"udp://239.0.0.1:5": Hot, "rtp://239.0.0.1:5": Hot, "rtp://10.0.0.1:5,10.0.1.1:5?skew=100ms": Hot,
		"srt://h:9000?passphrase=s3cret-s3cret": Cold, "srt://:9000": Cold,
		"http://u:s3cret@h/live.ts?token=s3cret": Cold, "https://h/x": Cold, "http://h/x.m3u8": Cold,
		"hls://h/x": Cold, "hlss://h/x.m3u8?variant=1": Cold,
		"rtsp://u:s3cret@h/cam?transport=udp": Cold, "rtsps://h/cam": Cold, "file:/x.ts": Cold,
	} {
		c, err := Parse("x.conf", []byte(`stream a { url m4f://h/a; url "`+url+`"; dvr /s 1d; }`), sources())
		if err != nil {
			t.Error(err)
			continue
		}
		if in := c.Streams[0].Inputs[1]; in.Standby != standby || in.URL != url {
			t.Errorf("%s: %+v", url, in)
		}
		_, err = Parse("x.conf", []byte(`stream a { url "`+url+`"; url "`+url+`"; dvr /s 1d; }`), sources())
		if err == nil || !strings.Contains(err.Error(), "a second input") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s twice: %v", url, err)
		}
	}
	for url, want := range map[string]string{
		"srt://h:9000?passphrase=s3cret-s3cret&latncy=3": `unknown option "latncy"`,
		"srt://u:s3cret@h": "", "rtsp://u:s3cret@": "", "http://u:s3cret@/x": "", "hls://u:s3cret@/x?variant=1": "",
		"rtsp://u:s3cret@h/x?transport=s": "transport=s is none of", "rtp://10.0.0.1:5?skew=1s": "skew= needs two paths",
	} {
		_, err := Parse("x.conf", []byte(`stream a { url "`+url+`"; dvr /s 1d; }`), sources())
		if err == nil || !strings.HasPrefix(err.Error(), "x.conf:1:16: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
	// Programs of one multiplex may be inputs of one stream.
	c, err := Parse("x.conf", []byte("stream a { url udp://239.0.0.1:5?program=2; url udp://239.0.0.1:5 program=3; dvr /s 1d; }"), sources())
	if err != nil || c.Streams[0].Inputs[0].Program != 2 || c.Streams[0].Inputs[1].Program != 3 || c.Streams[0].Inputs[0].URL != c.Streams[0].Inputs[1].URL {
		t.Errorf("%v %+v", err, c)
	}
}

func TestEveryStatement(t *testing.T) {
	c := load(t, "full.conf")
	s := c.Stream("sport/hd tv")
	if s == nil || len(s.Inputs) != 3 || c.Stream("none") != nil {
		t.Fatalf("%+v", c)
	}
	if c.HTTP != "[::1]:9090" || !reflect.DeepEqual(c.ClusterKeys, []string{"a b", `old"k`}) {
		t.Errorf("%+v", c)
	}
	if want := (DVR{s.DVR.Pos, "/storage", "/storage/sport/hd tv", 72 * time.Hour, true, 50 << 20, 9, true}); s.DVR != want {
		t.Errorf("dvr %+v", s.DVR)
	}
	if s.SegmentDuration != 500*time.Millisecond {
		t.Errorf("segment_duration %v", s.SegmentDuration)
	}
	type told struct {
		timeout, back, retry time.Duration
		standby              Standby
		program              uint16
	}
	want := []told{
		{90 * time.Second, 0, 5 * time.Second, Hot, 3},
		{3 * time.Second, 20 * time.Second, time.Minute, Cold, 0},
		{90 * time.Second, 20 * time.Second, 5 * time.Second, Cold, 9},
	}
	for i, in := range s.Inputs {
		if got := (told{in.SourceTimeout, in.ReturnAfter, in.MaxRetryTimeout, in.Standby, in.Program}); got != want[i] {
			t.Errorf("input %d: %+v, want %+v", i+1, got, want[i])
		}
	}
	peer := Peer{"m4fs", "2001:db8::1", 99, "sport/hd tv"}
	if got := s.Peers(); len(got) != 1 || got[0] != peer {
		t.Errorf("peers %+v", got)
	}
	peer.Port = 9
	if got := s.ReplicationPeers(); len(got) != 1 || got[0] != peer {
		t.Errorf("replication peers %+v", got)
	}
	if got := c.Stream("plain"); got.DVR.Depth != 36*time.Hour || got.ReplicationPeers() != nil {
		t.Errorf("%+v", got)
	}
}

// What a file is made of does not change with line ends, a byte order mark,
// or the white space of a web page.
func TestSpellings(t *testing.T) {
	src, err := os.ReadFile("testdata/full.conf")
	if err != nil {
		t.Fatal(err)
	}
	want := load(t, "full.conf")
	for name, text := range map[string]string{
		"CRLF":     strings.ReplaceAll(string(src), "\n", "\r\n"),
		"BOM":      "\ufeff" + string(src),
		"no-break": strings.ReplaceAll(string(src), "  ", "\u00a0\u200b"),
		"no end":   strings.TrimRight(string(src), "\n"),
	} {
		got, err := Parse("x.conf", []byte(text), sources())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := Compare(want, got); !diff.Empty() {
			t.Errorf("%s: %+v", name, diff)
		}
	}
}

// inStream puts statements into a stream that is valid without them.
func inStream(s string) string {
	return "stream a {\n" + s + "\nurl udp://1.2.3.4:5; url m4f://h/a; dvr /s 1d replicate; }"
}

// A peer on this machine is another node where its port or its stream is, and
// numbers without a unit are the seconds that other servers' files have.
func TestNoMistakes(t *testing.T) {
	for _, src := range []string{
		"http 90; stream a { url m4f://127.0.0.1:91/a; dvr /s 3d; }",
		"http 90; stream a { url m4f://127.0.0.1:90/b; dvr /s 3d; }",
		"http 10.0.0.1:90; stream a { url m4f://127.0.0.1:90/a; url m4f://10.0.0.2:90/a; dvr /s 3d; }",
		"http a.example:90; stream a { url m4f://b.example:90/a; dvr /s 3d; }",
		"http 0; stream a { url m4f://127.0.0.1/a; dvr /s 3d; }",
	} {
		if _, err := Parse("x.conf", []byte(src), sources()); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
	c, err := Parse("x.conf", []byte("stream a { url udp://h:1 source_timeout=2.5; source_timeout 20; return_after 0; max_retry_timeout 7; dvr /s 3d; }"), sources())
	if err != nil {
		t.Fatal(err)
	}
	if in := c.Streams[0].Inputs[0]; in.SourceTimeout != 2500*time.Millisecond || in.ReturnAfter != 0 || in.MaxRetryTimeout != 7*time.Second {
		t.Errorf("%+v", in)
	}
}

func TestMistakes(t *testing.T) {
	for _, v := range []struct{ src, want string }{
		{"", "1:1: the file has no stream; expected stream NAME { … }"},
		{"stream a {\n  recrod x;\n}", `2:3: unknown word "recrod" in stream a; expected one of url, input, dvr, segment_duration, source_timeout, return_after, max_retry_timeout, standby, program`},
		{inStream("sourc_timeout 3s;"), `2:1: unknown word "sourc_timeout" in stream a (did you mean source_timeout?); expected one of`},
		{"strem a { }", `1:1: unknown word "strem" in the file (did you mean stream?); expected one of http, cluster_key, cluster_key_file, stream`},
		{"http 80811;", "1:6: 80811 is no port"},
		{"http ::1:80;", `1:6: "::1:80" is no address; expected PORT, ADDR:PORT or [IPV6]:PORT`},
		{"http;", "1:5: http is incomplete; expected http PORT|ADDR:PORT;"},
		{"http 1 2;", `1:8: unexpected "2"; expected http PORT|ADDR:PORT;`},
		{"http 1;\nhttp 2;", "2:1: a second http in the file; the first is in line 1"},
		{"http 1 {}", `1:8: http takes no block; expected ";"`},
		{"cluster_key a;\ncluster_key_file b;", "2:1: cluster_key and cluster_key_file exclude each other"},
		{"cluster_key_file b;\ncluster_key a;", "2:1: cluster_key and cluster_key_file exclude each other"},
		{`cluster_key "";`, "1:13: the cluster key is empty"},
		{"stream a;", "1:9: expected a block in braces: stream NAME { … }"},
		{"stream { }", "1:7: stream is incomplete; expected stream NAME { … }"},
		{"stream ../a { }", `1:8: stream ../a: a name that holds ".." would climb out of the archive`},
		{"stream a//b { }", "1:8: stream a//b: a part of the name is empty"},
		{"stream /a { }", "1:8: stream /a: a name does not begin with a slash"},
		{"stream a { dvr /s 1d; }", "1:8: stream a has no input; expected url URL;"},
		{"stream a { url udp://h:1; }", "1:8: stream a has no dvr; expected dvr PATH DEPTH;"},
		{"stream a { url udp://h:1; dvr /s 1d replicate; }", "1:27: stream a replicates, but no peer is among its inputs; expected url m4f://HOST/a;"},
		{inStream("dvr /s 1d;"), "3:37: a second dvr in stream a; the first is in line 2"},
		{inStream("") + "\n" + inStream(""), "4:8: a second stream a; the first is in line 1"},
		{inStream("url udp://1.2.3.4:5;"), "3:5: a second input udp://1.2.3.4:5; the first is in line 2"},
		{inStream("url m4f://h:8081/a;"), "3:26: a second input m4f://h/a; the first is in line 2"},
		{inStream("url udp://1.2.3.4;"), "2:5: udp://1.2.3.4: no port; write udp://ADDRESS:PORT"},
		{inStream("url udp://1.2.3.4:99999;"), `2:5: udp://1.2.3.4:99999: port "99999" is not a number from 1 to 65535`},
		{inStream("url udp://[ff02::1];"), "2:5: udp://[ff02::1]: no port"},
		{inStream("url udp://ff02::1:1234;"), "2:5: udp://ff02::1:1234: an IPv6 address stands in brackets: udp://[ff02::1]:1234"},
		{inStream("url udp:1.2.3.4:1;"), "2:5: udp:1.2.3.4:1 is no URL; expected udp:// after the kind of input"},
		{inStream("url udp://1.2.3.4:1/x:2;"), "2:5: udp://1.2.3.4:1/x:2: "},
		{inStream("url udp://1.2.3.4:1?interfac=eth0;"), `2:5: udp://1.2.3.4:1?interfac=***: unknown option "interfac"; a udp source has interface=, source=, buffer_size= and program=`},
		{inStream("url udp://1.2.3.4:1?source=eth0;"), `2:5: udp://1.2.3.4:1?source=eth0: source=eth0 is not the address of a sender`},
		{inStream("url udp://1.2.3.4:1?program=0;"), "2:5: udp://1.2.3.4:1?program=0: program=0 is not a number from 1 to 65535"},
		{inStream("url udp://1.2.3.4:1?program=2 program=3;"), "2:5: the URL says program 2 and the option program=3; expected one of them"},
		{inStream("url udp://1.2.3.4:1?program=2; url udp://1.2.3.4:1 program=2;"), "2:36: a second input udp://1.2.3.4:1; the first is in line 2"},
		{inStream("url udp://1.2.3.4:5?program=2; program 2;"), "3:5: a second input udp://1.2.3.4:5; the first is in line 2"},
		{inStream(`url "udp://1.2.3.4:1?source=a%0ab";`), "2:5: udp://1.2.3.4:1?source=a%0ab: source=a?b is not the address of a sender"},
		{inStream("url tshttp://h/x;"), "2:5: tshttp:// is written http:// here"},
		{inStream("url 1.2.3.4;"), `2:5: "1.2.3.4" is no URL; expected one of file:, `},
		{inStream("url upd://1.2.3.4:1;"), `2:5: unknown kind of input "upd" (did you mean udp?); expected one of file:, `},
		{inStream("url gopher://h:1;"), `2:5: unknown kind of input "gopher"; expected one of file:, `},
		{inStream("url joe.x:Sss@h/x.ts;"), `2:5: "***@h/x.ts" is no URL; expected one of `},
		{inStream("url http:/joe:Sss@h/x.ts;"), `2:5: http:/***@h/x.ts is no URL; expected http:// after the kind of input`},
		{inStream("url /dev/x:1;"), `2:5: "/dev/x:1" is no URL; expected one of `},
		{inStream("url m4f://h/../b;"), `2:5: m4f://h/../b: stream ../b: a name that holds ".." would climb out of the archive`},
		{inStream("url m4f://h/%2e%2e/b;"), `2:5: m4f://h/%2e%2e/b: stream ../b: a name that holds ".."`},
		{inStream("url m4f://::1/b;"), "2:5: m4f://::1/b: "},
		{inStream("url m4f://h;"), "2:5: m4f://h names no stream; write a peer as m4f://HOST[:PORT]/STREAM"},
		{inStream("url file:;"), "2:5: file:: no path; write file:PATH"},
		{inStream("url udp://h:1 source_timeout=0;"), "2:15: source_timeout: 0s is too short; the shortest is 100ms"},
		{inStream("url udp://h:1 source_timeout=1e3;"), "2:15: source_timeout: 1e3 has an unknown unit"},
		{inStream("segment_duration 4;"), "2:18: 4 has no unit; write 4s, 4m, 4h or 4d"},
		{"stream a { url m4f://h/a; dvr /s 3; }", "1:34: 3 has no unit; write 3s, 3m, 3h or 3d"},
		{"stream a { url udp://h:1; dvr /s 3d replication_port=9; }", "1:37: replication_port is the peers', but no peer is among the inputs of stream a; expected url m4f://HOST/a;"},
		{"stream a { url udp://h:1; dvr /s 3d replicate replication_port=9; }", "1:27: stream a replicates, but no peer"},
		{"stream a {\n url m4f://localhost/a; dvr /s 3d; }", "2:6: m4f://localhost/a is this stream of this node itself; expected the address of its peer"},
		{"stream a { url m4f://127.0.0.1:90/a; dvr /s 3d; }\nhttp 90;", "1:16: m4f://127.0.0.1:90/a is this stream"},
		{"http 0.0.0.0:90; stream a { url m4fs://[::1]:90/a; dvr /s 3d; }", "1:33: m4fs://[::1]:90/a is this stream"},
		{"http 10.0.0.1:90; stream a { url m4f://10.0.0.1:90/a; dvr /s 3d; }", "1:34: m4f://10.0.0.1:90/a is this stream"},
		{"http a.example:90; stream a { url m4f://A.example:90/a; dvr /s 3d; }", "1:35: m4f://A.example:90/a is this stream"},
		{"http 90; stream a { url m4f://127.0.0.1:91/a; dvr /s 3d replicate replication_port=90; }", "1:47: replication_port=90 makes this stream"},
		{inStream("url udp://h:1 sourcetimeout=10s;"), `2:15: unknown word "sourcetimeout" in the options of an input (did you mean source_timeout?)`},
		{inStream("url udp://h:1 hot;"), `2:15: unexpected "hot" after the URL; expected ";" or OPTION=VALUE, OPTION one of source_timeout`},
		{inStream("url udp://h:1 standby;"), `2:15: expected standby=… or ";" before it`},
		{inStream("url udp://h:1 standby=hot standby=hot;"), "2:27: a second standby for this input"},
		{inStream("url udp://h:1 segment_duration=2s;"), "2:15: segment_duration is the stream's"},
		{inStream("url m4f://k/a program=2;"), "2:5: program chooses from a transport stream"},
		{inStream("url m4f://k/a standby=hot;"), "2:5: a peer is not a hot standby"},
		{inStream("standby warm;"), `2:9: "warm" is no kind of standby; expected hot or cold`},
		{inStream("program 0;"), `2:9: "0" is no program; expected a number from 1 to 65535`},
		{inStream("segment_duration 1h;"), "2:18: 1h is too long; the longest is 1m"},
		{inStream("segment_duration 1ms;"), "2:18: 1ms is too short; the shortest is 200ms"},
		{inStream("source_timeout 5 s;"), `2:18: unexpected "s"; expected source_timeout DURATION;`},
		{inStream("salvage 1G 1h;"), "2:1: salvage is not supported by this version"},
		{inStream("verify 7d;"), "2:1: verify is not supported by this version"},
		{"source h { only a b; }", "1:1: source is not supported by this version"},
		{"event_sink http://h/;", "1:1: event_sink is not supported by this version"},
		{"view_auth off;", "1:1: view_auth is not supported by this version"},
		{"stream a { url m4f://h/a; dvr s 1d replicate; }", `1:31: "s" is no absolute path; expected one as /storage`},
		{"stream a { url m4f://h/a; dvr /s/../t 1d; }", `1:31: "/s/../t" holds ".."; expected a path without`},
		{"stream a { url m4f://h/a; dvr /s; }", "1:33: dvr is incomplete; expected dvr PATH DEPTH"},
		{"stream a { url m4f://h/a; dvr /s 10G; }", `1:34: "10G" is a size; expected the depth first, as 3d`},
		{"stream a { url m4f://h/a; dvr /s 3dd; }", "1:34: 3dd has an unknown unit; units of time are ms, s, m, h, d and w"},
		{"stream a { url m4f://h/a; dvr /s 1s; }", "1:34: 1s is too short; the shortest is 1m"},
		{"stream a { url m4f://h/a; dvr /s 1d 10G; }", "1:37: a size limit (10G) is not supported by this version"},
		{"stream a { url m4f://h/a; dvr /s 1d 90%; }", "1:37: a limit of the volume's use (90%) is not supported by this version"},
		{"stream a { url m4f://h/a; dvr /s 1d replicat; }", `1:37: unknown word "replicat" in dvr (did you mean replicate?); expected one of replicate, replicate=RATE, replication_port=PORT, mounted`},
		{"stream a { url m4f://h/a; dvr /s 1d replicate=8Mbit; }", "1:37: 8Mbit is in bits; a rate is in bytes a second: for 8 Mbit/s write 1M"},
		{"stream a { url m4f://h/a; dvr /s 1d replicate replicate=1M; }", "1:47: a second replicate in dvr"},
		{"stream a { url m4f://h/a; dvr /s 1d replication_port; }", "1:37: expected replication_port=PORT"},
		{"stream a { url m4f://h/a; dvr /s 1d replication_port=0; }", "1:37: 0 is no port"},
		{"stream a { url m4f://h/a; dvr /s 1d mounted=1; }", "1:37: mounted takes no value"},
		{"stream a { url m4f://h/a;\n dvr /s 1d }", `2:11: expected ";" after "1d"`},
		{"stream a {\n url m4f://h/a\n dvr /s 1d; }", `2:15: expected ";" after "m4f://h/a"`},
		{"stream a { url m4f://h/a dvr /s 1d; }", `1:26: expected dvr=… or ";" before it`},
		{"stream a { url m4f://h/a; dvr /s 1d url udp://h:1; }", `1:37: expected ";" before url`},
		{"stream a { url m4f://h/a; dvr /s 1d;", `1:10: the block of "stream" is not closed; expected "}"`},
		{"stream a { url m4f://h/a; dvr /s 1d; } }", `1:40: "}" closes nothing`},
		{"stream a { url m4f://h/a; dvr /s 1d; };", `1:39: unexpected ";"`},
		{"{ }", `1:1: unexpected "{"; expected a word before it`},
		{"stream a { stream b { } url m4f://h/a; }", `1:12: a stream inside stream a; expected "}" before it`},
		{`stream "a {`, "1:8: the quote is not closed on its line"},
		{"stream a\x00b { }", "1:9: unexpected character U+0000"},
		{"# comment\nstr\xffeam", "2:4: the text is not UTF-8"},
		{strings.Repeat("a{", 100), `1:18: blocks are nested too deep; is a "}" missing?`},
		{"# " + strings.Repeat("x", maxFile), "1:1: the file is larger than 1048576 bytes"},
		{
			"stream a { url udp://h:1; dvr /s 1d; }\nstream a/b { url udp://h:2;\ndvr /s 1d; }",
			"3:1: stream a/b in /s/a/b would lie inside stream a in /s/a; give one of them another directory",
		},
		{
			"stream a { url udp://h:1;\n dvr /s/b 1d; }\nstream b { url udp://h:2; dvr /s 1d; }",
			"2:2: stream a in /s/b/a would lie inside stream b in /s/b; give one of them another directory",
		},
		{
			"stream a/b { url udp://h:1; dvr /s 1d; }\nstream b { url udp://h:2;\n dvr /s/a 1d; }",
			"3:2: streams a/b and b would both be kept in /s/a/b",
		},
	} {
		c, err := Parse("x.conf", []byte(v.src), sources())
		if err == nil {
			t.Errorf("%.200q: no error, %+v", v.src, c)
			continue
		}
		if first, _, _ := strings.Cut(err.Error(), "\n"); !strings.HasPrefix(first, "x.conf:"+v.want) {
			t.Errorf("%.200q:\n got %s\nwant x.conf:%s", v.src, first, v.want)
		}
		var one *Error
		if !errors.As(err, &one) || one.File != "x.conf" || one.Line < 1 || one.Col < 1 {
			t.Errorf("%.200q: no *Error with a position in %#v", v.src, err)
		}
	}
}

// Every mistake is told in one go, in the order of the file, ten at the most.
func TestManyMistakes(t *testing.T) {
	_, err := Parse("x.conf", []byte("http x;\nstream a {\n  url udp://h\n  dvr /s 3x\n}\nfoo;\n"), sources())
	want := strings.Join([]string{
		"x.conf:1:6: x is no port; a port is a number from 1 to 65535; expected PORT, ADDR:PORT or [IPV6]:PORT",
		"x.conf:3:7: udp://h: no port; write udp://ADDRESS:PORT",
		`x.conf:3:14: expected ";" after "udp://h"`,
		"x.conf:4:10: 3x has an unknown unit; units of time are ms, s, m, h, d and w",
		`x.conf:4:12: expected ";" after "3x"`,
		`x.conf:6:1: unknown word "foo" in the file; expected one of http, cluster_key, cluster_key_file, stream`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse("x.conf", []byte(strings.Repeat("foo;\n", 25)), sources())
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 11 || lines[9][:9] != "x.conf:10" || lines[10] != "x.conf: and 15 more" {
		t.Errorf("%q", lines)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf := write("x.conf", "cluster_key_file key;\nstream a { url udp://h:1; dvr /s 1d; }")
	if _, err := Load(conf, sources()); err == nil || !strings.Contains(err.Error(), "x.conf:1:18: cluster key file ") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("absent: %v", err)
	}
	for _, v := range []struct {
		text string
		keys []string
		err  string
	}{
		{"s3cret\n", []string{"s3cret"}, ""},
		{" new \r\n\r\nold", []string{"new", "old"}, ""},
		{"\n \n", nil, "holds no key"},
		{"a\nb\nc\n", nil, "holds 3 keys; one is in use, and a second while it is being replaced"},
		{"a\x01", nil, "line 1: the cluster key holds a control character"},
		{strings.Repeat("a", maxKey+1), nil, "line 1: the cluster key is longer than 4096 bytes"},
		{strings.Repeat("a", maxKeyFile+1), nil, "longer than 65536 bytes"},
	} {
		write("key", v.text)
		c, err := Load(conf, sources())
		switch {
		case v.err == "" && err != nil, v.err != "" && (err == nil || !strings.Contains(err.Error(), v.err)):
			t.Errorf("%.20q: %v, want %q", v.text, err, v.err)
		case err == nil && (!reflect.DeepEqual(c.ClusterKeys, v.keys) || c.ClusterKeyFile != filepath.Join(dir, "key")):
			t.Errorf("%.20q: %+v", v.text, c)
		}
	}
	if _, err := Load(filepath.Join(dir, "none.conf"), sources()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func TestCompare(t *testing.T) {
	old, err := Parse("a", []byte(`http 1; cluster_key k;
		stream same { url udp://h:1; dvr /s 1d; }
		stream gone { url udp://h:2; dvr /s 1d; }
		stream changed { url udp://h:3; url m4f://h/x; dvr /s 1d replicate; }`), sources())
	if err != nil {
		t.Fatal(err)
	}
	if c := Compare(old, old); !c.Empty() {
		t.Errorf("with itself: %+v", c)
	}
	new, err := Parse("b", []byte(`cluster_key k2 k;
		stream changed { url m4f://h/x; url udp://h:3; dvr /s 1d replicate; }
		stream added { url udp://h:2; dvr /s 1d; }
		stream same { segment_duration 4s; url udp://h:1 source_timeout=10s; dvr /s 24h; }`), sources())
	if err != nil {
		t.Fatal(err)
	}
	want := Changes{HTTP: true, Keys: true, Added: []string{"added"}, Removed: []string{"gone"}, Changed: []string{"changed"}}
	if got := Compare(old, new); !reflect.DeepEqual(got, want) || got.Empty() {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The manual describes every word that the tables know.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../man/twindvr.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, d := range fileWords {
		inManual(t, manual, d.name, d.later)
	}
	for _, d := range streamWords {
		inManual(t, manual, d.name, d.later)
	}
	for _, name := range []string{"replicate", "replication_port", "mounted"} {
		inManual(t, manual, name, false)
	}
}

func inManual(t *testing.T, manual, name string, later bool) {
	t.Helper()
	described := regexp.MustCompile(`(?m)^\.BI? "?` + name + `([ =;"]|$)`).MatchString(manual)
	if described == later {
		t.Errorf("twindvr.conf(5): %s described: %v", name, described)
	}
}
