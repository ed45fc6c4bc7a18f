// Package event is what happened: the lines of an hour's events.jsonl, which
// say why a gap is there, and of the log.
package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// The kinds of event that explain a gap or a change of input.
const (
	Start      = "start"       // a recorder began to write
	Stop       = "stop"        // a recorder ended in an orderly way
	SourceLost = "source-lost" // an input delivers nothing any more
	SourceBack = "source-back" // an input delivers again
	Switch     = "switch"      // another input is recorded from now on
	Disk       = "disk"        // a write failed: full, read-only, failing
	DiskBack   = "disk-back"   // writing works again
	BadInput   = "bad-input"   // what came is not what it should be
	Clock      = "clock"       // the clock stepped or disagrees with a peer
	Prune      = "prune"       // retention removed hours, or waits
	Heal       = "heal"        // gaps or damage were filled from a peer
	PeerLost   = "peer-lost"   // a peer that the archive replicates with cannot be reached
	PeerBack   = "peer-back"   // it can be reached again
	Fault      = "fault"       // a fault of the program itself
	Corrupt    = "corrupt"     // bytes of the archive went bad on the disk
	Verify     = "verify"      // a pass over the archive found damage
)

// MaxLine is the longest encoded event, newline included. A longer one loses
// its Attrs, then the end of its Msg: an event is appended in one write.
const MaxLine = 4096

// Event is something that happened to a stream.
type Event struct {
	Time   time.Time      `json:"time"`             // RFC 3339, UTC
	Stream string         `json:"stream,omitempty"` // name
	Kind   string         `json:"kind"`             // one of the constants above, or another word
	Msg    string         `json:"msg"`              // a sentence for the operator
	Attrs  map[string]any `json:"attrs,omitempty"`  // what a program wants to know
}

// Explains says whether an event of this kind can be the cause of a gap that
// begins at about its time.
func (e *Event) Explains() bool {
	switch e.Kind {
	case Stop, SourceLost, Disk, BadInput, Clock, Fault, Corrupt:
		return true
	}
	return false
}

// AppendLine appends the event as one JSON line of at most MaxLine bytes.
func (e Event) AppendLine(dst []byte) ([]byte, error) {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	b, err := json.Marshal(e)
	if err == nil && len(b) >= MaxLine {
		e.Attrs = nil
		b, err = json.Marshal(e)
	}
	for limit := MaxLine / 8; err == nil && len(b) >= MaxLine; limit /= 2 {
		e.Msg, e.Stream, e.Kind = clip(e.Msg, limit), clip(e.Stream, limit), clip(e.Kind, limit)
		b, err = json.Marshal(e)
	}
	if err != nil {
		return dst, fmt.Errorf("event %q: %w", e.Kind, err)
	}
	return append(append(dst, b...), '\n'), nil
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return string(bytes.ToValidUTF8([]byte(s[:n]), nil))
}

// Parse reads JSON lines. Lines that are cut or are no event are left out: the
// file may have been written to while the power went.
func Parse(b []byte) []Event {
	var out []Event
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		var e Event
		if len(line) > MaxLine || json.Unmarshal(line, &e) != nil || e.Kind == "" || e.Time.IsZero() || e.Time.UTC().Year() > 9999 {
			continue
		}
		out = append(out, e)
	}
	return out
}
