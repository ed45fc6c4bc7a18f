// Package render turns a span of an archive's view into something that a
// player opens.
//
// # MP4
//
// An export is one MP4 file with one track for each elementary stream (PID and
// codec). Its bytes depend on the identities of the view's segments and on
// which of them the span takes, not on the node, its clock, or the
// milliseconds by which two nodes date segments differently.
//
//   - A span takes whole pieces of the view: those that reach more than 250 ms
//     into it. Pieces are cut only where the view shows just a part of a segment,
//     and there by sample time.
//   - The first picture or sound is presented at time 0. From there on media
//     time counts: unbroken over 33-bit wraps; a gap inside a timeline lasts as
//     long in the export as media time says it did; a new timeline starts where
//     the one before ended, however long the pause between them was, and at most
//     a second later if some track lasted longer. A gap is
//     taken as inside a timeline if it is as long in UTC as in media time, to
//     within a second and 500 ppm, and shorter than 2^32 ticks (13 hours).
//   - A change of a stream's configuration adds a sample description to its
//     track. Since many players look at the first one only, H.264 and HEVC
//     tracks with several are written as avc3 and hev1, with their parameter
//     sets at every sync sample. All other samples are copied as they are.
//   - Streams other than video and audio stay, as timed metadata.
//
// # Transport streams
//
// A span takes the same pieces. mpegts.Muxer makes the packets and says when they
// come.
//
//   - PTS and DTS are the source's, 33 bits, and wrap where its did. Where a piece
//     does not go on with the media time of the one before (a gap, a new timeline),
//     and where another track leads, all of the old is sent first, and the clock
//     begins anew with discontinuity_indicator; continuity counters go on.
//   - The program map is that of the segment; it comes ahead of the segment's first
//     leading unit, and a change has the next version_number. The PID of the map, its
//     version and transport_stream_id are no part of a segment: 0x1000 or the
//     next lower free one, counted from 0, and 1.
//   - Data without a time of its own stands between the same two pictures (frames,
//     where sound leads) as in the source: that is where its sample's time is from.
//   - What is recorded of an export are the segments that it was made of, with the
//     same identities, but for pictures that lacked an access unit delimiter, a
//     program without a PID for its clock, and the last segment ahead of a gap.
//
// It holds about three segments in memory.
//
// # Files of a known length
//
// A Download is a file whose length is known before any of it is written, and any
// part of which can be written alone. For that
//
//   - the fragment of an MP4 export is by as much longer than that of its segment
//     as follows from the init segment, and by the parameter sets put in;
//   - what is made of a piece depends on no more than the eight before it and the
//     one behind it;
//   - a transport stream is made of a mpegts.Segment for each piece, as in
//     playlists (WriteTS), and not as an export, whose packets depend on all that
//     came before.
package render

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Archive is where the view is: a stream's directory or a peer.
type Archive interface {
	// Span returns the elements of the view with a part in [from, to), in
	// playing order; from 0 is the beginning, to 0 the end.
	Span(from, to m4f.UTC) ([]archive.Element, error)
	// ReadElement reads an element of Span and verifies its identity.
	ReadElement(e *archive.Element) (*m4f.Segment, error)
	// Bounds are the start of the oldest and the end of the newest segment.
	Bounds() (oldest, newest m4f.UTC, err error)
}

// Options of an export.
type Options struct {
	// From and To are the span; 0 is the beginning and the end of the archive.
	From, To m4f.UTC
	// Format is what to write; Faststart is for MP4 only.
	Format Format
	// Faststart writes a plain MP4 file, its tables ahead of the media; the
	// archive is then read twice. Otherwise it is a fragmented one.
	Faststart bool
	// Progress, if not nil, is called with the bytes of media read since the
	// last call, of Total.
	Progress func(n int64)
	// Start, if not nil, is called with the bytes of media that will be read
	// before any are.
	Start func(total int64)
}

// Result says what was exported.
type Result struct {
	Segments int
	Bytes    int64         // written
	Duration time.Duration // from the first frame to the end of the last, gaps included
	Gaps     []Gap         // inside the span
	Damaged  int           // segments recorded with known loss
	Left     int           // audio frames that a transport stream has no framing for, left out
}

// Gap is a span of time that no segment covers.
type Gap struct{ From, To m4f.UTC }

// ErrEmpty is returned, and nothing written, where the view has nothing in the
// span.
var ErrEmpty = errors.New("nothing is recorded in that span")

// spanSlack is how far, in ticks, a piece must reach into the span to be taken.
// Two nodes date a segment alike to within less.
const spanSlack = m4f.Timescale / 4

// Export writes a span of the view to w.
func Export(ctx context.Context, a Archive, w io.Writer, opt Options) (Result, error) {
	p, err := makePlan(a, opt)
	if err != nil {
		return Result{}, err
	}
	if opt.Start != nil {
		opt.Start(p.total(opt.Faststart && opt.Format == MP4))
	}
	if err := p.readInits(ctx, a); err != nil {
		return Result{}, err
	}
	out := &counter{w: w}
	buf := bufio.NewWriterSize(out, 256<<10)
	wk := &walker{ctx: ctx, plan: p, src: &whole{a, p, opt.Progress}}
	switch {
	case opt.Format == TS:
		err = writeTS(wk, buf)
	case opt.Faststart:
		err = writeFaststart(wk, buf)
	default:
		err = writeFragmented(wk, buf)
	}
	if err == nil {
		err = buf.Flush()
	}
	p.result.Bytes = out.n
	p.result.Duration = m4f.Duration(p.length + wk.moved)
	return p.result, err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// unreadable says which segment is at fault.
func unreadable(e *archive.Element, err error) error {
	return fmt.Errorf("segment of %s: %w", e.UTC.Time().Format(time.RFC3339Nano), err)
}
