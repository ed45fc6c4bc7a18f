package replicate

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// alone heals what is damaged only because an earlier keyframe than the one that it opens at may
// have been lost, if the archive has a clean segment that ends there: who recorded that heard
// what was lost, and that a segment begins there. Nobody keeps packets of what is clean, so that no
// merge can tell.
func (h *Healer) alone(ctx context.Context, own []salvage.Entry, o *HealOptions) (added int, err error) {
	for i := range own {
		e := &own[i]
		n, err := h.whole(ctx, e, o)
		if added += n; err != nil {
			return added, err
		}
		opens, key, err := h.proven(e)
		if err != nil {
			return added, err
		}
		if len(opens) == 0 || !o.DryRun && h.known(key) {
			continue
		}
		c, err := h.store.Read(*e)
		var corrupt *salvage.CorruptError
		if errors.Is(err, salvage.ErrGone) || errors.As(err, &corrupt) {
			continue
		}
		if err != nil {
			return added, err
		}
		n, err = h.takeProven(ctx, e, c, opens, o)
		if added += n; err != nil {
			return added, err
		}
		if !o.DryRun {
			h.remember(key)
		}
	}
	return added, nil
}

// whole takes segments of an entry for whole that are partial only because the recorder had just joined, where
// the archive shows one that lacks more, begins and ends where they do, and was recorded by
// somebody who had heard what is ahead. Of that one there may be no packets: who recorded it may have died.
func (h *Healer) whole(ctx context.Context, e *salvage.Entry, o *HealOptions) (int, error) {
	m := &merged{}
	for i := range e.Segments {
		s := &e.Segments[i]
		if !s.Damaged() || !s.Partial() || s.Flags&m4f.Keyframe == 0 || ahead(s) {
			continue
		}
		err := h.dst.Each(s.UTC, s.End(), func(x *archive.Element) error {
			if !x.Partial() && x.MediaTime == s.MediaTime && x.Duration == s.Duration && distance(x.UTC, s.UTC) <= edge && lossOf(s) < lossOf(&x.Header) {
				one := &m4f.Segment{Header: *s}
				one.Header.Flags &^= m4f.Partial
				m.segs = append(m.segs, one)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return h.takeAlone(ctx, e, m, o)
}

// proven are the media times at which hidden segments of an entry begin where a clean one of the archive
// ends, and what tells them from others.
func (h *Healer) proven(e *salvage.Entry) (opens []int64, key [sha256.Size]byte, err error) {
	told := []byte("alone\n" + e.Name)
	for i := range e.Segments {
		s := &e.Segments[i]
		if !hidden(s) || s.Partial() || s.Flags&m4f.Keyframe == 0 {
			continue
		}
		found := false
		err := h.dst.Each(max(s.UTC.Add(-beside), 1), s.End(), func(x *archive.Element) error {
			end := (x.MediaTime + int64(x.Duration)) & (m4f.Wrap - 1)
			if x.Clean() && end == s.MediaTime && distance(x.End(), s.UTC) <= edge {
				told, found = append(told, x.ID[:]...), true
			}
			return nil
		})
		if err != nil {
			return nil, key, err
		}
		if found {
			opens = append(opens, s.MediaTime)
		}
	}
	return opens, sha256.Sum256(told), nil
}

// takeProven cuts a copy knowing where segments begin, and takes those that are clean then.
func (h *Healer) takeProven(ctx context.Context, e *salvage.Entry, c *salvage.Copy, opens []int64, o *HealOptions) (int, error) {
	m := &merged{copy: c}
	for _, seg := range segment.Recut(c, e.Program, e.Target, opens...).Inside {
		i := slices.IndexFunc(e.Segments, func(s m4f.Header) bool {
			return s.ID == seg.Header.ID && slices.Contains(opens, s.MediaTime)
		})
		if i < 0 || !seg.Header.Clean() {
			continue
		}
		seg.Header.UTC = e.Segments[i].UTC
		seg.Header.Flags = e.Segments[i].Flags &^ m4f.Damaged
		m.segs = append(m.segs, seg)
	}
	return h.takeAlone(ctx, e, m, o)
}

// takeAlone takes segments that came of one entry.
func (h *Healer) takeAlone(ctx context.Context, e *salvage.Entry, m *merged, o *HealOptions) (int, error) {
	if len(m.segs) == 0 {
		return 0, nil
	}
	select {
	case h.work <- struct{}{}:
		defer func() { <-h.work }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return h.take(&unit{own: []salvage.Entry{*e}}, m, o.DryRun)
}
