package render

import (
	"fmt"
	"math"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// stdTrack is what a system target decoder has for a PID.
type stdTrack struct {
	codec m4f.Codec
	model mpegts.BufferModel
	frame float64 // ticks that a frame of sound lasts
	size  float64 // its bytes
}

// stdReport is what a system target decoder (13818-1 2.4.2) and a monitor (TR
// 101 290) have to say of a stream.
type stdReport struct {
	pcrGap, patGap, pmtGap float64 // seconds, the longest
	transport              int     // overflows of a transport buffer
	main                   int     // overflows of what is behind it
	late                   int     // access units that are not there at their decoding time
	early                  int     // packets that are there more than a second ahead
	runs                   int     // stretches of one clock
	order                  int     // clock references that go back or stand still
	fullest                map[uint16]float64
	earliest               float64
	latest                 float64 // least time from arrival to decoding
	notes                  []string
}

func (r *stdReport) note(format string, args ...any) {
	if len(r.notes) < 12 {
		r.notes = append(r.notes, fmt.Sprintf(format, args...))
	}
}

// clean says whether nothing is wrong.
func (r *stdReport) clean() bool {
	return r.transport+r.main+r.late+r.early+r.order == 0 && r.pcrGap <= 0.040001 && r.patGap <= 0.100001 && r.pmtGap <= 0.100001
}

// arrival is when a packet begins and ends to arrive, in seconds of the clock of
// its run; run is which.
type arrival struct {
	from, to float64
	run      int
}

// arrivals dates every packet by the clock references around it: bytes come at
// an even rate between two (2.4.2.2).
func (s *tsStream) arrivals(r *stdReport) []arrival {
	out := make([]arrival, len(s.packets))
	last, at := -1, 0.0
	rate := 0.0 // seconds per packet
	for k := range s.packets {
		p := &s.packets[k]
		if !p.hasPCR {
			continue
		}
		t := float64(p.pcr) / 27e6
		switch {
		case last < 0 || p.disc:
			r.runs++
			for j := last + 1; j < k; j++ { // behind the last clock of a run
				base := at
				if last < 0 {
					base = t - float64(k)*0.001
				}
				out[j] = arrival{base + float64(j-last)*rate, base + float64(j-last+1)*rate, max(r.runs-1, 1)}
				if last < 0 {
					out[j].run = 1
				}
			}
		default:
			for t < at-47721 { // 33 bits
				t += float64(m4f.Wrap) / 90000
			}
			if t <= at {
				r.order++
				r.note("clock reference at packet %d goes from %f to %f", k, at, t)
			}
			r.pcrGap = max(r.pcrGap, t-at)
			rate = (t - at) / float64(k-last)
			for j := last; j < k; j++ {
				out[j] = arrival{at + float64(j-last)*rate, at + float64(j-last+1)*rate, r.runs}
			}
		}
		last, at = k, t
	}
	for j := last; j >= 0 && j < len(out); j++ {
		out[j] = arrival{at + float64(j-last)*rate, at + float64(j-last+1)*rate, r.runs}
	}
	return out
}

// decode runs the stream through the decoder's buffers.
func (s *tsStream) decode(tracks map[uint16]stdTrack) *stdReport {
	r := &stdReport{fullest: map[uint16]float64{}, latest: math.MaxFloat64}
	at := s.arrivals(r)
	for _, pid := range []uint16{0, s.pmtPID} {
		gap := s.tableGap(pid, at)
		if pid == 0 {
			r.patGap = gap
		} else {
			r.pmtGap = gap
		}
	}
	s.transportBuffer(r, at, 1e6, 0, s.pmtPID)
	for pid, t := range tracks {
		exit := s.transportBuffer(r, at, float64(t.model.Rate), pid)
		if t.codec != m4f.CodecSections {
			s.mainBuffer(r, pid, t, at, exit)
		}
	}
	return r
}

// tableGap is the longest time between two sections on a PID.
func (s *tsStream) tableGap(pid uint16, at []arrival) float64 {
	gap, last, run := 0.0, 0.0, 0
	for k := range s.packets {
		if p := &s.packets[k]; p.pid == pid && p.start {
			if run == at[k].run {
				gap = max(gap, at[k].from-last)
			}
			last, run = at[k].from, at[k].run
		}
	}
	return gap
}

// transportBuffer is 512 bytes that leak at a rate (2.4.2.3). It returns when the
// last byte of each packet has left.
func (s *tsStream) transportBuffer(r *stdReport, at []arrival, rate float64, pids ...uint16) map[int]float64 {
	exit := map[int]float64{}
	if rate == 0 {
		rate = 1e9
	}
	rate /= 8
	full, last, run := 0.0, 0.0, 0
	for k := range s.packets {
		p := &s.packets[k]
		if !slices.Contains(pids, p.pid) {
			continue
		}
		if at[k].run != run {
			full, run = 0, at[k].run
		} else {
			full = max(0, full-rate*(at[k].from-last))
		}
		full = max(full+188-rate*(at[k].to-at[k].from), 0)
		last = at[k].to
		if full > 512 {
			r.transport++
			r.note("PID %d: transport buffer holds %.0f bytes at packet %d, %.3f", p.pid, full, k, last)
		}
		exit[k] = last + full/rate
	}
	return exit
}

// access is an access unit: how many bytes of its PID it takes, and when it is
// decoded.
type access struct {
	size int
	due  float64
	last int // packet
	run  int
}

// mainBuffer is what lies behind the transport buffer: access units leave it at
// their decoding times.
func (s *tsStream) mainBuffer(r *stdReport, pid uint16, t stdTrack, at []arrival, exit map[int]float64) {
	var units []access
	for i := range s.pes[pid] {
		u := &s.pes[pid][i]
		if !u.dated {
			continue
		}
		first := at[u.packets[0]]
		due := near33(u.dts, int64(first.from*90000))
		if t.codec.IsData() && math.Abs(float64(due)/90000-first.from) > 5 {
			continue // its time means nothing
		}
		head := len(u.data) - len(u.payload)
		end := head
		sizes := s.frames(pid, i, t)
		for j, n := range sizes {
			size := n
			if j == 0 {
				size += head
			}
			end += n
			units = append(units, access{size, (float64(due) + float64(j)*t.frame) / 90000, s.packetOf(u, end), first.run})
		}
	}
	// Bytes come in by packets, and go out by units.
	type step struct {
		t float64
		n int
	}
	runs := map[int][]step{}
	for k := range s.packets {
		if s.packets[k].pid == pid && len(s.packets[k].payload) > 0 {
			runs[at[k].run] = append(runs[at[k].run], step{at[k].to, len(s.packets[k].payload)})
		}
	}
	for _, a := range units {
		lead := a.due - exit[a.last]
		r.latest = min(r.latest, lead)
		if lead < 0 {
			r.late++
			r.note("PID %d: an access unit of %.3f is there at %.3f", pid, a.due, exit[a.last])
		}
		early := a.due - at[a.last].from
		r.earliest = max(r.earliest, early)
		if early > 1 {
			r.early++
			r.note("PID %d: an access unit of %.3f is there at %.3f", pid, a.due, at[a.last].from)
		}
		runs[a.run] = append(runs[a.run], step{a.due, -a.size})
	}
	for _, steps := range runs {
		slices.SortStableFunc(steps, func(a, b step) int {
			switch {
			case a.t < b.t || a.t == b.t && a.n < b.n:
				return -1
			case a.t > b.t || a.t == b.t && a.n > b.n:
				return 1
			}
			return 0
		})
		full := 0
		for _, x := range steps {
			full += x.n
			r.fullest[pid] = max(r.fullest[pid], float64(full))
			if x.n > 0 && t.model.Size > 0 && full > t.model.Size {
				r.main++
				r.note("PID %d: %d bytes in a buffer of %d at %.3f", pid, full, t.model.Size, x.t)
			}
		}
	}
}

// packetOf is the packet that holds byte n-1 of a PES packet.
func (s *tsStream) packetOf(u *tsPES, n int) int {
	for _, k := range u.packets {
		if n -= len(s.packets[k].payload); n <= 0 {
			return k
		}
	}
	return u.packets[len(u.packets)-1]
}

// frames are the sizes of the access units in a PES packet.
func (s *tsStream) frames(pid uint16, i int, t stdTrack) []int {
	u := &s.pes[pid][i]
	b := u.payload
	var sizes []int
	switch {
	case !t.codec.IsAudio() || t.frame == 0:
		return []int{len(b)}
	case t.codec == m4f.CodecAAC:
		for len(b) >= 7 && b[0] == 0xff {
			n := int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5])>>5
			if n < 7 || n > len(b) {
				break
			}
			sizes, b = append(sizes, n), b[n:]
		}
		return sizes
	}
	// Frames of these codecs are about as large as each other.
	n := max(int(math.Round(float64(len(b))/t.size)), 1)
	for j := range n {
		sizes = append(sizes, len(b)*(j+1)/n-len(b)*j/n)
	}
	return sizes
}
