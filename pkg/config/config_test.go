package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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
	src, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(name, src, sources())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEventSinks(t *testing.T) {
	const stream = "stream a { url udp://h:1; dvr /s 1d; } "
	const text = stream + "event_sink log \"https://me:s3cret@h/x?y=z;\";"
	a, err := Parse("f", []byte(text), sources())
	if err != nil || !slices.Equal(a.EventSinks, []string{EventLog, "https://me:s3cret@h/x?y=z;"}) {
		t.Fatalf("%+v, %v", a, err)
	}
	b, err := Parse("f", []byte("\n"+text), sources())
	if err != nil || !Compare(a, b).Empty() {
		t.Errorf("%+v, %v", Compare(a, b), err)
	}
	if b, err = Parse("f", []byte(stream+"event_sink log;"), sources()); err != nil || !Compare(a, b).Events || Compare(a, b).Empty() {
		t.Errorf("%+v, %v", Compare(a, b), err)
	}
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
		if s.Salvage != (Salvage{Bytes: 1 << 30, Age: time.Hour}) || c.MinFree != (Free{Bytes: 1 << 30}) || c.Verify != (Verify{Every: 7 * 24 * time.Hour, Rate: 20 << 20}) {
			t.Errorf("%s: %+v %+v %+v", v.file, s.Salvage, c.MinFree, c.Verify)
		}
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
	if want := (DVR{s.DVR.Pos, "/storage", "/storage/sport/hd tv", 72 * time.Hour, 3 << 39, 85, true, 50 << 20, 9, true}); s.DVR != want {
		t.Errorf("dvr %+v", s.DVR)
	}
	if want := (TLS{Cert: "/etc/twindvr/cert.pem", Key: "/etc/twindvr/key.pem", CA: "/etc/twindvr/ca.pem"}); !c.TLS.equal(want) {
		t.Errorf("tls %+v", c.TLS)
	}
	if c.MinFree != (Free{Percent: 5}) || c.Verify != (Verify{Every: 14 * 24 * time.Hour, Rate: 5 << 20}) {
		t.Errorf("min_free %+v, verify %+v", c.MinFree, c.Verify)
	}
	if s.Salvage != (Salvage{Off: true}) || c.Stream("plain").Salvage != (Salvage{Bytes: 2 << 30, Age: 90 * time.Minute}) {
		t.Errorf("salvage %+v and %+v", s.Salvage, c.Stream("plain").Salvage)
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
		{"strem a { }", `1:1: unknown word "strem" in the file (did you mean stream?); expected one of http, cluster_key, cluster_key_file, tls_cert, tls_key, tls_ca, min_free, verify, salvage, event_sink, stream, source`},
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
		{inStream("salvage 1G;"), "2:11: salvage is incomplete; expected salvage SIZE AGE; or salvage off;"},
		{inStream("salvage off 1h;"), `2:13: unexpected "1h"; expected salvage SIZE AGE; or salvage off;`},
		{inStream("salvage 1h 1G;"), "2:9: 1h has an unknown unit; units of size are K, M, G and T"},
		{inStream("salvage 1K 1h;"), "2:9: 1K is too small; the least is 1M, and salvage off; keeps nothing"},
		{inStream("salvage 1G 1G;"), "2:12: 1G has an unknown unit; units of time are"},
		{inStream("salvage 1G 1ms;"), "2:12: 1ms is too short; the shortest is 1s"},
		{inStream("salvage 1G 1h; salvage off;"), "2:16: a second salvage in stream a; the first is in line 2"},
		{inStream("url udp://h:1 salvage=off;"), "2:15: salvage is the stream's; expected it as a statement of its own"},
		{inStream("verify 7d;"), `2:1: "verify" belongs outside of blocks, not in stream a; expected one of url, `},
		{"program 3;", `1:1: "program" belongs in a stream, not in the file; expected one of http, `},
		{"only a;", `1:1: "only" belongs in a source, not in the file; expected one of http, `},
		{"verify 7;", "1:8: 7 has no unit; write 7s, 7m, 7h or 7d"},
		{"verify 7d 5M;\nverify off;", "2:1: a second verify in the file; the first is in line 1"},
		{"verify 7d 20;", "1:11: 20 is too slow; expected a rate of 256K (bytes a second) or more"},
		{"verify 7d 255K;", "1:11: 255K is too slow; expected a rate of 256K"},
		{"verify 1s;", "1:8: 1s is too short; the shortest is 1h"},
		{"verify 7d 8Mbit;", "1:11: 8Mbit is in bits; a rate is in bytes a second: for 8 Mbit/s write 1M"},
		{"verify off 20M;", `1:12: unexpected "20M"; expected verify PERIOD [RATE]; or verify off;`},
		{"min_free 5;", "1:10: 5 has no unit; expected a size, as 5G, or a percentage, as 5%"},
		{"min_free 100%;", "1:10: 100% is no percentage; expected a whole number from 1% to 99%"},
		{"min_free 1.5%;", "1:10: 1.5% is no percentage"},
		{"min_free x;", "1:10: x is not a size; write one as 500M, 20G or 1.5T"},
		{"minfree 1G;", `1:1: unknown word "minfree" in the file (did you mean min_free?); expected`},
		{"tls_crt a;", `1:1: unknown word "tls_crt" in the file (did you mean tls_cert?); expected`},
		{"tls_cert a;\n" + inStream(""), "1:10: tls_cert without tls_key; expected tls_key FILE; with the certificate's key"},
		{"tls_key a;\n" + inStream(""), "1:9: tls_key without tls_cert; expected tls_cert FILE; with the key's certificate"},
		{`tls_key "";`, "1:9: expected the path of a file"},
		{"source h;", "1:9: expected a block in braces: source HOST[:PORT] { … }"},
		{"source h { only a b; }", "1:8: source h has no dvr; expected dvr PATH DEPTH replicate;"},
		{"source h { dvr s 1d; }", `1:16: "s" is no absolute path; expected one as /storage`},
		{"source h { dvr /s 1d url; }", `1:22: unknown word "url" in dvr; expected one of SIZE, PERCENT%, replicate, `},
		{"source h { dvr /s 1d only; }", `1:22: expected ";" before only`},
		{"source h { url udp://h:1; }", `1:12: "url" belongs in a stream, not in source h; expected one of only, except, dvr, `},
		{"source h { exept a; }", `1:12: unknown word "exept" in source h (did you mean except?); expected one of only, `},
		{"source h { only; }", "1:16: only is incomplete; expected only NAME …;"},
		{"source h { only a ../b; }", `1:19: stream ../b: a name that holds ".." would climb out of the archive`},
		{"source h { only a; only b a; }", "1:27: a second a in only"},
		{"source h { only a; except a; dvr /s 1d; }", "1:27: stream a is in only and in except; expected it in one of them"},
		{"source h { dvr /s 1d; } source h:8081 { dvr /s 1d; }", "1:32: a second source h:8081; the first is in line 1"},
		{"source ::1 { dvr /s 1d; }", "1:8: ::1: put an IPv6 address in brackets"},
		{"source h:x { dvr /s 1d; }", "1:8: x is no port; a port is a number from 1 to 65535"},
		{"source h/a { dvr /s 1d; }", `1:8: "h/a" is no address of a node; expected HOST, HOST:PORT, or m4fs://HOST:PORT for TLS`},
		{"source http://u:Sss@h { dvr /s 1d; }", `1:8: "http://h" is no address of a node; expected HOST`},
		{"source m4f://u:Sss@h { dvr /s 1d; }", "1:8: "},
		{"source localhost { dvr /s 1d; }", "1:8: localhost:8081 is this node itself; expected the address of its peer"},
		{"source localhost:9 {\n dvr /s 1d replicate replication_port=8081; }", "2:2: replication_port=8081 makes this node itself of localhost:9; expected the port of its peer"},
		{"event_sink;", "1:11: event_sink is incomplete; expected event_sink log|URL …;"},
		{"event_sink ftp://h/s3cret;", "1:12: event_sink: expected http://HOST/PATH or https://HOST/PATH, or log"},
		{"event_sink http://;", "1:12: event_sink: the URL names no host; expected http://HOST/PATH or https://HOST/PATH, or log"},
		{"event_sink log log;", "1:16: event_sink names this twice"},
		{"event_sink log http://a http://b http://c http://d;", `1:43: unexpected "http://d"; expected event_sink log|URL …;`},
		{"stream a { url m4f://h/a; dvr s 1d replicate; }", `1:31: "s" is no absolute path; expected one as /storage`},
		{"stream a { url m4f://h/a; dvr /s/../t 1d; }", `1:31: "/s/../t" holds ".."; expected a path without`},
		{"stream a { url m4f://h/a; dvr /s; }", "1:33: dvr is incomplete; expected dvr PATH DEPTH"},
		{"stream a { url m4f://h/a; dvr /s 10G; }", `1:34: "10G" is a size; expected the depth first, as 3d`},
		{"stream a { url m4f://h/a; dvr /s 3dd; }", "1:34: 3dd has an unknown unit; units of time are ms, s, m, h, d and w"},
		{"stream a { url m4f://h/a; dvr /s 1s; }", "1:34: 1s is too short; the shortest is 1h"},
		{"stream a { url m4f://h/a; dvr /s 30m; }", "1:34: 30m is too short; the shortest is 1h"},
		{"stream a { url m4f://h/a; dvr /s 1d 10G 20G; }", "1:41: a second size in dvr"},
		{"stream a { url m4f://h/a; dvr /s 1d 90% 80%; }", "1:41: a second percentage in dvr"},
		{"stream a { url m4f://h/a; dvr /s 1d 10; }", "1:37: 10 has no unit; expected a size, as 10G, or a percentage, as 10%"},
		{"stream a { url m4f://h/a; dvr /s 1d 0G; }", "1:37: a size of nothing keeps nothing; leave it out for no limit"},
		{"stream a { url m4f://h/a; dvr /s 1d 1K; }", "1:37: 1K is too small; expected a size of 10M or more, or none for no limit"},
		{"stream a { url m4f://h/a; dvr /s 1d 0%; }", "1:37: 0% is no percentage; expected a whole number from 1% to 99%"},
		{"stream a { url m4f://h/a; dvr /s 90% 1d; }", `1:34: "90%" is a size; expected the depth first, as 3d`},
		{"stream a { url m4f://h/a; dvr /s 1d replicat; }", `1:37: unknown word "replicat" in dvr (did you mean replicate?); expected one of SIZE, PERCENT%, replicate, replicate=RATE, replication_port=PORT, mounted`},
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
		`x.conf:6:1: unknown word "foo" in the file; expected one of http, cluster_key, cluster_key_file, tls_cert, tls_key, tls_ca, min_free, verify, salvage, event_sink, stream, source, view_auth, cors, api_read_key, api_read_key_file, api_write_key, api_write_key_file`,
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

// writer returns what writes files in a directory and says where they are.
func writer(t *testing.T, dir string) func(name, text string) string {
	return func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	write := writer(t, dir)
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

// What a source block says, and the stream that it makes of one of the peer's.
func TestSourceBlocks(t *testing.T) {
	c := load(t, "full.conf")
	if len(c.Sources) != 2 {
		t.Fatalf("%+v", c.Sources)
	}
	a, b := c.Sources[0], c.Sources[1]
	dvr := DVR{Root: "/storage", Depth: 7 * 24 * time.Hour, Size: 100 << 30, Percent: 90, Replicate: true, ReplicateRate: 10 << 20, ReplicationPort: 8}
	want := &Source{
		Peer: Peer{Scheme: "m4f", Host: "b.example.com", Port: 99}, Only: []string{"sport/hd tv", "news", "weather"}, Except: []string{"radio/one"},
		DVR: dvr, Salvage: Salvage{Bytes: 100 << 20, Age: 10 * time.Minute}, SourceTimeout: 5 * time.Second, MaxRetryTimeout: time.Minute,
	}
	if !a.Equal(want) {
		t.Errorf("%+v", a)
	}
	if p := (Peer{Scheme: "m4fs", Host: "2001:db8::2", Port: 8081}); b.Peer != p || b.Salvage != (Salvage{Bytes: 2 << 30, Age: 90 * time.Minute}) ||
		b.SourceTimeout != DefaultSourceTimeout || b.String() != "m4fs://[2001:db8::2]:8081" {
		t.Errorf("%+v", b)
	}
	for name, takes := range map[string][2]bool{"sport/hd tv": {true, true}, "news": {true, true}, "radio/one": {false, true}, "other": {false, true}} {
		if got := [2]bool{a.Takes(name), b.Takes(name)}; got != takes {
			t.Errorf("%s: taken %v, want %v", name, got, takes)
		}
	}
	s := a.Stream("sport/hd tv", 2*time.Second)
	if s.Name != "sport/hd tv" || s.DVR.Dir != "/storage/sport/hd tv" || s.SegmentDuration != 2*time.Second || s.Salvage != a.Salvage ||
		len(s.Inputs) != 1 || s.Inputs[0].URL != "m4f://b.example.com:99/sport/hd%20tv" || s.Inputs[0].SourceTimeout != 5*time.Second {
		t.Errorf("%+v", s)
	}
	if p := s.ReplicationPeers(); len(p) != 1 || p[0].Port != 8 || p[0].Stream != s.Name {
		t.Errorf("%+v", p)
	}
	// It is the stream that a stream block would give.
	same, err := Parse("x", []byte(`stream "sport/hd tv" { url "m4f://b.example.com:99/sport/hd%20tv"; segment_duration 2s;
		source_timeout 5; return_after 0; max_retry_timeout 1m; salvage 100M 10m;
		dvr /storage 7d 100G 90% replicate=10M replication_port=8; }`), sources())
	if err != nil || !same.Streams[0].Equal(s) {
		t.Errorf("%v\n%+v\n%+v", err, same, s)
	}
	// A file may consist of source blocks alone.
	if _, err := Parse("x", []byte("source h { dvr /s 1d replicate; }"), sources()); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	const stream = "stream a { url udp://h:1; dvr /s 1d; }"
	for text, want := range map[string]Config{
		"":                               {MinFree: Free{Bytes: 1 << 30}, Verify: Verify{Every: 7 * 24 * time.Hour, Rate: 20 << 20}},
		"min_free 0; verify off;":        {Verify: Verify{Off: true}},
		"min_free 10%; verify 1d;":       {MinFree: Free{Percent: 10}, Verify: Verify{Every: 24 * time.Hour, Rate: 20 << 20}},
		"min_free 1.5G; verify 1h 256K;": {MinFree: Free{Bytes: 3 << 29}, Verify: Verify{Every: time.Hour, Rate: 256 << 10}},
	} {
		c, err := Parse("x", []byte(stream+text), sources())
		if err != nil || c.MinFree != want.MinFree || c.Verify != want.Verify {
			t.Errorf("%q: %v %+v", text, err, c)
		}
	}
}

// A certificate that cannot be used is told with the place that names it.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := testCertificate(t)
	for name, b := range map[string][]byte{
		"cert.pem": cert, "key.pem": key, "none.pem": []byte("no certificate\n"),
		"x.conf": []byte("tls_cert cert.pem; tls_key key.pem; tls_ca cert.pem;\nstream a { url udp://h:1; dvr /s 1d; }"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "x.conf")
	c, err := Load(conf, sources())
	if err != nil || c.TLS.Cert != filepath.Join(dir, "cert.pem") || c.TLS.Key != filepath.Join(dir, "key.pem") || c.TLS.CA != c.TLS.Cert {
		t.Fatalf("%v %+v", err, c)
	}
	for text, want := range map[string]string{
		"tls_cert absent.pem; tls_key key.pem;":                "x.conf:1:10: " + dir + "/absent.pem cannot be read: no such file",
		"tls_cert cert.pem; tls_key none.pem;":                 "x.conf:1:10: certificate " + dir + "/cert.pem with key " + dir + "/none.pem: ",
		"tls_cert key.pem; tls_key cert.pem;":                  "x.conf:1:10: certificate ",
		"tls_cert .; tls_key key.pem;":                         "x.conf:1:10: " + dir + " is not a file of certificates or keys",
		"tls_cert cert.pem; tls_key key.pem; tls_ca none.pem;": "x.conf:1:44: " + dir + "/none.pem holds no certificate in PEM",
		"tls_ca absent.pem;":                                   "x.conf:1:8: " + dir + "/absent.pem cannot be read",
	} {
		if err := os.WriteFile(conf, []byte(text+"\nstream a { url udp://h:1; dvr /s 1d; }"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(conf, sources()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// testCertificate makes a certificate for 127.0.0.1 and its key, in PEM.
func testCertificate(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})
}

func TestCompare(t *testing.T) {
	old, err := Parse("a", []byte(`http 1; cluster_key k; source h { only a b; dvr /s 1d; }
		stream same { url udp://h:1; dvr /s 1d; }
		stream gone { url udp://h:2; dvr /s 1d; }
		stream changed { url udp://h:3; url m4f://h/x; dvr /s 1d replicate; }`), sources())
	if err != nil {
		t.Fatal(err)
	}
	if c := Compare(old, old); !c.Empty() {
		t.Errorf("with itself: %+v", c)
	}
	new, err := Parse("b", []byte(`cluster_key k2 k; tls_cert c; tls_key k; min_free 2G; verify off;
		source h { only a; dvr /s 1d; }
		stream changed { url m4f://h/x; url udp://h:3; dvr /s 1d replicate; }
		stream added { url udp://h:2; dvr /s 1d; }
		stream same { segment_duration 4s; url udp://h:1 source_timeout=10s; dvr /s 24h; }`), sources())
	if err != nil {
		t.Fatal(err)
	}
	want := Changes{HTTP: true, Keys: true, TLS: true, MinFree: true, Verify: true, Sources: true, Added: []string{"added"}, Removed: []string{"gone"}, Changed: []string{"changed"}}
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
	for _, d := range sourceWords {
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
