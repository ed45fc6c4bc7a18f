package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const writeOnly = os.O_WRONLY // without O_APPEND, which would move every write to the end

// extentCheck verifies one extent with its index and its list.
type extentCheck struct {
	v    *verifier
	h    hour
	name extentName
	path string // of the extent

	f       fsx.File
	settled bool
	index   []byte // as it is on the disk; nil where it is absent
	head    indexHeader
	headOK  bool
	bad     map[uint32]bool
	x       *extent
	init    []byte          // nil: no good one is to be had
	initErr error           // why it could not be read
	before  map[uint32]bool // set aside before this pass, still bad, and not healed
}

func (c *extentCheck) run() error {
	f, err := fsx.Open(c.v.s.fs, c.path)
	if isNotExist(err) {
		return c.gone()
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c.f = f
	if err := c.load(); err != nil {
		return err
	}
	c.v.res.Extents++
	if c.settled {
		fsx.DropCache(f, 0, c.x.size)
	}
	if err := c.list(); err != nil {
		return err
	}
	if len(c.x.records) > 0 {
		if err := c.checkInit(); err != nil {
			return err
		}
	}
	if err := c.segments(); err != nil {
		return err
	}
	c.beyond()
	c.checkIndex()
	c.v.res.Aside += len(c.before)
	return nil
}

func (c *extentCheck) load() error {
	s := c.v.s
	var err error
	if c.index, err = s.readIndex(c.h, c.name); err != nil {
		return err
	}
	st, err := c.f.Stat()
	if err != nil {
		return err
	}
	c.settled = c.v.settled(st)
	if c.bad, err = s.readBad(c.h, c.name); err != nil {
		return err
	}
	if c.bad == nil {
		c.bad = map[uint32]bool{}
	}
	c.before = maps.Clone(c.bad)
	c.head, err = parseIndexHeader(c.index)
	c.headOK = err == nil
	if c.x, err = parseExtent(c.f, st, c.index); err != nil {
		return err
	}
	if !c.headOK && len(c.index) >= indexHeaderSize {
		// The records may still be good: with the init segment they give more
		// than the extent alone.
		c.guessHead()
		if c.x, err = parseExtentAs(c.f, st, c.index[indexHeaderSize:], c.head); err != nil {
			return err
		}
	}
	return c.v.take(len(c.index))
}

// guessHead works out what the header of the index was.
func (c *extentCheck) guessHead() {
	c.head = indexHeader{init: c.x.init, initLength: c.x.initLen}
	for i, b := 0, c.index[indexHeaderSize:]; len(b) >= indexRecordSize; i, b = i+1, b[indexRecordSize:] {
		r, ok := parseIndexRecord(b, c.head.init)
		if !ok || int(r.number) != i {
			continue
		}
		if i == 0 && r.offset <= m4f.MaxInit {
			c.head.initLength = uint32(r.offset)
		}
		c.head.origin, c.head.input = r.Origin, r.Input
		if h, err := readHeaderAt(c.f, r.offset); err == nil && h.ID == r.ID {
			c.head.init = h.Init
			return
		}
	}
}

// list verifies the list of segments set aside.
func (c *extentCheck) list() error {
	path := c.v.s.extentPath(c.h, c.name, badExt)
	b, err := fsx.ReadFile(c.v.s.fs, path, maxBad)
	if isNotExist(err) {
		return nil
	}
	if isPassing(err) {
		return err
	}
	// Of lines that are not whole those are of interest that were: a write that
	// was cut leaves a shorter one, or zeros.
	for line := range bytes.Lines(b) {
		if _, _, ok := parseBadLine(line); len(line) == badLine && !ok && bytes.IndexByte(line, 0) < 0 {
			c.v.found(Damage{Path: path, Kind: BadList, Why: "a line is damaged", Bytes: badLine, Done: c.renewList(path)})
			break
		}
	}
	return c.v.take(len(b))
}

// renewList writes the lines that are good. The segments of the others are found
// to be bad once more.
func (c *extentCheck) renewList(path string) string {
	if c.v.o.ReadOnly {
		return Left
	}
	var lines []byte
	for n := range c.bad {
		lines = appendBad(lines, n)
	}
	if err := fsx.Publish(c.v.s.fs, path, lines, filePerm, c.v.s.owner); err != nil {
		return Left
	}
	if err := c.v.s.announceHour(c.h, c.name); err != nil {
		return Left
	}
	return Mended
}

// checkInit verifies the init segment at the start of the extent.
func (c *extentCheck) checkInit() error {
	if err := c.v.take(int(c.x.initLen)); err != nil {
		return err
	}
	init, err := readInit(c.f, c.x.initLen, c.x.init)
	if err == nil {
		c.init = init
		return nil
	}
	if isPassing(err) {
		return err
	}
	good := c.v.findInit(c.x.init, c.h)
	if good == nil || len(good) != int(c.x.initLen) {
		c.initErr = err
		return nil // each segment says so
	}
	c.init = good
	c.v.found(Damage{Path: c.path, Kind: BadInit, Why: err.Error(), Bytes: int64(len(good)),
		Done: c.v.writeBack(c.path, 0, good)})
	return nil
}

// segments verifies the whole segments of the extent, and what is between and
// behind them.
func (c *extentCheck) segments() error {
	at, number := int64(c.x.initLen), uint32(0)
	for i := range c.x.records {
		r := &c.x.records[i]
		if r.offset > at {
			c.hole(at, r.offset, number, r.number)
		}
		if err := c.segment(r); err != nil {
			return err
		}
		at, number = r.end(), r.number+1
	}
	return c.tail(at, number)
}

func (c *extentCheck) segment(r *indexRecord) error {
	if c.bad[r.number] {
		return c.asideBefore(r)
	}
	c.v.res.Segments++
	err := c.read(r)
	if isDamage(err) {
		first := err
		if err = c.read(r); isDamage(err) { // not a disk that read badly once
			c.setAside(c.damage(r, first.Error()), r.number)
			return nil
		}
	}
	switch {
	case err == nil:
		c.v.readWell = true
		return c.header(r)
	case isUnreadable(err):
		c.v.later = append(c.v.later, unread{c, *r, c.v.s.clock.Now()})
		return nil
	}
	return err
}

func (c *extentCheck) damage(r *indexRecord, why string) Damage {
	return Damage{Offset: r.offset, Why: why, ID: r.ID, From: r.UTC, To: r.End(), Bytes: int64(r.Length)}
}

// asideBefore reads a segment that was set aside and that no other copy replaces,
// and takes it back if it is good: the disk reads well again, or the bytes were put
// back.
func (c *extentCheck) asideBefore(r *indexRecord) error {
	if healed, err := c.v.s.Present(&r.Header); err != nil {
		return err
	} else if healed {
		delete(c.before, r.number)
		return nil
	}
	if err := c.read(r); isPassing(err) {
		return err
	} else if err != nil {
		return nil
	}
	c.v.readWell = true
	d := c.damage(r, "a segment that was set aside is good")
	d.Path, d.Kind, d.Done = c.path, BadList, Left
	if !c.v.o.ReadOnly && c.v.s.takeBack(c.h, c.name, r.number) == nil {
		d.Done = TakenBack
		delete(c.bad, r.number)
		delete(c.before, r.number)
		c.v.res.Segments++
	}
	c.v.found(d)
	return nil
}

// read compares a segment with its identity.
func (c *extentCheck) read(r *indexRecord) error {
	if c.init == nil && isUnreadable(c.initErr) {
		return c.initErr
	}
	if c.init == nil {
		return &initError{fmt.Sprintf("the init segment %.16s of the extent is corrupt, and no other extent has it", c.x.init)}
	}
	err := checkBytes(c.v.ctx, c.f, c.init, r, c.v.buf, c.v.take)
	if c.settled || err != nil {
		fsx.DropCache(c.f, r.offset, r.end()-r.offset)
	}
	return err
}

// setAside sets segments aside and tells of it once.
func (c *extentCheck) setAside(d Damage, numbers ...uint32) {
	d.Path, d.Kind, d.Done = c.path, BadSegment, Left
	if !c.v.o.ReadOnly {
		err := c.v.s.setAside(c.h, c.name, numbers...)
		if err == nil {
			d.Done = SetAside
			c.note(&d)
		}
	}
	for _, n := range numbers {
		c.bad[n] = true
	}
	c.v.found(d)
}

func (c *extentCheck) note(d *Damage) {
	u := d.From
	if u == 0 {
		u = c.h.start().Add(int64(c.name.ms) * m4f.Timescale / 1000)
	}
	c.v.s.noteCorrupt(u, c.h, c.name, d.Offset, d.ID, d.Why)
}

// noteCorrupt says in the events of a segment's time that it was set aside, which
// explains the gap.
func (s *Stream) noteCorrupt(u m4f.UTC, h hour, name extentName, off int64, id m4f.Identity, why string) {
	attrs := map[string]any{"file": h.dir() + "/" + name.String() + mediaExt, "offset": off, "why": why}
	if !id.IsZero() {
		attrs["segment"] = id.String()
	}
	s.report(event.Event{Time: u.Time(), Kind: event.Corrupt, Msg: "a segment went bad on the disk and was set aside", Attrs: attrs})
}

// header verifies the header box ahead of a segment that is good. It follows from
// the record.
func (c *extentCheck) header(r *indexRecord) error {
	if err := c.v.take(m4f.HeaderBoxSize); err != nil {
		return err
	}
	want, have := r.AppendBox(nil), make([]byte, m4f.HeaderBoxSize)
	if _, err := c.f.ReadAt(have, r.offset); isPassing(err) {
		return err
	}
	if bytes.Equal(want, have) {
		return nil
	}
	if h, err := m4f.ParseHeaderBox(have); err == nil && h == r.Header {
		return nil // an earlier version's, without a checksum
	}
	c.v.found(Damage{Path: c.path, Offset: r.offset, Kind: BadHeader, Why: "it is not what the index says", ID: r.ID,
		From: r.UTC, To: r.End(), Bytes: m4f.HeaderBoxSize, Done: c.v.writeBack(c.path, r.offset, want)})
	return nil
}

// hole is a place in an extent where segments were: neither the index nor a header
// tells of them.
func (c *extentCheck) hole(at, end int64, from, to uint32) {
	var lost []uint32
	for n := from; n < to; n++ {
		if !c.bad[n] {
			lost = append(lost, n)
		}
	}
	if len(lost) == 0 {
		return
	}
	if _, err := readHeaderAt(c.f, at); isUnreadable(err) { // it may be read later
		c.v.found(Damage{Path: c.path, Kind: BadSegment, Done: Left, Offset: at, Bytes: end - at, Why: err.Error()})
		return
	}
	c.setAside(Damage{Offset: at, Bytes: end - at, Why: "neither its header nor its index record can be read"}, lost...)
}

// tail is what is behind the last whole segment. A segment that is cut, or zeros,
// are what a crash or a writer at work leaves; anything else was a segment once.
func (c *extentCheck) tail(at int64, number uint32) error {
	if !c.settled || c.bad[number] || c.x.size-at < m4f.HeaderBoxSize || number >= maxRecordsExtent {
		return nil
	}
	b := make([]byte, m4f.HeaderBoxSize)
	if _, err := c.f.ReadAt(b, at); isPassing(err) {
		return err
	}
	if _, err := m4f.ParseHeaderBox(b); err == nil || bytes.Count(b, []byte{0}) == len(b) {
		return nil
	}
	if c.indexed(number) {
		return nil // see beyond
	}
	c.setAside(Damage{Offset: at, Bytes: c.x.size - at, Why: "what is behind the last segment is no segment"}, number)
	return nil
}

// indexed says whether the index has a good record at a place.
func (c *extentCheck) indexed(number uint32) bool {
	_, ok := c.record(number)
	return ok
}

func (c *extentCheck) record(number uint32) (indexRecord, bool) {
	off := indexHeaderSize + int(number)*indexRecordSize
	if off+indexRecordSize > len(c.index) {
		return indexRecord{}, false
	}
	r, ok := parseIndexRecord(c.index[off:], c.head.init)
	return r, ok && r.number == number
}

// beyond finds the segments that the index has and the extent has no longer.
func (c *extentCheck) beyond() {
	have := make(map[uint32]bool, len(c.x.records))
	for i := range c.x.records {
		have[c.x.records[i].number] = true
	}
	for n := uint32(0); indexHeaderSize+(int(n)+1)*indexRecordSize <= len(c.index); n++ {
		r, ok := c.record(n)
		if !ok || have[n] || c.bad[n] {
			continue
		}
		c.setAside(Damage{Offset: r.offset, Why: fmt.Sprintf("the extent ends at byte %d, before the segment does", c.x.size), ID: r.ID,
			From: r.UTC, To: r.End(), Bytes: int64(r.Length)}, n)
	}
}

// checkIndex compares the index with what it is to be, and writes back what is
// not so: it follows from the extent, except for the time of arrival.
func (c *extentCheck) checkIndex() {
	if len(c.x.records) == 0 || c.init == nil {
		return
	}
	path := c.v.s.extentPath(c.h, c.name, indexExt)
	if c.index == nil {
		if c.settled {
			c.v.found(Damage{Path: path, Kind: BadIndex, Why: "it is gone", Done: c.makeIndex(path)})
		}
		return
	}
	head := c.wantHead()
	if !c.headOK && (c.settled || len(c.index) >= indexHeaderSize) {
		c.v.found(Damage{Path: path, Kind: BadIndex, Why: "its header is damaged", Bytes: indexHeaderSize,
			Done: c.v.writeBack(path, 0, head.append(nil))})
	}
	var arrived int64
	for i := range c.x.records {
		r := &c.x.records[i]
		if _, ok := c.record(r.number); ok {
			arrived = r.Arrived
			continue
		}
		off := int64(indexHeaderSize + int(r.number)*indexRecordSize)
		if c.bad[r.number] || !c.settled && off+indexRecordSize > int64(len(c.index)) {
			continue
		}
		r.Origin, r.Input = head.origin, head.input
		if arrived != 0 {
			r.Arrived = arrived
		}
		c.v.found(Damage{Path: path, Offset: off, Kind: BadIndex, Why: "the record of a segment is damaged", ID: r.ID,
			From: r.UTC, To: r.End(), Bytes: indexRecordSize, Done: c.v.writeBack(path, off, r.append(nil))})
	}
}

// wantHead is the header that the index is to have.
func (c *extentCheck) wantHead() indexHeader {
	if !c.headOK {
		c.head.init, c.head.initLength = c.x.init, c.x.initLen
	}
	return c.head
}

// makeIndex writes an index that is gone.
func (c *extentCheck) makeIndex(path string) string {
	if c.v.o.ReadOnly {
		return Left
	}
	head := c.wantHead()
	b := head.append(nil)
	for n, i := uint32(0), 0; i < len(c.x.records); n++ {
		r := &c.x.records[i]
		if r.number > n { // it was set aside: a place without a record
			b = append(b, make([]byte, indexRecordSize)...)
			continue
		}
		b = r.append(b)
		i++
	}
	if err := fsx.PublishNew(c.v.s.fs, path, b, filePerm, c.v.s.owner); err != nil && !errors.Is(err, fs.ErrExist) {
		return Left
	}
	return Mended
}

// gone is an index without its extent. Its segments are told of, and it goes.
func (c *extentCheck) gone() error {
	s := c.v.s
	if _, err := s.fs.Stat(c.path); err == nil {
		return nil // the extent was made while the directory was being read
	}
	index, err := s.readIndex(c.h, c.name)
	if err != nil {
		return err
	}
	path := s.extentPath(c.h, c.name, indexExt)
	st, err := s.fs.Stat(path)
	if isNotExist(err) { // a list without its extent
		if !c.v.o.ReadOnly {
			s.fs.Remove(s.extentPath(c.h, c.name, badExt))
		}
		return nil
	}
	if err != nil {
		return err
	}
	d := Damage{Path: c.path, Kind: BadExtent, Done: Left}
	n := 0
	head, _ := parseIndexHeader(index)
	for b := index[min(indexHeaderSize, len(index)):]; len(b) >= indexRecordSize; b = b[indexRecordSize:] {
		if r, ok := parseIndexRecord(b, head.init); ok {
			if n++; n == 1 {
				d.From = r.UTC
			}
			d.To, d.Bytes = r.End(), d.Bytes+int64(r.Length)
		}
	}
	d.Why = fmt.Sprintf("it is gone, with %d segments", n)
	if !c.v.o.ReadOnly && !c.v.settled(st) {
		d.Done = LeftForNow
	} else if !c.v.o.ReadOnly {
		if s.fs.Remove(path) == nil {
			d.Done = SetAside
			s.fs.Remove(s.extentPath(c.h, c.name, badExt))
			s.noteCorrupt(d.From, c.h, c.name, 0, m4f.Identity{}, d.Why)
			if err := s.announceHour(c.h, c.name); err != nil {
				return err
			}
		}
	}
	c.v.found(d)
	return nil
}
