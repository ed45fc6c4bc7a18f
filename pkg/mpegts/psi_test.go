package mpegts_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestProgram(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 0, 0x10, 7, 0x1007, 3, 0x1003))
	lang := []byte{0x0a, 4, 'd', 'e', 'u', 0}
	m.section(0x1007, pmt(7, 0, es{0x700, 0x1b, nil}))
	m.section(0x1003, pmt(3, 0,
		es{0x304, 0x06, []byte{0x6a, 1, 0}}, es{0x303, 0x0f, lang}, es{0x302, 0x24, nil}, es{0x301, 0x02, nil},
		es{0x305, 0x06, []byte{0x05, 4, 'E', 'A', 'C', '3'}}, es{0x306, 0x06, []byte{0x56, 5, 'e', 'n', 'g', 9, 0}},
		es{0x307, 0x86, nil}, es{0x303, 0x1b, nil}, es{0x308, 0x81, nil}))
	f, _ := demux(0, m.out, nil)
	if len(f.programs) != 1 || f.programs[0].Number != 3 {
		t.Fatalf("programs %v", f.programs)
	}
	var pids []uint16
	var codecs []m4f.Codec
	for _, tr := range f.programs[0].Tracks {
		pids, codecs = append(pids, tr.PID), append(codecs, tr.Codec)
	}
	if !slices.Equal(pids, []uint16{0x301, 0x302, 0x303, 0x304, 0x305, 0x306, 0x307, 0x308}) {
		t.Errorf("tracks %x: want video first, then by PID, each PID once", pids)
	}
	if want := []m4f.Codec{m4f.CodecMPEG2Video, m4f.CodecHEVC, m4f.CodecAAC, m4f.CodecAC3, m4f.CodecEAC3, m4f.CodecData, m4f.CodecSections, m4f.CodecAC3}; !slices.Equal(codecs, want) {
		t.Errorf("codecs %v, want %v", codecs, want)
	}
	if f.programs[0].Leading().PID != 0x301 || !bytes.Equal(f.programs[0].Tracks[2].Descriptors, lang) {
		t.Errorf("leading track %x, descriptors %x", f.programs[0].Leading().PID, f.programs[0].Tracks[2].Descriptors)
	}
	if f, _ := demux(7, m.out, nil); len(f.programs) != 1 || f.programs[0].Number != 7 {
		t.Errorf("program 7: %v", f.programs)
	}
	if f, _ := demux(8, m.out, nil); len(f.programs) != 0 {
		t.Errorf("program 8: %v", f.programs)
	}
}

// A program association table of several sections is one table: the lowest
// program may be in any of them.
func TestPATOfSections(t *testing.T) {
	m := &mux{}
	for range 3 {
		m.section(0, patPart(0, 0, 1, 9, 0x1009))
		m.section(0x1009, pmt(9, 0, es{0x900, 0x1b, nil}))
		m.section(0, patPart(0, 1, 1, 4, 0x1004))
		m.section(0x1004, pmt(4, 0, es{0x400, 0x1b, nil}))
	}
	f, st := demux(0, m.out, nil)
	if len(f.programs) != 1 || f.programs[0].Number != 4 || len(f.losses) != 0 || st.BadTables != 0 {
		t.Errorf("%v, %+v", f.log, st)
	}
}

// A map that is not yet in force, or of another program on the same PID, is not
// taken; nor does it make the one in force new.
func TestMapsOfOthers(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000, 2, 0x1000))
	next := pmt(1, 1, es{0x200, 0x1b, nil})
	next[5] &^= 1
	c := crc(next[:len(next)-4])
	copy(next[len(next)-4:], []byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)})
	for range 3 {
		m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
		m.section(0x1000, next)
		m.section(0x1000, pmt(2, 0, es{0x300, 0x1b, nil}))
	}
	if f, _ := demux(0, m.out, nil); len(f.programs) != 1 || f.programs[0].Tracks[0].PID != 0x100 {
		t.Errorf("%v", f.log)
	}
}

