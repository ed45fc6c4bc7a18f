package m4fhttp

import (
	"errors"
	"fmt"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Time is an instant as it travels: RFC 3339 in UTC with as many decimals as
// make it exact to the tick.
type Time m4f.UTC

// maxTime is the end of the years that travel: those from 1970 on that an
// archive can hold.
var maxTime = m4f.UTCOf(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))

// String returns the instant in RFC 3339.
func (t Time) String() string { return m4f.UTC(t).Time().Format(time.RFC3339Nano) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) {
	if u := m4f.UTC(t); u < 0 || u > maxTime {
		return nil, fmt.Errorf("%d ticks are outside the years 1970 to 9998", u)
	}
	return m4f.UTC(t).Time().AppendFormat(nil, time.RFC3339Nano), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) error {
	if len(b) > 64 {
		return errors.New("a time of more than 64 characters")
	}
	v, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return err
	}
	u := m4f.UTCOf(v)
	if u < 0 || u > maxTime {
		return fmt.Errorf("%s is outside the years 1970 to 9998", b)
	}
	*t = Time(u)
	return nil
}

// Record is an index record as it travels.
type Record struct {
	ID            m4f.Identity `json:"id"`
	Init          m4f.Identity `json:"init"`
	Start         Time         `json:"start"`      // UTC of the opening frame
	MediaTime     int64        `json:"media_time"` // PTS of the opening frame, 33 bits, ticks of 1/90000 s
	Duration      uint32       `json:"duration"`   // ticks
	Bytes         uint64       `json:"bytes"`      // of moof and mdat
	Damaged       bool         `json:"damaged"`
	Partial       bool         `json:"partial"`
	Discontinuity bool         `json:"discontinuity"`
	Keyframe      bool         `json:"keyframe"`
	Lost          uint32       `json:"lost"`
	Errored       uint32       `json:"errored"`
	Origin        string       `json:"origin"`  // as the sender has it: live, imported, replicated, healed, copied
	Input         uint8        `json:"input"`   // which of the sender's inputs it was recorded live from
	Arrived       time.Time    `json:"arrived"` // when it came to the sender, to the millisecond
	// Parts are the parts of the segment that the view shows, where that is
	// not the whole: ticks from its start, [from, to] each. Changes never have
	// them.
	Parts [][2]int64 `json:"parts,omitempty"`
}

var flagNames = []struct {
	flag  m4f.Flags
	field func(*Record) *bool
}{
	{m4f.Damaged, func(r *Record) *bool { return &r.Damaged }},
	{m4f.Partial, func(r *Record) *bool { return &r.Partial }},
	{m4f.Discontinuity, func(r *Record) *bool { return &r.Discontinuity }},
	{m4f.Keyframe, func(r *Record) *bool { return &r.Keyframe }},
}

// RecordOf is the form in which a record travels.
func RecordOf(r *archive.Record) Record {
	w := Record{
		ID:        r.ID,
		Init:      r.Init,
		Start:     Time(r.UTC),
		MediaTime: r.MediaTime,
		Duration:  r.Duration,
		Bytes:     r.Length,
		Lost:      r.Lost,
		Errored:   r.Errored,
		Origin:    r.Origin.String(),
		Input:     r.Input,
		Arrived:   time.UnixMilli(r.Arrived).UTC(),
	}
	for _, f := range flagNames {
		*f.field(&w) = r.Flags&f.flag != 0
	}
	return w
}

// ElementOf is the form in which an element of a view travels.
func ElementOf(e *archive.Element) Record {
	w := RecordOf(&e.Record)
	if !e.Whole() {
		for _, p := range e.Parts {
			w.Parts = append(w.Parts, [2]int64{p.From, p.To})
		}
	}
	return w
}

// Element checks what came from a peer and returns it as the archive knows it.
func (w *Record) Element() (archive.Element, error) {
	r, err := w.Record()
	if err != nil {
		return archive.Element{}, err
	}
	e := archive.Element{Record: r, Parts: []archive.Part{{From: 0, To: int64(r.Duration)}}}
	if w.Parts == nil {
		return e, nil
	}
	e.Parts = e.Parts[:0]
	at := int64(0)
	for _, p := range w.Parts {
		if p[0] < at || p[1] <= p[0] || p[1] > int64(r.Duration) {
			return e, fmt.Errorf("segment %s: part %d to %d of %d ticks", r.ID, p[0], p[1], r.Duration)
		}
		e.Parts = append(e.Parts, archive.Part{From: p[0], To: p[1]})
		at = p[1]
	}
	if len(e.Parts) == 0 {
		return e, fmt.Errorf("segment %s: no part of it is in the view", r.ID)
	}
	return e, nil
}

