package mpegts

// MuxUnit is what a Muxer makes packets of: a PES packet or a section.
type MuxUnit struct {
	PID  uint16
	Data []byte
	// Key: decoding can begin here (random_access_indicator).
	Key bool
	// Section: Data is a section; otherwise PES packets.
	Section bool
	// Pinned: Data has no time of its own by which a receiver would know it.
	// It comes behind the last unit of the leading track whose time is not
	// after its own.
	Pinned bool
	// Marks are where the access units in Data end and when each is due, in
	// order, the last one at the end of Data.
	Marks []Mark
	// Last is the decoding time of the last access unit in it.
	Last int64
}

// Mark says when Data must be there up to its byte End.
type Mark struct {
	End int
	Due int64 // ticks on an axis of any origin that goes on over a wrap
}

// queued is a unit that waits.
type queued struct {
	*MuxUnit
	anchor     int64      // of leading units: Last
	change     *mapChange // the map that it brings
	generation int        // of the map that it needs
	split      int        // how many packets more it is to take than it needs
}

func (q *queued) due() int64 { return q.Marks[0].Due }

// sent is data sent and not yet decoded.
type sent struct {
	size int
	due  int64
}

// muxStream is a PID with what waits to be sent on it.
type muxStream struct {
	pid    uint16
	kind   Kind
	window int64
	model  BufferModel
	alone  bool // of a segment: nothing comes after its end

	queue []queued
	off   int // sent of the first
	mark  int // its first mark that is yet to be reached

	credit int64 // packets << creditBits that are due by the rate so far
	owed   int   // units at the front that have to go ahead of the next leading one

	// What the decoder holds.
	held  []sent
	full  int // bytes in held
	open  int // bytes sent of an access unit that is not whole
	begun int // bytes of the first unit that were sent when its present access unit began
}

const creditBits = 20

func (s *muxStream) setKind(t *Track) {
	s.kind, s.window = t.Kind, dataWindow
	switch t.Kind {
	case Video:
		s.window = videoWindow
	case Audio:
		s.window = audioWindow
	}
}

func (s *muxStream) push(q queued) {
	q.anchor = q.Last
	if len(q.Marks) == 0 || q.Marks[len(q.Marks)-1].End != len(q.Data) {
		u := *q.MuxUnit
		u.Marks = []Mark{{len(q.Data), q.Last}}
		q.MuxUnit = &u
	}
	s.queue = append(s.queue, q)
}

// restart forgets what the decoder holds: its clock is set anew.
func (s *muxStream) restart() { s.held, s.full, s.open, s.begun, s.credit = s.held[:0], 0, 0, s.off, 0 }

// release takes from the decoder's buffer what it has decoded by a time.
func (s *muxStream) release(now int64) {
	n := 0
	for n < len(s.held) && s.held[n].due <= now {
		s.full -= s.held[n].size
		n++
	}
	s.held = s.held[:copy(s.held, s.held[n:])]
}

// sendable is how many units at the front the map in force allows.
func (s *muxStream) sendable(generation int) (n int) {
	for n < len(s.queue) && s.queue[n].generation <= generation && s.queue[n].change == nil {
		n++
	}
	return n
}

// packets is how many packets carry n bytes of a unit from its byte off on.
func packets(n int) int { return (n + packetPayload - 1) / packetPayload }

const packetPayload = PacketSize - 4

// size is how many bytes a unit takes in packets: its own, a pointer_field, and
// an adaptation field in the first.
func (q *queued) size() int {
	n := len(q.Data)
	if q.Section {
		n++
	}
	if q.Key {
		n += 2
	}
	return n
}

// remaining is how many packets the units take that the map in force allows.
func (s *muxStream) remaining(generation int) (n int) {
	off := s.off
	for k := range s.sendable(generation) {
		n += packets(s.queue[k].size() - off)
		off = 0
	}
	return n
}

// allot says how many packets to send in the slot that begins at now: as many as
// the least steady rate asks for that keeps every deadline in the window, and no
// more than the decoder's buffers hold, unless a deadline falls in the next slot.
func (s *muxStream) allot(now int64, generation int, clock bool) int {
	total, must, late := 0, 0, 0 // packets
	rate := int64(0)
	off, mark := s.off, s.mark
	for k := range s.queue {
		q := &s.queue[k]
		if q.change != nil { // what lies ahead of a map makes way for it
			slots := max((q.due()-mapLead-now)/slotTicks, 1)
			rate = max(rate, int64(total)<<creditBits/slots)
		}
		if q.Pinned || q.generation > generation || q.change != nil || q.due() > now+s.window {
			break
		}
		extra := q.size() - len(q.Data)
		if k == 0 && clock {
			extra += clockField
		}
		for _, at := range q.Marks[mark:] {
			slots := (at.Due - spare - now) / slotTicks
			if at.Due > now+s.window {
				break
			}
			n := total + packets(at.End+extra-off)
			switch {
			case at.Due <= now && !s.alone: // in a hurry, but not all at once
				late = n
				must = max(must, min((n+lateSlots-1)/lateSlots, s.model.most()))
			case slots <= 1:
				must = max(must, n-late)
				rate = max(rate, int64(n)<<creditBits)
			default:
				rate = max(rate, int64(n)<<creditBits/slots)
			}
		}
		total += packets(q.size() - off)
		off, mark = 0, 0
	}
	s.credit = min(s.credit+rate, int64(total)<<creditBits)
	n := max(must, int(s.credit>>creditBits))
	if most := s.model.room(s.full + s.open); n > most {
		n = max(must, most)
	}
	s.credit = max(s.credit-int64(n)<<creditBits, 0)
	return n
}

const lateSlots = 4

// countOwed counts the units up to the last one that is pinned to a time not
// after last.
func (s *muxStream) countOwed(last int64, generation int) {
	for k := range s.queue {
		q := &s.queue[k]
		if q.generation > generation || q.Pinned && q.Last > last {
			break
		}
		if q.Pinned {
			s.owed = k + 1
		}
	}
}

// tells says whether the next packet tells a receiver the time of the unit: the
// first one of a picture, the last one of sound.
func (s *muxStream) tells(capacity int) bool {
	if len(s.queue) == 0 {
		return false
	}
	if s.kind == Video {
		return s.off == 0
	}
	return len(s.queue[0].Data)-s.off <= capacity
}

// take takes up to n bytes of the first unit. They are valid until the next
// push.
func (s *muxStream) take(n int) []byte {
	q := &s.queue[0]
	b := q.Data[s.off:min(s.off+n, len(q.Data))]
	s.off += len(b)
	s.open += len(b)
	for s.mark < len(q.Marks) && q.Marks[s.mark].End <= s.off {
		at := q.Marks[s.mark]
		size := at.End - s.begun
		s.held = append(s.held, sent{size, at.Due})
		s.full, s.open = s.full+size, s.open-size
		s.begun = at.End
		s.mark++
	}
	if s.off == len(q.Data) {
		s.queue[0] = queued{} // for its memory
		s.queue = s.queue[1:]
		s.off, s.mark, s.begun = 0, 0, 0
	}
	return b
}
