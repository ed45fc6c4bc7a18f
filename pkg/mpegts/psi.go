package mpegts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"sort"

	"github.com/asticode/go-astits"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Kind says how a track takes part in segmentation.
type Kind uint8

// The kinds of a track.
const (
	Data  Kind = iota // neither completes nor delays a segment
	Audio             // frames of known length in time
	Video
)

// Track is one elementary stream of a program.
type Track struct {
	PID         uint16
	StreamType  uint8
	Descriptors []byte // raw, as in the PMT
	Codec       m4f.Codec
	Kind        Kind
}

// Program is a program map as it was received.
type Program struct {
	Number      uint16
	PCRPID      uint16
	Descriptors []byte  // raw, the outer loop's
	Tracks      []Track // video first, then by PID
	// Section is the whole section, so that two maps can be compared.
	Section []byte
	// Doubtful: its CRC does not hold, it has come once, and there is none
	// other to go by.
	Doubtful bool
}

// countLarge returns how many tracks may hold PES packets as large as pictures.
func (p *Program) countLarge() (n int) {
	for i := range p.Tracks {
		if p.Tracks[i].large() {
			n++
		}
	}
	return n
}

// Leading returns the track that segmentation follows: the video track with
// the lowest PID, or the audio track with the lowest where there is no video;
// nil when there is neither.
func (p *Program) Leading() *Track {
	for k := range p.Tracks {
		if p.Tracks[k].Kind == Video {
			return &p.Tracks[k]
		}
	}
	for k := range p.Tracks {
		if p.Tracks[k].Kind == Audio {
			return &p.Tracks[k]
		}
	}
	return nil
}

// sections assembles the sections (13818-1 2.4.4) of one PID.
type sections struct {
	buf  []byte
	open bool
}

const maxSection = 4096 // 13818-1 2.4.4.11; PAT and PMT are at most 1024

// write takes one packet's payload and calls fn for each section that is
// complete with it. begun says that the section began in this payload.
func (s *sections) write(pay []byte, pusi bool, fn func(sec []byte, begun bool)) {
	if !pusi {
		if s.open {
			s.buf = append(s.buf, pay...)
			s.take(fn, false)
		}
		return
	}
	if len(pay) == 0 || 1+int(pay[0]) > len(pay) {
		s.open = false
		return
	}
	ptr := int(pay[0])
	if s.open {
		s.buf = append(s.buf, pay[1:1+ptr]...)
		s.take(fn, false)
	}
	s.buf = append(s.buf[:0], pay[1+ptr:]...)
	s.open = true
	s.take(fn, true)
}

// take hands out the whole sections at the front of the buffer.
func (s *sections) take(fn func([]byte, bool), begun bool) {
	for s.open {
		if len(s.buf) > 0 && s.buf[0] == 0xff { // stuffing up to the end
			s.open = false
			break
		}
		if len(s.buf) < 3 {
			break
		}
		n := 3 + (int(s.buf[1]&15)<<8 | int(s.buf[2]))
		if n > maxSection+3 {
			s.open = false
			break
		}
		if len(s.buf) < n {
			break
		}
		fn(s.buf[:n:n], begun)
		s.buf = s.buf[:copy(s.buf, s.buf[n:])]
		if len(s.buf) == 0 {
			s.open = false
		}
	}
}

func (s *sections) reset() { s.buf, s.open = s.buf[:0], false }

// The table ids of the tables read here.
const (
	tablePAT = 0
	tablePMT = 2
)

// current says whether sec is a section in force of a table, long enough for
// the headers of both tables (13818-1 2.4.4.3, 2.4.4.8).
func current(sec []byte, id byte) bool {
	return len(sec) >= 12 && sec[0] == id && sec[5]&1 != 0
}

// tables keeps the sections of a PSI table that were believed last. A section
// whose CRC does not hold is believed when it comes twice in a row, unchanged:
// some multiplexers write none, while damage seldom repeats itself.
type tables struct {
	last    [][]byte // believed, by section_number; nil: not yet
	version byte     // of those
	suspect []byte   // last one with a bad CRC
}

// verdict is what accept thinks of a section.
type verdict int

const (
	tableNew verdict = iota
	tableSame
	tableDoubtful
)

// accept compares a section with the one of its number.
func (t *tables) accept(sec []byte) verdict {
	number, last := int(sec[6]), int(sec[7])
	if number < len(t.last) && bytes.Equal(sec, t.last[number]) {
		t.suspect = nil
		return tableSame
	}
	if number > last || crc32MPEG(sec) != 0 && !bytes.Equal(sec, t.suspect) {
		t.suspect = append(t.suspect[:0:0], sec...)
		return tableDoubtful
	}
	t.suspect = nil
	if len(t.last) != last+1 || sec[5] != t.version {
		t.last, t.version = make([][]byte, last+1), sec[5]
	}
	t.last[number] = append([]byte(nil), sec...)
	return tableNew
}

// whole returns the sections once all of one version have come.
func (t *tables) whole() ([][]byte, bool) {
	return t.last, !slices.ContainsFunc(t.last, func(sec []byte) bool { return sec == nil })
}

var crcTable = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&0x80000000 != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return
}()

// crc32MPEG is the CRC of 13818-1 annex A; over a whole section it is 0.
func crc32MPEG(b []byte) uint32 {
	c := uint32(0xffffffff)
	for _, x := range b {
		c = c<<8 ^ crcTable[byte(c>>24)^x]
	}
	return c
}

