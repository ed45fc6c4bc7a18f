package m4fhttp

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Outline is a line of the answer to outline: some elements of the view with a part in
// one of the ranges that were asked for, as far as a comparison has to know them.
type Outline struct {
	Range int `json:"range"` // its number, from 0
	// Elements are end to end, in playing order, in base64. Each is its identity, a
	// byte of flags (outlineDamaged and the others), and numbers in base 128 (as
	// encoding/binary has them, those that may be negative in zigzag): its start,
	// less that of the element ahead of it in the line, or of the range; its
	// duration; the bytes of moof and mdat; when it arrived, Unix milliseconds, less
	// its start. Where it is not shown whole there follow the number of its parts,
	// and of each how far it begins behind the one ahead of it and how long it is.
	// Times are ticks but where it says otherwise.
	Elements []byte `json:"elements"`
}

// Flags of an element of an outline.
const (
	outlineDamaged = 1 << iota
	outlinePartial
	outlineParts // it is not shown whole
	outlineFlags = 1<<iota - 1
)

// outlineLine is how many bytes of elements a line has before another is begun.
const outlineLine = 16 << 10

// serveOutline answers with what a comparison has to know of the view's elements in
// some windows.
func (h *Handler) serveOutline(q *request) error {
	windows, err := q.windows()
	if err != nil {
		return err
	}
	var l *lineWriter
	w, last := Outline{}, windows[0].From
	flush := func() error {
		if l == nil {
			l = newLineWriter(q, true)
		}
		if len(w.Elements) == 0 {
			return nil
		}
		err := l.line(&w)
		w.Elements = w.Elements[:0]
		return err
	}
	err = q.stream.Archive().EachIn(windows, func(i int, e *archive.Element) error {
		if i != w.Range || len(w.Elements) > outlineLine {
			if err := flush(); err != nil {
				return err
			}
			w.Range, last = i, windows[i].From
		}
		w.Elements = appendOutline(w.Elements, e, last)
		last = e.UTC
		return nil
	})
	if err != nil && l == nil {
		return err
	}
	if err != nil {
		h.Log.Error("outline of segments cut short", "stream", q.name, "err", err)
		cut()
	}
	if flush() != nil || l.end() != nil {
		cut()
	}
	return nil
}

// appendOutline appends an element; last is the start of the one ahead of it.
func appendOutline(b []byte, e *archive.Element, last m4f.UTC) []byte {
	var flags byte
	if e.Damaged() {
		flags |= outlineDamaged
	}
	if e.Partial() {
		flags |= outlinePartial
	}
	if !e.Whole() {
		flags |= outlineParts
	}
	b = append(append(b, e.ID[:]...), flags)
	b = binary.AppendVarint(b, int64(e.UTC-last))
	b = binary.AppendUvarint(b, uint64(e.Duration))
	b = binary.AppendUvarint(b, e.Length)
	b = binary.AppendVarint(b, e.Arrived-int64(e.UTC)/ticksMilli)
	if flags&outlineParts == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(e.Parts)))
	at := int64(0)
	for _, p := range e.Parts {
		b = binary.AppendUvarint(b, uint64(p.From-at))
		b = binary.AppendUvarint(b, uint64(p.To-p.From))
		at = p.To
	}
	return b
}

const ticksMilli = m4f.Timescale / 1000

// Outline asks for the elements of the peer's view that have a part in each of some
// windows, in playing order: whole seconds, in order, without overlap. Of an element it
// tells its identity, start, duration, length, arrival, parts, and whether it is
// damaged or partial; the rest is zero.
func (c *Client) Outline(ctx context.Context, windows []archive.Window) ([][]archive.Element, error) {
	list := make([][]archive.Element, len(windows))
	err := windowed(windows, func(query url.Values, at, count int) error {
		some, part := windows[at:at+count], list[at:at+count]
		most, n := int64(fewSegments), 0
		for _, w := range some {
			most += int64(w.To-w.From) / m4f.Timescale * mostASecond
		}
		last := 0
		return c.lines(ctx, "outline", query, int(min(most, maxSegments)), func(line []byte) error {
			var w Outline
			if err := json.Unmarshal(line, &w); err != nil {
				return err
			}
			if w.Range < last || w.Range >= count {
				return fmt.Errorf("range %d of %d behind range %d", w.Range, count, last)
			}
			last = w.Range
			els, err := parseOutline(w.Elements, some[last])
			if err != nil {
				return err
			}
			if n += len(els); int64(n) > min(most, maxSegments) {
				return fmt.Errorf("more than %d segments", n-len(els))
			}
			part[last] = append(part[last], els...)
			return nil
		})
	})
	return list, err
}

