package node

import (
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// listedLink is a link to a peer that has just listed a segment of 4 s, of a media time.
func listedLink(media int64) (l *link, sim *clock.Sim, at m4f.UTC) {
	at = m4f.UTCOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	sim = clock.NewSim(at.Time())
	return &link{
		s:     &stream{node: New(Options{Config: &config.Config{}, Clock: sim})},
		media: media, length: 4 * m4f.Timescale, utc: at, listed: sim.Now(),
	}, sim, at
}

// What a peer has listed last dates what goes on with it, in time or late, and
// nothing that begins anew.
func TestLinkResume(t *testing.T) {
	const sec = m4f.Timescale
	l, sim, at := listedLink(m4f.Wrap - 2*sec)
	for _, c := range []struct {
		media     int64
		near, utc m4f.UTC // utc: 0: it does not go on
	}{
		{2 * sec, at.Add(4 * sec), at.Add(4 * sec)},
		{2 * sec, at.Add(13 * sec), at.Add(4 * sec)},
		{6 * sec, at.Add(8*sec - sec/2), at.Add(8 * sec)},
		{2 * sec, at.Add(15 * sec), 0},
		{2 * sec, at.Add(2 * sec), 0},
		{0, at.Add(5 * sec), 0},
		{m4f.Wrap - 2*sec, at.Add(5 * sec), 0},
	} {
		if utc, ok := l.resume(c.media, c.near); ok != (c.utc != 0) || ok && utc != c.utc {
			t.Errorf("media %d heard at %d: %d, %v; want %d", c.media, c.near-at, utc-at, ok, c.utc-at)
		}
	}
	sim.Advance(time.Hour)
	if _, ok := l.resume(2*sec, at.Add(4*sec)); ok {
		t.Error("what a peer listed an hour ago dates what is heard now")
	}
}

// A peer dates what goes on with its timeline, also where a clock is wrong, and not
// what an encoder begins anew: that would be told as a clock that differs.
func TestLinkDateOf(t *testing.T) {
	const sec = m4f.Timescale
	l, sim, at := listedLink(1000 * sec)
	for _, c := range []struct {
		ahead time.Duration // the peer's clock, as it says
		media int64
		near  m4f.UTC
		ok    bool
	}{
		{0, 1004 * sec, at.Add(4 * sec), true},
		{0, 1004 * sec, at.Add(9 * sec), true}, // heard late
		{0, sec, at.Add(4 * sec), false},       // the encoder was restarted
		{0, 984 * sec, at.Add(4 * sec), false},
		{time.Minute, 1004 * sec, at.Add(-56 * sec), true},
		{-time.Minute, 1004 * sec, at.Add(64 * sec), true},
		{time.Minute, 1004 * sec, at.Add(64 * sec), false},
		{time.Minute, sec, at.Add(-56 * sec), false},
	} {
		l.clock = clockOffset{}
		l.clock.heard(sim.Now().Add(c.ahead).UnixMilli(), sim.Now())
		utc, ok := l.dateOf(c.media, c.near)
		if ok != c.ok || ok && utc != at.Add(c.media-1000*sec) {
			t.Errorf("media %d heard at %d s, a clock that is %v ahead: %d, %v", c.media/sec, int64(c.near-at)/sec, c.ahead, int64(utc-at)/sec, ok)
		}
	}
}
