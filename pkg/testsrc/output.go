package testsrc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// OutputOptions are those of every output whose URL does not say otherwise.
type OutputOptions struct {
	Loss      Loss
	Interface string // to multicast on, by name or address; empty: the routing table's
	TTL       int    // of multicast datagrams, hops; 0 means 1, the local network
}

// Output is where a stream goes. It is used by one goroutine.
type Output struct {
	name    string
	send    func(list [][]byte) error
	close   func() error
	drop    *dropper
	batch   [][]byte
	sent    uint64
	dropped uint64
	bytes   uint64
}

// OutputStats says what has gone out.
type OutputStats struct {
	URL     string `json:"url"`
	Sent    uint64 `json:"sent"`    // datagrams
	Dropped uint64 `json:"dropped"` // datagrams left out on purpose
	Bytes   uint64 `json:"bytes"`   // sent
}

// NewOutput returns an output that writes the datagrams to w, one after the
// other, less those that loss takes.
func NewOutput(name string, w io.Writer, loss Loss) *Output {
	var buf []byte
	send := func(list [][]byte) error {
		buf = buf[:0]
		for _, p := range list {
			buf = append(buf, p...)
		}
		_, err := w.Write(buf)
		return err
	}
	return &Output{name: name, send: send, close: func() error { return nil }, drop: newDropper(loss)}
}

// OpenOutput opens udp://ADDRESS:PORT, unicast or multicast, IPv4 or IPv6 (in
// brackets). The URL's options loss=, burst=, seed=, interface= and ttl= win
// over opt.
func OpenOutput(rawURL string, opt OutputOptions) (*Output, error) {
	u, err := parseOutput(rawURL, opt)
	if err == nil {
		var s *udpSender
		if s, err = newUDPSender(u); err == nil {
			return &Output{name: rawURL, send: s.send, close: s.close, drop: newDropper(u.opt.Loss)}, nil
		}
	}
	return nil, fmt.Errorf("output %q: %w", rawURL, err)
}

// OpenOutputs opens count outputs to consecutive ports from the URL's on. Each
// has its own seed, one more than the one before.
func OpenOutputs(rawURL string, opt OutputOptions, count int) ([]*Output, error) {
	var list []*Output
	for i := range count {
		o, err := openNth(rawURL, opt, i)
		if err != nil {
			for _, o := range list {
				o.Close()
			}
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

func openNth(rawURL string, opt OutputOptions, i int) (*Output, error) {
	if i == 0 {
		return OpenOutput(rawURL, opt)
	}
	u, err := parseOutput(rawURL, opt)
	if err != nil {
		return nil, fmt.Errorf("output %q: %w", rawURL, err)
	}
	port := int(u.addr.Port()) + i
	if port > 65535 {
		return nil, fmt.Errorf("output %q: no port %d for copy %d", rawURL, port, i+1)
	}
	q := url.Values{"seed": {strconv.FormatUint(u.opt.Loss.Seed+uint64(i), 10)}}
	for k, v := range u.query {
		if k != "seed" {
			q[k] = v
		}
	}
	addr := netip.AddrPortFrom(u.addr.Addr(), uint16(port))
	return OpenOutput(fmt.Sprintf("udp://%s?%s", addr, q.Encode()), opt)
}

// outputURL is what the URL of an output says.
type outputURL struct {
	addr  netip.AddrPort
	opt   OutputOptions
	query url.Values
}

func parseOutput(rawURL string, opt OutputOptions) (*outputURL, error) {
	rest, ok := strings.CutPrefix(rawURL, "udp://")
	if !ok {
		return nil, errors.New("a test stream goes to standard output or to udp://ADDRESS:PORT")
	}
	host, query, _ := strings.Cut(rest, "?")
	host = strings.Replace(strings.TrimPrefix(host, "@"), "%25", "%", 1)
	addr, err := netip.ParseAddrPort(host)
	if err != nil {
		name, port, err := net.SplitHostPort(host)
		if err != nil || name == "" {
			return nil, errors.New("write udp://ADDRESS:PORT, an IPv6 address in brackets")
		}
		to, err := net.ResolveUDPAddr("udp", net.JoinHostPort(name, port))
		if err != nil {
			return nil, err
		}
		addr = to.AddrPort()
	}
	if addr.Port() == 0 {
		return nil, errors.New("a port from 1 to 65535 is missing")
	}
	u := &outputURL{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), opt: opt}
	return u, u.parseQuery(query)
}

func (u *outputURL) parseQuery(query string) error {
	// A percent sign of a rate is not always escaped.
	values, err := url.ParseQuery(strings.ReplaceAll(strings.ReplaceAll(query, "%25", "%"), "%", "%25"))
	if err != nil {
		return fmt.Errorf("options %q: %w", query, err)
	}
	u.query = values
	for name, list := range values {
		v := list[len(list)-1]
		var err error
		switch name {
		case "loss":
			u.opt.Loss.Rate, err = ParseRate(v)
		case "burst":
			u.opt.Loss.Burst, err = atoi(name, v, 1, 1e6)
		case "seed":
			if u.opt.Loss.Seed, err = strconv.ParseUint(v, 10, 64); err != nil {
				err = fmt.Errorf("seed=%s is not a number", v)
			}
		case "interface":
			u.opt.Interface = v
		case "ttl":
			u.opt.TTL, err = atoi(name, v, 1, 255)
		default:
			err = fmt.Errorf("unknown option %q; there are loss=, burst=, seed=, interface= and ttl=", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func atoi(name, v string, lowest, highest int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < lowest || n > highest {
		return 0, fmt.Errorf("%s=%s is not a number from %d to %d", name, v, lowest, highest)
	}
	return n, nil
}

// Send sends the datagrams, less those that are to be lost.
func (o *Output) Send(list [][]byte) error {
	o.batch = o.batch[:0]
	for _, p := range list {
		if o.drop.drop() {
			o.dropped++
			continue
		}
		o.batch = append(o.batch, p)
		o.sent++
		o.bytes += uint64(len(p))
	}
	if len(o.batch) == 0 {
		return nil
	}
	if err := o.send(o.batch); err != nil {
		return fmt.Errorf("sending to %s: %w", o.name, err)
	}
	return nil
}

// Stats returns what has gone out so far.
func (o *Output) Stats() OutputStats {
	return OutputStats{URL: o.name, Sent: o.sent, Dropped: o.dropped, Bytes: o.bytes}
}

// Close closes the output.
func (o *Output) Close() error { return o.close() }
