package ingest

import (
	"errors"
	"slices"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpac3"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpfragmented"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg1audio"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg4audio"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// more are the errors that say that a frame goes on in the next packet.
var more = []error{
	rtph264.ErrMorePacketsNeeded, rtph265.ErrMorePacketsNeeded, rtpmpeg4audio.ErrMorePacketsNeeded,
	rtpfragmented.ErrMorePacketsNeeded, rtpmpeg1audio.ErrMorePacketsNeeded, rtpac3.ErrMorePacketsNeeded,
}

// midway are the errors that say that a frame had begun before what was heard.
var midway = []error{
	rtph264.ErrNonStartingPacketAndNoPrevious, rtph265.ErrNonStartingPacketAndNoPrevious,
	rtpmpeg1audio.ErrNonStartingPacketAndNoPrevious, rtpac3.ErrNonStartingPacketAndNoPrevious,
}

// needMore makes no error of one that asks for more packets.
func needMore(err error) error {
	if slices.ContainsFunc(more, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}

// rtspSession makes access units of the packets of a session. It is used under
// its source's lock.
type rtspSession struct {
	src     *rtspSource
	program *mpegts.Program
	tracks  []*rtspTrack
	time    rtspTime
	began   time.Time // arrival of the first unit
	running bool      // the tracks' times are settled
	held    []heldUnit
	heldLen int
	lost    []uint16 // tracks that have lost units since the last that was put
	told    bool     // the program is out
}

// rtspTrack is the state of a medium.
type rtspTrack struct {
	*rtspMedia
	clock  rtpClock
	heard  bool
	ssrc   uint32
	seq    uint16
	torn   bool // what comes next may lack its beginning
	begun  bool // packets of a frame have come, and not all
	stamp  uint32
	sets   *pictureSets
	prefix [][]byte // NAL units that wait for their picture
	length int      // bytes of prefix
	order  *decodeOrder
}

// heldUnit waits for the tracks' times to be settled.
type heldUnit struct {
	t       *rtspTrack
	lost    bool
	ext     int64
	nals    [][]byte
	depth   int // of reordering, as of now
	frame   rtpFrame
	torn    bool
	arrived time.Time
}

func newRTSPSession(src *rtspSource, p *mpegts.Program, media []*rtspMedia) *rtspSession {
	n := &rtspSession{src: src, program: p}
	for _, m := range media {
		t := &rtspTrack{rtspMedia: m, clock: rtpClock{rate: m.rate}, order: newDecodeOrder()}
		if m.pictures != nil {
			t.sets = &pictureSets{codec: m.track.Codec, depth: -1}
			for _, set := range m.sets {
				if len(set) > 0 {
					t.sets.take([][]byte{set})
				}
			}
		}
		n.tracks = append(n.tracks, t)
	}
	return n
}

// packet takes a packet of medium k. They come in their order, but for those
// that never came.
func (n *rtspSession) packet(k int, pkt *rtp.Packet, now time.Time) {
	t := n.tracks[k]
	if gap := t.gap(pkt); gap > 0 {
		n.src.stats.Lost += uint64(gap)
		if t.track == nil {
			if b := n.src.put(now, 0, true); b != nil {
				b.Lost = uint32(gap)
			}
		} else {
			n.lose(t, now)
		}
	}
	if t.track == nil {
		if b := n.src.put(now, len(pkt.Payload), false); b != nil && len(pkt.Payload) > 0 {
			b.Datagrams = append(b.Datagrams, slices.Clone(pkt.Payload))
		}
		return
	}
	var err error
	if t.pictures != nil {
		err = n.picture(t, pkt, now)
	} else {
		err = n.frames(t, pkt, now)
	}
	switch {
	case err == nil:
	case slices.ContainsFunc(midway, func(e error) bool { return errors.Is(err, e) }):
		t.torn = true // recording begins in the middle of a frame
	default:
		n.src.stats.Errors++
		n.lose(t, now)
	}
}

// gap returns how many packets are missing ahead of one. Another source of the
// medium (RFC 3550 5.1) begins anew.
func (t *rtspTrack) gap(pkt *rtp.Packet) int {
	want := t.seq + 1
	heard, other := t.heard, pkt.SSRC != t.ssrc
	t.heard, t.ssrc, t.seq = true, pkt.SSRC, pkt.SequenceNumber
	switch d := int16(pkt.SequenceNumber - want); {
	case !heard || d == 0 && !other:
		return 0
	case other:
		t.clock = rtpClock{rate: t.rate}
		return 1
	default:
		return max(int(d), 1) // backwards: it has begun anew
	}
}

// lose forgets what has come of a frame whose other packets have not.
func (n *rtspSession) lose(t *rtspTrack, now time.Time) {
	_ = t.renew() // it has been made before
	t.torn, t.begun, t.prefix, t.length = true, false, nil, 0
	if !n.running {
		n.held = append(n.held, heldUnit{t: t, lost: true, arrived: now})
		return
	}
	n.lostUnits(t)
}

func (n *rtspSession) lostUnits(t *rtspTrack) {
	if !slices.Contains(n.lost, t.track.PID) {
		n.lost = append(n.lost, t.track.PID)
	}
}

// picture takes a packet of video.
func (n *rtspSession) picture(t *rtspTrack, pkt *rtp.Packet, now time.Time) error {
	stamp, begun := t.stamp, t.begun
	nals, err := t.pictures(pkt)
	t.stamp = pkt.Timestamp
	if err != nil {
		t.begun = needMore(err) == nil
		return needMore(err)
	}
	// A picture of H.264 without a marker at its end is told by the next one's
	// time.
	if t.begun = begun && stamp != pkt.Timestamp && t.track.Codec == m4f.CodecH264; !t.begun {
		stamp = pkt.Timestamp
	}
	nals = slices.DeleteFunc(nals, func(nal []byte) bool { return len(nal) == 0 })
	if len(nals) == 0 {
		return nil
	}
	t.sets.take(nals)
	if !t.sets.hasPicture(nals) {
		for _, nal := range nals {
			t.length += len(nal)
		}
		if t.prefix = append(t.prefix, nals...); t.length > maxPrefix || len(t.prefix) > maxSets {
			t.prefix, t.length = nil, 0
		}
		return nil
	}
	nals = append(t.prefix, nals...)
	t.prefix, t.length = nil, 0
	// Recording may begin in the middle of a picture.
	torn := t.torn || !t.clock.begun && !t.sets.begins(nals[0])
	t.torn = false
	n.take(heldUnit{t: t, ext: t.clock.extend(stamp), nals: t.sets.complete(nals), depth: t.sets.depth, torn: torn, arrived: now})
	return nil
}

// frames takes a packet of audio.
func (n *rtspSession) frames(t *rtspTrack, pkt *rtp.Packet, now time.Time) error {
	list, err := t.rtspMedia.frames(pkt)
	if len(list) > 0 {
		ext := t.clock.extend(pkt.Timestamp)
		for _, f := range list {
			n.take(heldUnit{t: t, ext: ext, frame: f, torn: t.torn, arrived: now})
			ext += f.length
		}
		t.torn = false
	}
	return err
}

// report takes a sender report of medium k.
func (n *rtspSession) report(k int, sr *rtcp.SenderReport) {
	if t := n.tracks[k]; t.heard && sr.SSRC == t.ssrc {
		t.clock.sender(sr)
	}
}

// take takes a unit. Up to rtspSync, those of all tracks wait for the sender
// reports that tell how their times relate.
func (n *rtspSession) take(u heldUnit) {
	if n.running {
		n.put(&u)
		return
	}
	if n.began.IsZero() {
		n.began = u.arrived
	}
	n.held = append(n.held, u)
	for _, nal := range u.nals {
		n.heldLen += len(nal)
	}
	n.heldLen += len(u.frame.data)
	if !n.reported() && u.arrived.Sub(n.began) < rtspSync && n.heldLen < rtspQueued/2 {
		return
	}
	n.release()
}

// release hands out what has waited for the tracks' times.
func (n *rtspSession) release() {
	n.running = true
	n.begin()
	for k := range n.held {
		if h := &n.held[k]; h.lost {
			n.lostUnits(h.t)
		} else {
			n.put(h)
		}
	}
	n.held = nil
}

// end hands out what waits: the session is over.
func (n *rtspSession) end() {
	if !n.running {
		n.release()
	}
	for _, t := range n.tracks {
		t.order.flush(n.picked(t))
	}
}

// picked returns what makes a unit of a picture of a track and hands it out.
func (n *rtspSession) picked(t *rtspTrack) func(timedPicture) {
	return func(p timedPicture) {
		if unit, ok := mpegts.NewPicture(t.track, p.pts, p.dts, p.nals); ok {
			unit.Marked = p.torn
			n.out(unit, p.arrived)
		}
	}
}

// reported says whether every track has delivered and told its time.
func (n *rtspSession) reported() bool {
	return !slices.ContainsFunc(n.tracks, func(t *rtspTrack) bool { return !t.clock.begun || !t.clock.report })
}

// begin sets the session's time going: by the program's leading track, or, where
// that is silent, by the first that is not.
func (n *rtspSession) begin() {
	if len(n.held) == 0 {
		return
	}
	first := -1
	lead := n.program.Leading()
	for k := range n.held {
		switch {
		case n.held[k].lost:
		case n.held[k].t.track == lead:
			first = k
		case first < 0:
			first = k
		}
		if first == k && n.held[k].t.track == lead {
			break
		}
	}
	if first >= 0 {
		h := &n.held[first]
		n.time.begin(&h.t.clock, h.ext, h.arrived)
	}
}

// put dates a unit and hands it out.
func (n *rtspSession) put(u *heldUnit) {
	c := &u.t.clock
	switch {
	case c.synced:
	case n.time.lead == nil || c == n.time.lead:
		n.time.begin(c, u.ext, u.arrived)
	default:
		n.time.join(c, u.ext, u.arrived)
	}
	pts := n.time.time(c, u.ext, u.arrived)
	if u.nals == nil {
		unit := mpegts.NewFrame(u.t.track, pts, c.ticks(u.ext+u.frame.length)-c.ticks(u.ext), u.frame.header, u.frame.data)
		unit.Marked = u.torn
		n.out(unit, u.arrived)
		return
	}
	p := timedPicture{nals: u.nals, pts: pts, torn: u.torn, arrived: u.arrived}
	u.t.order.add(p, u.depth, n.picked(u.t))
}

// out queues a unit to be read, the program ahead of the first and losses ahead
// of what comes after them.
func (n *rtspSession) out(u mpegts.Unit, arrived time.Time) {
	b := n.src.put(arrived, len(u.Data), !n.told || len(n.lost) > 0)
	if b == nil {
		return
	}
	if !n.told {
		n.told, b.Program = true, n.program
	}
	b.LostPIDs = append(b.LostPIDs, n.lost...)
	n.lost = nil
	b.Units = append(b.Units, u)
}
