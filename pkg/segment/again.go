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
	return Recut(c, program, target).Inside
}

// Cut is what a copy gives. Those that do not lie inside are partial, and whether there are
// such segments the copy does not tell.
type Cut struct {
	Joined *m4f.Segment   // opens at the first keyframe in the copy, as one who joins there writes; nil: none
	Inside []*m4f.Segment // those of Resegment
	Ended  []*m4f.Segment // which the end of the copy closes, as one does whose source ends there
}

// Recut is Resegment, and gives the segments at the ends of a copy too. opens are times of
// keyframes at which segments are known to open: no keyframe before such a one can have done so in
// its place, if one was lost.
func Recut(c *salvage.Copy, program uint16, target int64, opens ...int64) (cut Cut) {
	if target <= 0 {
		return cut
	}
	var s *Segmenter
	ended := false
	s = New(Config{TargetDuration: target, Program: program, Unpaced: true, Start: 1}, func(seg *m4f.Segment) {
		seg.Header.UTC = 0
		switch {
		case ended:
			cut.Ended = append(cut.Ended, seg)
		case s.inside:
			cut.Inside = append(cut.Inside, seg)
		case s.begun && cut.Joined == nil && len(cut.Inside) == 0:
			cut.Joined = seg
		}
	})
	s.again, s.opens = true, opens
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
	ended = true
	s.dmx.Close()
	s.end()
	return cut
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
