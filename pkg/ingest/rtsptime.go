package ingest

import (
	"time"

	"github.com/pion/rtcp"

	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// rtspSync is how long after its first packet a session's tracks are
	// waited for to say, by RTCP, how their times relate.
	rtspSync = 3 * time.Second
	// rtspAgree is how far the camera's clock may be from this machine's for
	// media time to be taken from it.
	rtspAgree = time.Second
	// A track is drawn towards the leading one when sender reports have it this
	// far off, until it is this near, by this part of what it has advanced.
	slewFrom, slewTo, slewPart = m4f.Timescale / 50, m4f.Timescale / 1000, 100
	// Further off than slewMost for stepAfter, it is put right at once.
	slewMost  = m4f.Timescale
	stepAfter = 12 * time.Second
)

// rtpClock turns the RTP timestamps of a track, of 32 bits from a random start
// (RFC 3550 5.1), into ticks of 1/90 000 s on the session's time.
type rtpClock struct {
	rate   int64 // Hz
	begun  bool
	last   uint32
	ext    int64 // last, unwrapped, from 0
	synced bool
	offset int64 // ticks that make ext the session's time
	report bool  // a sender report has come
	ntp    time.Time
	ntpExt int64 // what it says ntp was at

	slewing bool
	passed  int64     // ext up to which the offset has been drawn
	far     time.Time // since when it is too far off to be drawn; zero: it is not
}

// extend unwraps a timestamp. Those of pictures need not rise.
func (c *rtpClock) extend(ts uint32) int64 {
	if !c.begun {
		c.begun, c.last = true, ts
	}
	ext := c.ext + int64(int32(ts-c.last))
	c.ext, c.last = ext, ts
	return ext
}

// ticks is a time of the clock as ticks, without offset, rounded down.
func (c *rtpClock) ticks(ext int64) int64 {
	q, r := ext/c.rate, ext%c.rate
	if r < 0 {
		q, r = q-1, r+c.rate
	}
	return q*m4f.Timescale + r*m4f.Timescale/c.rate
}

// sender takes a sender report (RFC 3550 6.4.1). A camera that does not know
// the time sends zeros.
func (c *rtpClock) sender(sr *rtcp.SenderReport) {
	if sr.NTPTime>>32 == 0 || !c.begun {
		return
	}
	const epochs = 2208988800 // s from 1900 to 1970
	nanos := int64((sr.NTPTime & 0xffffffff) * uint64(time.Second) >> 32)
	c.ntp, c.report = time.Unix(int64(sr.NTPTime>>32)-epochs, nanos), true
	c.ntpExt = c.ext + int64(int32(sr.RTPTime-c.last))
}

// at is the camera's own time at ext, in ticks of UTC.
func (c *rtpClock) at(ext int64) int64 {
	return int64(m4f.UTCOf(c.ntp)) + c.ticks(ext-c.ntpExt)
}

// rtspTime is the time of a session: the leading track's, from the wall clock
// on, so that a session goes on about where the one before ended. The others
// follow it by what sender reports say of both, or by when they arrived.
type rtspTime struct {
	lead    *rtpClock
	first   int64     // ext of lead's first unit
	arrived time.Time // ... and when it came
}

// begin takes the leading track's first unit. Its time is the camera's where
// that agrees with this machine's clock, else when it came.
func (t *rtspTime) begin(c *rtpClock, ext int64, arrived time.Time) {
	t.lead, t.first, t.arrived = c, ext, arrived
	now := int64(m4f.UTCOf(arrived))
	if c.report {
		if d := c.at(ext) - now; d <= m4f.Ticks(rtspAgree) && d >= -m4f.Ticks(rtspAgree) {
			now += d
		}
	}
	c.offset, c.synced = now-c.ticks(ext), true
}

// join puts another track on the session's time with its first unit.
func (t *rtspTime) join(c *rtpClock, ext int64, arrived time.Time) {
	at := t.lead.offset + t.lead.ticks(t.first) + m4f.Ticks(arrived.Sub(t.arrived))
	if want, ok := t.reported(c, ext); ok {
		at = want
	}
	c.offset, c.synced, c.passed = at-c.ticks(ext), true, ext
}

// reported is the time of a unit of a track as the sender reports of it and of
// the leading track tell; it is not known before both have come.
func (t *rtspTime) reported(c *rtpClock, ext int64) (int64, bool) {
	l := t.lead
	if !c.report || !l.report {
		return 0, false
	}
	return l.offset + l.ticks(l.ntpExt) + c.at(ext) - int64(m4f.UTCOf(l.ntp)), true
}

// time is the session's time of a unit. The offset of a track that is not the
// leading one is drawn towards what sender reports tell: the clocks of a
// camera's picture and sound run apart by seconds a day. It moves in steps that
// are small beside a frame, since a larger one is a loss to whom it reaches.
func (t *rtspTime) time(c *rtpClock, ext int64, now time.Time) int64 {
	if c != t.lead {
		t.follow(c, ext, now)
	}
	return c.offset + c.ticks(ext)
}

func (t *rtspTime) follow(c *rtpClock, ext int64, now time.Time) {
	most := max(c.ticks(ext-c.passed), 0) / slewPart
	c.passed = max(ext, c.passed)
	want, ok := t.reported(c, ext)
	if !ok {
		return
	}
	off := want - (c.offset + c.ticks(ext))
	size := max(off, -off)
	if size <= slewMost {
		c.far = time.Time{}
	} else if c.far.IsZero() {
		c.far = now // the reports of the tracks come one after another
	} else if now.Sub(c.far) > stepAfter {
		c.offset += off
		c.far, size = time.Time{}, 0
	}
	c.slewing = size <= slewMost && (size > slewFrom || c.slewing && size > slewTo)
	if c.slewing {
		c.offset += min(max(off, -most), most)
	}
}
