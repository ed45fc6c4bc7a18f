// Package segment cuts the access units of a program into segments so that
// any two recorders of one source cut alike: every boundary, timestamp and box
// follows from the source's own bytes. RULES.md beside this file states the
// rules and the case that each is there for.
package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// DefaultTarget is the target duration of a segment unless set: 4 s.
const DefaultTarget = 4 * m4f.Timescale

const (
	latest     = 5 * m4f.Timescale  // how far the leading track waits for the others
	forget     = 10 * m4f.Timescale // how long anything else is waited for
	jumpAhead  = 3 * m4f.Timescale  // a longer step forward begins a timeline
	alikeJumps = m4f.Timescale / 2  // by how much the jumps of two tracks differ at most
	maxSource  = 64 << 20           // bytes of source in a segment
	maxFrames  = 1 << 18            // access units in a segment
	maxHeld    = 192 << 20          // bytes held in all
	frameCost  = 256                // bytes that an access unit costs beside its own
	maxOpen    = 256                // openings waiting
	maxWait    = 1 << 15            // access units that a jump waits for the other tracks
	maxMaps    = 64                 // program maps remembered
	maxLosses  = 4096               // losses told apart
	margin     = m4f.Timescale      // by how much reordering may hide a keyframe
	regularRun = 25                 // equal DTS steps that make a rhythm
	keyless    = 4                  // buckets without a keyframe that are waited
)

// Config says how to segment.
type Config struct {
	TargetDuration int64       // D in ticks; 0: DefaultTarget
	Program        uint16      // program number; 0: the lowest
	Clock          clock.Clock // nil: clock.System
	// Unpaced says that the bytes arrive faster than they were made (a file):
	// the first timeline is dated from Start, each later one begins where the
	// one before ended.
	Unpaced bool
	Start   m4f.UTC // of the first segment of unpaced input; 0: now
	// Lend has the media of segments lie in pieces of what was received, not
	// copied: whoever takes a segment calls its Recycle, on whatever goroutine, when
	// done with it.
	Lend bool
	// Hint gives the UTC that others gave to a media time, for the offset to be
	// taken over: utc is what this recorder would give, fresh says that a
	// timeline begins. It is taken when it differs by a second at most.
	Hint func(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool)
	// Resume gives the UTC that a timeline which was recorded up to a moment ago
	// gives to a media time at which it goes on, ok, after a silence: near is when
	// that was heard, which may be up to ten seconds late, and by a clock that was
	// set meanwhile; nil: none.
	Resume func(media int64, near m4f.UTC) (utc m4f.UTC, ok bool)
	// Salvage, where set, is handed the packets of each damaged or partial
	// segment that was emitted: from those that a Segmenter that has heard
	// nothing else needs to cut it alike, up to a second of the stream behind
	// the one that completed it (Resegment). It is called by Write, WriteAt, Close and
	// Interrupt, in the order of the segments; what it is given is valid during
	// the call, its packets (in Pieces) as long as they are held. What is heard ahead of the first keyframe is handed out too, before
	// the packets of the first segment, as those of a segment that was not emitted
	// and lost all: it may be the end of one that another recorder began. At most 32 MiB of packets are held: a segment that wants more is left
	// out, and so are those of a source that is no transport stream.
	Salvage func(*salvage.Kept)
}

// Stats counts what a Segmenter has done.
type Stats struct {
	mpegts.Stats
	Segments, Damaged, Partial int64
	Timelines                  int64
	Units                      int64
	Keyframes                  int64
	// Disagreement is the last difference in ticks between a hint and the own
	// clock that was too large to be taken over; 0: none.
	Disagreement int64
	Err          error // the last segment that could not be built
}

