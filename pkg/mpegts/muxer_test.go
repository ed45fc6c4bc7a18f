package mpegts_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// unmuxed is what a stream carries, by PID, with nothing read of what it means.
type unmuxed struct {
	units   map[uint16][][]byte
	random  map[uint16][]bool
	clocks  []int64 // of 27 MHz
	jumps   int
	packets int
}

// unmux takes packets apart and wants them to be well-formed.
func unmux(t interface {
	Helper()
	Fatalf(string, ...any)
}, ts []byte) *unmuxed {
	t.Helper()
	u := &unmuxed{units: map[uint16][][]byte{}, random: map[uint16][]bool{}}
	if len(ts)%mpegts.PacketSize != 0 {
		t.Fatalf("%d bytes", len(ts))
	}
	last := map[uint16]byte{}
	for ; len(ts) > 0; ts = ts[mpegts.PacketSize:] {
		p := ts[:mpegts.PacketSize]
		u.packets++
		pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
		if p[0] != 0x47 || p[3]&0xc0 != 0 || p[3]&0x30 == 0 {
			t.Fatalf("packet %d: header %x", u.packets, p[:4])
		}
		off, flags := 4, byte(0)
		if p[3]&0x20 != 0 {
			off += 1 + int(p[4])
			if p[3]&0x10 == 0 && p[4] != 183 || p[3]&0x10 != 0 && p[4] > 182 {
				t.Fatalf("packet %d: adaptation field of %d bytes", u.packets, p[4])
			}
			if p[4] > 0 {
				flags = p[5]
			}
		}
		if flags&0x10 != 0 {
			base := int64(p[6])<<25 | int64(p[7])<<17 | int64(p[8])<<9 | int64(p[9])<<1 | int64(p[10]>>7)
			u.clocks = append(u.clocks, base*300+int64(p[10]&1)<<8+int64(p[11]))
		}
		if flags&0x80 != 0 {
			u.jumps++
		}
		if p[3]&0x10 == 0 {
			continue
		}
		if cc, ok := last[pid]; ok && p[3]&15 != (cc+1)&15 {
			t.Fatalf("packet %d: counter %d follows %d on PID %d", u.packets, p[3]&15, cc, pid)
		}
		last[pid] = p[3] & 15
		if p[1]&0x40 != 0 {
			u.units[pid] = append(u.units[pid], nil)
			u.random[pid] = append(u.random[pid], flags&0x40 != 0)
		}
		n := len(u.units[pid]) - 1
		if n < 0 {
			t.Fatalf("packet %d: PID %d goes on with nothing", u.packets, pid)
		}
		u.units[pid][n] = append(u.units[pid][n], p[off:]...)
	}
	return u
}

// muxed is what a Muxer was given.
type muxed struct {
	units map[uint16][]*mpegts.MuxUnit
	out   bytes.Buffer
}

// Write refuses more than a few seconds of clock references around each unit and
// map: a long pause is a jump.
func (m *muxed) Write(b []byte) (int, error) {
	if m.out.Len() > 32<<20 {
		return 0, errors.New("32 MiB for 3 MB of units")
	}
	return m.out.Write(b)
}

// compare wants every unit to have come out whole and in order.
func (m *muxed) compare(t *rapid.T) {
	got := unmux(t, m.out.Bytes())
	for pid, units := range m.units {
		if len(got.units[pid]) != len(units) {
			t.Fatalf("PID %d: %d units of %d", pid, len(got.units[pid]), len(units))
		}
		for k, u := range units {
			b := got.units[pid][k]
			if got.random[pid][k] != u.Key {
				t.Fatalf("PID %d: unit %d: random access %v, want %v", pid, k, got.random[pid][k], u.Key)
			}
			if u.Section {
				if b[0] != 0 || len(bytes.TrimRight(b[1+len(u.Data):], "\xff")) > 0 {
					t.Fatalf("PID %d: unit %d is no section behind a pointer and ahead of stuffing", pid, k)
				}
				b = b[1 : 1+len(u.Data)]
			}
			if !bytes.Equal(b, u.Data) {
				t.Fatalf("PID %d: unit %d differs", pid, k)
			}
		}
	}
}

var muxTracks = []mpegts.Track{
	{PID: 0x100, StreamType: 0x1b, Codec: m4f.CodecH264},
	{PID: 0x101, StreamType: 0x0f, Codec: m4f.CodecAAC},
	{PID: 0x102, StreamType: 0x86, Codec: m4f.CodecSections},
	{PID: 0x103, StreamType: 0x06, Codec: m4f.CodecData},
}

