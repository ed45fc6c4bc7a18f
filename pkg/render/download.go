package render

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Download is a span of an archive as a file of which the length and every byte
// are settled when it is made, and of which any part can be written without what
// lies ahead of it.
//
// An MP4 file is what Export writes. A transport stream is made of the same
// pieces, each in packets of its own as in a TSSegment, and so has a length that
// follows from the sample tables.
//
// It remembers for each stretch of an extent where it lies, not each segment: an
// hour takes about a hundred bytes, and a transport stream four more for each
// segment. It is not changed by what is added to the archive later, such as what
// heals the span. What is pruned later ends a WriteRange. A Download can be used
// by any number of goroutines.
type Download struct {
	archive *archive.Stream
	format  Format
	fetch   func(ctx context.Context, from, to m4f.UTC) error
	plan    plan
	runs    []run
	count   int // pieces
	base    int64
	shift   int64
	head    []byte // ahead of the first piece
	size    int64
	tag     string
}

// run is pieces whose segments lie one behind the other in an extent, are shown
// whole, and join; or any one piece.
type run struct {
	place  archive.Place
	first  int // number of its first piece
	n      int
	init   *mapping
	part   archive.Part // of its first piece
	whole  bool
	start  int64 // of its first piece, on the axis
	joins  bool
	fresh  bool
	bytes  int64    // of its segments' media
	offset int64    // of its first byte in the file
	sizes  []uint32 // of its pieces in the file, where they do not follow from their lengths
	// offered are its segments where they were not in the archive, and place says
	// nothing.
	offered []archive.Record
}

// NewDownload settles what a span's file is. It reads the index, and a few
// kilobytes of the first segment, of those that the view shows a part of, and of
// those at the start of a new timeline; of a transport stream, the head of each
// segment. ErrEmpty: nothing is recorded in the span.
func NewDownload(ctx context.Context, a *archive.Stream, opt Options) (*Download, error) {
	return NewDownloadWith(ctx, a, opt, Offer{})
}

// Offer is what can be fetched of a span into the archive.
type Offer struct {
	Records []archive.Record
	// Fetch returns when the segments of a span are in the archive.
	Fetch func(ctx context.Context, from, to m4f.UTC) error
}

// NewDownloadWith is NewDownload for the view that the archive has together with
// what is offered to it. That is fetched when it is written or has to be looked
// at, some segments at a time.
func NewDownloadWith(ctx context.Context, a *archive.Stream, opt Options, offer Offer) (*Download, error) {
	d := &Download{archive: a, format: opt.Format, fetch: offer.Fetch}
	b := &layout{Download: d, sum: sha256.New()}
	add := func(p archive.Piece, here bool) {
		if b.err == nil && opt.inside(p) {
			if b.err = ctx.Err(); b.err == nil {
				b.err = b.add(ctx, p, here)
			}
		}
	}
	var err error
	if len(offer.Records) == 0 {
		err = a.EachPiece(opt.From, opt.To, func(p archive.Piece) { add(p, true) })
	} else {
		err = eachOffered(a, opt, offer.Records, add)
	}
	if err = errors.Join(err, b.err); err != nil {
		return nil, err
	}
	if d.count == 0 {
		return nil, ErrEmpty
	}
	d.plan.tracks = mergeTracks(b.order)
	if err := b.settle(ctx); err != nil {
		return nil, err
	}
	d.tag = hex.EncodeToString(b.sum.Sum(nil)[:16])
	return d, nil
}

// eachOffered calls fn with the pieces of the view that an archive has together
// with what is offered to it, and says which are in the archive.
func eachOffered(a *archive.Stream, opt Options, offered []archive.Record, fn func(p archive.Piece, here bool)) error {
	own, err := a.Span(opt.From, opt.To)
	if err != nil {
		return err
	}
	recs := make([]archive.Record, 0, len(own)+len(offered))
	here := make(map[m4f.Identity]*archive.Element, len(own))
	for i := range own {
		recs = append(recs, own[i].Record)
		here[own[i].ID] = &own[i]
	}
	for _, p := range archive.Pieces(archive.View(append(recs, offered...))) {
		e, ok := here[p.ID]
		if ok { // it is read from there
			shown := *e
			shown.Record, shown.Parts = p.Record, p.Element.Parts
			p.Element = &shown
		}
		fn(p, ok)
	}
	return nil
}

// Size is the length of the file in bytes.
func (d *Download) Size() int64 { return d.size }

