package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// srtSlots is how many datagrams one system call takes.
	srtSlots = 64
	// srtDatagram holds the longest SRT packet (1472 bytes, an MTU of 1500)
	// and tells a longer one.
	srtDatagram = 2048
)

// srtPeer is where a datagram came from and to which address of this machine,
// both as the kernel writes them.
type srtPeer struct {
	name     [unix.SizeofSockaddrInet6]byte
	nameLen  uint32
	local    [40]byte // a control message with in_pktinfo or in6_pktinfo
	localLen int
}

// srtSocket is a UDP socket that is read in batches (recvmmsg(2)) and kept
// away from the runtime's poller, which would wake up for every datagram.
type srtSocket struct {
	fd       int
	family   int
	msgs     [srtSlots]mmsghdr
	iovs     [srtSlots]unix.Iovec
	bufs     [srtSlots][srtDatagram]byte
	names    [srtSlots][unix.SizeofSockaddrInet6]byte
	controls [srtSlots][40]byte
}

// openSRTSocket opens the socket of a listener, bound, or of a caller,
// connected.
func openSRTSocket(u *srtURL, addr netip.AddrPort, log *slog.Logger) (_ *srtSocket, err error) {
	s := &srtSocket{family: unix.AF_INET6}
	if addr.Addr().Is4() {
		s.family = unix.AF_INET
	}
	any := u.listen && u.host == ""
	s.fd, err = unix.Socket(s.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if any && errors.Is(err, unix.EAFNOSUPPORT) { // a machine without IPv6
		s.family, addr = unix.AF_INET, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
		s.fd, err = unix.Socket(s.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(s.fd)
		}
	}()
	if _, err = setBuffer(s.fd, defaultBuffer, log); err != nil {
		return nil, err
	}
	if any && s.family == unix.AF_INET6 {
		if err = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return nil, fmt.Errorf("listening on IPv4 and IPv6: %w", err)
		}
	}
	ifi, err := s.bindInterface(u, addr)
	if err != nil {
		return nil, err
	}
	if err = s.place(u, addr, ifi); err != nil {
		return nil, err
	}
	for i := range s.msgs {
		s.iovs[i].Base = &s.bufs[i][0]
		s.iovs[i].SetLen(srtDatagram)
		s.msgs[i].hdr.Iov = &s.iovs[i]
		s.msgs[i].hdr.SetIovlen(1)
		s.prepare(i)
	}
	return s, nil
}

// bindInterface keeps the socket to the interface that the URL names.
func (s *srtSocket) bindInterface(u *srtURL, addr netip.AddrPort) (*net.Interface, error) {
	name := u.ifname
	if name == "" {
		name = addr.Addr().Zone()
	}
	if name == "" {
		return nil, nil
	}
	ifi, err := findInterface(name)
	if err == nil && u.ifname != "" {
		if err = unix.SetsockoptString(s.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifi.Name); err != nil {
			err = fmt.Errorf("using interface %s only: %w", ifi.Name, err)
		}
	}
	return ifi, err
}

