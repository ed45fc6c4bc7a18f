package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port is one that no other test uses.
var port = func() func() int {
	var mu sync.Mutex
	next := 21000 + unix.Getpid()%500*40
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next
	}
}()

// multicast6 returns the first interface that can multicast over IPv6, which
// loopback cannot, and its address; the loopback interface where there is none.
func multicast6(t *testing.T) (net.Interface, netip.Addr) {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is6() && i.Flags&(net.FlagMulticast|net.FlagLoopback|net.FlagUp) == net.FlagMulticast|net.FlagUp {
				return i, p.Addr().WithZone("")
			}
		}
	}
	return list[0], netip.IPv6Loopback()
}

// sender returns a socket that sends from a local address to a target and not
// beyond this machine.
func sender(t *testing.T, from, to string) *net.UDPConn {
	t.Helper()
	raddr := netip.MustParseAddrPort(to)
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) {
			if raddr.Addr().Is4() {
				err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: 1})
			} else {
				ifi, _ := multicast6(t)
				err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifi.Index),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 0))
			}
		})
		return err
	}}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func open(t *testing.T, url string, opt Options) Source {
	t.Helper()
	s, err := Open(t.Context(), url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// collect reads until so many datagrams have come.
func collect(t *testing.T, s Source, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		b, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Arrived.IsZero() || len(b.Datagrams) == 0 {
			t.Fatalf("batch %+v", b)
		}
		for _, d := range b.Datagrams {
			got = append(got, string(d))
		}
	}
	return got
}

// expectNothing reads for a while and fails if anything comes.
func expectNothing(t *testing.T, s Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if b, err := s.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Read = %v, %v; want nothing", b, err)
	}
}

