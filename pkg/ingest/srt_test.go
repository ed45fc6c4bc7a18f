package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// send has ffmpeg send a clip in real time to an srt URL, and write the same
// bytes to a file, whose path it returns.
func sendSRT(t *testing.T, clip, url string) (*process, string) {
	t.Helper()
	sent := filepath.Join(t.TempDir(), "sent.ts")
	// A busy machine drops nothing at the sender, at the end neither.
	url += "&pkt_size=1316&linger=5&snddropdelay=20000000"
	p := ffmpeg(t, "-re", "-i", clip, "-map", "0", "-c", "copy", "-f", "tee",
		"[f=mpegts:flush_packets=1]"+sent+"|[f=mpegts:onfail=abort]"+url)
	return p, sent
}

// openSoon opens a caller's source as soon as there is somebody to call.
func openSoon(t *testing.T, url string, opt Options) Source {
	t.Helper()
	var src Source
	testkit.Await(t, "opening "+url, func() bool {
		var err error
		src, err = Open(context.Background(), url, opt)
		if err != nil && !strings.Contains(err.Error(), "nothing listens") && !strings.Contains(err.Error(), "connection refused") {
			t.Fatal(err)
		}
		return err == nil
	})
	return src
}

const secret = "correct horse battery"

// TestSRTFromFFmpeg records what ffmpeg sends, calling and called, plain and
// encrypted with each length of key.
func TestSRTFromFFmpeg(t *testing.T) {
	t.Parallel()
	path := clip(t, 3)
	for _, c := range []struct {
		name, ours, theirs string
		listen, ip6        bool
	}{
		{"we listen on all addresses, IPv6", "?latency=200", "?mode=caller", true, true},
		{"we call, IPv6", "?latency=200", "?mode=listener", false, true},
		{"we listen", "?latency=200", "?mode=caller", true, false},
		{"we listen, every option", "?mode=listener&passphrase=correct+horse+battery&streamid=live/one&latency=120ms&interface=lo",
			"?mode=caller&passphrase=" + secret + "&pbkeylen=32&streamid=live/one", true, false},
		{"we call", "?latency=500ms", "?mode=listener", false, false},
		{"we call, encrypted", "?passphrase=correct%20horse%20battery&streamid=live/one", "?mode=listener&passphrase=" + secret, false, false},
		{"we call, long key", "?passphrase=correct%20horse%20battery&pbkeylen=24", "?mode=listener&passphrase=" + secret, false, false},
		{"keys change", "?mode=listener&passphrase=correct%20horse%20battery",
			"?mode=caller&passphrase=" + secret + "&kmrefreshrate=100&kmpreannounce=40", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := port()
			place := fmt.Sprintf("srt://127.0.0.1:%d", p)
			if c.ip6 {
				if l, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
					t.Skip("no IPv6: ", err)
				} else {
					l.Close()
				}
				place = fmt.Sprintf("srt://[::1]:%d", p)
			}
			var r *recording
			var sent string
			var log testkit.Log
			if c.listen {
				ours := place
				if !strings.Contains(c.ours, "mode=") {
					ours = fmt.Sprintf("srt://:%d", p)
				}
				src, err := Open(t.Context(), ours+c.ours, Options{Log: log.Logger()})
				if err != nil {
					t.Fatal(err)
				}
				r = record(t, src)
				var p *process
				p, sent = sendSRT(t, path, place+c.theirs)
				if err := p.wait(); err != nil {
					t.Fatalf("ffmpeg: %v: %s", err, p.said.String())
				}
				testkit.Await(t, "the caller has gone", func() bool { return strings.Contains(log.String(), "srt caller has gone") })
				testkit.Await(t, "all is read", func() bool { return r.size() == int(r.Stats().Bytes) })
				r.stop()
				if !errors.Is(r.end, context.Canceled) {
					t.Errorf("a listener's source ended: %v", r.end)
				}
			} else {
				_, sent = sendSRT(t, path, place+c.theirs)
				r = record(t, openSoon(t, place+c.ours, Options{}))
				r.wait(t)
				if r.end != nil {
					t.Errorf("the source ended with %v, want its end", r.end)
				}
			}
			r.sameStream(t, readFile(t, sent))
			st := r.Stats()
			if st.Lost != 0 || st.Errors != 0 || st.Bytes == 0 || st.Packets < st.Bytes/1500 || st.LastArrival.IsZero() || st.Reconnects != 0 {
				t.Errorf("%+v", st)
			}
			if s := log.String(); strings.Contains(s, secret) || strings.Contains(s, "correct+horse") {
				t.Errorf("the log shows the passphrase: %s", s)
			}
		})
	}
}