// parsePAT maps program numbers to the PIDs of their maps.
func parsePAT(sections [][]byte) (map[uint16]uint16, error) {
	m := map[uint16]uint16{}
	for _, sec := range sections {
		d, err := parseWithAstits(0, sec, nil)
		if err != nil || d.PAT == nil {
			return nil, fmt.Errorf("program association table: %w", orMissing(err))
		}
		for _, p := range d.PAT.Programs {
			if p.ProgramNumber != 0 {
				m[p.ProgramNumber] = p.ProgramMapID
			}
		}
	}
	return m, nil
}

var errNoTable = errors.New("no table in the section")

func orMissing(err error) error {
	if err == nil {
		return errNoTable
	}
	return err
}

// parsePMT reads a program map section. The lengths of both loops are checked
// here; what the descriptors mean is astits's to tell.
func parsePMT(pid uint16, sec []byte) (*Program, error) {
	if len(sec) < 16 || sec[0] != 2 || sec[5]&1 == 0 {
		return nil, errors.New("no current program map section")
	}
	p := &Program{
		Number:  uint16(sec[3])<<8 | uint16(sec[4]),
		PCRPID:  uint16(sec[8]&31)<<8 | uint16(sec[9]),
		Section: append([]byte(nil), sec...),
	}
	body := p.Section[12 : len(sec)-4]
	n := int(sec[10]&15)<<8 | int(sec[11])
	if n > len(body) || !descriptorsFit(body[:n]) {
		return nil, errors.New("program map: program descriptors run past their end")
	}
	p.Descriptors, body = body[:n:n], body[n:]
	var raw []Track
	for len(body) > 0 {
		if len(body) < 5 {
			return nil, errors.New("program map: the last stream is cut")
		}
		n := int(body[3]&15)<<8 | int(body[4])
		if 5+n > len(body) || !descriptorsFit(body[5:5+n]) {
			return nil, errors.New("program map: descriptors run past their end")
		}
		raw = append(raw, Track{PID: uint16(body[1]&31)<<8 | uint16(body[2]), StreamType: body[0], Descriptors: body[5 : 5+n : 5+n]})
		body = body[5+n:]
	}
	// A descriptor that makes no sense does not cost the stream: what it would
	// have said is not known then.
	meaning := make([][]*astits.Descriptor, len(raw))
	var outer []*astits.Descriptor
	if d, err := parseWithAstits(pid, sec, &p.Number); err == nil && d.PMT != nil && len(d.PMT.ElementaryStreams) == len(raw) {
		outer = d.PMT.ProgramDescriptors
		for k, es := range d.PMT.ElementaryStreams {
			meaning[k] = es.ElementaryStreamDescriptors
		}
	}
	seen := map[uint16]bool{}
	for k, t := range raw {
		if seen[t.PID] {
			continue
		}
		seen[t.PID] = true
		t.Codec, t.Kind = classify(t.StreamType, outer, meaning[k])
		p.Tracks = append(p.Tracks, t)
	}
	p.sortTracks()
	return p, nil
}

// sortTracks puts video first, then goes by PID.
func (p *Program) sortTracks() {
	sort.SliceStable(p.Tracks, func(i, j int) bool {
		a, b := p.Tracks[i], p.Tracks[j]
		if (a.Kind == Video) != (b.Kind == Video) {
			return a.Kind == Video
		}
		return a.PID < b.PID
	})
}

func descriptorsFit(b []byte) bool {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// parseWithAstits hands one section, its CRC made good, to astits as a
// transport stream of its own; number, when given, is the program whose map
// the PID carries.
func parseWithAstits(pid uint16, sec []byte, number *uint16) (d *astits.DemuxerData, err error) {
	// The bytes are a stranger's: a fault of the library is theirs too.
	defer func() {
		if r := recover(); r != nil {
			d, err = nil, fmt.Errorf("reading it: %v", r)
		}
	}()
	var ts []byte
	if number != nil {
		pat := []byte{0, 0xb0, 13, 0, 1, 0xc1, 0, 0, byte(*number >> 8), byte(*number), 0xe0 | byte(pid>>8), byte(pid)}
		ts = appendSection(ts, 0, withCRC(pat))
	}
	ts = appendSection(ts, pid, withCRC(sec[:len(sec)-4]))
	// A packet with a new unit start makes astits hand out what it holds.
	ts = appendSection(ts, pid, []byte{0xff})
	dmx := astits.NewDemuxer(context.Background(), bytes.NewReader(ts), astits.DemuxerOptPacketSize(PacketSize),
		astits.DemuxerOptLogger(log.New(io.Discard, "", 0)))
	var last *astits.DemuxerData
	for {
		d, err := dmx.NextData()
		if err != nil {
			if last == nil {
				return nil, err
			}
			return last, nil
		}
		if d.PID == pid && (d.PAT != nil || d.PMT != nil) {
			return d, nil
		}
		last = d
	}
}

func withCRC(b []byte) []byte {
	c := crc32MPEG(b)
	return append(append([]byte(nil), b...), byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
}

// appendSection writes a section as transport packets, stuffed with 0xff.
func appendSection(ts []byte, pid uint16, sec []byte) []byte {
	pay := append([]byte{0}, sec...)
	for first, cc := true, byte(0); len(pay) > 0; first, cc = false, cc+1 {
		start := byte(0)
		if first {
			start = 0x40
		}
		ts = append(ts, syncByte, start|byte(pid>>8), byte(pid), 0x10|cc&15)
		n := min(len(pay), PacketSize-4)
		ts = append(ts, pay[:n]...)
		for k := n; k < PacketSize-4; k++ {
			ts = append(ts, 0xff)
		}
		pay = pay[n:]
	}
	return ts
}
