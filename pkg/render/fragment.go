package render

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Layout is what is known of a segment's media without reading it: its moof.
type Layout struct {
	movie *Movie
	frag  *m4f.Fragment
	size  int64 // of moof and mdat
	// opening is the segment's opening PTS on the axis of the samples' times.
	opening int64
}

// maxMoof bounds what is read of a segment for its layout. 2^18 samples in 256
// tracks fit.
const maxMoof = 8 << 20

// ReadLayout reads the layout of the segment with this header from its media.
func ReadLayout(movie *Movie, h *m4f.Header, media io.ReaderAt) (*Layout, error) {
	head := make([]byte, min(h.Length, 16<<10))
	if _, err := media.ReadAt(head, 0); err != nil {
		return nil, err
	}
	n := m4f.FragmentHead(head)
	if uint64(n) > h.Length || n > maxMoof {
		return nil, fmt.Errorf("moof of %d bytes", n)
	}
	if have := len(head); n > have {
		head = append(head, make([]byte, n-have)...)
		if _, err := media.ReadAt(head[have:], int64(have)); err != nil {
			return nil, err
		}
	}
	frag, err := m4f.ParseFragmentHead(movie.init, head[:n], int64(h.Length))
	if err != nil {
		return nil, err
	}
	ref := frag.Tracks[0].Start
	return &Layout{movie: movie, frag: frag, size: int64(h.Length), opening: ref + m4f.Diff33(h.MediaTime, ref)}, nil
}

// Wrapped says whether the samples' times are 2^33 and more, as they are where a
// segment opens right behind the wrap and has samples from before it.
func (l *Layout) Wrapped() bool { return l.opening >= m4f.Wrap }

// Range is a stretch of a segment's media: moof and mdat.
type Range struct{ Off, Len int64 }

// Fragment is one fragment of an answer to a player: what is made for it, and what
// follows of a segment's media.
type Fragment struct {
	Element *archive.Element
	Header  []byte // moof and the head of mdat; nil: both are in the media
	Ranges  []Range
}

// Size is how many bytes the fragment has.
func (f *Fragment) Size() int64 {
	n := int64(len(f.Header))
	for _, r := range f.Ranges {
		n += r.Len
	}
	return n
}