// Segmenter turns a transport stream into segments. It is used by one
// goroutine.
type Segmenter struct {
	cfg   Config
	emit  func(*m4f.Segment)
	dmx   *mpegts.Demuxer
	dater dater
	now   m4f.UTC
	stats Stats
	kept  *keeper // nil: nothing is kept

	program *mpegts.Program
	history []programAt
	lead    *mpegts.Track
	tracks  map[uint16]*trackState

	buf      []*frame
	bufBytes int      // what they cost
	trimAt   int      // frames in buf from which it is looked through before there is a segment
	cur      *opening // the segment being collected; nil before the first keyframe
	next     []*opening
	losses   []*loss
	swamped  int64 // leading time received up to which what opens is damaged
	// The number of the packet before which some were lost last, and the leading
	// time received up to which one of them may be of a segment that opens.
	dropped, dropUntil int64
	received           int64 // leading time received, ticks
	added              int64 // frames taken
	source             int   // bytes since the last opening
	frames             int   // frames since the last opening

	leadPrev    *frame
	leadSeq     int64
	leadDTS     int64
	leadDated   bool
	leadPES     int64  // PES headers seen on a leading video track
	leadStep    int64  // DTS of leadPrev less that of the frame before it
	leadLast    *frame // leading frame before the segment was ended without a next
	leadChanged bool   // it was of another track
	leadMax     int64  // highest PTS of the timeline
	leadU       int64  // leadPrev's PTS, unwrapped from prevKey's on
	prevKey     *frame
	prevMap     *mpegts.Program // in force at prevKey
	bucketU     int64           // the bucket that a forced opening was made for last
	basePES     int64           // PES headers seen when it began
	awaitKey    bool            // a timeline has begun and no keyframe of it was seen
	rhythm      rhythm
	lastInit    []byte
	lastProg    *mpegts.Program
	afterJump   bool // the next segment written follows a jump

	lastKey int64   // packet in which the last keyframe begins; -1: there was none
	openKey int64   // ... and the last that opened a segment
	again   bool    // Resegment: to look whether segments are complete
	early   bool    // ... packets are missing ahead of the map
	inside  bool    // ... the one that is sealed is
	begun   bool    // ... or would be, but opens at the first keyframe
	opens   []int64 // ... and where segments are known to open

	unitNumber int64            // units and maps taken by WriteUnit and SetProgram
	unitPES    map[uint16]int64 // units of each PID taken by WriteUnit
}

// programAt is a program map and the packet that it came in force with.
type programAt struct {
	pkt       int64
	p         *mpegts.Program
	afterLoss bool
}

// trackState is what is known of a PID.
type trackState struct {
	first    int64 // PTS of the first frame, to tell whether a segment is whole
	seen     bool
	deaf     bool // a timeline began and where this track's did was not seen
	last     *frame
	max      int64 // highest PTS
	hasMax   bool
	jumped   *frame // where its time jumped last, until the leading track's has
	lead     int64  // number of the leading frame before last
	alone    int64  // ticks that the track has gone on since
	expected int64  // audio: PTS that follows from the frames before
	expects  bool
}

// frame is an access unit waiting for its segment.
type frame struct {
	mpegts.Unit
	kind     mpegts.Kind
	seq      int64 // leading track: order of decoding
	jump     bool  // its track's time jumps here
	step     int64 // ... by so many ticks of DTS
	orphan   bool  // its track had no frame before
	taken    bool  // it has gone into a segment
	arrived  m4f.UTC
	received int64 // leading time received when it came
}

// opening is where a segment begins.
type opening struct {
	f       *frame
	key     bool  // at a keyframe
	jump    bool  // a timeline begins
	step    int64 // ... by so many ticks of DTS
	oldEnd  int64
	partial bool
	unsure  bool // damaged whatever it holds
	lost    int
	errored int
	at      int64 // frames taken before it
	from    int64 // packet before which nothing matters to what it opens but frames of other tracks
	joining bool  // nothing before it was heard
	lostAt  int64 // the packet ahead of the first that showed a loss which damages it
	program *mpegts.Program
}

func (f *frame) cost() int { return len(f.Data) + frameCost }

