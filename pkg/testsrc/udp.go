package testsrc

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendSlots is how many datagrams one system call sends.
const sendSlots = 64

// udpSender sends datagrams to one address in batches (sendmmsg(2)). The
// socket is not connected, so that a receiver that is not there is no error.
type udpSender struct {
	fd   int
	name []byte // struct sockaddr of the target
	iovs [sendSlots]unix.Iovec
	msgs [sendSlots]struct {
		hdr unix.Msghdr
		len uint32
	}
}

func newUDPSender(u *outputURL) (*udpSender, error) {
	family := unix.AF_INET
	if u.addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	s := &udpSender{fd: fd}
	if err := s.setUp(u, family); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *udpSender) setUp(u *outputURL, family int) error {
	// A burst of 20 ms of 100 Mbit/s; a smaller buffer makes Send wait.
	unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 512<<10)
	unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	name := u.opt.Interface
	if name == "" {
		name = u.addr.Addr().Zone()
	}
	ifindex := 0
	if name != "" {
		i, err := interfaceIndex(name)
		if err != nil {
			return err
		}
		ifindex = i
	}
	s.name = rawSockaddr(u.addr, ifindex)
	if !u.addr.Addr().IsMulticast() {
		return nil
	}
	level, ifOpt, ttlOpt := unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, unix.IPV6_MULTICAST_HOPS
	if family == unix.AF_INET {
		level, ifOpt, ttlOpt = unix.IPPROTO_IP, unix.IP_MULTICAST_IF, unix.IP_MULTICAST_TTL
	}
	ttl := u.opt.TTL
	if ttl == 0 {
		ttl = 1
	}
	if err := unix.SetsockoptInt(s.fd, level, ttlOpt, ttl); err != nil {
		return fmt.Errorf("setting the time to live to %d: %w", ttl, err)
	}
	if ifindex == 0 {
		return nil
	}
	var err error
	if family == unix.AF_INET {
		err = unix.SetsockoptIPMreqn(s.fd, level, ifOpt, &unix.IPMreqn{Ifindex: int32(ifindex)})
	} else {
		err = unix.SetsockoptInt(s.fd, level, ifOpt, ifindex)
	}
	if err != nil {
		return fmt.Errorf("sending on interface %s: %w", name, err)
	}
	return nil
}

// interfaceIndex finds an interface by name or address.
func interfaceIndex(name string) (int, error) {
	if i, err := net.InterfaceByName(name); err == nil {
		return i.Index, nil
	}
	list, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("listing the network interfaces: %w", err)
	}
	want, err := netip.ParseAddr(name)
	for _, i := range list {
		addrs, aerr := i.Addrs()
		if err != nil || aerr != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().WithZone("") == want.Unmap().WithZone("") {
				return i.Index, nil
			}
		}
	}
	return 0, fmt.Errorf("no network interface %q, by name or address", name)
}

// rawSockaddr is an address as a struct sockaddr_in or sockaddr_in6.
func rawSockaddr(a netip.AddrPort, ifindex int) []byte {
	if a.Addr().Is4() {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, unix.AF_INET)
		binary.BigEndian.PutUint16(b[2:], a.Port())
		copy(b[4:], a.Addr().AsSlice())
		return b
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, unix.AF_INET6)
	binary.BigEndian.PutUint16(b[2:], a.Port())
	copy(b[8:], a.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[24:], uint32(ifindex))
	return b
}

// send sends all datagrams.
func (s *udpSender) send(list [][]byte) error {
	for len(list) > 0 {
		n := min(len(list), sendSlots)
		for i, p := range list[:n] {
			s.iovs[i].Base = &p[0]
			s.iovs[i].SetLen(len(p))
			h := &s.msgs[i].hdr
			h.Name, h.Namelen = &s.name[0], uint32(len(s.name))
			h.Iov = &s.iovs[i]
			h.SetIovlen(1)
		}
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msgs)), uintptr(n), 0, 0, 0)
		switch errno {
		case 0:
			list = list[sent:]
		case unix.EINTR, unix.ENOBUFS, unix.EAGAIN:
			// The machine is short of buffers for a moment: try again.
		default:
			return errno
		}
	}
	return nil
}

func (s *udpSender) close() error { return unix.Close(s.fd) }
