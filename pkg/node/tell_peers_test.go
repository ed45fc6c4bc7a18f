package node

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// toldOf are the events that a stream of a node that does nothing has told.
func toldOf(s *stream) (out []event.Event) {
	for {
		select {
		case e := <-s.notes:
			out = append(out, e)
		default:
			return out
		}
	}
}

func idleStream(t *testing.T) *stream {
	t.Helper()
	c, err := config.Parse("f", []byte("stream x { url m4f://b.example/x; dvr /storage 1d replicate; }"), config.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	return newStream(New(Options{Config: c, Log: slog.New(slog.DiscardHandler)}), c.Streams[0])
}

// A peer that is gone for a while is told once, and that it is back.
func TestPeerEvents(t *testing.T) {
	s := idleStream(t)
	p := newPeerTeller(s)
	l := s.replicas()[0]
	at := time.Unix(1000, 0)
	for i, reachable := range []bool{true, false, true, false, false, false, false, false, false, true, true} {
		p.look(l, reachable, at.Add(time.Duration(i)*peersEvery))
	}
	got := toldOf(s)
	if len(got) != 2 || got[0].Kind != event.PeerLost || got[1].Kind != event.PeerBack || got[0].Stream != "x" || !strings.Contains(got[0].Msg, "m4f://b.example") {
		t.Errorf("%+v", got)
	}
}

// What is healed is told when it has ended, or goes on for long.
func TestHealEvents(t *testing.T) {
	s := idleStream(t)
	p := newPeerTeller(s)
	at := time.Unix(1000, 0)
	heal := func(origin archive.Origin, from m4f.UTC) {
		r := archive.Record{Origin: origin}
		r.UTC, r.Duration, r.Length = from, 4*m4f.Timescale, 1000
		p.heals.add(&r, at)
	}
	heal(archive.Live, m4f.UTCOf(at))
	p.tellHeals(at.Add(time.Hour), true)
	if got := toldOf(s); len(got) != 0 {
		t.Errorf("nothing was healed: %+v", got)
	}
	for range 3 {
		heal(archive.Healed, m4f.UTCOf(at.Add(-time.Hour)))
		at = at.Add(healsQuiet / 2)
		p.tellHeals(at, false)
	}
	if got := toldOf(s); len(got) != 0 {
		t.Errorf("it goes on: %+v", got)
	}
	at = at.Add(healsQuiet)
	p.tellHeals(at, false)
	got := toldOf(s)
	if len(got) != 1 || got[0].Kind != event.Heal || got[0].Attrs["segments"] != 3 || got[0].Attrs["bytes"] != int64(3000) {
		t.Errorf("%+v", got)
	}
	for i := 0; i < 100; i++ { // without an end
		heal(archive.Healed, m4f.UTCOf(at))
		at = at.Add(healsMost / 50)
		p.tellHeals(at, false)
	}
	if got := toldOf(s); len(got) != 1 && len(got) != 2 {
		t.Errorf("%d events of 20 minutes of healing", len(got))
	}
}