func TestUDPReceives(t *testing.T) {
	for _, c := range []struct{ name, url, from, to, iface string }{
		{"unicast IPv4", "udp://127.0.0.1:%d", "", "127.0.0.1:%d", ""},
		{"unicast IPv6", "udp://[::1]:%d", "", "[::1]:%d", ""},
		{"name", "udp://localhost:%d", "", "127.0.0.1:%d", ""},
		{"any, IPv4", "udp://:%d", "", "127.0.0.1:%d", ""},
		{"any, IPv6", "udp://:%d", "", "[::1]:%d", ""},
		{"any IPv4", "udp://0.0.0.0:%d", "", "127.0.0.1:%d", ""},
		{"any on an interface", "udp://:%d?interface=lo", "", "127.0.0.1:%d", ""},
		{"multicast, interface by name", "udp://239.77.1.1:%d?interface=lo", "", "239.77.1.1:%d", ""},
		{"multicast, interface by address", "udp://239.77.1.1:%d?interface=127.0.0.1", "", "239.77.1.1:%d", ""},
		{"multicast, interface by option", "udp://@239.77.1.1:%d", "", "239.77.1.1:%d", "127.0.0.1"},
		{"multicast, one source", "udp://232.77.1.1:%d?interface=lo&source=127.0.0.2", "127.0.0.2", "232.77.1.1:%d", ""},
		{"multicast IPv6", "udp://[ff05::7701]:%d?interface=ADDR6", "", "[ff05::7701]:%d", ""},
		{"multicast IPv6, zone", "udp://[ff02::7701%%IF6]:%d", "", "[ff02::7701%%IF6]:%d", ""},
		{"multicast IPv6, escaped zone", "udp://[ff02::7701%%25IF6]:%d", "", "[ff02::7701%%IF6]:%d", ""},
		{"multicast IPv6, one source", "udp://[ff35::7701]:%d?interface=IF6&source=ADDR6", "ADDR6", "[ff35::7701]:%d", ""},
		{"buffer size", "udp://127.0.0.1:%d?buffer_size=256K", "", "127.0.0.1:%d", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := port()
			if strings.Contains(c.url, "[ff") {
				ifi, addr := multicast6(t)
				if addr.IsLoopback() {
					t.Skip("no interface of this machine can multicast over IPv6: 1 case not run")
				}
				r := strings.NewReplacer("IF6", ifi.Name, "ADDR6", addr.String())
				c.url, c.from, c.to = r.Replace(c.url), r.Replace(c.from), r.Replace(c.to)
			}
			s := open(t, fmt.Sprintf(c.url, p), Options{Interface: c.iface})
			w := sender(t, c.from, fmt.Sprintf(c.to, p))
			var want []string
			for i := range 150 { // more than a batch holds
				want = append(want, fmt.Sprintf("datagram %d of %s", i, c.name))
				if _, err := w.Write([]byte(want[i])); err != nil {
					t.Fatal(err)
				}
			}
			got := collect(t, s, len(want))
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got %q", got)
			}
			st := s.Stats()
			if st.Packets != 150 || st.Bytes != uint64(len(strings.Join(want, ""))) || st.Dropped != 0 || st.LastArrival.IsZero() {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestUDPHearsOnlyItsGroupAndSource(t *testing.T) {
	p := port()
	one := open(t, fmt.Sprintf("udp://239.77.2.1:%d?interface=lo", p), Options{})
	two := open(t, fmt.Sprintf("udp://239.77.2.2:%d?interface=lo", p), Options{})
	again := open(t, fmt.Sprintf("udp://239.77.2.1:%d?interface=lo", p), Options{})
	only := open(t, fmt.Sprintf("udp://239.77.2.1:%d?interface=lo&source=127.0.0.3", p), Options{})

	sender(t, "", fmt.Sprintf("239.77.2.1:%d", p)).Write([]byte("one"))
	sender(t, "127.0.0.3", fmt.Sprintf("239.77.2.2:%d", p)).Write([]byte("two"))
	for s, want := range map[Source]string{one: "one", two: "two", again: "one"} {
		if got := collect(t, s, 1); got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
		expectNothing(t, s)
	}
	expectNothing(t, only)
}

func TestUDPJumboAndEmptyDatagrams(t *testing.T) {
	p := port()
	s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	big := bytes.Repeat([]byte("jumbo!!"), 65507/7)
	for _, d := range [][]byte{{}, big, {}, []byte("small")} {
		if _, err := w.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, s, 2)
	if got[0] != string(big) || got[1] != "small" {
		t.Errorf("got %d and %d bytes", len(got[0]), len(got[1]))
	}
	if st := s.Stats(); st.Truncated != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestUDPCountsTruncated(t *testing.T) {
	p := port()
	s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
	s.(*udpSource).iovs[0].SetLen(10)
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	w.Write([]byte("longer than ten bytes"))
	if got := collect(t, s, 1); got[0] != "longer tha" {
		t.Errorf("got %q", got)
	}
	if st := s.Stats(); st.Truncated != 1 {
		t.Errorf("stats %+v", st)
	}
}

// TestUDPKernelDrops overfills a small socket buffer and wants every datagram
// accounted for, and the count in the batch that follows the hole.
func TestUDPKernelDrops(t *testing.T) {
	p := port()
	s := open(t, fmt.Sprintf("udp://127.0.0.1:%d?buffer_size=16K", p), Options{})
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	send := func(from, n int) {
		for i := from; i < from+n; i++ {
			if _, err := w.Write([]byte(fmt.Sprintf("%06d%s", i, strings.Repeat("x", 1310)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	next, drops, holes := 0, 0, 0
	read := func(until int) {
		for next < until {
			b, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range b.Datagrams {
				var n int
				fmt.Sscanf(string(d[:6]), "%d", &n)
				if i == 0 && n-next != int(b.Dropped) {
					t.Fatalf("datagram %d follows %d, Dropped = %d", n, next-1, b.Dropped)
				}
				if i > 0 && n != next {
					t.Fatalf("datagram %d follows %d inside a batch", n, next-1)
				}
				if n != next {
					holes++
				}
				drops += n - next
				next = n + 1
			}
		}
	}
	// A burst overflows the buffer; what it lost shows with the first datagram
	// that finds room after it.
	const burst = 200
	for i := range 5 {
		send(burst*i, burst)
		read(burst*i + 1)
		for pending(t, s) {
			read(next + 1)
		}
	}
	if holes < 4 || uint64(drops) != s.Stats().Dropped || drops < burst {
		t.Errorf("holes %d, drops %d, stats %+v", holes, drops, s.Stats())
	}
}

// pending says whether there is a datagram to read.
func pending(t *testing.T, s Source) bool {
	t.Helper()
	u := s.(*udpSource)
	_, _, err := unix.Recvfrom(u.fd, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return err == nil || u.next < u.got
}

func TestUDPReadAllocatesNothing(t *testing.T) {
	p := port()
	s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	payload := make([]byte, 1316)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	allocs := testing.AllocsPerRun(20, func() {
		for range 100 {
			w.Write(payload)
		}
		for n := 0; n < 100; {
			b, err := s.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			n += len(b.Datagrams)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for 100 datagrams", allocs)
	}
}

func TestUDPReadEndsWithContext(t *testing.T) {
	s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", port()), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v", err)
	}
}

func TestUDPAfterClose(t *testing.T) {
	s, err := Open(t.Context(), fmt.Sprintf("udp://127.0.0.1:%d", port()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Read after Close = %v", err)
	}
}

func TestUDPURLErrors(t *testing.T) {
	taken := port()
	open(t, fmt.Sprintf("udp://127.0.0.1:%d", taken), Options{})
	for _, c := range []struct{ url, want string }{
		{fmt.Sprintf("udp://127.0.0.1:%d", taken), "taken by another program, or by another stream of this node"},
		{"udp://239.1.2.3", "no port"},
		{"udp://[ff02::1]", "no port"},
		{"udp://239.1.2.3:", "not a number from 1 to 65535"},
		{"udp://239.1.2.3:0", "not a number from 1 to 65535"},
		{"udp://239.1.2.3:99999", "not a number from 1 to 65535"},
		{"udp://239.1.2.333:1234", "not an IP address"},
		{"udp://ff02::1:1234", "in brackets"},
		{"udp://[::1:1234", "no ] to"},
		{"udp://10.0.0.1@239.1.2.3:1234", "?source="},
		{"udp://239.1.2.3:1234?interface=nosuch0", "no network interface \"nosuch0\"; there are lo"},
		{"udp://239.1.2.3:1234?interface=192.0.2.1", "no network interface has the address 192.0.2.1"},
		{"udp://239.1.2.3:1234?source=239.1.1.1", "not the address of a sender"},
		{"udp://239.1.2.3:1234?source=::1", "different IP versions"},
		{"udp://127.0.0.1:1234?source=127.0.0.1", "needs a multicast group"},
		{"udp://127.0.0.1:1234?buffer_size=lots", "not a number of bytes"},
		{"udp://127.0.0.1:1234?buffer_size=", "not a number of bytes"},
		{"udp://127.0.0.1:1234?buffer_size=9999999M", "not a number of bytes"},
		{"udp://127.0.0.1:1234?bufsize=1", "unknown option \"bufsize\"; a udp source has"},
		{"udp://192.0.2.1:1234", "no address of this machine; udp://:1234"},
		{"udp://[fe80::1]:1234", "needs its interface"},
		{"gopher://127.0.0.1:1234", "no source of scheme \"gopher\"; supported are file, "},
	} {
		_, err := Open(t.Context(), c.url, Options{OtherSchemes: []string{"m4f"}})
		var ue *URLError
		if !errors.As(err, &ue) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.url, err, c.want)
		}
	}
}

// TestUDPSaysOnceThatItIsRTP sends RTP to a udp source: the datagrams are
// delivered as they are, and the operator hears what to write instead.
func TestUDPSaysOnceThatItIsRTP(t *testing.T) {
	ts := bytes.Repeat(append([]byte{0x47, 0x1f, 0xff, 0x10}, make([]byte, 184)...), 7)
	rtp := append([]byte{0x80, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, ts...)
	for name, c := range map[string]struct {
		d    []byte
		want int
	}{
		"RTP":                {rtp, 1},
		"transport stream":   {ts, 0},
		"something else":     {append([]byte{0x80, 33}, ts...), 0},
		"another version":    {append([]byte{0x40}, rtp[1:]...), 0},
		"RTP of something":   {append(rtp[:12:12], make([]byte, 7*188)...), 0},
		"RTP without a load": {rtp[:12], 0},
	} {
		var log bytes.Buffer
		p := port()
		s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		to := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		for range 3 {
			if _, err := to.Write(c.d); err != nil {
				t.Fatal(err)
			}
			if got := collect(t, s, 1); got[0] != string(c.d) {
				t.Errorf("%s: another datagram", name)
			}
		}
		if got := strings.Count(log.String(), fmt.Sprintf(`msg="datagrams are RTP; open the source as rtp://" source=udp://127.0.0.1:%d`, p)); got != c.want {
			t.Errorf("%s: said %d times, want %d: %s", name, got, c.want, &log)
		}
	}
}

func TestSmallBufferIsSaidOnce(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, nil))
	bufferWarned = sync.Once{}
	warnBuffer(log, 8<<20, 212992)
	warnBuffer(log, 8<<20, 212992)
	if got := buf.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `fix="sysctl -w net.core.rmem_max=8388608"`) {
		t.Errorf("log %q", got)
	}
}

// A fast stream gets a larger buffer, up to a limit, and one that it has suffices
// for a slower one.
func TestBufferFollowsRate(t *testing.T) {
	var asked []int
	n := newNapper(8 << 20)
	n.enlarge = func(bytes int) { asked = append(asked, bytes) }
	for _, mbit := range []int{6, 100, 800, 500, 820, 40000, 100} {
		bytes := mbit * 1e6 / 8
		n.suit(float64(charge(bytes/1316, bytes)))
	}
	if len(asked) != 2 || asked[0] < 30<<20 || asked[0] > 50<<20 || asked[1] != mostBuffer {
		t.Errorf("asked for %d", asked)
	}
	newNapper(8 << 20).suit(1e12) // where the URL says the size
}

// A socket's buffer grows while a stream comes that is too fast for it.
func TestBufferGrows(t *testing.T) {
	at := fmt.Sprintf("127.0.0.1:%d", port())
	src := open(t, "udp://"+at, Options{})
	u := src.(*udpSource)
	size := func() int {
		n, err := unix.GetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := size()
	u.nap.suit(400e6)
	if after := size(); after <= before {
		t.Skipf("the kernel grants %d bytes and no more than %d", before, after)
	}
	if _, err := sender(t, "", at).Write([]byte{0x47}); err != nil {
		t.Fatal(err)
	}
	if b, err := src.Read(t.Context()); err != nil || len(b.Datagrams) != 1 {
		t.Error(b, err)
	}
}

// BenchmarkUDPRead receives datagrams of 1316 bytes, 60 at a time, sending
// included.
func BenchmarkUDPRead(b *testing.B) {
	p := port()
	s, err := Open(b.Context(), fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	w, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	payload := make([]byte, 1316)
	ctx := b.Context()
	b.SetBytes(60 * 1316)
	b.ReportAllocs()
	for b.Loop() {
		for range 60 {
			w.Write(payload)
		}
		s.(*udpSource).nap.due = false // what is measured is not the nap
		for n := 0; n < 60; {
			batch, err := s.Read(ctx)
			if err != nil {
				b.Fatal(err)
			}
			n += len(batch.Datagrams)
		}
	}
}

func TestCheckUDP(t *testing.T) {
	for _, u := range []string{"udp://239.1.2.3:1234", "udp://@239.1.2.3:1234?interface=eth7&source=10.0.0.1&buffer_size=4M",
		"udp://no.such.host.example:1234", "udp://[ff02::1%25eth9]:1234", "udp://:1234"} {
		if err := Check(u); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
	for u, want := range map[string]string{"udp://239.1.2.3": "no port", "udp://:1?bufsize=3": "unknown option", "udp://1.2.3.4.5:9": "not an IP address",
		"udp://host:1?source=10.0.0.1": "needs a multicast group"} {
		var ue *URLError
		if err := Check(u); !errors.As(err, &ue) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", u, err, want)
		}
	}
}