// Record checks what came from a peer and returns it as the archive knows it.
// A record with values that no node writes is refused.
func (w *Record) Record() (archive.Record, error) {
	r := archive.Record{
		Header: m4f.Header{
			ID:        w.ID,
			Init:      w.Init,
			MediaTime: w.MediaTime,
			UTC:       m4f.UTC(w.Start),
			Duration:  w.Duration,
			Lost:      w.Lost,
			Errored:   w.Errored,
			Length:    w.Bytes,
		},
		Input:   w.Input,
		Arrived: w.Arrived.UnixMilli(),
	}
	for _, f := range flagNames {
		if *f.field(w) {
			r.Flags |= f.flag
		}
	}
	switch {
	case w.ID.IsZero() || w.Init.IsZero():
		return r, errors.New("a record without an identity")
	case w.MediaTime < 0 || w.MediaTime >= m4f.Wrap:
		return r, fmt.Errorf("segment %s: media time %d is not a 33-bit time", w.ID, w.MediaTime)
	case w.Duration == 0 || w.Duration > archive.MaxDuration:
		return r, fmt.Errorf("segment %s: a duration of %d ticks", w.ID, w.Duration)
	case w.Bytes == 0 || w.Bytes > m4f.MaxMedia:
		return r, fmt.Errorf("segment %s: %d bytes, the most is %d", w.ID, w.Bytes, m4f.MaxMedia)
	}
	r.Origin = archive.ParseOrigin(w.Origin)
	return r, nil
}

// Hour is what a view holds of one UTC hour: the segments that start in it.
type Hour struct {
	Start    Time   `json:"start"`
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
	Damaged  int    `json:"damaged"`
	Partial  int    `json:"partial"`
	Digest   Digest `json:"digest"`
}

// Digest is SHA-256 over the elements of an hour of the view, see
// archive.Hour; 64 lower-case hexadecimal digits.
type Digest = m4f.Identity

// Change is one line of the answer to changes: a record that was added to the
// archive, or the state of the stream.
type Change struct {
	// Cursor is the place behind this line, to go on from; absent where more
	// lines follow at once. It has no meaning to anyone but the node that made it.
	Cursor string  `json:"cursor,omitempty"`
	Record *Record `json:"record,omitempty"`
	Status *Status `json:"status,omitempty"`
}

// Status is the state of a stream at a node, as it travels each second with the
// changes. Without a chain, mode, inputs and chain are as they were in the status
// before: a client that prefers m4f-brief (RFC 7240) is told so.
type Status struct {
	// Idle says that everything that the archive had has been sent.
	Idle bool `json:"idle"`
	// Now is the clock of the node that answers, Unix milliseconds; 0: it does not say.
	Now int64 `json:"now,omitempty"`
	Live
}

// Live is what a node knows of a stream beside its archive.
type Live struct {
	Mode   string  `json:"mode,omitempty"` // normal, recovery, emergency, offline; empty where nothing records
	Inputs []Input `json:"inputs,omitempty"`
	// SourceAge is for how many seconds the source has been silent; absent where nothing
	// is recorded.
	SourceAge *float64 `json:"source_age,omitempty"`
	// Chain names the nodes that the live data came through, the one that
	// hears the source first and the one that answers last.
	Chain []string `json:"chain,omitzero"`
}

// Input is one of the ways in which a node gets a stream, in the order of its
// configuration.
type Input struct {
	URL    string `json:"url"` // without credentials
	State  string `json:"state"`
	Active bool   `json:"active"` // the archive is recorded from it
}

// Info describes a stream at a node.
type Info struct {
	Node           string    `json:"node"` // random for each process
	Stream         string    `json:"stream"`
	TargetDuration int64     `json:"target_duration"`    // D, ticks of 1/90000 s
	Rules          int       `json:"rules"`              // version of the segmentation rules
	Oldest         *Time     `json:"oldest,omitempty"`   // start of the first segment
	Newest         *Time     `json:"newest,omitempty"`   // end of the last
	Horizon        *Time     `json:"horizon,omitempty"`  // before it, everything has been pruned
	Timeline       *Timeline `json:"timeline,omitempty"` // of the newest segment
	Tracks         []Track   `json:"tracks,omitempty"`   // of the newest segment
	Live
}

// Timeline ties media time to UTC: the newest segment's.
type Timeline struct {
	MediaTime int64 `json:"media_time"` // 33 bits, ticks
	UTC       Time  `json:"utc"`
}

// Track is one elementary stream.
type Track struct {
	PID        uint16 `json:"pid"`
	StreamType uint8  `json:"stream_type"` // ISO/IEC 13818-1 table 2-34
	Codec      string `json:"codec"`
	Language   string `json:"language,omitempty"` // ISO 639-2
}