// New returns a Segmenter that calls emit for each segment, in order.
func New(cfg Config, emit func(*m4f.Segment)) *Segmenter {
	if cfg.TargetDuration == 0 {
		cfg.TargetDuration = DefaultTarget
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	s := &Segmenter{cfg: cfg, emit: emit, tracks: map[uint16]*trackState{}, unitPES: map[uint16]int64{}, lastKey: -1, openKey: -1}
	s.dater = dater{unpaced: cfg.Unpaced, start: cfg.Start, hint: cfg.Hint, resume: cfg.Resume}
	s.dmx = mpegts.NewDemuxer(cfg.Program, (*handler)(s))
	if cfg.Salvage != nil {
		s.kept = &keeper{s: s, hand: cfg.Salvage, lead: &ahead{}}
		s.dmx.Keep(s.kept)
	}
	s.now = m4f.UTCOf(cfg.Clock.Now())
	return s
}

// Write takes the next bytes of the transport stream, cut anywhere.
func (s *Segmenter) Write(p []byte) (int, error) {
	s.now = m4f.UTCOf(s.cfg.Clock.Now())
	s.dmx.Write(p)
	return len(p), nil
}

// WriteAt is Write for a datagram that arrived at a known time. Repeated ones and
// swapped neighbours are put right, see mpegts.Demuxer.WriteDatagram.
func (s *Segmenter) WriteAt(p []byte, arrived time.Time) {
	s.now = m4f.UTCOf(arrived)
	s.dmx.WriteDatagram(p)
}

// Drops says that up to so many transport packets were lost just now, as the
// kernel or a transport's sequence numbers tell; which is not known. Where the
// continuity counters will show what of it was the program's, that alone is
// damaged; from mpegts.Hidden on, everything unfinished is.
func (s *Segmenter) Drops(packets int) {
	switch {
	case packets >= mpegts.Hidden:
		s.dmx.Settle()
		s.hole(packets)
		(*handler)(s).Loss(mpegts.Loss{Lost: packets})
	case packets > 0:
		s.dropped, s.dropUntil = s.dmx.Missing(packets), s.received+forget
	}
}

// Close hands out what is complete and closes the open segment as partial, and
// with it those that other tracks had not yet completed.
func (s *Segmenter) Close() {
	s.dmx.Close()
	s.end()
	s.endKeeping()
}

// Interrupt is Close in the middle of a stream: the recorder ends, the source
// does not. A picture of which a part has come is left out.
func (s *Segmenter) Interrupt() {
	s.dmx.Abandon()
	s.end()
	s.endKeeping()
}

// end closes all that is open.
func (s *Segmenter) end() {
	for len(s.next) > 0 {
		if s.cur != nil && !s.isComplete() {
			s.cur.partial = true // more of it may have been to come
		}
		s.complete()
	}
	s.finish()
}

// Stats returns the counts so far.
func (s *Segmenter) Stats() Stats {
	s.stats.Stats = s.dmx.Stats()
	s.stats.Disagreement = s.dater.disagreement
	return s.stats
}

// Program returns the program map in force, or nil.
func (s *Segmenter) Program() *mpegts.Program { return s.program }

// Errors of input that nothing could be recorded from.
var (
	ErrNotTransportStream = errors.New("not an MPEG transport stream")
	ErrNoProgram          = errors.New("no program")
	ErrNoTrack            = errors.New("no video or audio track")
	ErrScrambled          = errors.New("scrambled")
	ErrNoKeyframe         = errors.New("no keyframe")
)

// Diagnose says why input has given no segment so far, in words for an
// operator; nil when it has given one, or one is being collected.
func (s *Segmenter) Diagnose() error {
	st := s.Stats()
	switch {
	case st.Segments > 0 || s.cur != nil && s.cur.key || len(s.next) > 0 && s.next[0].key:
		return nil
	case st.Err != nil:
		return st.Err
	case s.unitNumber > 0:
		return s.diagnoseUnits()
	case st.Packets == 0 && st.Garbage == 0:
		return fmt.Errorf("%w: it is empty", ErrNotTransportStream)
	case st.Packets == 0:
		return fmt.Errorf("%w: no run of packets that begin with 0x47 in %d bytes", ErrNotTransportStream, st.Garbage)
	case s.program == nil && s.dmx.Programs() == nil:
		return fmt.Errorf("%w: no program association table in %d packets", ErrNoProgram, st.Packets)
	case s.program == nil && s.cfg.Program != 0:
		return fmt.Errorf("%w %d: the stream has programs %v", ErrNoProgram, s.cfg.Program, s.dmx.Programs())
	case s.program == nil:
		return fmt.Errorf("%w: the map of program %v did not come in %d packets", ErrNoProgram, s.dmx.Programs(), st.Packets)
	case s.lead == nil:
		return fmt.Errorf("%w of a known type in program %d (stream types %s)", ErrNoTrack, s.program.Number, streamTypes(s.program))
	case st.Units == 0 && st.Scrambled > 0:
		return fmt.Errorf("program %d is %w: %d of %d packets", s.program.Number, ErrScrambled, st.Scrambled, st.Packets)
	}
	return fmt.Errorf("%w with its own parameter sets on PID %d in %d packets", ErrNoKeyframe, s.lead.PID, st.Packets)
}

func streamTypes(p *mpegts.Program) string {
	out := ""
	for k, t := range p.Tracks {
		if k > 0 {
			out += ", "
		}
		out += fmt.Sprintf("0x%02x", t.StreamType)
	}
	return out
}

func (s *Segmenter) bucket(pts int64) int64 { return pts / s.cfg.TargetDuration }

func (s *Segmenter) track(pid uint16) *trackState {
	t := s.tracks[pid]
	if t == nil {
		t = &trackState{}
		s.tracks[pid] = t
	}
	return t
}

// handler is the Segmenter as its demultiplexer sees it.
type handler Segmenter

// Program implements mpegts.Handler.
func (h *handler) Program(p *mpegts.Program, pkt int64, afterLoss bool) {
	s := (*Segmenter)(h)
	lead, old := p.Leading(), s.lead
	if afterLoss {
		s.flagUnfinished(0, 0)
	}
	if old != nil && (lead == nil || lead.PID != old.PID || lead.Codec != old.Codec || lead.StreamType != old.StreamType) {
		s.changeLead()
	}
	if s.kept != nil && s.program != nil && s.program.Number != p.Number {
		s.kept.renumber()
	}
	s.program, s.lead = p, lead
	if s.early {
		s.early = false
		s.loseUnheard()
	}
	if len(s.history) == maxMaps {
		s.history = append(s.history[:0], s.history[1:]...)
	}
	s.history = append(s.history, programAt{pkt, p, afterLoss})
	for k := range s.tracks {
		if !hasPID(p, k) {
			delete(s.tracks, k)
		}
	}
}

func hasPID(p *mpegts.Program, pid uint16) bool {
	for k := range p.Tracks {
		if p.Tracks[k].PID == pid {
			return true
		}
	}
	return false
}

// changeLead ends what the old leading track began as the end of the input
// does, and begins anew as after joining: frames of two leading tracks have no
// order among them, and what is lost of a track that goes or comes at the
// change shows nowhere.
func (s *Segmenter) changeLead() {
	s.end()
	s.losses = slices.DeleteFunc(s.losses, func(l *loss) bool { return l.lead })
	s.rhythm, s.leadPES = rhythm{}, 0
	// What was heard of the other tracks may be of another time.
	clear(s.tracks)
	s.awaitKey, s.leadDated, s.leadChanged = false, false, true
	s.lastKey, s.openKey = -1, -1
}

// VideoHeader implements mpegts.Handler.
func (h *handler) VideoHeader(t *mpegts.Track, dts, pes int64) {
	s := (*Segmenter)(h)
	if s.lead == nil || t.PID != s.lead.PID {
		return
	}
	s.leadHeader(dts)
	s.leadDTS, s.leadDated, s.leadPES = dts, true, pes
}

// Unit implements mpegts.Handler.
func (h *handler) Unit(u *mpegts.Unit) {
	s := (*Segmenter)(h)
	s.stats.Units++
	if s.lead == nil {
		u.Release()
		return
	}
	f := &frame{Unit: *u, kind: u.Track.Kind, arrived: s.now}
	if !s.date(f) {
		f.Release()
		return
	}
	s.add(f)
}

// date gives data without a time, or with one too far from the leading track,
// the leading track's last DTS. It says whether the frame has a time now.
func (s *Segmenter) date(f *frame) bool {
	if f.kind != mpegts.Data {
		if f.Dated && f.Track.PID == s.lead.PID && f.kind == mpegts.Audio {
			s.leadDTS, s.leadDated = f.DTS, true
		}
		return f.Dated
	}
	if !s.leadDated {
		return false // it may be one that is dated too far off
	}
	if d := m4f.Diff33(f.PTS, s.leadDTS); !f.Dated || d > latest || d < -latest {
		f.PTS, f.DTS, f.Dated = s.leadDTS, s.leadDTS, true
	}
	return true
}

// add takes a dated frame: notes what it tells of losses, finds the openings
// that it makes, and emits the segments that are complete with it.
func (s *Segmenter) add(f *frame) {
	t := s.track(f.Track.PID)
	f.received = s.received
	t.advance(f, s.leadSeq)
	s.endLosses(f)
	s.checkStep(t, f)
	if !t.seen {
		t.seen, t.first = true, f.PTS
	}
	t.last = f
	if s.near(f, s.leadDTS) {
		t.hasMax = t.hasMax && !f.jump
		t.raise(f.PTS)
	}
	s.buf = append(s.buf, f)
	s.bufBytes += f.cost()
	s.added++
	s.source += len(f.Data)
	s.frames++
	if f.Track.PID == s.lead.PID {
		s.follow(f)
	} else if s.stopped(t) {
		s.finish()
	}
	for len(s.next) > 0 && (s.isComplete() || len(s.next) > maxOpen || s.bufBytes > maxHeld) {
		s.complete()
	}
	if s.cur == nil && len(s.next) == 0 && len(s.buf) >= s.trimAt {
		s.trim()
	}
	if s.kept != nil {
		s.kept.look(false)
	}
}

// near says whether a frame's time can be believed to tell how far its track
// has come, with the leading track at dts.
func (s *Segmenter) near(f *frame, dts int64) bool {
	return f.Track.PID == s.lead.PID || s.leadDated && abs(m4f.Diff33(f.PTS, dts)) <= forget
}

// raise takes note of a frame's time.
func (t *trackState) raise(pts int64) {
	if !t.hasMax || m4f.Diff33(pts, t.max) > 0 {
		t.max, t.hasMax = pts, true
	}
}

// advance compares a frame's time with that of the frame before it on its
// track. lead is the number of the last leading frame.
func (t *trackState) advance(f *frame, lead int64) {
	if t.lead != lead {
		t.lead, t.alone = lead, 0
	}
	if t.last == nil {
		f.orphan = true
		return
	}
	d := m4f.Diff33(f.DTS, t.last.DTS)
	if jump := d < 0 || d > jumpAhead; !jump {
		t.alone += d
	} else if f.kind != mpegts.Data {
		// The frames before may have been of a timeline that the leading
		// track had left before this recorder joined.
		f.jump, f.step, t.deaf = true, d, true
		t.jumped = f
	}
}

// stopped says, at a frame of another track, whether the leading track has
// stopped, so that nothing would end the segment. A track that runs ahead over
// a jump is no sign of it: how far it has gone alone is.
func (s *Segmenter) stopped(t *trackState) bool {
	switch {
	case s.leadPrev == nil || s.cur == nil || len(s.next) > 0:
		return false
	case s.source >= 2*maxSource || s.frames >= 2*maxFrames:
		return true
	}
	return t.last.kind != mpegts.Data && t.alone > 4*latest
}

// checkStep finds losses that the continuity counter does not show: an audio
// frame that does not follow the one before by its own length. A jump begins a
// timeline and is no loss.
func (s *Segmenter) checkStep(t *trackState, f *frame) {
	if f.kind != mpegts.Audio || f.Duration <= 0 {
		return
	}
	if t.expects && !f.jump {
		if d := m4f.Diff33(f.PTS, t.expected); 2*d > f.Duration || 2*d < -f.Duration {
			if t.last != nil {
				s.note(&loss{pid: f.Track.PID, from: t.last.PTS, hasFrom: true, to: f.PTS, hasTo: true})
			}
			s.doubt(0, 0)
		}
	}
	t.expected = (f.PTS + f.Duration) & (m4f.Wrap - 1)
	t.expects = true
}

// follow takes a frame of the leading track: it may begin a timeline or open
// a segment.
func (s *Segmenter) follow(f *frame) {
	s.leadSeq++
	f.seq = s.leadSeq
	jump := false
	if s.leadPrev != nil {
		d := m4f.Diff33(f.DTS, s.leadPrev.DTS)
		if d > 0 && d <= jumpAhead {
			s.received += d
			f.received = s.received
		}
		if jump = d < 0 || d > jumpAhead; !jump {
			s.leadStep = d
		}
		s.leadU += m4f.Diff33(f.PTS, s.leadPrev.PTS)
	} else {
		s.resume(f)
	}
	if s.kept != nil {
		s.kept.mark(f)
	}
	key := f.Key || s.lead.Kind == mpegts.Audio
	if f.Key {
		s.stats.Keyframes++
	}
	if jump {
		s.beginTimeline(f, key)
	} else if key {
		s.keyframe(f)
	} else {
		s.force(f)
	}
	if jump || s.leadPrev == nil || m4f.Diff33(f.PTS, s.leadMax) > 0 {
		s.leadMax = f.PTS
	}
	s.leadPrev = f
}

// resume takes the first frame of the leading track, or the first after it had
// stopped or another track led.
func (s *Segmenter) resume(f *frame) {
	s.leadU, s.leadStep = f.PTS, 0
	if s.leadLast == nil {
		return
	}
	d := m4f.Diff33(f.DTS, s.leadLast.DTS)
	if s.leadChanged {
		d = abs(d) // one may run a little behind the other
	}
	if d < 0 || d > jumpAhead {
		s.stats.Timelines++
		s.afterJump = true
		if !s.leadChanged {
			// Which of the frames that wait lie before the jump is not known.
			s.awaitKey = false
			for _, t := range s.tracks {
				t.hasMax, t.deaf = false, true
			}
		}
	}
	s.leadLast, s.leadChanged = nil, false
}

// beginTimeline opens a segment at the first frame of a new timeline.
func (s *Segmenter) beginTimeline(f *frame, key bool) {
	s.stats.Timelines++
	if s.kept != nil && s.cur == nil && len(s.next) == 0 {
		s.kept.lead = nil
	}
	step := s.leadStep
	if s.leadPrev.Duration > 0 {
		step = s.leadPrev.Duration
	}
	o := &opening{f: f, key: key, jump: true, step: m4f.Diff33(f.DTS, s.leadPrev.DTS), oldEnd: (s.leadMax + max(step, 1)) & (m4f.Wrap - 1)}
	o.program, o.unsure = s.programFor(f)
	for _, l := range s.losses {
		if l.lead && !l.regular && l.pes >= s.leadPrev.PES || s.lead.Kind == mpegts.Audio && l.hasTo && l.to == f.PTS {
			o.unsure = true
		}
	}
	s.open(o)
	s.prevKey, s.basePES = nil, s.leadPrev.PES
	s.awaitKey = !key
	if key {
		s.setKey(f)
	}
}

// keyframe opens a segment at a keyframe whose bucket is not the last
// keyframe's, or whose map is not, at the first keyframe seen (a partial one),
// and at the first of a timeline.
func (s *Segmenter) keyframe(f *frame) {
	switch {
	case s.prevKey != nil && s.bucket(s.prevKey.PTS) == s.bucket(f.PTS) && !s.remapped(f):
		if s.full() {
			s.open(s.keyOpening(f))
		}
		s.setKey(f)
		return
	case s.prevKey == nil && !s.awaitKey:
		o := s.keyOpening(f)
		o.partial, o.joining = true, true
		s.open(o)
	default:
		s.open(s.keyOpening(f))
	}
	s.awaitKey = false
	s.setKey(f)
}

// remapped says whether another map is in force at a keyframe than at the one
// before.
func (s *Segmenter) remapped(f *frame) bool {
	p, _ := s.programFor(f)
	return s.prevKey != nil && p != s.prevMap && !equalMaps(p, s.prevMap)
}

// equalMaps says whether two maps say the same, whatever their versions are.
func equalMaps(a, b *mpegts.Program) bool {
	return a.Number == b.Number && a.PCRPID == b.PCRPID && bytes.Equal(a.Descriptors, b.Descriptors) &&
		slices.EqualFunc(a.Tracks, b.Tracks, func(x, y mpegts.Track) bool {
			return same(&x, &y) && bytes.Equal(x.Descriptors, y.Descriptors)
		})
}

func (s *Segmenter) setKey(f *frame) {
	s.prevKey, s.leadU, s.bucketU, s.lastKey = f, f.PTS, 0, f.First
	s.prevMap, _ = s.programFor(f)
}

// full says whether the segment must be cut for its size.
func (s *Segmenter) full() bool { return s.source >= maxSource || s.frames >= maxFrames }

// force opens a segment at a frame that is no keyframe: the first of each
// bucket once four have passed without one, and where a segment has grown too
// large.
func (s *Segmenter) force(f *frame) {
	if s.prevKey == nil || s.cur == nil && len(s.next) == 0 {
		return
	}
	d := s.cfg.TargetDuration
	b := s.leadU/d - s.prevKey.PTS/d
	late := b >= keyless && b > s.bucketU
	if !late && !s.full() {
		return
	}
	if late {
		s.bucketU = b
	}
	o := &opening{f: f}
	for _, l := range s.losses {
		if l.lead && l.pes >= s.prevKey.PES && !l.regular {
			o.unsure = true
		}
	}
	s.open(o)
}

// keyOpening returns an opening at a keyframe, with the program map in force
// at its first packet.
func (s *Segmenter) keyOpening(f *frame) *opening {
	o := &opening{f: f, key: true}
	o.program, o.unsure = s.programFor(f)
	o.unsure = o.unsure || s.hidden(f) && !slices.Contains(s.opens, f.PTS) || s.remapped(f) && s.mapLost(f)
	o.partial = o.program.Doubtful
	return o
}

// mapLost says whether the map in force at a keyframe may have been so at one
// before: it came behind a gap.
func (s *Segmenter) mapLost(f *frame) bool {
	for _, m := range s.history {
		if m.afterLoss && m.pkt < f.First && m.pkt >= s.prevKey.First {
			return true
		}
	}
	return false
}

// programFor returns the map in force at a frame's first packet, and whether a
// later one that was lost may have been.
func (s *Segmenter) programFor(f *frame) (*mpegts.Program, bool) {
	h := s.history
	for k := len(h) - 1; k >= 0; k-- {
		if h[k].pkt < f.First || k == 0 {
			return h[k].p, k+1 < len(h) && h[k+1].afterLoss
		}
	}
	return s.program, false
}

func (s *Segmenter) open(o *opening) {
	o.at, o.from, o.lostAt = s.added, s.lastKey, math.MaxInt64
	switch {
	case !o.key:
		o.from = s.openKey
	case s.lastKey < 0:
		o.from = o.f.First
		fallthrough
	default:
		s.openKey = o.f.First
	}
	if n := len(s.next); !o.key && n > 0 {
		o.program = s.next[n-1].program
	} else if !o.key && s.cur != nil {
		o.program = s.cur.program
	}
	o.unsure = o.unsure || s.received < s.swamped
	s.next = append(s.next, o)
	s.source, s.frames = len(o.f.Data), 1
}

// trim forgets frames that no segment can want: nothing has been opened yet.
func (s *Segmenter) trim() {
	keep := s.buf[:0]
	for _, f := range s.buf {
		if f.Track.PID == s.lead.PID || s.bufBytes > maxSource || m4f.Diff33(s.track(f.Track.PID).last.PTS, f.PTS) > forget {
			s.bufBytes -= f.cost()
			f.Release()
			continue
		}
		keep = append(keep, f)
	}
	clear(s.buf[len(keep):])
	s.buf = keep
	s.trimAt = 2*len(keep) + 256
}
