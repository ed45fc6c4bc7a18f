package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

func TestRTPURLErrors(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"rtp://239.1.2.3", "write rtp://ADDRESS:PORT"},
		{"rtp://239.1.2.3:5000,239.1.2.4", "no port"},
		{"rtp://a:1,b:1,c:1,d:1,e:1", "5 paths"},
		{"rtp://239.1.2.3:5000?bufsize=1", "unknown option \"bufsize\"; an rtp source has"},
		{"rtp://239.1.2.3:5000?reorder=soon", "not a time such as 50ms"},
		{"rtp://239.1.2.3:5000?reorder=1h", "at most 10s"},
		{"rtp://239.1.2.3:5000?reorder=-1ms", "not a time"},
		{"rtp://239.1.2.3:5000?skew=100ms", "needs two paths"},
		{"rtp://239.1.2.3:5000?fec=yes", "neither on nor off"},
		{"rtp://239.1.2.3:65532?fec=on", "no room"},
		{"rtp://239.1.2.3:5000,239.1.2.3:5000", "used twice"},
		{"rtp://239.1.2.3:5000,239.1.2.3:5002?fec=on", "used twice"},
		{"rtp://239.1.2.3:5000,239.1.2.4:5000?interface=a,b,c", "3 values for 2 paths"},
		{"rtp://127.0.0.1:5000?source=127.0.0.1", "needs a multicast group"},
	} {
		var ue *URLError
		if err := Check(c.url); !errors.As(err, &ue) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.url, err, c.want)
		}
	}
	for _, url := range []string{"rtp://239.1.2.3:5000", "rtp://@239.1.2.3:5000,@239.1.2.4:5000/?skew=200&reorder=0&fec=on&interface=eth0,eth1&source=10.0.0.1,10.1.0.1&buffer_size=1M",
		"rtp://239.1.2.3:5000,239.1.2.3:5000?interface=eth0,eth1", "rtp://host:5000,host:5010"} {
		if err := Check(url); err != nil {
			t.Error(err)
		}
	}
}

func FuzzRTPURL(f *testing.F) {
	f.Add("//239.1.2.3:5000,[ff05::1]:5002?skew=450ms&interface=a,b&fec=on")
	f.Fuzz(func(t *testing.T, rest string) {
		a, err := parseRTP(t.Context(), rest, Options{}, lookupNothing)
		if err == nil && (len(a.paths) == 0 || len(a.paths) > mostPaths || a.reorder < 0 || a.skew < 0 || a.reorder > longestWait) {
			t.Errorf("%+v", a)
		}
	})
}

// testStream is the datagrams of a test stream.
func testStream(t testing.TB, d time.Duration, bitrate int64) [][]byte {
	t.Helper()
	g, err := testsrc.New(testsrc.Options{Duration: d, Bitrate: bitrate})
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for p, _, ok := g.Next(); ok; p, _, ok = g.Next() {
		list = append(list, p)
	}
	return list
}

// relayed is a packet that a relay sends on, or not.
type relayed struct {
	out  *net.UDPConn
	d    []byte
	late time.Duration
	gone bool
}

// relayAll sends packets in the order of their times, that of number k at k
// milliseconds and as much later as it says.
func relayAll(t *testing.T, list []relayed) {
	t.Helper()
	var at []time.Duration
	order := make([]int, len(list))
	for k := range list {
		at = append(at, time.Duration(k)*time.Millisecond/4+list[k].late)
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(at[a] - at[b]) })
	began := time.Now()
	for _, k := range order {
		if !list[k].gone {
			time.Sleep(at[k] - time.Since(began))
			list[k].out.Write(list[k].d)
		}
	}
}

// joined is what a recording of packets must hold: all bytes but those of the
// packets that are gone, and where those are missing.
func joined(list [][]byte, gone func(int) bool) (data []byte, lost []int) {
	for k, d := range list {
		if gone(k) {
			lost = append(lost, len(data))
		} else {
			data = append(data, d...)
		}
	}
	return data, lost
}