// Tag names the file's bytes: two Downloads with one Tag are equal.
func (d *Download) Tag() string { return d.tag }

// Duration is from the first frame to the end of the last, gaps included.
func (d *Download) Duration() time.Duration { return m4f.Duration(d.plan.length) }

// layout makes a Download.
type layout struct {
	*Download
	last   placed
	lastAt archive.Place
	order  []*mapping
	sum    hash.Hash
	err    error
}

// add takes in one more piece behind the others; here: its segment is in the
// archive.
func (b *layout) add(ctx context.Context, piece archive.Piece, here bool) error {
	e := *piece.Element
	piece.Element = &e
	last := &b.last
	if b.count == 0 {
		last = nil
	}
	next := b.plan.place(last, piece)
	m := b.plan.inits[e.Init]
	if m == nil {
		if !here {
			if err := b.fetch(ctx, e.UTC, e.End()); err != nil {
				return err
			}
		}
		var err error
		if m, err = b.plan.findInit(b.archive, &e); err != nil {
			return err
		}
		b.order = append(b.order, m)
	}
	b.note(&next)
	at := e.Place()
	whole := piece.Part == archive.Part{To: int64(e.Duration)}
	if r := b.follows(&next, at, here, whole); r != nil {
		r.n++
		r.bytes += int64(e.Length)
	} else {
		b.runs = append(b.runs, run{place: at, first: b.count, n: 1, init: m, part: piece.Part, whole: whole,
			start: next.start, joins: next.joins, fresh: next.fresh, bytes: int64(e.Length)})
	}
	if !here {
		r := &b.runs[len(b.runs)-1]
		r.offered = append(r.offered, e.Record)
	}
	b.last, b.lastAt = next, at
	b.count++
	return nil
}

// follows is the run that a piece goes on with, or nil.
func (b *layout) follows(next *placed, at archive.Place, here, whole bool) *run {
	if len(b.runs) == 0 || !whole || !next.joins || next.fresh || next.start != b.last.start+int64(b.last.Duration) {
		return nil
	}
	r := &b.runs[len(b.runs)-1]
	if !r.whole || r.init != b.plan.inits[next.Init] || here != (r.offered == nil) || here && !b.lastAt.Next(at) {
		return nil
	}
	return r
}

// note adds a piece to what the tag says: all that the file's bytes depend on.
func (b *layout) note(p *placed) {
	var buf [32 + 4*8 + 2]byte
	copy(buf[:], p.ID[:])
	for i, v := range []int64{p.From, p.To, p.start, int64(b.format)} {
		binary.BigEndian.PutUint64(buf[32+8*i:], uint64(v))
	}
	buf[64], buf[65] = byte(boolInt(p.joins)), byte(boolInt(p.fresh))
	b.sum.Write(buf[:])
}

// settle finds what the times of the first piece are, where new timelines go,
// and where each run begins in the file.
func (b *layout) settle(ctx context.Context) error {
	w := b.walker(ctx)
	err := w.look(0, func(cur, _ *chunk) { w.setBase(cur) })
	if err != nil {
		return err
	}
	b.base, b.shift = w.base, w.shift
	if err := b.makeRoom(ctx); err != nil {
		return err
	}
	if b.format == MP4 {
		var head bytes.Buffer
		if err := w.writeInit(&head); err != nil {
			return err
		}
		b.head = head.Bytes()
	}
	b.size = int64(len(b.head))
	w = b.walker(ctx)
	for i := range b.runs {
		r := &b.runs[i]
		r.offset = b.size
		if err := w.measure(r); err != nil {
			return err
		}
		if r.sizes == nil {
			b.size += r.bytes + int64(r.n)*r.growth()
		}
		for _, n := range r.sizes {
			b.size += int64(n)
		}
	}
	return nil
}

// makeRoom puts off new timelines as each does.
func (b *layout) makeRoom(ctx context.Context) error {
	moved := int64(0)
	for i := range b.runs {
		r := &b.runs[i]
		r.start += moved
		if !r.fresh {
			continue
		}
		err := b.walker(ctx).look(r.first-1, func(cur, next *chunk) {
			room := roomBetween(cur, next)
			moved += room
			r.start += room
		})
		if err != nil {
			return err
		}
	}
	b.plan.length += moved
	return nil
}

