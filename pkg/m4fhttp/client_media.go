package m4fhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Media fetches the segment of a record, as Segments or Changes gave it. Its
// bytes are those that the identity names, its header is the record's. Every
// read goes through throttle, which may be nil.
func (c *Client) Media(ctx context.Context, rec *archive.Record, throttle func(io.Reader) io.Reader) (*m4f.Segment, error) {
	seg, err := c.media(ctx, rec, throttle)
	if err != nil {
		return nil, c.wrap(ctx, err)
	}
	return seg, nil
}

func (c *Client) media(ctx context.Context, rec *archive.Record, throttle func(io.Reader) io.Reader) (*m4f.Segment, error) {
	if rec.Length > m4f.MaxMedia {
		return nil, badAnswer("segment %s: %d bytes, the most is %d", rec.ID, rec.Length, m4f.MaxMedia)
	}
	res, err := c.get(ctx, false, "media/"+rec.ID.String(), nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	// One byte more than there can be shows an answer that is too long.
	limit := int64(m4f.MaxInit + m4f.HeaderBoxSize + rec.Length + 1)
	if res.ContentLength >= limit {
		return nil, badAnswer("segment %s: an answer of %d bytes where %d were listed", rec.ID, res.ContentLength, rec.Length)
	}
	body := io.Reader(res.Body)
	if throttle != nil {
		body = throttle(body)
	}
	r := m4f.NewReader(io.LimitReader(body, limit))
	seg, err := r.Next()
	if err != nil {
		return nil, mediaError(rec.ID, err)
	}
	if err := sameSegment(rec, &seg.Header); err != nil {
		return nil, err
	}
	if _, err := r.Next(); err != io.EOF {
		return nil, badAnswer("segment %s: more than the one segment that was asked for", rec.ID)
	}
	seg.Header = rec.Header
	return seg, nil
}

// ErrCut is the error of an answer that ends inside a segment: the peer went
// away, or said a wrong length.
var ErrCut = errors.New("its answer is cut short")

// mediaError tells what a peer wrote wrong from a connection that broke.
func mediaError(id m4f.Identity, err error) error {
	var format *m4f.FormatError
	switch {
	case err == io.EOF:
		return badAnswer("segment %s: an empty answer", id)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("segment %s: %w", id, ErrCut)
	case errors.As(err, &format):
		return badAnswer("segment %s: %w", id, err)
	}
	return err
}

// sameSegment wants what a peer sent to be what it had listed.
func sameSegment(rec *archive.Record, h *m4f.Header) error {
	switch {
	case h.ID != rec.ID:
		return badAnswer("segment %s was asked for, %s came", rec.ID, h.ID)
	case h.Init != rec.Init, h.Length != rec.Length, h.MediaTime != rec.MediaTime, h.Duration != rec.Duration:
		return badAnswer("segment %s differs from what was listed of it", rec.ID)
	}
	return nil
}

// MediaSpan fetches the segments of the peer's view that overlap a span, in
// playing order.
func (c *Client) MediaSpan(ctx context.Context, from, to m4f.UTC, fn func(*m4f.Segment) error) error {
	return c.stream(ctx, false, "media", span(from, to), fn)
}

// Live follows the stream: each segment as the peer completes it, in media
// order, from the one behind after on, or from the newest where after is zero.
// It returns when the context ends, when fn fails, or with what ended the
// connection, never nil.
func (c *Client) Live(ctx context.Context, after m4f.Identity, fn func(*m4f.Segment) error) error {
	q := url.Values{}
	if !after.IsZero() {
		q.Set("after", after.String())
	}
	if err := c.stream(ctx, true, "live", q, fn); err != nil {
		return err
	}
	return &PeerError{c.peer, endedError("it ended the live stream")}
}

func (c *Client) stream(ctx context.Context, endless bool, path string, q url.Values, fn func(*m4f.Segment) error) error {
	res, err := c.get(ctx, endless, path, q)
	if err != nil {
		return c.wrap(ctx, err)
	}
	defer res.Body.Close()
	r := m4f.NewReader(res.Body)
	for {
		seg, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			var format *m4f.FormatError
			if errors.As(err, &format) && !errors.Is(err, io.ErrUnexpectedEOF) {
				err = &BadAnswerError{err}
			}
			return c.wrap(ctx, err)
		}
		if err := fn(seg); err != nil {
			return err
		}
	}
}

// endedError is the end of what has none, an io.ErrUnexpectedEOF in words.
type endedError string

func (e endedError) Error() string { return string(e) }

// Unwrap returns io.ErrUnexpectedEOF.
func (e endedError) Unwrap() error { return io.ErrUnexpectedEOF }

// ChangeEvent is one line of a peer's changes: a record, or the stream's
// state.
type ChangeEvent struct {
	Cursor archive.Cursor // the place behind it; empty where more follows at once
	Record *archive.Record
	Status *Status
}

// CursorNow asks for what is new from now on.
const CursorNow archive.Cursor = "now"

// Changes follows the list of segments added to the peer's archive: from a
// cursor that an earlier event had, from CursorNow, or from the start where
// cursor is empty. A record in which the peer says what no node writes ends it
// with a *BadAnswerError. StatusOf the error is 410 when pruning has passed the
// cursor. It never returns nil.
func (c *Client) Changes(ctx context.Context, cursor archive.Cursor, fn func(*ChangeEvent) error) error {
	q := url.Values{}
	if cursor != "" {
		q.Set("cursor", string(cursor))
	}
	res, err := c.getAt(ctx, true, c.base+"changes", q, "Prefer", brief)
	if err != nil {
		return c.wrap(ctx, err)
	}
	defer res.Body.Close()
	var last Live
	err = eachLine(res.Body, "changes", 0, func(line []byte) error {
		var w Change
		if err := json.Unmarshal(line, &w); err != nil {
			return err
		}
		ev := &ChangeEvent{Cursor: archive.Cursor(w.Cursor), Status: w.Status}
		switch {
		case len(w.Cursor) > 256:
			return errors.New("a cursor of more than 256 bytes")
		case (w.Record == nil) == (w.Status == nil):
			return errors.New("neither a record nor a status")
		case w.Status != nil:
			w.Status.clean()
			if l := &w.Status.Live; l.Chain == nil {
				l.Mode, l.Inputs, l.Chain = last.Mode, last.Inputs, last.Chain
			}
			last = w.Status.Live
		default:
			rec, err := w.Record.Record()
			if err != nil {
				return err
			}
			ev.Record = &rec
		}
		if err := fn(ev); err != nil {
			return callbackError{err}
		}
		return nil
	})
	if err == nil {
		err = endedError("it ended the list of changes")
	}
	return c.wrap(ctx, err)
}
