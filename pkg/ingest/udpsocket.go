package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listenUDP opens the socket that a udp URL describes, bound and joined, and
// returns it with the buffer size that the kernel granted.
func listenUDP(u *udpAddr, log *slog.Logger) (fd, buffer int, err error) {
	ifi, err := u.iface()
	if err != nil {
		return -1, 0, err
	}
	family := unix.AF_INET6
	if u.addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if u.any && errors.Is(err, unix.EAFNOSUPPORT) { // a machine without IPv6
		family, u.addr = unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), u.addr.Port())
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return -1, 0, fmt.Errorf("opening a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// SO_RXQ_OVFL: each datagram tells how many the kernel has dropped so far.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return -1, 0, fmt.Errorf("asking for the count of dropped datagrams: %w", err)
	}
	// SO_TIMESTAMPNS: and when it came.
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return -1, 0, fmt.Errorf("asking for the times of datagrams: %w", err)
	}
	if buffer, err = setBuffer(fd, u.buffer, log); err != nil {
		return -1, 0, err
	}
	if u.addr.Addr().IsMulticast() {
		err = joinGroup(fd, u, ifi)
	} else {
		err = bindUnicast(fd, u, ifi)
	}
	return fd, buffer, err
}

// iface returns the interface to hear on, or nil for the routing table's.
func (u *udpAddr) iface() (*net.Interface, error) {
	name := u.ifname
	if name == "" {
		name = u.addr.Addr().Zone()
	}
	if name == "" {
		return nil, nil
	}
	if n, err := strconv.Atoi(name); err == nil { // a zone may be a number
		return net.InterfaceByIndex(n)
	}
	return findInterface(name)
}

// setBuffer asks for a receive buffer, beyond rmem_max where allowed, and
// returns what the kernel granted.
func setBuffer(fd, want int, log *slog.Logger) (int, error) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, want); err != nil {
			return 0, fmt.Errorf("setting the receive buffer: %w", err)
		}
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0, fmt.Errorf("asking for the receive buffer: %w", err)
	}
	got /= 2 // the kernel doubles it for its own bookkeeping (socket(7))
	if got < want {
		warnBuffer(log, want, got)
	}
	return got, nil
}

// enlarge asks for a larger receive buffer; where the kernel grants none, it stays.
func (r *receiver) enlarge(want int) {
	if unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want) != nil {
		_ = unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, want)
	}
}

// bufferWarned keeps the line about small buffers to one a process: it is the
// machine's setting, not the stream's.
var bufferWarned sync.Once

func warnBuffer(log *slog.Logger, want, got int) {
	bufferWarned.Do(func() {
		log.Warn("receive buffer smaller than asked for, bursts may be lost",
			"want", want, "got", got, "fix", fmt.Sprintf("sysctl -w net.core.rmem_max=%d", want))
	})
}

// bindUnicast binds to the address, and to the interface if one is named.
func bindUnicast(fd int, u *udpAddr, ifi *net.Interface) error {
	if u.any && u.addr.Addr().Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fmt.Errorf("listening on IPv4 and IPv6: %w", err)
		}
	}
	if ifi != nil && u.addr.Addr().IsUnspecified() {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifi.Name); err != nil {
			return fmt.Errorf("listening on interface %s only: %w", ifi.Name, err)
		}
	}
	return bindError(unix.Bind(fd, sockaddr(u.addr, ifi)), u)
}