// wantData waits for all bytes and compares them, and the places of the losses.
func (r *recording) wantData(t *testing.T, data []byte, lost []int) {
	t.Helper()
	testkit.Await(t, "all bytes", func() bool { return r.size() >= len(data) })
	r.stop()
	if !bytes.Equal(r.data, data) {
		t.Errorf("%d bytes received, %d sent, equal up to %d", len(r.data), len(data), common(r.data, data))
	}
	if !slices.Equal(r.lost, lost) {
		t.Errorf("losses at %v, want %v", r.lost, lost)
	}
}

// TestRTPReorders sends packets out of order and with losses.
func TestRTPReorders(t *testing.T) {
	list := testStream(t, 4*time.Second, 3e6)
	p := port()
	r := record(t, open(t, fmt.Sprintf("rtp://127.0.0.1:%d?reorder=150ms", p), Options{}))
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	rng := rand.New(rand.NewPCG(3, 3))
	gone := func(k int) bool { return k > 100 && k < len(list)-10 && k%97 < 2 }
	var out []relayed
	reordered := false
	for k, d := range list {
		x := relayed{out: w, d: rtpOf(k, d), gone: gone(k)}
		if k > 0 && k < len(list)-1 && rng.IntN(10) == 0 {
			x.late, reordered = time.Duration(rng.IntN(20))*time.Millisecond, true
		}
		out = append(out, x)
	}
	relayAll(t, out)
	data, lost := joined(list, gone)
	r.wantData(t, data, lost)
	if st := r.Stats(); st.Lost != uint64(len(lost)) || !reordered || st.Reordered == 0 || st.Errors+st.Duplicates != 0 {
		t.Errorf("%+v", st)
	}
}

// The last gap of a burst is given up though nothing follows.
func TestRTPGapAtTheEnd(t *testing.T) {
	p := port()
	s := open(t, fmt.Sprintf("rtp://127.0.0.1:%d?reorder=20ms", p), Options{})
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	for _, k := range []int{0, 1, 2, 4} {
		w.Write(rtpPacketOf(1, uint16(k), uint32(k), k))
	}
	var got []int
	for len(got) < 5 {
		b, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Lost > 0 {
			got = append(got, -int(b.Lost))
		}
		for _, d := range b.Datagrams {
			got = append(got, numberOf(d))
		}
	}
	if !slices.Equal(got, []int{0, 1, 2, -1, 4}) {
		t.Errorf("%v", got)
	}
	expectNothing(t, s)
}

// TestRTPFECRestoresAll loses 5 % of the packets, and of those of correction, on
// the way: 5 by 5 restores all of them with this seed. It cannot with every:
// a packet that is lost with both its row's and its column's correction (one
// in 8000 at 5 %) is gone. What is lost for good is computed here from the
// standard.
func TestRTPFECRestoresAll(t *testing.T) {
	for _, c := range []struct {
		seed uint64
		loss float64
		left bool
	}{{1, 0.05, false}, {2, 0.15, true}} {
		const l, d = 5, 5
		list := testStream(t, 4*time.Second, 3e6)
		p := port()
		for range 4 {
			port()
		}
		r := record(t, open(t, fmt.Sprintf("rtp://127.0.0.1:%d?fec=on", p), Options{}))
		media := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		column := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p+2))
		row := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p+4))
		var packets [][]byte
		for k, b := range list {
			packets = append(packets, rtpOf(k, b))
		}
		rng := rand.New(rand.NewPCG(c.seed, 5))
		gone := map[int]bool{}
		var passed []protection
		var out []relayed
		add := func(w *net.UDPConn, p protection) {
			x := relayed{out: w, d: p.d, gone: rng.Float64() < c.loss}
			if !x.gone {
				passed = append(passed, p)
			}
			out = append(out, x)
		}
		whole := len(packets) / (l * d) * l * d
		for k := range packets {
			lost := k > 2*l*d && k < whole && rng.Float64() < c.loss
			if lost {
				gone[k] = true
			}
			out = append(out, relayed{out: media, d: packets[k], gone: lost})
			if k%l == l-1 {
				add(row, protect(packets, numbers(k-l+1, l, 1), false, l, d))
			}
			if k >= l*d && k%d == 0 { // the columns of the matrix before
				base := k/(l*d)*l*d - l*d
				add(column, protect(packets, numbers(base+k%(l*d)/d, d, l), true, l, d))
			}
		}
		relayAll(t, out)
		left := unrecoverable(gone, passed)
		if (len(left) > 0) != c.left {
			t.Fatalf("seed %d: %d of %d packets cannot be restored", c.seed, len(left), len(gone))
		}
		data, lost := joined(list, func(k int) bool { return left[k] })
		r.wantData(t, data, lost)
		if st := r.Stats(); st.Recovered != uint64(len(gone)-len(left)) || st.Lost != uint64(len(left)) {
			t.Errorf("%+v; %d gone, %d of them for good", st, len(gone), len(left))
		}
		if !c.left && slices.ContainsFunc(r.segments, func(s string) bool { return strings.Contains(s, "damaged") }) {
			t.Errorf("%q", r.segments)
		}
		t.Logf("%.0f %%: %d of %d packets lost, %d restored", c.loss*100, len(gone), len(packets), len(gone)-len(left))
	}
}

