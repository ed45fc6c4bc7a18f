package archive

import (
	"errors"
	"io"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// narrow is how long a window is of which no more is read than it needs. What is
// read so is not remembered.
const narrow = hourTicks / 4

// about returns the elements of an hour's view among which are all that show
// something of a window. Where the view is not remembered, but where its records
// lie, those are read that the window needs. The result may be shared and is not to
// be modified.
func (c *hourCache) about(h hour, w Window) ([]Element, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	vs, err := c.versions(h)
	if err != nil || vs[1] == 0 {
		return nil, err
	}
	if v, ok := shared.get(cacheKey{c, h, kindView}, vs); ok {
		return v.(hourView).els, nil
	}
	if k, ok := sketches.get(cacheKey{c, h, kindSketch}, vs); ok && w.To != 0 {
		k := k.(*sketch)
		if k.ends <= w.From {
			return nil, nil
		}
		if w.To-w.From <= narrow && k.rows != nil {
			if els, ok := c.readPlaces(h, k, w); ok {
				return els, nil
			}
		}
	}
	els, _, err := c.view(h)
	return els, err
}

// readPlaces reads the elements about a window from where they lie. ok is false
// where the files are not what the sketch was made of.
func (c *hourCache) readPlaces(h hour, k *sketch, w Window) (els []Element, ok bool) {
	lo, hi := k.places(w.From, w.To)
	els = make([]Element, 0, hi-lo)
	parts := make([]Part, hi-lo) // shared backing
	for i := 0; i < len(k.rows) && int(k.rows[i].first) < hi; i++ {
		r, end := k.rows[i], int(k.first[MinutesAnHour])
		if i+1 < len(k.rows) {
			end = int(k.rows[i+1].first)
		}
		from, to := max(lo, int(r.first)), min(hi, end)
		if from >= to {
			continue
		}
		var err error
		if els, err = c.s.readRow(els, h, r.name, r.number+uint32(from)-uint32(r.first), to-from); err != nil {
			return nil, false
		}
	}
	if len(els) != hi-lo {
		return nil, false
	}
	for i := range els {
		e, place := &els[i], lo+i
		m := minuteOf(h, e.UTC)
		if i > 0 && e.UTC <= els[i-1].UTC || place < int(k.first[m]) || place >= int(k.first[m+1]) || int64(e.Duration) > k.Longest {
			return nil, false
		}
		parts[i] = Part{0, int64(e.Duration)}
		e.Parts = parts[i : i+1 : i+1]
	}
	return els, true
}

// errOtherIndex is an index that is not as it was when it was read before.
var errOtherIndex = errors.New("the index is another")

// readRow appends so many segments of an extent from a number on, as its index has
// them, without parts.
func (s *Stream) readRow(els []Element, h hour, name extentName, number uint32, count int) ([]Element, error) {
	f, err := fsx.Open(s.fs, s.extentPath(h, name, indexExt))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, indexHeaderSize+count*indexRecordSize)
	if _, err := f.ReadAt(b[:indexHeaderSize], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head, err := parseIndexHeader(b)
	if err != nil {
		return nil, err
	}
	b = b[indexHeaderSize:]
	if _, err := f.ReadAt(b, indexHeaderSize+int64(number)*indexRecordSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for ; len(b) > 0; b = b[indexRecordSize:] {
		r, ok := parseIndexRecord(b, head.init)
		if !ok || r.number != number || hourOf(r.UTC) != h {
			return nil, errOtherIndex
		}
		els = append(els, Element{Record: r.Record, at: location{h, name, number, head.initLength, r.offset}})
		number++
	}
	return els, nil
}