// look calls fn with a piece and the one behind it, before they have file times.
func (w *downloadWalker) look(i int, fn func(cur, next *chunk)) error {
	w.prepare = func(at int, cur, next *chunk) {
		if at == i {
			fn(cur, next)
		}
	}
	err := w.each(i, i+1, func(int, *chunk) error { return nil })
	w.prepare = nil
	return err
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// growth is by how much the fragment of a whole piece is longer than its segment.
func (r *run) growth() int64 { return int64(trafGrowth * len(r.init.init.Tracks)) }

// walker returns a walker over the pieces.
func (d *Download) walker(ctx context.Context) *downloadWalker {
	w := &downloadWalker{d: d, at: -1}
	w.walker = walker{ctx: ctx, plan: &d.plan, src: w, base: d.base, shift: d.shift, rough: d.format == TS}
	return w
}

// downloadWalker walks over the pieces of a Download. Of segments it reads their
// heads alone.
type downloadWalker struct {
	walker
	d      *Download
	at     int // the run whose pieces are at hand
	pieces []placed
}

func (w *downloadWalker) count() int { return w.d.count }

// runOf is the run that a piece is in.
func (d *Download) runOf(i int) int {
	k, found := slices.BinarySearchFunc(d.runs, i, func(r run, i int) int { return r.first - i })
	if !found {
		k--
	}
	return k
}

// piece finds a piece in the archive again.
func (w *downloadWalker) piece(i int) (*placed, error) {
	k := w.d.runOf(i)
	r := &w.d.runs[k]
	if k != w.at {
		els, err := w.d.elements(r)
		if err != nil {
			return nil, err
		}
		w.at, w.pieces = k, make([]placed, r.n)
		start := r.start
		for j := range els {
			e := &els[j]
			w.pieces[j] = placed{Piece: archive.Piece{Element: e, Part: e.Parts[0]}, start: start, joins: j > 0 || r.joins, fresh: j == 0 && r.fresh}
			start += int64(e.Duration)
		}
		w.pieces[0].Part = r.part
	}
	return &w.pieces[i-r.first], nil
}

// elements are the segments of a run, shown whole.
func (d *Download) elements(r *run) ([]archive.Element, error) {
	if r.offered == nil {
		return d.archive.At(r.place, r.n)
	}
	els := make([]archive.Element, len(r.offered))
	for i := range els {
		els[i] = archive.Element{Record: r.offered[i], Parts: []archive.Part{{To: int64(r.offered[i].Duration)}}}
	}
	return els, nil
}

func (w *downloadWalker) open(p *placed, init *m4f.Init, c *chunk) (*m4f.Fragment, error) {
	f, err := openHead(w.d.archive, p.Element, init, c)
	if r := &w.d.runs[w.at]; errors.Is(err, archive.ErrNoSegment) && r.offered != nil {
		if err := w.d.fetch(w.ctx, p.UTC, r.ahead(p.UTC)); err != nil {
			return nil, err
		}
		return openHead(w.d.archive, p.Element, init, c)
	}
	return f, err
}

// fetchAhead is how much is fetched at a time of what is offered.
const fetchAhead = 30 * m4f.Timescale

// ahead is the end of what is fetched at once from a time on.
func (r *run) ahead(from m4f.UTC) (to m4f.UTC) {
	for i := range r.offered {
		if o := &r.offered[i]; o.UTC <= from || o.End() <= from+fetchAhead {
			to = o.End()
		}
	}
	return to
}

// firstRead is how much is read of a segment at first: most heads are shorter.
const firstRead = 8 << 10

// openHead opens a segment and reads what it says of its samples.
func openHead(a *archive.Stream, e *archive.Element, init *m4f.Init, c *chunk) (*m4f.Fragment, error) {
	m, err := a.OpenElement(e)
	if err != nil {
		return nil, err
	}
	c.file = m
	size := int64(e.Length)
	head := make([]byte, min(firstRead, size))
	if _, err := m.File.ReadAt(head, m.Offset); err != nil {
		return nil, unreadable(e, err)
	}
	if n := int64(m4f.FragmentHead(head)); n < int64(len(head)) {
		head = head[:n]
	} else if n <= size {
		more := make([]byte, n)
		if _, err := m.File.ReadAt(more[copy(more, head):], m.Offset+int64(len(head))); err != nil {
			return nil, unreadable(e, err)
		}
		head = more
	}
	f, err := m4f.ParseFragmentHead(init, head, size)
	if err != nil {
		return nil, unreadable(e, err)
	}
	return f, nil
}

// measure finds the sizes of a run's pieces in the file where they do not follow
// from the lengths of their segments.
func (w *downloadWalker) measure(r *run) error {
	sets := slices.ContainsFunc(r.init.tracks, func(m mapped) bool { return m.sets != nil })
	if w.d.format == MP4 && r.whole && !sets {
		return nil
	}
	if !r.whole {
		return w.each(r.first, r.first+1, func(i int, c *chunk) error { return w.size(r, i, c) })
	}
	for i := r.first; i < r.first+r.n; i++ {
		c, err := w.load(i)
		if err == nil {
			err = w.size(r, i, c)
			c.close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// each calls fn with the pieces from first up to end.
func (w *downloadWalker) each(first, end int, fn func(int, *chunk) error) error {
	err := w.walk(first, func(i int, c *chunk) error {
		if err := fn(i, c); err != nil {
			return err
		}
		if i+1 == end {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (w *downloadWalker) size(r *run, i int, c *chunk) error {
	if w.d.format == TS {
		n, err := w.tsSize(i, c)
		r.sizes = append(r.sizes, uint32(n))
		return err
	}
	f, err := c.fragment(i)
	if err == nil {
		r.sizes = append(r.sizes, uint32(f.size))
	}
	return err
}

// pieceSize is how many bytes a piece of a run has in the file.
func (r *run) pieceSize(k int, p *placed) int64 {
	if r.sizes != nil {
		return int64(r.sizes[k])
	}
	return int64(p.Length) + r.growth()
}

// WriteRange writes the bytes [from, to) of the file. What is as in the archive
// goes to w by its ReadFrom, if it has one, from a file. An error says that less
// was written: w's, or that a segment is no longer there, or not as it was.
func (d *Download) WriteRange(ctx context.Context, w io.Writer, from, to int64) error {
	if from < 0 || to > d.size || from > to {
		return fmt.Errorf("bytes %d to %d of %d", from, to, d.size)
	}
	if n := int64(len(d.head)); from < min(n, to) {
		if _, err := w.Write(d.head[from:min(n, to)]); err != nil {
			return err
		}
		from = min(n, to)
	}
	if from == to {
		return nil
	}
	first, at, err := d.find(ctx, from)
	if err != nil {
		return err
	}
	walk := d.walker(ctx)
	err = walk.walk(first, func(i int, c *chunk) error {
		n, err := walk.write(w, i, c, max(from-at, 0), to-at)
		if at += n; err == nil && at >= to {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the file ends at byte %d, not %d", at, d.size)
	}
	return err
}

// find is the piece that holds a byte, and where it begins.
func (d *Download) find(ctx context.Context, off int64) (i int, at int64, err error) {
	k := sort.Search(len(d.runs), func(k int) bool { return d.runs[k].offset > off }) - 1
	r := &d.runs[k]
	w := d.walker(ctx)
	at = r.offset
	for i = r.first; i < r.first+r.n; i++ {
		p, err := w.piece(i)
		if err != nil {
			return 0, 0, err
		}
		n := r.pieceSize(i-r.first, p)
		if off < at+n {
			break
		}
		at += n
	}
	return i, at, nil
}

// write writes the bytes [from, to) of a piece, and returns its size.
func (w *downloadWalker) write(out io.Writer, i int, c *chunk, from, to int64) (int64, error) {
	r := &w.d.runs[w.d.runOf(i)]
	if w.d.format == TS {
		size := r.pieceSize(i-r.first, c.placed)
		return size, w.writeTS(out, i, c, from, to, size)
	}
	f, err := c.fragment(i)
	if err != nil {
		return 0, err
	}
	if want := r.pieceSize(i-r.first, c.placed); f.size != want {
		return 0, unreadable(c.Element, fmt.Errorf("it makes %d bytes instead of %d", f.size, want))
	}
	at := int64(0)
	for _, s := range append([]stretch{{data: f.head}}, f.body...) {
		a, b := max(from-at, 0), min(to-at, s.size())
		at += s.size()
		if a >= b {
			continue
		}
		if s.data != nil {
			_, err = out.Write(s.data[a:b])
		} else {
			err = copyFile(out, c.file, int64(s.off)+a, b-a)
		}
		if err != nil {
			return 0, err
		}
	}
	return f.size, nil
}

// copyFile writes n bytes of a segment's media.
func copyFile(w io.Writer, m *archive.Media, off, n int64) error {
	if _, err := m.File.Seek(m.Offset+off, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(w, m.File, n)
	return err
}
