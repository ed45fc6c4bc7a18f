package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultReorder is how long a packet that is missing is waited for.
	defaultReorder = 50 * time.Millisecond
	// defaultSkew is by how much one path may be behind the other: what
	// SMPTE 2022-7 class B (moderate skew) receivers take.
	defaultSkew = 450 * time.Millisecond
	// longestWait bounds reorder= and skew=.
	longestWait = 10 * time.Second
	// mostPaths of an RTP source.
	mostPaths = 4
)

// rtpAddr is what an rtp URL says.
type rtpAddr struct {
	paths   []*udpAddr
	reorder time.Duration
	skew    time.Duration
	fec     bool
}

// checkRTP says what is wrong with an rtp URL, without looking names up.
func checkRTP(rest string) error {
	if _, err := parseRTP(context.Background(), rest, Options{}, lookupNothing); err != nil {
		return &URLError{"rtp:" + rest, err}
	}
	return nil
}

// parseRTP reads //HOST:PORT[,HOST:PORT…][?OPTIONS].
func parseRTP(ctx context.Context, rest string, opt Options, look lookup) (*rtpAddr, error) {
	hosts, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	a := &rtpAddr{reorder: defaultReorder, skew: defaultSkew}
	for host := range strings.SplitSeq(strings.TrimSuffix(hosts, "/"), ",") {
		u := &udpAddr{scheme: "rtp", ifname: opt.Interface, buffer: defaultBuffer}
		if err := u.parseHost(ctx, strings.TrimPrefix(host, "@"), look); err != nil {
			return nil, err
		}
		a.paths = append(a.paths, u)
	}
	if n := len(a.paths); n > mostPaths {
		return nil, fmt.Errorf("%d paths; the same packets may come by %d at most", n, mostPaths)
	}
	if err := a.parseQuery(query); err != nil {
		return nil, err
	}
	return a, a.check()
}

func (a *rtpAddr) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("options %q: %w", query, err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // the same one is named each time
		v := values[name][len(values[name])-1]
		switch name {
		case "interface":
			err = a.each(name, v, func(u *udpAddr, v string) error { u.ifname = v; return nil })
		case "source":
			err = a.each(name, v, (*udpAddr).setSource)
		case "buffer_size":
			var n int
			n, err = parseBytes(v)
			for _, u := range a.paths {
				u.buffer, u.sized = n, true
			}
		case "reorder":
			a.reorder, err = parseWait(name, v)
		case "skew":
			a.skew, err = parseWait(name, v)
			if err == nil && len(a.paths) < 2 {
				err = errors.New("skew= needs two paths: rtp://A:PORT,B:PORT")
			}
		case "fec":
			if a.fec = v == "on"; !a.fec && v != "off" {
				err = fmt.Errorf("fec=%s is neither on nor off", v)
			}
		default:
			err = fmt.Errorf("unknown option %q; an rtp source has interface=, source=, buffer_size=, reorder=, skew=, fec= and program=", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// each gives an option to the paths: one value to all, or one to each.
func (a *rtpAddr) each(name, v string, set func(*udpAddr, string) error) error {
	list := strings.Split(v, ",")
	if len(list) != 1 && len(list) != len(a.paths) {
		return fmt.Errorf("%s=%s has %d values for %d paths; give one, or one for each", name, v, len(list), len(a.paths))
	}
	for i, u := range a.paths {
		if err := set(u, list[i%len(list)]); err != nil {
			return err
		}
	}
	return nil
}

// check sees whether what was said goes together.
func (a *rtpAddr) check() error {
	type where struct {
		addr   netip.AddrPort
		ifname string
	}
	ports := map[where]string{}
	for _, u := range a.paths {
		if err := u.checkSource(); err != nil {
			return err
		}
		if a.fec && int(u.addr.Port())+int(fecPorts[len(fecPorts)-1]) > 65535 {
			return fmt.Errorf("port %d leaves no room for those of error correction, %d and %d above it", u.addr.Port(), fecPorts[0], fecPorts[1])
		}
		uses := []*udpAddr{u}
		if a.fec {
			uses = append(uses, u.shifted(fecPorts[0]), u.shifted(fecPorts[1]))
		}
		for _, x := range uses {
			w := where{x.addr, x.ifname}
			if _, taken := ports[w]; taken && !u.named {
				return fmt.Errorf("port %d of %s is used twice; two paths need two addresses, ports or interfaces", x.addr.Port(), x.addr.Addr())
			}
			ports[w] = ""
		}
	}
	return nil
}

// shifted returns the same address at a port above.
func (u *udpAddr) shifted(n uint16) *udpAddr {
	c := *u
	c.addr = netip.AddrPortFrom(u.addr.Addr(), u.addr.Port()+n)
	return &c
}

// parseWait reads a time such as 50ms or 1.5s, or a number of milliseconds.
func parseWait(name, v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil {
		var ms uint64
		ms, err = strconv.ParseUint(v, 10, 32)
		d = time.Duration(ms) * time.Millisecond
	}
	if err != nil || d < 0 || d > longestWait {
		return 0, fmt.Errorf("%s=%s is not a time such as 50ms, at most %v", name, v, longestWait)
	}
	return d, nil
}
