package segment

import (
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// Resegment cuts a copy of a stretch of a program again, as a recorder does that
// hears it and nothing else: program is its number, target D in ticks. It returns
// the segments that lie inside, in order: those that open behind the first
// keyframe in the copy, and of which every track has been heard to the end. What
// is ahead of them and behind them is of no use. UTC is 0.
//
// Such a segment has the identity that a recorder writes who has heard the same
// packets and those before and behind them too. Damaged is as the copy shows it, its
// holes included; one is damaged, too, that lies so near behind a jump of the time
// of a track that the copy does not tell to which side its frames belong. Whether a segment
// is whole those tell who recorded it: Partial is set where the map is doubtful alone.
func Resegment(c *salvage.Copy, program uint16, target int64) []*m4f.Segment {
	_, out := ResegmentJoined(c, program, target)
	return out
}

// ResegmentJoined is Resegment, and the segment that opens at the first keyframe in the
// copy, if every track has been heard to its end: what a recorder writes that joins there. It
// is partial. Whether a segment opens at that keyframe the copy does not tell.
func ResegmentJoined(c *salvage.Copy, program uint16, target int64) (joined *m4f.Segment, out []*m4f.Segment) {
	if target <= 0 {
		return nil, nil
	}
	var s *Segmenter
	s = New(Config{TargetDuration: target, Program: program, Unpaced: true, Start: 1}, func(seg *m4f.Segment) {
		if s.inside {
			seg.Header.UTC = 0
			out = append(out, seg)
		} else if s.begun && joined == nil && len(out) == 0 {
			seg.Header.UTC = 0
			joined = seg
		}
	})
	s.again = true
	at := 0
	for _, h := range c.Holes {
		if h.At > at && h.At < c.Len() {
			s.dmx.WritePackets(c.Packets[at*salvage.PacketSize : h.At*salvage.PacketSize])
			at = h.At
		}
		if h.At <= at && h.At < c.Len() && h.Missing > 0 {
			s.dropsAgain(h.Missing)
		}
	}
	s.dmx.WritePackets(c.Packets[at*salvage.PacketSize:])
	s.dmx.Abandon()
	for _, f := range s.buf {
		f.Release()
	}
	return joined, out
}

// dropsAgain is Drops where nothing may have been heard yet that would show the
// loss: what a recorder heard before, the copy does not tell.
func (s *Segmenter) dropsAgain(packets int) {
	if s.lead == nil {
		s.early = true
		return
	}
	s.Drops(packets)
	s.loseUnheard()
}