// TestSRTCallRefused has ffmpeg refuse calls, and nobody answer.
func TestSRTCallRefused(t *testing.T) {
	t.Parallel()
	path := clip(t, 3)
	for _, c := range []struct{ name, theirs, ours, want string }{
		{"wrong passphrase", "?mode=listener&passphrase=" + secret, "?passphrase=0123456789", "wrong passphrase"},
		{"no passphrase", "?mode=listener&passphrase=" + secret, "?latency=100", "add passphrase="},
		{"unwanted passphrase", "?mode=listener", "?passphrase=0123456789", "leave passphrase= out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			place := fmt.Sprintf("srt://127.0.0.1:%d", port())
			sendSRT(t, path, place+c.theirs)
			testkit.Await(t, c.want, func() bool {
				src, err := Open(t.Context(), place+c.ours, Options{})
				if err == nil {
					src.Close()
					t.Fatal("it opens")
				}
				if strings.Contains(err.Error(), "0123456789") {
					t.Fatalf("the error shows the passphrase: %v", err)
				}
				if strings.Contains(err.Error(), "nothing listens") {
					return false
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Fatalf("the error is %v, want %q", err, c.want)
				}
				return true
			})
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		p := port()
		silent := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
		defer silent.Close()
		_, err := Open(t.Context(), fmt.Sprintf("srt://127.0.0.1:%d?connect_timeout=100", p), Options{})
		if err == nil || !strings.Contains(err.Error(), "no answer from 127.0.0.1") {
			t.Errorf("the error is %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := Open(ctx, fmt.Sprintf("srt://127.0.0.1:%d?connect_timeout=10m", p), Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled call ends with %v", err)
		}
	})
}

// TestSRTRefusesCallers listens for one stream, and is called by others.
func TestSRTRefusesCallers(t *testing.T) {
	t.Parallel()
	path := clip(t, 3)
	var log testkit.Log
	place := fmt.Sprintf("srt://127.0.0.1:%d", port())
	src, err := Open(t.Context(), place+"?mode=listener&passphrase=correct%20horse%20battery&streamid=one", Options{Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	r := record(t, src)
	for _, c := range []struct{ theirs, want string }{
		{"?streamid=one", "is not encrypted"},
		{"?streamid=one&passphrase=0123456789", "passphrase is another one"},
		{"?streamid=two&passphrase=" + secret, "streamid is another one"},
	} {
		p, _ := sendSRT(t, path, place+c.theirs)
		if p.wait() == nil {
			t.Errorf("%s: ffmpeg was not refused", c.theirs)
		}
		if !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: the log has no %q: %s", c.theirs, c.want, log.String())
		}
	}
	// The first that fits stays, and a second is refused.
	p, sent := sendSRT(t, path, place+"?streamid=one&passphrase="+secret)
	testkit.Await(t, "the first delivers", func() bool { return r.size() > 0 })
	second, _ := sendSRT(t, path, place+"?streamid=one&passphrase="+secret)
	if second.wait() == nil {
		t.Error("a second caller was not refused")
	}
	if !strings.Contains(log.String(), "another caller is there") {
		t.Errorf("the log has no line about the second caller: %s", log.String())
	}
	if err := p.wait(); err != nil {
		t.Errorf("the first caller: %v: %s", err, p.said.String())
	}
	testkit.Await(t, "the caller has gone", func() bool { return strings.Contains(log.String(), "srt caller has gone") })
	testkit.Await(t, "all is read", func() bool { return r.size() == int(r.Stats().Bytes) })
	r.stop()
	r.sameStream(t, readFile(t, sent))
	if st := r.Stats(); st.Errors < 4 {
		t.Errorf("%d errors, want at least 4 for the refused callers", st.Errors)
	}
}

// TestSRTSenderKilled kills the sender while it is recorded and starts it
// again: a listener goes on, a caller's source ends and opens anew.
func TestSRTSenderKilled(t *testing.T) {
	t.Parallel()
	path := clip(t, 6)
	t.Run("we listen", func(t *testing.T) {
		t.Parallel()
		var log testkit.Log
		place := fmt.Sprintf("srt://127.0.0.1:%d", port())
		src, err := Open(t.Context(), place+"?mode=listener", Options{Log: log.Logger()})
		if err != nil {
			t.Fatal(err)
		}
		r := record(t, src)
		first, sent1 := sendSRT(t, path, place+"?mode=caller")
		testkit.Await(t, "a second is there", func() bool { return r.size() > 200_000 })
		first.kill()
		at := time.Now()
		var second *process
		var sent2 string
		// An encoder calls until it is let in: its place is taken for a while.
		testkit.Await(t, "the second caller is in", func() bool {
			second, sent2 = sendSRT(t, path, place+"?mode=caller")
			for {
				select {
				case err := <-second.done:
					second.done <- err
					return false
				default:
				}
				if r.Stats().Reconnects > 0 {
					t.Logf("%v after the kill, another caller is in", time.Since(at).Round(time.Millisecond))
					return true
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		if err := second.wait(); err != nil {
			t.Fatalf("ffmpeg: %v: %s", err, second.said.String())
		}
		testkit.Await(t, "the caller has gone", func() bool { return strings.Contains(log.String(), "srt caller has gone") })
		testkit.Await(t, "all is read", func() bool { return r.size() == int(r.Stats().Bytes) })
		r.stop()
		if len(r.lost) != 1 {
			t.Fatalf("losses at %v, want one", r.lost)
		}
		cut := r.lost[0]
		one, two := readFile(t, sent1), readFile(t, sent2)
		if n := common(r.data[:cut], one); n < min(cut, len(one)) {
			t.Errorf("what came before the kill is not what was sent, from byte %d of %d", n, cut)
		}
		if !bytes.Equal(r.data[cut:], two) {
			t.Errorf("what came after the kill is not what was sent: %d bytes of %d", len(r.data)-cut, len(two))
		}
		// What was whole on either side is recorded as it is without a kill.
		damaged := 0
		for _, s := range r.segments {
			if strings.HasSuffix(s, "damaged") {
				damaged++
			}
		}
		if damaged == 0 || damaged > 2 || len(r.segments) < 8 {
			t.Errorf("%d of %d segments are damaged: %q", damaged, len(r.segments), r.segments)
		}
	})
	t.Run("we call", func(t *testing.T) {
		t.Parallel()
		place := fmt.Sprintf("srt://127.0.0.1:%d", port())
		for range 2 {
			p, sent := sendSRT(t, path, place+"?mode=listener")
			src := openSoon(t, place, Options{})
			r := record(t, src)
			testkit.Await(t, "a second is there", func() bool { return r.size() > 200_000 })
			p.kill()
			r.wait(t)
			if r.end == nil || !strings.Contains(r.end.Error(), "the connection is lost") {
				t.Errorf("the source ends with %v", r.end)
			}
			src.Close()
			all := readFile(t, sent)
			if n := common(r.data, all); n < min(len(r.data), len(all)) {
				t.Errorf("what came before the kill is not what was sent, from byte %d of %d", n, len(r.data))
			}
		}
	})
}

// TestSRTCloseTellsSender closes a source, and the sender hears of it.
func TestSRTCloseTellsSender(t *testing.T) {
	t.Parallel()
	place := fmt.Sprintf("srt://127.0.0.1:%d", port())
	p, _ := sendSRT(t, clip(t, 30), place+"?mode=listener")
	src := openSoon(t, place, Options{})
	b, err := src.Read(t.Context())
	if err != nil || len(b.Datagrams) == 0 {
		t.Fatalf("Read: %v", err)
	}
	src.Close()
	src.Close()
	if err := p.wait(); err == nil {
		t.Error("ffmpeg sent to the end")
	}
	if _, err := src.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("Read after Close: %v", err)
	}
}

// TestSRTListener opens and closes a listener that nobody calls.
func TestSRTListener(t *testing.T) {
	p := port()
	src, err := Open(t.Context(), fmt.Sprintf("srt://:%d", p), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), fmt.Sprintf("srt://0.0.0.0:%d", p), Options{}); err == nil || !strings.Contains(err.Error(), "is taken by another program, or by another stream of this node") {
		t.Errorf("a second listener: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := src.Read(ctx); err != context.Canceled {
		t.Errorf("Read: %v", err)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	again, err := Open(t.Context(), fmt.Sprintf("srt://127.0.0.1:%d?mode=listener", p), Options{})
	if err != nil {
		t.Fatalf("the port is not free after Close: %v", err)
	}
	again.Close()
	if _, err := Open(t.Context(), "srt://192.0.2.1:9000?mode=listener", Options{}); err == nil || !strings.Contains(err.Error(), "no address of this machine") {
		t.Errorf("listening on somebody else's address: %v", err)
	}
}

func TestSRTURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		want srtURL
	}{
		{"//:9000", srtURL{port: 9000, listen: true}},
		{"//0.0.0.0:9000", srtURL{host: "0.0.0.0", port: 9000, listen: true}},
		{"//*:9000/", srtURL{port: 9000, listen: true}},
		{"//h:9000", srtURL{host: "h", port: 9000}},
		{"//[fe80::1%25eth0]:9000?mode=caller", srtURL{host: "fe80::1%eth0", port: 9000}},
		{"//10.0.0.1:9000?mode=listener", srtURL{host: "10.0.0.1", port: 9000, listen: true}},
		{"//h:1?latency=120", srtURL{host: "h", port: 1, latency: 120 * time.Millisecond}},
		{"//h:1?latency=120000us&connect_timeout=500&transtype=live&pkt_size=1316", srtURL{host: "h", port: 1, latency: 120 * time.Millisecond, timeout: 500 * time.Millisecond}},
		{"//h:1?latency=15s", srtURL{host: "h", port: 1, latency: 15 * time.Second}},
		{"//h:1?streamid=#!::r=a,m=request&passphrase=0123456789&pbkeylen=32&interface=eth1",
			srtURL{host: "h", port: 1, streamID: "#!::r=a,m=request", passphrase: "0123456789", keyLength: 32, ifname: "eth1"}},
	} {
		if c.want.latency == 0 {
			c.want.latency = srtLatency
		}
		if c.want.timeout == 0 {
			c.want.timeout = srtConnect
		}
		got, err := parseSRT(c.url, Options{})
		if err != nil || *got != c.want {
			t.Errorf("srt:%s: %+v, %v; want %+v", c.url, got, err, c.want)
		}
	}
	for url, want := range map[string]string{
		"srt://h":                                         "no port",
		"srt://h:0":                                       "port",
		"srt://h:99999":                                   "port",
		"srt://h:1?latency=120000":                        "write the unit, as in latency=120ms",
		"srt://h:1?latency=20000":                         "write the unit, as in latency=20ms or latency=20s",
		"srt://h:1?latency=70000000":                      "is not between 0 and 1m5.535s",
		"srt://h:1?latency=soon":                          "is no time",
		"srt://h:1?latency=70s":                           "is not between",
		"srt://h:1?latency=-1":                            "latency=-1",
		"srt://h:1?passphrase=short":                      "passphrase= has 5 bytes",
		"srt://h:1?passphrase=" + strings.Repeat("x", 80): "passphrase= has 80 bytes",
		"srt://h:1?pbkeylen=17":                           "pbkeylen=17",
		"srt://h:1?mode=rendezvous":                       "mode=rendezvous",
		"srt://:1?mode=caller":                            "needs the host",
		"srt://h:1?streamid=" + strings.Repeat("x", 513):  "512",
		"srt://h:1?bitrate=5":                             "unknown option \"bitrate\"",
		"srt://h:1?transtype=file":                        "transtype=live",
		"srt://h:1?connect_timeout=0":                     "no time to connect",
		"srt://joe:pw12345678@h:1":                        "unexpected @",
		"srt://fe80::1:9000":                              "in brackets",
		"srt://1.2.3.400:9000":                            "not an IP address",
		"srt://239.1.1.1:9000":                            "multicast",
		"srt://[::1:9000":                                 "no ] to its [",
	} {
		err := Check(url)
		var u *URLError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), want) {
			t.Errorf("Check(%q): %v, want %q", url, err, want)
		} else if strings.Contains(err.Error(), "passphrase=short") || strings.Contains(err.Error(), "pw12345678") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func FuzzSRTURL(f *testing.F) {
	for _, s := range []string{"//:9000", "//h:1?latency=120ms&passphrase=0123456789", "//[::1]:1?mode=listener", "//h:1?streamid=#!::r=a", "//%:1?x=%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		u, err := parseSRT(rest, Options{})
		if err != nil {
			return
		}
		if u.port == 0 || u.latency < 0 || u.latency > srtMaxLatency || u.timeout <= 0 || len(u.streamID) > 512 ||
			len(u.passphrase) > 79 || !u.listen && u.host == "" {
			t.Errorf("srt:%q is taken for %+v", rest, u)
		}
	})
}
