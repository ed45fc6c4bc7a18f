package node_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// programs of the test's multiplex.
const programs = 12

// sendMultiplex sends a multiplex of the programs 1 to 12 in real time, each
// datagram with packets of one program alone; drop chooses which are left out.
func sendMultiplex(t *testing.T, to string, lasts time.Duration, drop func(program int, at time.Duration) bool) {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all [programs]*testsrc.Generator
	for k := range all {
		if all[k], err = testsrc.New(testsrc.Options{Duration: lasts, StartPTS: int64(k) * 90000}); err != nil {
			t.Fatal(err)
		}
	}
	tables, began := byte(0), time.Now()
	for {
		for k, g := range all {
			p, at, ok := g.Next()
			if !ok {
				return
			}
			time.Sleep(time.Until(began.Add(at)))
			var out []byte
			for ; len(p) > 0; p = p[188:] {
				pid := binary.BigEndian.Uint16(p[1:]) & 0x1fff
				switch {
				case pid != 0:
					out = append(out, remapped(p[:188], k+1, pid)...)
				case k == 0:
					conn.Write(association(tables))
					tables++
				}
			}
			if len(out) > 0 && !drop(k+1, at) {
				conn.Write(out) // nobody may be there
			}
		}
	}
}

// remapped gives a packet of the test's stream the PIDs of a program: its map
// on 0x100 times its number, pictures on the next PID and sound behind it.
func remapped(packet []byte, program int, pid uint16) []byte {
	p := append([]byte(nil), packet...)
	place := map[uint16]uint16{0x1000: 0, 0x100: 1, 0x101: 2}
	set := func(at int, pid uint16) {
		binary.BigEndian.PutUint16(p[at:], binary.BigEndian.Uint16(p[at:])&0xe000|uint16(program<<8)|place[pid])
	}
	set(1, pid)
	if pid == 0x1000 { // ISO/IEC 13818-1 2.4.4.9
		binary.BigEndian.PutUint16(p[8:], uint16(program))
		set(13, 0x100)
		set(18, 0x100)
		set(23, 0x101)
		end := 8 + int(binary.BigEndian.Uint16(p[6:])&0xfff) - 4
		binary.BigEndian.PutUint32(p[end:], crc32MPEG(p[5:end]))
	}
	return p
}

// association is the packet of the program association table.
func association(counter byte) []byte {
	p := []byte{0x47, 0x40, 0, 0x10 | counter&15, 0, 0, 0xb0, 5 + 4*programs + 4, 0, 1, 0xc1, 0, 0}
	for k := range programs {
		p = append(p, 0, byte(k+1), 0xe0|byte(k+1), 0)
	}
	p = binary.BigEndian.AppendUint32(p, crc32MPEG(p[5:]))
	for len(p) < 188 {
		p = append(p, 0xff)
	}
	return p
}

// crc32MPEG is the CRC of sections (ISO/IEC 13818-1 annex A).
func crc32MPEG(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// sockets is how many UDP sockets of this machine are bound to a port.
func sockets(t *testing.T, port int) int {
	t.Helper()
	n := 0
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				n++
			}
		}
	}
	return n
}

// TestMultiplex records the programs of one multiplex as a stream each, from
// one socket. What one of them loses damages that one alone.
func TestMultiplex(t *testing.T) {
	t.Parallel()
	port, dir := freeUDP(t), keptDir(t, "node")
	var conf strings.Builder
	conf.WriteString("http 127.0.0.1:0;\n")
	for k := range programs {
		in := fmt.Sprintf("udp://127.0.0.1:%d?program=%d", port, k+1)
		if k%2 == 1 { // the same, otherwise said
			in = fmt.Sprintf("udp://127.0.0.1:%d program=%d", port, k+1)
		}
		fmt.Fprintf(&conf, "stream p%d { url %s; dvr %s 1d; segment_duration 1s; }\n", k+1, in, dir)
	}
	n, _, end := inProcess(t, conf.String())
	within(t, 10*time.Second, "the inputs are open", func() bool {
		for k := range programs {
			if stream(n, fmt.Sprintf("p%d", k+1)).Inputs[0].State != "waiting" {
				return false
			}
		}
		return true
	})
	if open := sockets(t, port); open != 1 {
		t.Errorf("%d sockets are open for one multiplex", open)
	}
	const unlucky = 5
	left := 5
	sendMultiplex(t, fmt.Sprintf("127.0.0.1:%d", port), 10*time.Second, func(program int, at time.Duration) bool {
		if program != unlucky || at < 5*time.Second || left == 0 {
			return false
		}
		left--
		return true
	})
	st := stream(n, "p1").Inputs[0]
	for k := range programs {
		name := fmt.Sprintf("p%d", k+1)
		within(t, 20*time.Second, "the last datagram has come", func() bool { return stream(n, name).Inputs[0].Datagrams >= st.Datagrams })
		in := stream(n, name).Inputs[0]
		if in.Program != uint16(k+1) || (in.Lost > 0) != (k+1 == unlucky) && in.Dropped == 0 {
			t.Errorf("%s: program %d, %d packets lost", name, in.Program, in.Lost)
		}
	}
	end()
	if open := sockets(t, port); open != 0 {
		t.Errorf("%d sockets are open after the end", open)
	}
	for k := range programs {
		a, err := archive.Open(filepath.Join(dir, fmt.Sprintf("p%d", k+1)))
		if err != nil {
			t.Fatal(err)
		}
		els, err := a.Span(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		damaged, whole := 0, 0
		for _, e := range els {
			switch {
			case e.Damaged():
				damaged++
			case e.Clean():
				whole++
			}
		}
		if st.Dropped > 0 {
			t.Skipf("the kernel dropped %d datagrams: 12 archives not judged", st.Dropped)
		}
		if (damaged > 0) != (k+1 == unlucky) || whole < 1 || whole < 2 && damaged == 0 {
			t.Errorf("program %d: %d segments, %d whole and clean, %d damaged", k+1, len(els), whole, damaged)
		}
	}
}
