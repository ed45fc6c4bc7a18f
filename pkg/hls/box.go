package hls

import (
	"encoding/binary"
	"fmt"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

// box is one box of ISO/IEC 14496-12 inside a buffer.
type box struct {
	typ  string
	off  int // of its header in the buffer given to the first walk
	raw  []byte
	body []byte
}

// maxBoxes are the boxes of one level that are looked at.
const maxBoxes = 1 << 16

// walkBoxes calls fn for each box in b, which lies at an offset of what is
// being read. The last box may have size 0: it reaches to the end.
func walkBoxes(b []byte, off int, fn func(box) error) error {
	for k := 0; len(b) > 0; k++ {
		if len(b) < 8 || k == maxBoxes {
			return fmt.Errorf("%d bytes where a box should be", len(b))
		}
		n, head := uint64(binary.BigEndian.Uint32(b)), 8
		switch {
		case n == 0:
			n = uint64(len(b))
		case n == 1 && len(b) >= 16:
			n, head = binary.BigEndian.Uint64(b[8:]), 16
		}
		if n < uint64(head) || n > uint64(len(b)) {
			return fmt.Errorf("box %q of %d bytes inside %d", b[4:8], n, len(b))
		}
		c := box{string(b[4:8]), off, b[:n], b[head:n]}
		if err := fn(c); err != nil {
			return fmt.Errorf("%s: %w", c.typ, err)
		}
		b, off = b[n:], off+int(n)
	}
	return nil
}

// maxLeaf are the bytes up to which a box is handed to its decoder.
const maxLeaf = 4 << 20

// decodeBox reads a leaf box. The bytes are a stranger's: a fault of the
// library is theirs too.
func decodeBox[T mp4.Box](c box) (t T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading it: %v", r)
		}
	}()
	if len(c.raw) > maxLeaf {
		return t, fmt.Errorf("%d bytes are too many", len(c.raw))
	}
	b, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(c.raw))
	if err != nil {
		return t, err
	}
	t, ok := b.(T)
	if !ok {
		return t, fmt.Errorf("decodes to %T", b)
	}
	return t, nil
}