// A table whose CRC does not hold is believed when it comes twice unchanged; the
// very first is used at once, in doubt.
func TestBadCRC(t *testing.T) {
	good, bad := pmt(1, 0, es{0x100, 0x1b, nil}), pmt(1, 1, es{0x100, 0x1b, nil}, es{0x101, 0x0f, nil})
	bad[len(bad)-1] ^= 1
	worse := bytes.Clone(bad)
	worse[len(worse)-2] ^= 1
	for _, c := range []struct {
		name string
		maps [][]byte
		want int
	}{
		{"once", [][]byte{good, bad, good}, 1},
		{"twice", [][]byte{good, bad, bad}, 2},
		{"twice, apart", [][]byte{good, bad, good, bad, good}, 1},
		{"two of them", [][]byte{good, bad, worse, bad, worse}, 1},
		{"from the start", [][]byte{bad, bad, bad}, 2}, // in doubt, then believed
		{"the first one only", [][]byte{bad, good, good}, 2},
	} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		for _, s := range c.maps {
			m.section(0x1000, s)
		}
		if f, _ := demux(0, m.out, nil); len(f.programs) != c.want {
			t.Errorf("%s: %d maps taken, want %d", c.name, len(f.programs), c.want)
		}
	}
}

// Lengths that lie cost the table, and nothing else.
func TestLyingLengths(t *testing.T) {
	fix := func(s []byte) []byte {
		c := crc(s[:len(s)-4])
		return append(s[:len(s)-4], byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
	}
	good := pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, 0x0f, []byte{0x0a, 4, 'd', 'e', 'u', 0}})
	for at := range good {
		for _, v := range []byte{0, 1, 0x0f, 0x7f, 0xf0, 0xff} {
			bad := bytes.Clone(good)
			bad[at] = v
			m := &mux{}
			m.section(0, pat(0, 1, 0x1000))
			m.section(0x1000, fix(bad))
			m.section(0x1000, pmt(1, 5, es{0x102, 0x1b, nil}))
			m.section(0x1000, pmt(1, 6, es{0x103, 0x1b, nil}))
			f, _ := demux(0, m.out, nil)
			if n := len(f.programs); n < 1 || f.programs[n-1].Tracks[0].PID != 0x103 {
				t.Errorf("byte %d = %#x: the maps behind are not taken: %v", at, v, f.log)
			}
		}
	}
}

// Descriptors that make no sense to the library do not cost the stream.
func TestBadDescriptors(t *testing.T) {
	for tag := range 256 {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, []byte{byte(tag), 1, 0xff}}, es{0x101, 0x0f, []byte{byte(tag), 0}}))
		if f, _ := demux(0, m.out, nil); len(f.programs) != 1 || len(f.programs[0].Tracks) != 2 {
			t.Errorf("descriptor %#x: %v", tag, f.log)
		}
	}
}

// A section may go on over packets, and share one with the next.
func TestSectionsAcrossPackets(t *testing.T) {
	var streams []es
	for k := range 60 {
		streams = append(streams, es{0x100 + k, 0x0f, []byte{0x0a, 4, 'd', 'e', 'u', 0}})
	}
	big, little := pmt(1, 0, streams...), pmt(2, 0, es{0x1ff, 0x1b, nil})
	for _, most := range []int{184, 50, 10} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000, 2, 0x1000))
		m.packets(0x1000, slices.Concat([]byte{0}, little, big, little), most)
		if f, _ := demux(1, m.out, nil); len(f.programs) != 1 || len(f.programs[0].Tracks) != 60 {
			t.Errorf("in packets of %d: %v", most, f.log)
		}
	}
}

// A multiplexer that never counts the packets of its tables is believed.
func TestTablesWithoutCounter(t *testing.T) {
	m := &mux{}
	for version := range 3 {
		for range 4 {
			m.cc[0], m.cc[0x1000] = 0, 0
			m.section(0, pat(0, 1, 0x1000))
			m.section(0x1000, pmt(1, version, es{0x100 + version, 0x1b, nil}))
		}
	}
	if f, _ := demux(0, m.out, nil); len(f.programs) != 3 || f.programs[2].Tracks[0].PID != 0x102 {
		t.Errorf("%v", f.log)
	}
}

// A gap before a changed map is told with it.
func TestMapAfterLoss(t *testing.T) {
	for _, lose := range []bool{false, true} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
		if lose {
			m.cc[0x1000] += 2
		}
		m.section(0x1000, pmt(1, 1, es{0x100, 0x1b, nil}))
		want := []string{"program 1 at 1 false", "program 1 at 2 false"}
		if lose {
			want = []string{"program 1 at 1 false", "loss 2 0 0", "program 1 at 2 true"}
		}
		if f, _ := demux(0, m.out, nil); !slices.Equal(f.log, want) {
			t.Errorf("%q, want %q", f.log, want)
		}
	}
}
