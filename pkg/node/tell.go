package node

import (
	"errors"
	"regexp"
	"time"

	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/segment"
)

// backoff makes the pauses between two attempts to open an input: each twice as
// long as the one before, up to a longest. An input that dies again within the
// longest pause has not come back: the pauses go on growing, so that one which
// delivers for a second each time is not hammered.
type backoff struct {
	most time.Duration
	next time.Duration
}

// firstPause is the shortest pause.
const firstPause = 250 * time.Millisecond

func (b *backoff) reset() { b.next = 0 }

// shortRun is the shortest run of an input that ended as a recording does
// after which it is opened again at once: a server that gives the same clip
// every time must not fill the archive with it.
const shortRun = time.Minute

// after is the pause after an attempt that lasted for ran and then failed with
// err.
func (b *backoff) after(ran time.Duration, err error) time.Duration {
	steady := b.most
	if errors.Is(err, errEnded) {
		steady = max(steady, shortRun)
	}
	if ran > steady {
		b.next = 0
	}
	d := min(max(b.next, firstPause), b.most)
	b.next = 2 * d
	return d
}

// teller decides what is told of an input that is lost: each reason once until
// it has delivered for some time, and what goes on happening every few minutes.
type teller struct {
	reasons map[string]time.Time // when each was told
	times   int                  // lost since it was told last
	back    bool                 // that it delivers was told last
	began   bool                 // it has delivered since it was told to be lost
}

// maxReasons bounds the reasons remembered.
const maxReasons = 8

// ephemeral is the part of an error that differs with each connection.
var ephemeral = regexp.MustCompile(`\S+->`)

// lost says whether to tell that the input was lost, and for which time since
// it was told last.
func (t *teller) lost(err error, steady bool, now time.Time) (tell bool, times int) {
	reason := ephemeral.ReplaceAllString(err.Error(), "")
	if steady || t.reasons == nil {
		t.reasons = map[string]time.Time{}
	}
	t.times++
	at, known := t.reasons[reason]
	if known && (!t.began || now.Sub(at) < tellAgain) || !known && len(t.reasons) >= maxReasons {
		return false, 0
	}
	t.reasons[reason] = now
	times, t.times, t.back, t.began = t.times, 0, false, false
	return true, times
}

// delivers says whether to tell that the input does: not where the log's last
// word is that already.
func (t *teller) delivers() bool {
	tell := !t.back
	t.back, t.began = true, true
	return tell
}

// lossTeller says how much an input loses, once a minute at most.
type lossTeller struct {
	at  time.Time
	seg segment.Stats // told so far
	io  ingest.Stats
}

// tellLossEvery is how often an input that loses packets is told of at most.
const tellLossEvery = time.Minute

// take looks at the counts of an input so far and returns what is to be told,
// as fields of a log line; nil: nothing.
func (l *lossTeller) take(now time.Time, seg segment.Stats, io ingest.Stats) []any {
	if !l.at.IsZero() && now.Sub(l.at) < tellLossEvery {
		return nil
	}
	var fields []any
	add := func(name string, n uint64) {
		if n > 0 {
			fields = append(fields, name, n)
		}
	}
	add("lost", uint64(seg.Lost-l.seg.Lost))
	add("errored", uint64(seg.Errored-l.seg.Errored))
	add("dropped", io.Dropped-l.io.Dropped)
	add("truncated", io.Truncated-l.io.Truncated)
	add("datagrams_lost", io.Lost-l.io.Lost)
	if fields == nil {
		return nil
	}
	add("errors", io.Errors-l.io.Errors)
	add("recovered", io.Recovered-l.io.Recovered)
	if !l.at.IsZero() {
		fields = append(fields, "over", now.Sub(l.at).Round(time.Second))
	}
	l.at, l.seg, l.io = now, seg, io
	return fields
}
