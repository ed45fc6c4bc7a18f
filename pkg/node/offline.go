package node

import (
	"slices"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
)

const (
	// offlineFor is how long no input must have worked before it is told why:
	// at the start it takes its time to reach them.
	offlineFor = 5 * time.Second
	// whyAgain is how long it takes until other reasons are told.
	whyAgain = time.Minute
)

// circle is why a stream is offline whose inputs have only each other.
const circle = "its inputs are other nodes only, and none of them has a source either"

// offlineTeller says why a stream has no input that works: once, and again when
// the reasons have changed.
type offlineTeller struct {
	since time.Time // when the last input failed; zero: one works
	told  string    // the reasons told last
	at    time.Time // when
}

// take says whether to tell the reasons now. works is whether an input does.
func (t *offlineTeller) take(works bool, why string, now time.Time) bool {
	if works {
		*t = offlineTeller{at: t.at}
		return false
	}
	if t.since.IsZero() {
		t.since = now
	}
	if now.Sub(t.since) < offlineFor || why == t.told || t.told != "" && now.Sub(t.at) < whyAgain {
		return false
	}
	t.told, t.at = why, now
	return true
}

// tellOffline says why no input works.
func (c *controller) tellOffline(active int, now time.Time) {
	why := ""
	if active < 0 {
		why = c.s.whyOffline(now)
	}
	if !c.offline.take(active >= 0, why, now) {
		return
	}
	c.s.log.Error("no input works for some time", "why", why)
	c.s.note(event.Event{Kind: event.SourceLost, Msg: "no input works: " + why})
}

// whyOffline says of each input why it does not work.
func (s *stream) whyOffline(now time.Time) string {
	var list []string
	circular := true
	for i := range s.cfg.Inputs {
		why := ""
		if src := s.sources[i]; src != nil {
			why, circular = src.why(), false
		} else {
			l := s.links[i]
			l.mu.Lock()
			why = l.why(now)
			circular = circular && (why == noSource || why == fromHere)
			l.mu.Unlock()
		}
		list = append(list, s.ctl.inputURL(i)+": "+ephemeral.ReplaceAllString(why, ""))
	}
	if circular {
		return circle
	}
	return strings.Join(slices.Compact(list), "; ")
}

// why says why the source does not work.
func (c *source) why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err.Error()
	}
	return "it is " + c.state
}