// Fragments are what a player gets of some cuts. load reads the layouts, also of
// cuts' neighbours. Segments with other tracks than movie's are left out, since a
// player that was told of those could not play them.
func Fragments(c Choice, movie *Movie, cuts []Cut, load func(*archive.Element) (*Layout, error)) ([]Fragment, error) {
	var out []Fragment
	for i := range cuts {
		l, err := load(cuts[i].Piece.Element)
		if err != nil {
			return nil, unreadable(cuts[i].Piece.Element, err)
		}
		if movie != nil && !c.fits(movie, l.movie) {
			continue
		}
		f, err := l.fragment(c, &cuts[i], load)
		if err != nil {
			return nil, unreadable(cuts[i].Piece.Element, err)
		}
		if f.Size() > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// fragment makes what a player gets of one cut.
func (l *Layout) fragment(c Choice, cut *Cut, load func(*archive.Element) (*Layout, error)) (Fragment, error) {
	f := Fragment{Element: cut.Piece.Element}
	tracks := c.tracks(l.movie.init)
	if cut.whole() && !c.Keyframes && l.untouched(tracks) {
		f.Ranges = []Range{{0, l.size}}
		return f, nil
	}
	var parts []*part
	for i, k := range tracks {
		p := l.part(k, uint32(i+1))
		if err := l.trim(p, cut, load); err != nil {
			return f, err
		}
		if c.Keyframes {
			p.keyframe(cut.To - cut.From)
		}
		for j, delay := 0, l.delay(k); delay != 0 && j < len(p.samples); j++ {
			p.samples[j].dts += delay
		}
		if len(p.samples) > 0 {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return f, nil
	}
	return f, f.write(l.frag.Sequence, parts)
}

// untouched says whether tracks are all that there are, in their order, and as
// players want them.
func (l *Layout) untouched(tracks []int) bool {
	if len(tracks) != len(l.frag.Tracks) {
		return false
	}
	for i, k := range tracks {
		if i != k || l.delay(k) != 0 {
			return false
		}
	}
	return true
}

// delay is how much later the first picture of a video track is presented than
// decoded. Players get decode times that are so much later: a fragment is then
// decoded from when it is presented (as ISO/IEC 23000-19 7.5.17 has it), where
// browsers would otherwise leave a hole behind each break.
func (l *Layout) delay(k int) int64 {
	t := &l.frag.Tracks[k]
	if !l.movie.init.Tracks[k].Config.Codec.IsVideo() || len(t.Samples) == 0 {
		return 0
	}
	return min(max(t.Samples[0].PTS-t.Samples[0].DTS, 0), m4f.Timescale)
}

// part is a track of the layout, as track id.
func (l *Layout) part(k int, id uint32) *part {
	p := &part{mapped: mapped{track: &track{id: id, info: &l.movie.init.Tracks[k]}, entry: 1}}
	for _, s := range l.frag.Tracks[k].Samples {
		p.composed = p.composed || s.PTS != s.DTS
		p.samples = append(p.samples, sample{dts: s.DTS, pts: s.PTS, dur: s.Duration, sync: s.Sync, off: s.Off, len: s.Len})
	}
	return p
}

// trim leaves of a part what a cut shows: first by what the view shows of the
// segment, then by where the cut is.
func (l *Layout) trim(p *part, cut *Cut, load func(*archive.Element) (*Layout, error)) error {
	first, last := 0, len(p.samples)
	if cut.From > cut.Piece.Part.From {
		first = p.at(l.opening + cut.From)
	}
	if cut.To < cut.Piece.Part.To {
		last = p.at(l.opening + cut.To)
	}
	p.samples = p.samples[first:max(first, last)]
	piece := &cut.Piece
	if cut.From == piece.Part.From && piece.Part.From > 0 {
		dts, known, err := l.lastBefore(p, cut, load)
		if err != nil {
			return err
		}
		p.from(l.opening+cut.From, dts, known)
	}
	if cut.To == piece.Part.To && cut.To < int64(piece.Duration) {
		dts, known, err := l.firstBehind(p, cut, load)
		if err != nil {
			return err
		}
		p.to(l.opening+cut.To, dts, known)
	}
	return nil
}

// at is the first sample, in the order of decoding, of what begins at a time: the
// sync sample next to it within 250 ms, or the first that is presented then.
func (p *part) at(time int64) int {
	if p.track.info.Config.Codec.IsVideo() {
		best := -1
		for i := range p.samples {
			d := max(p.samples[i].pts-time, time-p.samples[i].pts)
			if p.samples[i].sync && d <= spanSlack && (best < 0 || d < max(p.samples[best].pts-time, time-p.samples[best].pts)) {
				best = i
			}
		}
		if best >= 0 {
			return best
		}
	}
	i := slices.IndexFunc(p.samples, func(s sample) bool { return s.pts >= time })
	if i < 0 {
		return len(p.samples)
	}
	return i
}

// lastBefore is the decode time, on l's axis, of the last sample that the piece
// before a cut's shows of a part's track, where they join.
func (l *Layout) lastBefore(p *part, cut *Cut, load func(*archive.Element) (*Layout, error)) (int64, bool, error) {
	if cut.Prev == nil || p.track.info.Config.Codec.IsData() {
		return 0, false, nil
	}
	prev, err := load(cut.Prev.Element)
	if err != nil {
		return 0, false, err
	}
	q := prev.sameTrack(p)
	if q == nil {
		return 0, false, nil
	}
	if cut.Prev.To < int64(cut.Prev.Duration) {
		q.to(prev.opening+cut.Prev.To, 0, false)
	}
	if len(q.samples) == 0 {
		return 0, false, nil
	}
	dts := q.samples[len(q.samples)-1].dts
	return dts - prev.opening + l.opening + m4f.Diff33(cut.Prev.MediaTime, cut.Piece.MediaTime), true, nil
}

// firstBehind is the decode time, on l's axis, of the first sample of a part's
// track in the segment behind a cut's piece, where they join and that is shown
// from its start.
func (l *Layout) firstBehind(p *part, cut *Cut, load func(*archive.Element) (*Layout, error)) (int64, bool, error) {
	if cut.Next == nil || cut.Next.Part.From != 0 || p.track.info.Config.Codec.IsData() {
		return 0, false, nil
	}
	next, err := load(cut.Next.Element)
	if err != nil {
		return 0, false, err
	}
	q := next.sameTrack(p)
	if q == nil || len(q.samples) == 0 {
		return 0, false, nil
	}
	return q.samples[0].dts - next.opening + l.opening + m4f.Diff33(cut.Next.MediaTime, cut.Piece.MediaTime), true, nil
}

// sameTrack is the elementary stream of a part in another segment.
func (l *Layout) sameTrack(p *part) *part {
	for k := range l.movie.init.Tracks {
		c := &l.movie.init.Tracks[k].Config
		if c.PID == p.track.info.Config.PID && c.Codec == p.track.info.Config.Codec {
			return l.part(k, 1)
		}
	}
	return nil
}

// keyframe leaves the first sync sample alone and shows it for some ticks.
func (p *part) keyframe(ticks int64) {
	i := slices.IndexFunc(p.samples, func(s sample) bool { return s.sync })
	if i < 0 {
		p.samples = nil
		return
	}
	p.samples = p.samples[i : i+1]
	p.samples[0].dur = uint32(max(ticks, 1))
}

// write makes the header, and the ranges behind it.
func (f *Fragment) write(number uint32, parts []*part) error {
	moof := &mp4.MoofBox{}
	if err := moof.AddChild(mp4.CreateMfhd(number)); err != nil {
		return err
	}
	payload := int64(0)
	for _, p := range parts {
		traf, err := p.traf()
		if err != nil {
			return err
		}
		if err := moof.AddChild(traf); err != nil {
			return err
		}
		payload += p.size()
	}
	off := int64(moof.Size()) + 8
	for i, p := range parts {
		moof.Trafs[i].Trun.DataOffset = int32(off)
		off += p.size()
		f.addRange(int64(p.samples[0].off), p.size())
	}
	head, err := encodeBoxes(moof)
	if err != nil {
		return err
	}
	f.Header = append(binary.BigEndian.AppendUint32(head, uint32(8+payload)), "mdat"...)
	return nil
}

// addRange adds a stretch of the media, to the one before it where they touch.
func (f *Fragment) addRange(off, size int64) {
	if n := len(f.Ranges); n > 0 && f.Ranges[n-1].Off+f.Ranges[n-1].Len == off {
		f.Ranges[n-1].Len += size
		return
	}
	f.Ranges = append(f.Ranges, Range{off, size})
}

// Cost is about how many bytes of memory the layout takes.
func (l *Layout) Cost() int {
	n := 256
	for i := range l.frag.Tracks {
		n += 64 + 32*len(l.frag.Tracks[i].Samples)
	}
	return n
}

// Nothing is a fragment without samples, for a slot that has come to be empty.
func Nothing() []byte {
	return []byte("\x00\x00\x00\x18moof\x00\x00\x00\x10mfhd\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x08mdat")
}
