package ingest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// pcrStream is so long a stream, with a clock reference every 100 ms.
func pcrStream(length time.Duration) []byte {
	var stream []byte
	for ms := int64(0); ms <= length.Milliseconds(); ms += 100 {
		stream = append(stream, pcrPacket(188, 0x100, ms, false)...)
		stream = append(stream, bytes.Repeat(plainPacket(188), 9)...)
	}
	return stream
}

// TestHTTPPaced has a server send a recording as fast as it can, and a live
// stream that begins with what the server holds.
func TestHTTPPaced(t *testing.T) {
	const whole = 40 * time.Second
	stream := pcrStream(whole)
	for _, c := range []struct {
		name   string
		length bool
		want   time.Duration
	}{
		{"of known length", true, whole},
		{"of unknown length", false, whole - bodyBurst},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if c.length {
				w.Header().Set("Content-Length", strconv.Itoa(len(stream)))
			}
			w.Write(stream)
		})
		clk := &fakeClock{now: time.Unix(1000, 0)}
		src, err := Open(t.Context(), s.URL, Options{Clock: clk})
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, src); !bytes.Equal(got, stream) {
			t.Errorf("%s: %d bytes of %d came", c.name, len(got), len(stream))
		}
		took := clk.now.Sub(time.Unix(1000, 0))
		if least := c.want - c.want/100; took < least || took > c.want {
			t.Errorf("%s: took %v, want %v", c.name, took, c.want)
		}
		src.Close()
	}
}

// TestPaceBodyLive never holds up a stream that comes as it is made, by a
// sender whose clock is fast, stops for a while and makes up for it.
func TestPaceBodyLive(t *testing.T) {
	clk := &fakeClock{now: time.Unix(1000, 0)}
	stream := pcrStream(2 * time.Hour)
	const step = 10 * 188 // of 100 ms
	var src blocks
	p := paceBody(&src, -1, Options{Clock: clk}.withDefaults())
	for n := 0; n < len(stream); n += step {
		media := time.Duration(n/step) * 100 * time.Millisecond
		at := time.Unix(1000, 0).Add(media - media/2000 - 3*time.Second) // what the server held came at once
		if media > time.Hour && media < time.Hour+20*time.Second {
			at = at.Add(20 * time.Second) // the network stood still
		}
		if at.After(clk.now) {
			clk.now = at
		}
		before := clk.waits
		src = append(src, stream[n:n+step])
		if b, err := p.Read(t.Context()); err != nil && err != io.EOF || len(b.Datagrams[0]) != step {
			t.Fatalf("at %v: %v", media, err)
		}
		if clk.waits != before {
			t.Fatalf("the media at %v was held up", media)
		}
	}
}
