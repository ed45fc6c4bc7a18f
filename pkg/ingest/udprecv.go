package ingest

import (
	"encoding/binary"
	"log/slog"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slots is how many datagrams one system call takes: 80 ms of 8 Mbit/s. A
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
	got      int           // datagrams of the last system call
	next     int           // of them, the first not delivered
	dropped  uint32        // the kernel's running count, modulo 2^32
	empty    time.Time     // a moment not after which the socket was empty last
	taken    unix.Timespec // when the last system call was over, by the kernel's clock
	most     time.Duration // before that: longer no datagram of it has waited
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// control is the ancillary data of a datagram: SO_TIMESTAMPNS and SO_RXQ_OVFL, in
// the kernel's layout and order.
type control struct {
	_ [0]uint64 // as the kernel aligns
	b [64]byte
}

// newReceiver opens the socket that u describes. It returns, too, the bytes of
// buffer that the kernel granted.
func newReceiver(u *udpAddr, log *slog.Logger) (*receiver, int, error) {
	fd, buffer, err := listenUDP(u, log)
	if err != nil {
		return nil, 0, err
	}
	r := &receiver{fd: fd, empty: time.Now()}
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
	m.hdr.Control = &r.controls[i].b[0]
	m.hdr.SetControllen(len(r.controls[i].b))
	m.hdr.Flags = 0
	r.controls[i] = control{}
}

// receive takes what the kernel holds, up to all slots: got datagrams, of so
// many bytes. Those of the call before are gone.
func (r *receiver) receive() (bytes int, err error) {
	for i := range r.got {
		r.prepare(i)
	}
	r.got, r.next, r.most = 0, 0, 0
	began := time.Now()
	// It never waits, so that the runtime need not hear of it: that would have
	// another thread take over whenever it takes more than 20 µs.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.msgs)), slots, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		r.got = int(n)
	case unix.EAGAIN:
		r.empty = began
		return 0, nil
	case unix.EINTR:
		return 0, nil
	default:
		return 0, errno
	}
	if r.most = time.Since(r.empty); r.most >= tolerated && unix.ClockGettime(unix.CLOCK_REALTIME, &r.taken) != nil {
		r.most = 0
	}
	if r.got < slots {
		r.empty = began
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
	b := r.ancillary(i, unix.SO_RXQ_OVFL)
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b) - r.dropped
}

// tolerated is for how long a datagram may wait in the socket and count as just
// come: a receiver naps.
const tolerated = 200 * time.Millisecond

// waited is for how long datagram i had been in the socket when it was taken: the
// process may have stood still, or had no time. Up to what is tolerated it is 0,
// and it is never more than since the socket was empty, whatever has become of
// the clock.
func (r *receiver) waited(i int) time.Duration {
	if r.most < tolerated {
		return 0
	}
	var came unix.Timespec
	b := r.ancillary(i, unix.SO_TIMESTAMPNS)
	if len(b) < int(unsafe.Sizeof(came)) {
		return 0
	}
	came = *(*unix.Timespec)(unsafe.Pointer(&b[0]))
	d := min(time.Duration(r.taken.Nano()-came.Nano()), r.most)
	if d < tolerated {
		return 0
	}
	return d
}

// ancillary returns the data of a kind (SOL_SOCKET) that came with datagram i, or
// nil.
func (r *receiver) ancillary(i int, kind int32) []byte {
	b := r.controls[i].b[:min(uint64(r.msgs[i].hdr.Controllen), uint64(len(r.controls[i].b)))]
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return nil
		}
		if h.Level == unix.SOL_SOCKET && h.Type == kind {
			return b[unix.CmsgLen(0):n]
		}
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
	return nil
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