// joinGroup binds to the group's address, so that other groups on the same
// port are not heard, and joins it.
func joinGroup(fd int, u *udpAddr, ifi *net.Interface) error {
	level, allOpt := unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL
	if u.addr.Addr().Is4() {
		level, allOpt = unix.IPPROTO_IP, unix.IP_MULTICAST_ALL
	}
	// Several programs of one machine may hear one group.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("sharing the port: %w", err)
	}
	// Hear what this socket joined, on the interface where it joined it, not
	// what any program of the machine did. IPv6 has it since Linux 4.20.
	if err := unix.SetsockoptInt(fd, level, allOpt, 0); err != nil && err != unix.ENOPROTOOPT {
		return fmt.Errorf("leaving other groups out: %w", err)
	}
	if err := bindError(unix.Bind(fd, sockaddr(u.addr, ifi)), u); err != nil {
		return err
	}
	name, req := groupReq(u, ifi)
	if err := unix.SetsockoptString(fd, level, name, string(req)); err != nil {
		return joinError(err, u, ifi)
	}
	return nil
}

// groupReq is a struct group_req or group_source_req (RFC 3678 5.1), which
// serve IPv4 and IPv6 alike.
func groupReq(u *udpAddr, ifi *net.Interface) (option int, req []byte) {
	const align = unsafe.Alignof(uintptr(0)) // of sockaddr_storage
	b := make([]byte, align)
	if ifi != nil {
		binary.NativeEndian.PutUint32(b, uint32(ifi.Index))
	}
	b = append(b, sockaddrStorage(u.addr.Addr())...)
	if !u.source.IsValid() {
		return unix.MCAST_JOIN_GROUP, b
	}
	return unix.MCAST_JOIN_SOURCE_GROUP, append(b, sockaddrStorage(u.source)...)
}

// sockaddrStorage is an address as a struct sockaddr_storage without a port.
func sockaddrStorage(a netip.Addr) []byte {
	b := make([]byte, 128)
	if a.Is4() {
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		copy(b[4:], a.AsSlice())
	} else {
		binary.NativeEndian.PutUint16(b, unix.AF_INET6)
		copy(b[8:], a.AsSlice())
	}
	return b
}

func sockaddr(a netip.AddrPort, ifi *net.Interface) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if ifi != nil && (a.Addr().IsLinkLocalUnicast() || a.Addr().IsLinkLocalMulticast() || a.Addr().IsInterfaceLocalMulticast()) {
		sa.ZoneId = uint32(ifi.Index)
	}
	return sa
}

func bindError(err error, u *udpAddr) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("udp port %d of %s is taken by another program, or by another stream of this node: find it with `ss -ulpn sport = :%d` and stop it, or send to a multicast group, which several programs can hear (%w)",
			u.addr.Port(), u.addr.Addr(), u.addr.Port(), err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine; %s://:%d hears on all of them (%w)", u.addr.Addr(), u.scheme, u.addr.Port(), err)
	case errors.Is(err, unix.EINVAL) && (u.addr.Addr().IsLinkLocalUnicast() || u.addr.Addr().IsLinkLocalMulticast()):
		return fmt.Errorf("the link-local address %s needs its interface: %s://[%s%%eth0]:%d (%w)", u.addr.Addr(), u.scheme, u.addr.Addr(), u.addr.Port(), err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("udp port %d needs privileges (CAP_NET_BIND_SERVICE); use one from 1024 up (%w)", u.addr.Port(), err)
	}
	return fmt.Errorf("listening on %s: %w", u.addr, err)
}

func joinError(err error, u *udpAddr, ifi *net.Interface) error {
	on := "any interface"
	if ifi != nil {
		on = ifi.Name
	}
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("cannot join %s on %s: no route to it; name the interface with --interface or ?interface= (there are %s), or add a route (%w)",
			u.addr.Addr(), on, interfaceNames(), err)
	case errors.Is(err, unix.ENOBUFS):
		limit, setting := "groups", "net.ipv4.igmp_max_memberships"
		if u.source.IsValid() {
			limit, setting = "sources", "net.ipv4.igmp_max_msf"
		}
		return fmt.Errorf("cannot join %s on %s: too many %s; raise sysctl %s (%w)", u.addr.Addr(), on, limit, setting, err)
	}
	return fmt.Errorf("cannot join %s on %s: %w", u.addr.Addr(), on, err)
}