// TestMuxerKeepsUnits: whatever comes when and dated as it may be, all of it goes
// out, each unit whole and those of a PID in order.
func TestMuxerKeepsUnits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &muxed{units: map[uint16][]*mpegts.MuxUnit{}}
		mux := mpegts.NewMuxer(m, 0x1000)
		now := rapid.Int64Range(-1<<34, 1<<34).Draw(t, "start")
		for range rapid.IntRange(1, 4).Draw(t, "maps") {
			n := rapid.IntRange(1, len(muxTracks)).Draw(t, "tracks")
			first := rapid.IntRange(0, len(muxTracks)-n).Draw(t, "first")
			p := mpegts.NewProgram(1, rapid.SampledFrom([]uint16{0x100, 0x101, 0x102, 0x1234, 0x1fff}).Draw(t, "pcr"), append([]mpegts.Track(nil), muxTracks[first:first+n]...))
			if err := mux.SetProgram(p); err != nil {
				t.Fatal(err)
			}
			for _, tr := range p.Tracks {
				if rapid.Bool().Draw(t, "bounded") {
					mux.SetModel(tr.PID, mpegts.BufferModel{Size: rapid.IntRange(0, 20000).Draw(t, "size"), Rate: rapid.IntRange(0, 2000000).Draw(t, "rate")})
				}
				at := now
				for range rapid.IntRange(0, 30).Draw(t, "units") {
					at += rapid.SampledFrom([]int64{0, 0, 1, 3600, 3600, 3600, 90000, -400000, 1 << 31}).Draw(t, "step")
					u := &mpegts.MuxUnit{PID: tr.PID, Last: at, Data: bytes.Repeat([]byte{byte(at)}, rapid.IntRange(1, 3000).Draw(t, "bytes")),
						Section: tr.Codec == m4f.CodecSections, Pinned: tr.Codec.IsData() && rapid.Bool().Draw(t, "pinned"), Key: tr.Codec == m4f.CodecH264 && rapid.Bool().Draw(t, "key")}
					u.Marks = []mpegts.Mark{{End: len(u.Data), Due: at}}
					m.units[tr.PID] = append(m.units[tr.PID], u)
					mux.Write(u)
				}
			}
			switch rapid.IntRange(0, 3).Draw(t, "then") {
			case 0:
				if err := mux.Drain(); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := mux.Advance(now + 2*90000); err != nil {
					t.Fatal(err)
				}
			}
			now += rapid.SampledFrom([]int64{0, 90000, 1 << 33, -1 << 20}).Draw(t, "jump")
		}
		if err := mux.Drain(); err != nil {
			t.Fatal(err)
		}
		m.compare(t)
	})
}