// TestRTPTwoPaths loses 20 % on each of two paths, one of them 120 ms behind:
// what both lost is missing, and nothing else.
func TestRTPTwoPaths(t *testing.T) {
	list := testStream(t, 4*time.Second, 3e6)
	a, b := port(), port()
	r := record(t, open(t, fmt.Sprintf("rtp://127.0.0.1:%d,127.0.0.1:%d?skew=300ms", a, b), Options{}))
	one, two := sender(t, "", fmt.Sprintf("127.0.0.1:%d", a)), sender(t, "", fmt.Sprintf("127.0.0.1:%d", b))
	rng := rand.New(rand.NewPCG(20, 20))
	both := map[int]bool{}
	var out []relayed
	for k, d := range list {
		p := rtpOf(k, d)
		x, y := rng.IntN(5) == 0, rng.IntN(5) == 0
		// The path behind must have begun when the other loses something.
		if k < 400 || k == len(list)-1 {
			x, y = false, false
		}
		if x && y {
			both[k] = true
		}
		out = append(out, relayed{one, p, 0, x}, relayed{two, p, 120 * time.Millisecond, y})
	}
	relayAll(t, out)
	data, lost := joined(list, func(k int) bool { return both[k] })
	r.wantData(t, data, lost)
	// A segment without a loss is the one that was sent.
	want := segmentsOf(bytes.Join(list, nil))
	clean := 0
	for _, s := range r.segments {
		if !strings.Contains(s, "damaged") && slices.Contains(want, s) {
			clean++
		} else if !strings.Contains(s, "damaged") && s != r.segments[len(r.segments)-1] {
			t.Errorf("%s is called clean and differs", s)
		}
	}
	st := r.Stats()
	if st.Lost != uint64(len(both)) || st.Recovered == 0 || st.Duplicates == 0 || len(both) < 20 {
		t.Errorf("%+v, %d lost by both", st, len(both))
	}
	t.Logf("%d packets, %d lost by both; %+v", len(list), len(both), st)
}

// lossyRelay passes datagrams on from ports p, p+2 and p+4 to to, to+2 and
// to+4, all but those that lose names.
type lossyRelay struct {
	in   []*net.UDPConn
	wait sync.WaitGroup
	mu   sync.Mutex
	// by number: packets that came, and that were not passed on
	media     map[int][]byte
	gone      map[int]bool
	passed    []protection
	last, all int
}

