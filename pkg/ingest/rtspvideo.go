package ingest

import (
	"bytes"
	"slices"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

const (
	maxReorder = 16 // pictures that may precede in decoding and follow in output
	// Before the depth of reordering is known, so many pictures are looked at,
	// or those of so many ticks.
	lookPictures, lookTicks = 16, m4f.Timescale
	// maxSets bounds the parameter sets that are kept, and what waits for its
	// picture.
	maxSets, maxPrefix = 64, 1 << 20
)

// pictureSets are the parameter sets in force, of the session's description and
// of the stream itself.
type pictureSets struct {
	codec m4f.Codec
	sets  [][]byte // in the order V, S, P
	depth int      // see depthOf
}

// take remembers the parameter sets among NAL units. A sequence parameter set
// takes the place of all that there were of its kind; a picture parameter set,
// of those with its number.
func (p *pictureSets) take(nals [][]byte) {
	var fresh [][]byte
	for _, nal := range nals {
		if mpegts.ParameterSet(p.codec, nal) != 0 {
			fresh = append(fresh, nal)
		}
	}
	if len(fresh) == 0 || slices.EqualFunc(fresh, p.sets, bytes.Equal) {
		return
	}
	keep := slices.DeleteFunc(slices.Clone(p.sets), func(old []byte) bool {
		return slices.ContainsFunc(fresh, func(nal []byte) bool { return p.replaces(nal, old) })
	})
	for _, nal := range fresh {
		if len(keep) < maxSets && !slices.ContainsFunc(keep, func(x []byte) bool { return bytes.Equal(x, nal) }) {
			keep = append(keep, bytes.Clone(nal))
		}
	}
	slices.SortStableFunc(keep, func(a, b []byte) int { return p.rank(a) - p.rank(b) })
	p.sets, p.depth = keep, depthOf(p.codec, keep)
}

func (p *pictureSets) rank(nal []byte) int {
	return bytes.IndexByte([]byte("VSP"), mpegts.ParameterSet(p.codec, nal))
}

func (p *pictureSets) replaces(nal, old []byte) bool {
	k := mpegts.ParameterSet(p.codec, nal)
	if k != mpegts.ParameterSet(p.codec, old) {
		return false
	}
	return k != 'P' || p.number(nal) == p.number(old)
}

// number is the pic_parameter_set_id, the first field of a picture parameter
// set (H.264 7.3.2.2, H.265 7.3.2.3.1), as its bits; ids up to 63 need 13.
func (p *pictureSets) number(nal []byte) uint32 {
	head := 1
	if p.codec == m4f.CodecHEVC {
		head = 2
	}
	var b [4]byte
	copy(b[:], nal[min(head, len(nal)):])
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	zeros := 0
	for zeros < 12 && v<<zeros>>31 == 0 {
		zeros++
	}
	return v >> (32 - (2*zeros + 1))
}

// complete returns the NAL units of a picture, with the parameter sets in force
// ahead of them where it is a random access point and lacks its own.
func (p *pictureSets) complete(nals [][]byte) [][]byte {
	if !p.random(nals) {
		return nals
	}
	var have [3]bool
	for _, nal := range nals {
		if r := p.rank(nal); r >= 0 {
			have[r] = true
		}
	}
	out := make([][]byte, 0, len(nals)+len(p.sets))
	k := 0
	for k < len(nals) && p.delimits(nals[k]) {
		out = append(out, nals[k])
		k++
	}
	for _, set := range p.sets {
		if !have[p.rank(set)] {
			out = append(out, set)
		}
	}
	out = append(out, nals[k:]...)
	if u, ok := mpegts.NewPicture(&mpegts.Track{Codec: p.codec}, 0, 0, out); !ok || !u.Key {
		return nals
	}
	return out
}

// begins says whether a NAL unit is the first of a picture, so far as can be
// told: one that comes ahead of slices, or the first slice.
func (p *pictureSets) begins(nal []byte) bool {
	if p.codec == m4f.CodecH264 {
		t := nal[0] & 31
		return t > 5 || t >= 1 && len(nal) > 1 && nal[1]&0x80 != 0
	}
	return nal[0]>>1&63 >= 32 || len(nal) > 2 && nal[2]&0x80 != 0
}

func (p *pictureSets) delimits(nal []byte) bool {
	if p.codec == m4f.CodecH264 {
		return nal[0]&31 == 9
	}
	return nal[0]>>1&63 == 35
}

// random says whether the picture may be a random access point.
func (p *pictureSets) random(nals [][]byte) bool {
	return slices.ContainsFunc(nals, func(nal []byte) bool {
		if p.codec == m4f.CodecH264 {
			t := nal[0] & 31
			return t == 5 || t == 6
		}
		t := nal[0] >> 1 & 63
		return t >= 16 && t <= 21
	})
}

// hasPicture says whether there is a slice among NAL units.
func (p *pictureSets) hasPicture(nals [][]byte) bool {
	return slices.ContainsFunc(nals, func(nal []byte) bool {
		if p.codec == m4f.CodecH264 {
			t := nal[0] & 31
			return t >= 1 && t <= 5
		}
		return nal[0]>>1&63 < 32
	})
}

// depthOf is by how many pictures decoding runs ahead of output, as a sequence
// parameter set says; -1: it does not.
func depthOf(codec m4f.Codec, sets [][]byte) int {
	k := slices.IndexFunc(sets, func(set []byte) bool { return mpegts.ParameterSet(codec, set) == 'S' })
	if k < 0 {
		return -1
	}
	if codec == m4f.CodecH264 {
		return depthH264(sets[k])
	}
	var sps h265.SPS
	if err := sps.Unmarshal(sets[k]); err != nil || len(sps.MaxNumReorderPics) == 0 {
		return -1
	}
	return int(min(sps.MaxNumReorderPics[len(sps.MaxNumReorderPics)-1], maxReorder))
}

func depthH264(set []byte) int {
	var sps h264.SPS
	err := sps.Unmarshal(set)
	switch {
	case err != nil:
		return -1
	case sps.PicOrderCntType == 2, sps.ProfileIdc == 66: // output in decoding order; no B slices
		return 0
	case sps.VUI != nil && sps.VUI.BitstreamRestriction != nil:
		return int(min(sps.VUI.BitstreamRestriction.MaxNumReorderFrames, maxReorder))
	}
	return -1
}

// timedPicture is a picture that waits for its DTS.
type timedPicture struct {
	nals    [][]byte
	pts     int64
	dts     int64
	torn    bool // packets of it are missing
	arrived time.Time
}

// decodeOrder gives pictures, which RTP dates by when they are shown, the time
// of their decoding: with a depth of n, that of a picture is the n+1st highest
// PTS so far. So it follows from the pictures around alone, rises, and is never
// behind the PTS.
type decodeOrder struct {
	told    int // the depth as it was told last
	depth   int // -1: not known
	highest []int64
	last    int64
	begun   bool
	waiting []timedPicture
}

func newDecodeOrder() *decodeOrder { return &decodeOrder{told: -1, depth: -1} }

// add takes a picture in the order of decoding, and calls fn for those whose
// time is known with it. At the start some wait, to see by what the times rise.
func (d *decodeOrder) add(p timedPicture, depth int, fn func(timedPicture)) {
	if n := len(d.highest); n > 0 {
		if off := p.pts - d.highest[n-1]; off > 3*m4f.Timescale || off < -3*m4f.Timescale {
			d.flush(fn)
			d.begun, d.highest = false, nil // another time begins
		}
	}
	if depth >= 0 && depth != d.told {
		d.told = depth
		d.resize(depth)
	}
	if d.begun {
		d.date(&p)
		fn(p)
		return
	}
	d.waiting = append(d.waiting, p)
	d.highest = append(d.highest, p.pts)
	if d.enough() {
		d.flush(fn)
	}
}

// resize takes note of a depth that is told.
func (d *decodeOrder) resize(depth int) {
	d.depth = depth
	if n := len(d.highest); d.begun && n > depth+1 {
		d.highest = append(d.highest[:0], d.highest[n-depth-1:]...)
	}
}

// enough says whether the pictures that wait tell the times of the first.
func (d *decodeOrder) enough() bool {
	n := len(d.waiting)
	if d.depth >= 0 && n > d.depth {
		return true
	}
	lo, hi := slices.Min(d.highest), slices.Max(d.highest)
	return n >= lookPictures || n > 2 && hi-lo >= lookTicks
}

// flush dates the pictures that wait.
func (d *decodeOrder) flush(fn func(timedPicture)) {
	w := d.waiting
	if len(w) == 0 {
		return
	}
	if d.depth < 0 {
		d.depth = inversions(w)
	}
	// Ahead of the first there would have been others, evenly before it.
	times := slices.Sorted(slices.Values(d.highest))
	step := int64(m4f.Timescale / 25)
	for k := 1; k < len(times); k++ {
		if s := times[k] - times[k-1]; s > 0 && (k == 1 || s < step) {
			step = s
		}
	}
	d.waiting, d.highest, d.begun = nil, nil, true
	for k := range d.depth + 1 {
		d.highest = append(d.highest, times[0]-int64(d.depth+1-k)*step)
	}
	d.last = d.highest[0] - 1
	for k := range w {
		d.date(&w[k])
		fn(w[k])
	}
}

// inversions is how many pictures at most precede one that is shown before them.
func inversions(w []timedPicture) int {
	most := 0
	for k := range w {
		n := 0
		for j := range k {
			if w[j].pts > w[k].pts {
				n++
			}
		}
		most = max(most, n)
	}
	return min(most, maxReorder)
}

// date gives a picture its DTS. Where pictures turn out to be reordered more
// deeply than was known, the times of a few stand still.
func (d *decodeOrder) date(p *timedPicture) {
	if len(d.highest) > d.depth && p.pts <= d.highest[0] && d.depth < maxReorder {
		d.depth++
	}
	k, _ := slices.BinarySearch(d.highest, p.pts)
	d.highest = slices.Insert(d.highest, k, p.pts)
	if n := len(d.highest); n > d.depth+1 {
		d.highest = append(d.highest[:0], d.highest[n-d.depth-1:]...)
	}
	p.dts = max(d.highest[0], d.last)
	d.last = p.dts
}