// TestMuxerSaysWhatFails: maps that cannot be written, and a writer that fails.
func TestMuxerSaysWhatFails(t *testing.T) {
	mux := mpegts.NewMuxer(&bytes.Buffer{}, 0x1000)
	large := make([]byte, 600)
	for _, p := range []*mpegts.Program{
		mpegts.NewProgram(0, 0x100, []mpegts.Track{muxTracks[0]}),
		{Number: 1, PCRPID: 0x100, Descriptors: make([]byte, 1024), Tracks: muxTracks[:1]},
		{Number: 1, PCRPID: 0x100, Descriptors: large, Tracks: []mpegts.Track{{PID: 0x100, Descriptors: large}}},
		{Number: 1, PCRPID: 0x100, Tracks: []mpegts.Track{{PID: 0x100, Descriptors: make([]byte, 1024)}}},
	} {
		if mux.SetProgram(p) == nil {
			t.Errorf("a map of program %d with %d bytes of descriptors was taken", p.Number, len(p.Descriptors))
		}
	}
	want := errors.New("full")
	mux = mpegts.NewMuxer(failing{want}, 0x1000)
	if err := mux.SetProgram(mpegts.NewProgram(1, 0x100, append([]mpegts.Track(nil), muxTracks...))); err != nil {
		t.Fatal(err)
	}
	for k := range int64(100) {
		mux.Write(&mpegts.MuxUnit{PID: 0x100, Data: make([]byte, 1000), Last: k * 3600, Marks: []mpegts.Mark{{End: 1000, Due: k * 3600}}})
	}
	if err := mux.Drain(); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestMuxerPins: data without a time stands behind the leading unit that it is
// pinned to and ahead of the next, however small those are.
func TestMuxerPins(t *testing.T) {
	for _, lead := range []mpegts.Track{muxTracks[0], muxTracks[1]} {
		var out bytes.Buffer
		mux := mpegts.NewMuxer(&out, 0x1000)
		if err := mux.SetProgram(mpegts.NewProgram(1, lead.PID, []mpegts.Track{lead, muxTracks[2], muxTracks[3]})); err != nil {
			t.Fatal(err)
		}
		unit := func(pid uint16, n int64, size int, pinned bool) {
			b := bytes.Repeat([]byte{byte(n)}, size)
			at := 90000 + n*900
			mux.Write(&mpegts.MuxUnit{PID: pid, Data: b, Last: at, Pinned: pinned, Section: pid == 0x102, Marks: []mpegts.Mark{{End: size, Due: at}}})
		}
		for n := range int64(200) {
			unit(lead.PID, n, 150+int(n%3)*150, false)
			for range n % 7 {
				unit(0x102, n, 300, true)
			}
			if n%5 == 0 {
				unit(0x103, n, 1000, true)
			}
		}
		if err := mux.Drain(); err != nil {
			t.Fatal(err)
		}
		// What a receiver knows: of a picture by its first packet, of sound when
		// all of it is there.
		now, seen, left, first := -1, 0, 0, map[uint16]byte{}
		for ts := out.Bytes(); len(ts) > 0; ts = ts[mpegts.PacketSize:] {
			p := ts[:mpegts.PacketSize]
			pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
			if p[3]&0x10 == 0 || pid == 0 || pid == 0x1000 {
				continue
			}
			off := 4
			if p[3]&0x20 != 0 {
				off += 1 + int(p[4])
			}
			b := p[off:]
			start := p[1]&0x40 != 0
			if start && pid == 0x102 {
				b = b[1:]
			}
			if pid != lead.PID {
				if start {
					first[pid] = b[0]
				}
				if int(first[pid]) != now {
					t.Fatalf("%s: a unit of PID %#x that is pinned to number %d is behind number %d", lead.Codec, pid, first[pid], now)
				}
				seen++
				continue
			}
			if start {
				left = 150 + int(b[0])%3*150
			}
			left -= len(b)
			if lead.Codec.IsVideo() && start || lead.Codec.IsAudio() && left == 0 {
				now = int(b[0])
			}
		}
		if seen < 1000 {
			t.Errorf("%s: %d packets of data", lead.Codec, seen)
		}
	}
}

// TestMuxerChangesMaps: a map comes ahead of the leading unit that brings it, of
// everything that it adds, and behind what it takes away.
func TestMuxerChangesMaps(t *testing.T) {
	var out bytes.Buffer
	mux := mpegts.NewMuxer(&out, 0x1000)
	write := func(p *mpegts.Program, from int64) {
		if err := mux.SetProgram(p); err != nil {
			t.Fatal(err)
		}
		for _, tr := range p.Tracks {
			for n := from; n < from+100; n++ {
				at := 90000 + n*3600
				b := append([]byte{byte(n / 100)}, make([]byte, 999)...)
				mux.Write(&mpegts.MuxUnit{PID: tr.PID, Data: b, Last: at, Section: tr.PID == 0x102, Marks: []mpegts.Mark{{End: len(b), Due: at}}})
			}
		}
		if err := mux.Advance(90000 + (from+75)*3600); err != nil {
			t.Fatal(err)
		}
	}
	program := func(tracks ...int) *mpegts.Program {
		var list []mpegts.Track
		for _, k := range tracks {
			list = append(list, muxTracks[k])
		}
		return mpegts.NewProgram(1, 0x100, list)
	}
	write(program(0, 1, 2), 0)
	write(program(0, 1, 3), 100)
	other := program(0, 1, 3)
	other.Tracks[1].StreamType = 0x11
	write(other, 200)
	if err := mux.Drain(); err != nil {
		t.Fatal(err)
	}
	version := -1
	u := unmux(t, out.Bytes())
	if len(u.units[0x102]) != 100 || len(u.units[0x103]) != 200 || len(u.units[0x101]) != 300 || u.jumps != 0 {
		t.Fatalf("%d, %d and %d units, %d jumps", len(u.units[0x102]), len(u.units[0x103]), len(u.units[0x101]), u.jumps)
	}
	for ts := out.Bytes(); len(ts) > 0; ts = ts[mpegts.PacketSize:] {
		p := ts[:mpegts.PacketSize]
		pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
		if p[1]&0x40 == 0 || p[3]&0x10 == 0 || pid == 0 {
			continue
		}
		off := 4
		if p[3]&0x20 != 0 {
			off += 1 + int(p[4])
		}
		b := p[off:]
		if pid == 0x1000 {
			version = int(b[1+5] >> 1 & 31)
			continue
		}
		if pid == 0x102 {
			b = b[1:]
		}
		want := int(b[0])
		switch {
		case pid == 0x101 && want < 2: // it goes on over the first change
			if version == 2 {
				t.Fatalf("sound of map %d under map %d", want, version)
			}
		case pid == 0x103: // it goes on over the second
			if version < 1 {
				t.Fatalf("data of map %d under map %d", want, version)
			}
		case version != want:
			t.Fatalf("PID %#x: a unit of map %d under map %d", pid, want, version)
		}
	}
}
