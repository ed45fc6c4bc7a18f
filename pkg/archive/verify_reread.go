package archive

import (
	"fmt"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// unread is a segment that the disk could not read.
type unread struct {
	c  *extentCheck
	r  indexRecord
	at time.Time
}

// rereadAll reads again, some seconds later, what could not be read of an hour. A
// disk that does not answer for a moment hides nothing; a bad place is set aside, so
// that a peer heals it. Where not one segment of the hour can be read, it is the
// disk, or the way to it: that is told, and nothing is hidden for it.
func (v *verifier) rereadAll() error {
	if len(v.later) == 0 {
		return nil
	}
	last := v.later[len(v.later)-1].at
	if wait := v.o.Reread - v.s.clock.Now().Sub(last); v.o.Reread > 0 && wait > 0 {
		select {
		case <-v.s.clock.After(min(wait, v.o.Reread)): // the clock may go back
		case <-v.ctx.Done():
			return v.ctx.Err()
		}
	}
	var still []Damage
	var of []unread
	for i := range v.later {
		u := &v.later[i]
		err := u.c.reread(&u.r)
		switch {
		case err == nil:
			v.readWell = true
		case isNotExist(err): // pruned meanwhile
		case isPassing(err):
			return err
		case isDamage(err):
			u.c.setAside(u.c.damage(&u.r, err.Error()), u.r.number)
		default:
			still = append(still, u.c.damage(&u.r, fmt.Sprintf("it cannot be read: %v", err)))
			of = append(of, *u)
		}
	}
	for i, d := range still {
		if c := of[i].c; v.readWell {
			c.setAside(d, of[i].r.number)
		} else {
			d.Path, d.Kind, d.Done = c.path, BadSegment, Left
			d.Why += ", and no other segment of the hour can be either: check the disk"
			v.found(d)
		}
	}
	return nil
}

// reread reads a segment again, through a descriptor of its own. Bytes that are
// wrong now are read once more.
func (c *extentCheck) reread(r *indexRecord) error {
	f, err := fsx.Open(c.v.s.fs, c.path)
	if err != nil {
		return err
	}
	defer f.Close()
	c.f = f
	if c.init == nil {
		if c.init, c.initErr = readInit(f, c.x.initLen, c.x.init); c.initErr != nil {
			c.init = nil
		}
	}
	if err = c.read(r); isDamage(err) {
		err = c.read(r)
	}
	return err
}