// place binds a listener's socket, or connects a caller's: so the kernel keeps
// strangers away and tells that nobody is there.
func (s *srtSocket) place(u *srtURL, addr netip.AddrPort, ifi *net.Interface) error {
	if !u.listen {
		if err := unix.Connect(s.fd, sockaddr(addr, ifi)); err != nil {
			return fmt.Errorf("calling %s: %w", addr, err)
		}
		return nil
	}
	// Answers leave from the address that was called.
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	if s.family == unix.AF_INET {
		level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	if err := unix.SetsockoptInt(s.fd, level, option, 1); err != nil {
		return fmt.Errorf("asking for the address that is called: %w", err)
	}
	err := unix.Bind(s.fd, sockaddr(addr, ifi))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("udp port %d is taken by another program, or by another stream of this node: find it with `ss -ulpn sport = :%d` and stop it, or listen on another port (%w)", addr.Port(), addr.Port(), err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine; srt://:%d listens on all of them, and without mode=listener %s is called (%w)", addr.Addr(), addr.Port(), addr.Addr(), err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("udp port %d needs privileges (CAP_NET_BIND_SERVICE); use one from 1024 up (%w)", addr.Port(), err)
	}
	return fmt.Errorf("listening on %s: %w", addr, err)
}

// prepare readies slot i for the next system call, which overwrites parts.
func (s *srtSocket) prepare(i int) {
	h := &s.msgs[i].hdr
	h.Name, h.Namelen = &s.names[i][0], uint32(len(s.names[i]))
	h.Control = &s.controls[i][0]
	h.SetControllen(len(s.controls[i]))
	h.Flags = 0
}

// receive takes what the kernel holds, up to all slots. An error that only
// says that nobody is at the other end is unix.ECONNREFUSED.
func (s *srtSocket) receive() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.msgs)), srtSlots, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN:
		return 0, unix.ECONNREFUSED
	}
	return 0, errno
}

// datagram returns datagram i of the last receive, or nil for one that is too
// long to be SRT's. release readies its slot again.
func (s *srtSocket) datagram(i int) []byte {
	n := int(s.msgs[i].len)
	if s.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0 || n > len(s.bufs[i]) {
		return nil
	}
	return s.bufs[i][:n]
}

// from tells whether datagram i came from that peer.
func (s *srtSocket) from(i int, p *srtPeer) bool {
	return s.msgs[i].hdr.Namelen == p.nameLen && s.names[i] == p.name
}

// peer returns where datagram i came from.
func (s *srtSocket) peer(i int) srtPeer {
	h := &s.msgs[i].hdr
	p := srtPeer{name: s.names[i], nameLen: h.Namelen}
	if n := int(h.Controllen); n <= len(p.local) && h.Flags&unix.MSG_CTRUNC == 0 {
		p.localLen = copy(p.local[:n], s.controls[i][:n])
		p.clearInterface()
	}
	return p
}

// clearInterface leaves the interface that answers take to the routing table,
// except for link-local addresses, which need it.
func (p *srtPeer) clearInterface() {
	const head = unix.SizeofCmsghdr
	if p.localLen < head {
		p.localLen = 0
		return
	}
	switch h := (*unix.Cmsghdr)(unsafe.Pointer(&p.local[0])); {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && p.localLen >= head+unix.SizeofInet4Pktinfo:
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&p.local[head])).Ifindex = 0
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && p.localLen >= head+unix.SizeofInet6Pktinfo:
		if info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&p.local[head])); !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
			info.Ifindex = 0
		}
	default:
		p.localLen = 0
	}
}

// addr is the peer's address and port.
func (p *srtPeer) addr() netip.AddrPort {
	switch family := *(*uint16)(unsafe.Pointer(&p.name[0])); {
	case family == unix.AF_INET && p.nameLen >= unix.SizeofSockaddrInet4:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.name[0]))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(p.name[2])<<8|uint16(p.name[3]))
	case family == unix.AF_INET6 && p.nameLen >= unix.SizeofSockaddrInet6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&p.name[0]))
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(p.name[2])<<8|uint16(p.name[3]))
	}
	return netip.AddrPort{}
}

// send sends a datagram to a peer, or to whom the socket is connected. SRT
// sends again what does not arrive, so what the kernel refuses is not told.
func (s *srtSocket) send(p []byte, to *srtPeer) {
	if to == nil {
		unix.Write(s.fd, p)
		return
	}
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	h := unix.Msghdr{Name: &to.name[0], Namelen: to.nameLen, Iov: &iov}
	h.SetIovlen(1)
	if to.localLen > 0 {
		h.Control = &to.local[0]
		h.SetControllen(to.localLen)
	}
	unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
}

func (s *srtSocket) close() error { return unix.Close(s.fd) }
