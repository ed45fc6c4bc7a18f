package ingest

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// multiplex returns a transport stream of programs 1 to n, as datagrams of
// seven packets: program k has its map on PID 0x100*k, pictures on the next
// PID and sound on the one after that, begins a second after the one before,
// and has other times.
func multiplex(t testing.TB, n int, d time.Duration) [][]byte {
	t.Helper()
	var programs []*testsrc.Generator
	for k := range n {
		g, err := testsrc.New(testsrc.Options{StartPTS: int64(k) * 1000 * 90000, Duration: d})
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, g)
	}
	var out [][]byte
	var rest []byte
	add := func(p []byte) {
		if rest = append(rest, p...); len(rest) == 7*188 {
			out = append(out, rest)
			rest = nil
		}
	}
	tables := byte(0)
	for open := n; open > 0; {
		open = 0
		for k, g := range programs {
			p, _, ok := g.Next()
			if !ok {
				continue
			}
			open++
			for ; len(p) > 0; p = p[188:] {
				pid := binary.BigEndian.Uint16(p[1:]) & 0x1fff
				if pid == 0 {
					if k == 0 {
						add(programTable(n, tables))
						tables++
					}
					continue
				}
				add(remap(p[:188], k+1, pid))
			}
		}
	}
	return append(out, rest)
}

// programPID is the PID that PID of a test stream gets in program k.
func programPID(k int, pid uint16) uint16 {
	switch pid {
	case 0x1000:
		return uint16(k << 8)
	case 0x100:
		return uint16(k<<8 + 1)
	case 0x101:
		return uint16(k<<8 + 2)
	}
	panic(fmt.Sprintf("PID %#x", pid))
}

// remap gives a packet the PIDs of program k.
func remap(p []byte, k int, pid uint16) []byte {
	p = append([]byte(nil), p...)
	set := func(at int, pid uint16) {
		binary.BigEndian.PutUint16(p[at:], binary.BigEndian.Uint16(p[at:])&0xe000|pid)
	}
	set(1, programPID(k, pid))
	if pid == 0x1000 {
		end := 5 + 3 + int(binary.BigEndian.Uint16(p[6:])&0xfff) - 4
		binary.BigEndian.PutUint16(p[8:], uint16(k))
		set(13, programPID(k, 0x100))
		set(18, programPID(k, 0x100))
		set(23, programPID(k, 0x101))
		binary.BigEndian.PutUint32(p[end:], sectionCRC(p[5:end]))
	}
	return p
}

// programTable is the packet of the association of n programs.
func programTable(n int, counter byte) []byte {
	p := []byte{0x47, 0x40, 0, 0x10 | counter&15, 0, 0, 0xb0, byte(5 + 4*n + 4), 0, 1, 0xc1, 0, 0}
	for k := 1; k <= n; k++ {
		p = append(p, 0, byte(k), 0xe0|byte(k), 0)
	}
	p = binary.BigEndian.AppendUint32(p, sectionCRC(p[5:]))
	for len(p) < 188 {
		p = append(p, 0xff)
	}
	return p
}

// sectionCRC is the CRC of sections (ISO/IEC 13818-1 annex A).
func sectionCRC(b []byte) uint32 {
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

// programSegments are the segments that a program of a stream gives.
func programSegments(program uint16, datagrams [][]byte) []string {
	r := new(recording)
	seg := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second), Program: program}, r.take)
	for _, d := range datagrams {
		seg.Write(d)
	}
	seg.Close()
	return r.segments
}
