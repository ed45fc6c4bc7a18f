package m4f

import (
	"encoding/binary"
	"fmt"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

// box is one box inside a buffer that is wholly in memory.
type box struct {
	typ  string
	raw  []byte // with its header
	body []byte // behind its header
}

// nextBox splits the first box off b. Only the compact size is read: this
// format has no box that needs another.
func nextBox(b []byte) (box, []byte, error) {
	if len(b) < 8 {
		return box{}, nil, fmt.Errorf("%d bytes where a box should be", len(b))
	}
	n := uint64(binary.BigEndian.Uint32(b))
	if n < 8 || n > uint64(len(b)) {
		return box{}, nil, fmt.Errorf("box %q of %d bytes inside %d", b[4:8], n, len(b))
	}
	return box{typ: string(b[4:8]), raw: b[:n], body: b[8:n]}, b[n:], nil
}

// children calls fn for each box in b, in order.
func children(b []byte, fn func(box) error) error {
	for len(b) > 0 {
		c, rest, err := nextBox(b)
		if err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return fmt.Errorf("%s: %w", c.typ, err)
		}
		b = rest
	}
	return nil
}

// maxLeaf are the body sizes, in bytes, up to which leaf boxes are handed to
// their decoder. No decoder called here loops or allocates beyond its input.
const maxLeaf = 64 << 10

// decode reads a leaf box with its mp4ff decoder.
func decode[T mp4.Box](c box) (T, error) {
	var none T
	if len(c.body) > maxLeaf && c.typ != "trun" {
		return none, fmt.Errorf("%d bytes are too many", len(c.body))
	}
	b, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(c.raw))
	if err != nil {
		return none, err
	}
	t, ok := b.(T)
	if !ok {
		return none, fmt.Errorf("decodes to %T", b)
	}
	if b.Size() != uint64(len(c.raw)) {
		return none, fmt.Errorf("%d bytes, want %d", len(c.raw), b.Size())
	}
	return t, nil
}