// newLossyRelay loses a share of what passes.
func newLossyRelay(t *testing.T, p, to int, loss float64, seed uint64) *lossyRelay {
	t.Helper()
	r := &lossyRelay{media: map[int][]byte{}, gone: map[int]bool{}}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, off := range []int{0, 2, 4} {
		in, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p + off})
		if err != nil {
			t.Fatal(err)
		}
		in.SetReadBuffer(4 << 20)
		r.in = append(r.in, in)
		out := sender(t, "", fmt.Sprintf("127.0.0.1:%d", to+off))
		r.wait.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, err := in.Read(buf)
				if err != nil {
					return
				}
				r.mu.Lock()
				lose := rng.Float64() < loss
				if off == 0 {
					lose = r.take(buf[:n], lose)
				} else if !lose {
					r.takeFEC(buf[:n])
				}
				r.mu.Unlock()
				if !lose {
					out.Write(buf[:n])
				}
			}
		})
	}
	t.Cleanup(r.close)
	return r
}

func (r *lossyRelay) close() {
	for _, c := range r.in {
		c.Close()
	}
	r.wait.Wait()
}

// take notes a packet. The first hundred are passed on, for the receiver to
// have begun.
func (r *lossyRelay) take(d []byte, lose bool) bool {
	seq := int(binary.BigEndian.Uint16(d[2:]))
	if r.all == 0 {
		r.last = seq
	}
	r.last += int(int16(uint16(seq) - uint16(r.last)))
	r.media[r.last] = bytes.Clone(d[12:])
	if r.all++; r.all < 100 {
		lose = false
	}
	if lose {
		r.gone[r.last] = true
	}
	return lose
}

// takeFEC notes what a packet of correction protects.
func (r *lossyRelay) takeFEC(d []byte) {
	base := r.last + int(int16(binary.BigEndian.Uint16(d[12:])-uint16(r.last)))
	r.passed = append(r.passed, protection{nil, numbers(base, int(d[26]), int(d[25]))})
}

// TestRTPFFmpegFEC has ffmpeg send with correction, through a relay that loses
// 5 %.
func TestRTPFFmpegFEC(t *testing.T) {
	path := clip(t, 8)
	p, to := port(), 0
	for range 10 {
		to = port()
	}
	to -= 4
	relay := newLossyRelay(t, p, to, 0.05, 11)
	r := record(t, open(t, fmt.Sprintf("rtp://127.0.0.1:%d?fec=on", to), Options{}))
	f := ffmpeg(t, "-readrate", "2", "-i", path, "-c", "copy", "-f", "rtp_mpegts", "-fec", "prompeg=l=5:d=5", fmt.Sprintf("rtp://127.0.0.1:%d?pkt_size=1328", p))
	f.wait() // it fails at the last packet, which is shorter
	// What was lost behind the last packet that came cannot be known.
	relay.mu.Lock()
	left := unrecoverable(relay.gone, relay.passed)
	var nums []int
	for n := range relay.media {
		nums = append(nums, n)
	}
	slices.Sort(nums)
	for len(nums) > 0 && left[nums[len(nums)-1]] {
		nums = nums[:len(nums)-1]
	}
	var sent [][]byte
	for _, n := range nums {
		sent = append(sent, relay.media[n])
	}
	data, lost := joined(sent, func(k int) bool { return left[nums[k]] })
	gone := len(relay.gone)
	relay.mu.Unlock()
	if len(nums) < 500 || gone < 20 {
		t.Fatalf("%d packets, %d of them lost: %s", len(nums), gone, f.said.String())
	}
	r.wantData(t, data, lost)
	if st := r.Stats(); st.Lost != uint64(len(lost)) || st.Errors != 0 || st.Recovered < uint64(gone-len(left)) {
		t.Errorf("%+v", st)
	}
	t.Logf("%d of %d packets lost, %d for good", gone, len(nums), len(lost))
}

