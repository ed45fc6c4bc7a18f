package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// defaultBuffer is the socket buffer asked for, bytes: 8 MiB hold a third of a
// second of 100 Mbit/s in the kernel's accounting.
const defaultBuffer = 8 << 20

// lookup finds the addresses of a name.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// lookupSystem asks the system's resolver.
func lookupSystem(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// lookupNothing takes any name for an address of this machine: what a URL
// says is checked without asking anybody.
func lookupNothing(context.Context, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.IPv6Unspecified()}, nil
}

// udpAddr is what a udp URL says.
type udpAddr struct {
	scheme string         // of the URL, for messages
	named  bool           // the address was looked up
	addr   netip.AddrPort // group, local address, or unspecified
	any    bool           // no address given: every address of this machine
	ifname string         // interface, by name or address
	source netip.Addr     // the only sender wanted, or the zero Addr
	buffer int            // bytes of socket buffer
	sized  bool           // ... as the URL says
}

// checkUDP says what is wrong with a udp URL, without looking names up.
func checkUDP(rest string) error {
	if _, err := parseUDP(context.Background(), rest, Options{}, lookupNothing); err != nil {
		return &URLError{"udp:" + rest, err}
	}
	return nil
}

// parseUDP reads //HOST:PORT[?OPTIONS], taking the interface from the options
// of Open where the URL has none.
func parseUDP(ctx context.Context, rest string, opt Options, look lookup) (*udpAddr, error) {
	rest = strings.TrimPrefix(rest, "//")
	host, query, _ := strings.Cut(rest, "?")
	// udp://@GROUP:PORT is how some players write it.
	host = strings.TrimSuffix(strings.TrimPrefix(host, "@"), "/")
	u := &udpAddr{scheme: "udp", ifname: opt.Interface, buffer: defaultBuffer}
	if err := u.parseHost(ctx, host, look); err != nil {
		return nil, err
	}
	if err := u.parseQuery(query); err != nil {
		return nil, err
	}
	return u, u.checkSource()
}

// checkSource sees whether a sender may be named for the address.
func (u *udpAddr) checkSource() error {
	switch {
	case !u.source.IsValid():
	case !u.addr.Addr().IsMulticast():
		return errors.New("source= needs a multicast group")
	case u.source.Is4() != u.addr.Addr().Is4():
		return fmt.Errorf("source=%s and the group are of different IP versions", u.source)
	}
	return nil
}

// setSource takes the only sender that is wanted.
func (u *udpAddr) setSource(v string) error {
	a, err := netip.ParseAddr(v)
	if err != nil || a.IsMulticast() || a.IsUnspecified() {
		return fmt.Errorf("source=%s is not the address of a sender", v)
	}
	u.source = a.Unmap()
	return nil
}

func (u *udpAddr) parseHost(ctx context.Context, hostport string, look lookup) error {
	if strings.Contains(hostport, "@") { // ahead of what quotes a part of it
		return errors.New("unexpected @; to hear one sender of a group only, add ?source=ADDRESS")
	}
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || strings.HasSuffix(hostport, "]") {
		return fmt.Errorf("no port; write %s://ADDRESS:PORT", u.scheme)
	}
	host, portText := hostport[:i], hostport[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", portText)
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return fmt.Errorf("address %q has no ] to its [", host)
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return fmt.Errorf("an IPv6 address stands in brackets: %s://[%s]:%d", u.scheme, host, port)
	}
	if host == "" || host == "*" {
		u.any, u.addr = true, netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port))
		return nil
	}
	addr, named, err := resolve(ctx, strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), look)
	if err != nil {
		return err
	}
	u.addr, u.named = netip.AddrPortFrom(addr, uint16(port)), named
	return nil
}

// resolve reads an address, its zone behind % or %25 (RFC 6874), or looks up
// the name of this machine (named).
func resolve(ctx context.Context, host string, look lookup) (addr netip.Addr, named bool, err error) {
	if addr, err := netip.ParseAddr(strings.Replace(host, "%25", "%", 1)); err == nil {
		return addr.Unmap(), false, nil
	}
	if strings.Trim(host, "0123456789.") == "" || strings.ContainsAny(host, ":[]% ") {
		return netip.Addr{}, false, fmt.Errorf("%q is not an IP address", host)
	}
	addrs, err := look(ctx, host)
	if err != nil {
		return netip.Addr{}, false, err
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.Unmap().BitLen() - b.Unmap().BitLen() })
	return addrs[0].Unmap(), true, nil // IPv4 first, as senders mostly are
}

func (u *udpAddr) parseQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("options %q: %w", query, err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // the same one is named each time
		v := values[name][len(values[name])-1]
		switch name {
		case "interface":
			u.ifname = v
		case "source":
			if err := u.setSource(v); err != nil {
				return err
			}
		case "buffer_size":
			u.sized = true
			if u.buffer, err = parseBytes(v); err != nil {
				return err
			}
		default:
			return fmt.Errorf("unknown option %q; a udp source has interface=, source=, buffer_size= and program=", name)
		}
	}
	return nil
}

// parseBytes reads the size of a socket buffer: bytes, with K or M for 1024
// and 1048576.
func parseBytes(v string) (int, error) {
	digits, unit := strings.TrimRight(v, "KkMm"), 1
	switch strings.ToUpper(v[len(digits):]) {
	case "":
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	default:
		unit = 0
	}
	n, err := strconv.Atoi(digits)
	if err != nil || unit == 0 || n <= 0 || n > 1<<30/unit {
		return 0, fmt.Errorf("buffer_size=%s is not a number of bytes such as 4194304 or 4M, at most 1024M", v)
	}
	return n * unit, nil
}

// findInterface returns the interface of that name or address.
func findInterface(name string) (*net.Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the network interfaces: %w", err)
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	want, err := netip.ParseAddr(strings.Trim(name, "[]"))
	if err != nil {
		return nil, fmt.Errorf("no network interface %q; there are %s", name, interfaceNames())
	}
	want = want.Unmap().WithZone("")
	for i := range list {
		addrs, err := list[i].Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().WithZone("") == want {
				return &list[i], nil
			}
		}
	}
	return nil, fmt.Errorf("no network interface has the address %s; there are %s", name, interfaceNames())
}

func interfaceNames() string {
	list, err := net.Interfaces()
	if err != nil {
		return "none that can be listed"
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}
