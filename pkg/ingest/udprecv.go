package ingest

import (
	"log/slog"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slots is how many datagrams one system call takes: 40 ms of 16 Mbit/s. A
// faster stream takes several calls, one after the other.
const slots = 64

// receiver takes datagrams from a UDP socket in batches (recvmmsg(2)).
//
// The socket is kept away from the runtime's poller, which would wake up for
// every datagram of every socket.
type receiver struct {
	fd       int
	region   *region
	msgs     [slots]mmsghdr
	iovs     [slots]unix.Iovec
	controls [slots]control
	got      int    // datagrams of the last system call
	next     int    // of them, the first not delivered
	dropped  uint32 // the kernel's running count, modulo 2^32
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// control is the ancillary data of a datagram: SO_RXQ_OVFL, alone.
type control struct {
	hdr     unix.Cmsghdr
	dropped uint32
	_       uint32
}

// newReceiver opens the socket that u describes. It returns, too, the bytes of
// buffer that the kernel granted.
func newReceiver(u *udpAddr, log *slog.Logger) (*receiver, int, error) {
	fd, buffer, err := listenUDP(u, log)
	if err != nil {
		return nil, 0, err
	}
	r := &receiver{fd: fd}
	if r.region, err = takeRegion(); err != nil {
		unix.Close(fd)
		return nil, 0, err
	}
	for i := range r.msgs {
		r.prepare(i)
	}
	return r, buffer, nil
}

// prepare readies slot i for the next system call, which overwrites parts.
func (r *receiver) prepare(i int) {
	m := &r.msgs[i]
	r.iovs[i].Base = &r.region.slot(i)[0]
	r.iovs[i].SetLen(slotSize)
	m.hdr.Iov = &r.iovs[i]
	m.hdr.SetIovlen(1)
	m.hdr.Control = (*byte)(unsafe.Pointer(&r.controls[i]))
	m.hdr.SetControllen(int(unsafe.Sizeof(control{})))
	m.hdr.Flags = 0
	r.controls[i] = control{}
}

// receive takes what the kernel holds, up to all slots: got datagrams, of so
// many bytes. Those of the call before are gone.
func (r *receiver) receive() (bytes int, err error) {
	for i := range r.got {
		r.prepare(i)
	}
	r.got, r.next = 0, 0
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.msgs)), slots, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		r.got = int(n)
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	default:
		return 0, errno
	}
	for i := range r.got {
		bytes += int(r.msgs[i].len)
	}
	return bytes, nil
}

// datagram returns datagram i of the last system call.
func (r *receiver) datagram(i int) []byte {
	n := r.msgs[i].len
	return r.region.slot(i)[:n:n]
}

// truncated says whether datagram i was longer than its slot.
func (r *receiver) truncated(i int) bool { return r.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0 }

// lostBefore is how many datagrams the kernel dropped just before datagram i.
// It tells its running count only once that is above zero.
func (r *receiver) lostBefore(i int) uint32 {
	c := &r.controls[i]
	if r.msgs[i].hdr.Controllen == 0 || c.hdr.Level != unix.SOL_SOCKET || c.hdr.Type != unix.SO_RXQ_OVFL {
		return 0
	}
	return c.dropped - r.dropped
}

// renew receives into other memory from now on and returns what it used so
// far: somebody goes on reading the datagrams that were delivered of it.
func (r *receiver) renew() (*region, error) {
	fresh, err := takeRegion()
	if err != nil {
		return nil, err
	}
	for i := r.next; i < r.got; i++ {
		copy(fresh.slot(i), r.datagram(i))
	}
	old := r.region
	r.region = fresh
	for i := range r.iovs {
		r.iovs[i].Base = &fresh.slot(i)[0]
	}
	return old, nil
}

// close closes the socket. What it has delivered is gone.
func (r *receiver) close() error {
	if r.fd < 0 {
		return nil
	}
	err := unix.Close(r.fd)
	r.fd, r.got, r.next = -1, 0, 0
	r.region.give()
	r.region = nil
	return err
}