// TestRTPFFmpegRestarts kills ffmpeg and starts it again, with another SSRC and
// other numbers, while its stream is recorded.
func TestRTPFFmpegRestarts(t *testing.T) {
	path := clip(t, 4)
	p := port()
	r := record(t, open(t, fmt.Sprintf("rtp://127.0.0.1:%d", p), Options{}))
	send := func() *process {
		return ffmpeg(t, "-readrate", "2", "-stream_loop", "-1", "-i", path, "-c", "copy", "-f", "rtp_mpegts", fmt.Sprintf("rtp://127.0.0.1:%d?pkt_size=1328", p))
	}
	segments := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.segments)
	}
	for range 3 {
		f := send()
		n := segments()
		testkit.Await(t, "segments: "+f.said.String(), func() bool { return segments() > n+2 })
		f.kill()
	}
	r.stop()
	s := r.Source.(*rtpSource)
	if st := r.Stats(); s.merge.count.runs != 3 || st.Lost+st.Errors != 0 {
		t.Errorf("%+v, %+v", st, s.merge.count)
	}
}

func TestRTPTellsOfPlainPackets(t *testing.T) {
	p := port()
	var mu sync.Mutex
	var log bytes.Buffer
	s := open(t, fmt.Sprintf("rtp://127.0.0.1:%d", p), Options{Log: slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil))})
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	for range 3 {
		w.Write(append([]byte{0x47}, make([]byte, 187)...))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		done <- err
	}()
	testkit.Await(t, "a line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), "open the source as udp://")
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || s.Stats().Errors != 3 {
		t.Errorf("%v, %+v", err, s.Stats())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestRTPReadAllocatesNothing(t *testing.T) {
	for _, url := range []string{"rtp://127.0.0.1:%d?reorder=1ms", "rtp://127.0.0.1:%d?reorder=1ms&fec=on"} {
		p := port()
		for range 4 {
			port()
		}
		s := open(t, fmt.Sprintf(url, p), Options{})
		w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		d := rtpOf(0, append([]byte{0x47}, make([]byte, 1315)...))
		seq := 0
		read := func() {
			for range 100 {
				if binary.BigEndian.PutUint16(d[2:], uint16(seq)); seq%10 != 5 { // and losses
					w.Write(d)
				}
				seq++
			}
			for n := 0; n < 90; {
				b, err := s.Read(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n += len(b.Datagrams)
			}
		}
		for range 20 {
			read() // buffers grow
		}
		if allocs := testing.AllocsPerRun(10, read); allocs > 1 {
			t.Errorf("%s: %v allocations for 100 packets", url, allocs)
		}
	}
}

// BenchmarkRTP receives packets of 1316 bytes of transport stream, 60 at a time;
// sending is not counted. A Gigabyte is 760 000 packets.
func BenchmarkRTP(b *testing.B) {
	payload := append([]byte{0x47}, make([]byte, 1315)...)
	for _, c := range []struct {
		name string
		loss int // one in so many
		opt  string
		two  bool
	}{{"in order", 0, "", false}, {"one in 20 lost", 20, "?reorder=0", false}, {"correction on", 0, "?fec=on", false}, {"two paths", 0, "", true}} {
		b.Run(c.name, func(b *testing.B) {
			p, q := port(), 0
			for range 6 {
				q = port()
			}
			url := fmt.Sprintf("rtp://127.0.0.1:%d", p)
			if c.two {
				url += fmt.Sprintf(",127.0.0.1:%d", q)
			}
			src, err := Open(b.Context(), url+c.opt, Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer src.Close()
			s := src.(*rtpSource)
			w, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close()
			v, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", q))
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			d, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: typeMP2T, SSRC: 1}, Payload: payload}).Marshal()
			if err != nil {
				b.Fatal(err)
			}
			seq, want := 0, 0
			b.SetBytes(60 * 1316)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for range 60 {
					binary.BigEndian.PutUint16(d[2:], uint16(seq))
					if seq++; c.loss == 0 || seq%c.loss != 0 {
						w.Write(d)
						want++
					}
					if c.two {
						v.Write(d)
					}
				}
				b.StartTimer()
				for want > 0 {
					s.nap.due = false // what is measured is not the nap
					batch, err := s.Read(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					want -= len(batch.Datagrams)
				}
			}
		})
	}
}
