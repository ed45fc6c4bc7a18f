package mpegts

import (
	"bytes"
	"testing"
)

// FuzzPES wants the header of a PES packet to mean the same wherever its bytes
// were cut, and to stay inside them.
func FuzzPES(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0, 1, 0, 1, 0x11, 0, 1, 0, 1, 9})
	f.Add([]byte{0, 0, 1, 0xc0, 0, 20, 0x84, 0x80, 5, 0x21, 0, 1, 0, 1})
	f.Add([]byte{0, 0, 1, 0xbd, 0, 3, 0x80, 0x80, 5})
	f.Add([]byte{0, 0, 1, 0xbe, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, state := parsePES(b)
		if state == pesGood {
			if whole.size < 6 || whole.size > len(b) {
				t.Fatalf("header of %d bytes in %d", whole.size, len(b))
			}
			if whole.dated && (whole.pts|whole.dts)>>33 != 0 {
				t.Fatalf("times %d and %d have more than 33 bits", whole.pts, whole.dts)
			}
			if n := whole.payload(); n < -1 || n > 0xffff {
				t.Fatalf("payload of %d bytes", n)
			}
		}
		for n := range min(len(b), 300) {
			h, s := parsePES(b[:n])
			switch {
			case s == pesShort:
			case s != state && !(s == pesBad || state == pesShort):
				t.Fatalf("state %d of the first %d bytes, %d of all", s, n, state)
			case s == pesGood && h != whole:
				t.Fatalf("%+v of the first %d bytes, %+v of all", h, n, whole)
			case s == pesBad && state != pesBad:
				t.Fatalf("bad in its first %d bytes, then good", n)
			}
		}
	})
}

// FuzzPSI wants tables of any bytes to do no harm: what is taken of a program
// map lies inside its section, each PID once, and comes out the same whichever
// way the section was cut into packets.
func FuzzPSI(f *testing.F) {
	pmt := withCRC([]byte{2, 0xb0, 32, 0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0,
		0x1b, 0xe1, 0, 0xf0, 0, 0x06, 0xe1, 1, 0xf0, 9, 0x0a, 4, 'd', 'e', 'u', 0, 0x6a, 1, 0})
	f.Add(pmt, uint8(20))
	f.Add(withCRC([]byte{0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe1, 0x00}), uint8(183))
	f.Add(withCRC([]byte{2, 0xb0, 0x3f, 0, 1, 0xc1, 0, 0, 0xff, 0xff, 0xf0, 5, 5, 4, 'C', 'U', 'E', 'I',
		0x86, 0xe1, 2, 0xf0, 3, 0x8a, 1, 1, 0x11, 0xe1, 1, 0xf0, 2, 0x7c, 0}), uint8(3))
	f.Fuzz(func(t *testing.T, sec []byte, cut uint8) {
		if len(sec) > maxSection {
			return
		}
		if p, err := parsePMT(0x100, sec); err == nil {
			checkProgram(t, p, sec)
		}
		if len(sec) >= 12 && sec[0] == tablePAT {
			if m, err := parsePAT([][]byte{sec}); err == nil {
				for n, pid := range m {
					if n == 0 || pid > 0x1fff {
						t.Fatalf("program %d on PID %#x", n, pid)
					}
				}
			}
		}
		// A section that begins a packet is announced there: behind a cut at
		// the end of one the rest is not read.
		one, two := cutSections(sec, len(sec)+1), cutSections(sec, int(cut)+1)
		if len(one) > 0 && len(two) == 0 || len(two) > len(one) {
			t.Fatalf("%x in one packet is %x, in packets of %d bytes %x", sec, one, int(cut)+1, two)
		}
		for k := range two {
			if !bytes.Equal(one[k], two[k]) {
				t.Fatalf("%x in one packet is %x, in packets of %d bytes %x", sec, one, int(cut)+1, two)
			}
		}
	})
}

// cutSections hands a payload to the assembler in pieces of n bytes.
func cutSections(b []byte, n int) (out [][]byte) {
	var s sections
	take := func(sec []byte, _ bool) { out = append(out, bytes.Clone(sec)) }
	s.write(append([]byte{0}, b[:min(n, len(b))]...), true, take)
	for b = b[min(n, len(b)):]; len(b) > 0; b = b[min(n, len(b)):] {
		s.write(b[:min(n, len(b))], false, take)
	}
	return out
}

func checkProgram(t *testing.T, p *Program, sec []byte) {
	seen := map[uint16]bool{}
	total := len(p.Descriptors)
	for _, tr := range p.Tracks {
		if tr.PID > 0x1fff || seen[tr.PID] {
			t.Fatalf("PID %#x twice or too large", tr.PID)
		}
		seen[tr.PID] = true
		total += 5 + len(tr.Descriptors)
		if !tr.Codec.Valid() || kindOfCodec(tr.Codec) != tr.Kind {
			t.Fatalf("codec %v of kind %d", tr.Codec, tr.Kind)
		}
	}
	if total > len(sec)-16 {
		t.Fatalf("tracks of %d bytes in a section of %d", total, len(sec))
	}
}