// parseOutline checks the elements of a line that came from a peer.
func parseOutline(b []byte, w archive.Window) ([]archive.Element, error) {
	in := outlineReader{b: b}
	const least = len(m4f.Identity{}) + 5 // bytes of an element
	list := make([]archive.Element, 0, len(b)/least)
	whole := make([]archive.Part, 0, len(b)/least) // shared backing
	last := w.From
	for len(in.b) > 0 {
		e, err := in.element(last)
		if err != nil {
			return nil, err
		}
		if e.Parts == nil {
			n := len(whole)
			whole = append(whole, archive.Part{From: 0, To: int64(e.Duration)})
			e.Parts = whole[n : n+1 : n+1]
		}
		if end := e.Parts[len(e.Parts)-1].To; e.UTC.Add(end) <= w.From || e.UTC.Add(e.Parts[0].From) >= w.To {
			return nil, fmt.Errorf("segment %s was not asked for: it begins at %s", e.ID, Time(e.UTC))
		}
		last = e.UTC
		list = append(list, e)
	}
	return list, nil
}

// outlineReader reads elements of a line. Its first error stays.
type outlineReader struct {
	b   []byte
	err error
}

var errOutlineCut = errors.New("elements that end in the middle of one")

// element reads an element; last is the start of the one ahead of it. One without parts
// is whole.
func (in *outlineReader) element(last m4f.UTC) (e archive.Element, err error) {
	if len(in.b) <= len(e.ID) {
		return e, errOutlineCut
	}
	flags := in.b[copy(e.ID[:], in.b)]
	in.b = in.b[len(e.ID)+1:]
	apart := in.signed()
	duration, length := in.unsigned(archive.MaxDuration), in.unsigned(m4f.MaxMedia)
	arrived := in.signed()
	if in.err != nil {
		return e, in.err
	}
	e.UTC = last.Add(apart)
	e.Duration, e.Length, e.Arrived = uint32(duration), length, arrived+int64(e.UTC)/ticksMilli
	switch {
	case e.ID.IsZero():
		return e, errors.New("a segment without an identity")
	case flags&^outlineFlags != 0:
		return e, fmt.Errorf("segment %s with flags %#x", e.ID, flags)
	case apart < -int64(maxTime) || apart > int64(maxTime) || e.UTC < 0 || e.UTC > maxTime:
		return e, fmt.Errorf("segment %s is outside the years 1970 to 9998", e.ID)
	case duration == 0 || length == 0:
		return e, fmt.Errorf("segment %s of %d ticks and %d bytes", e.ID, duration, length)
	}
	if flags&outlineDamaged != 0 {
		e.Flags |= m4f.Damaged
	}
	if flags&outlinePartial != 0 {
		e.Flags |= m4f.Partial
	}
	if flags&outlineParts != 0 {
		e.Parts, err = in.parts(int64(duration))
	}
	return e, err
}

// parts reads the parts of an element of so many ticks.
func (in *outlineReader) parts(duration int64) ([]archive.Part, error) {
	n := in.unsigned(uint64(len(in.b) / 2))
	if in.err == nil && n == 0 {
		in.err = errors.New("a segment of which no part is in the view")
	}
	var list []archive.Part
	for at := int64(0); n > 0 && in.err == nil; n-- {
		p := archive.Part{From: at + int64(in.unsigned(uint64(duration-at)))}
		p.To = p.From + int64(in.unsigned(uint64(duration-p.From)))
		if in.err == nil && p.To == p.From {
			in.err = errors.New("an empty part of a segment")
		}
		at = p.To
		list = append(list, p)
	}
	return list, in.err
}

func (in *outlineReader) signed() int64 {
	v, n := binary.Varint(in.b)
	in.pass(n)
	return v
}

// unsigned reads a number of at most most; 0 where there is an error.
func (in *outlineReader) unsigned(most uint64) uint64 {
	v, n := binary.Uvarint(in.b)
	in.pass(n)
	if v > most && in.err == nil {
		in.err = fmt.Errorf("%d where at most %d can be", v, most)
	}
	if in.err != nil {
		return 0
	}
	return v
}

// pass goes on behind a number of n bytes; 0 or less is none.
func (in *outlineReader) pass(n int) {
	if n <= 0 {
		if in.err == nil {
			in.err = errOutlineCut
		}
		return
	}
	in.b = in.b[n:]
}
