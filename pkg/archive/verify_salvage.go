package archive

import (
	"errors"

	"github.com/twindvr/twindvr/pkg/salvage"
)

// salvage verifies the packets that are kept of damaged segments, and drops what is
// bad: a peer may have them too. They do not count as bytes of the archive.
func (v *verifier) salvage() error {
	store := v.s.Salvage()
	return store.Verify(v.o.From, v.o.To, v.wait, func(e *salvage.Entry, err error) error {
		d := Damage{Path: store.Dir(), Kind: BadSalvage, Why: err.Error(), Done: Left, Bytes: int64(e.Len()) * salvage.PacketSize}
		if len(e.Segments) > 0 {
			d.ID, d.From, d.To = e.Segments[0].ID, e.Start(), e.End()
		}
		var corrupt *salvage.CorruptError
		if errors.As(err, &corrupt) {
			d.Path, d.Why = corrupt.Path, corrupt.Err.Error()
			if !v.o.ReadOnly && store.Remove(*e) == nil {
				d.Done = Dropped
			}
		}
		v.found(d)
		return nil
	})
}
