package node

import (
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/serve"
)

// diskStatus says what limits the archive, and how long its volume lasts.
func (s *stream) diskStatus(st *serve.ArchiveStatus) {
	st.SizeLimit, st.PercentLimit = s.cfg.DVR.Size, s.cfg.DVR.Percent
	u, err := archive.UsageOf(s.cfg.DVR.Dir)
	if err != nil {
		return
	}
	opt := volumeOptions(s.node.vols.free(), u)
	st.Volume, st.DiskSize = s.cfg.DVR.Root, u.Total
	st.DiskFree, st.MinFree = u.Free, opt.Wanted(u)
	room := u.Free - st.MinFree
	if p := s.cfg.DVR.Percent; p > 0 {
		room = min(room, (u.Used+u.Free)/100*int64(p)-u.Used)
	}
	grow := []growth{growthOf(st)}
	for _, o := range s.node.all() {
		if o == s || o.device.Load() != u.Device {
			continue
		}
		o.sum.mu.Lock()
		other := o.sum.status
		o.sum.mu.Unlock()
		o.mu.Lock()
		retired := o.retired
		o.mu.Unlock()
		if !retired {
			grow = append(grow, growthOf(&other))
		}
	}
	if left, ok := lasts(room, grow); ok {
		days := left.Hours() / 24
		st.DaysUntilFull = &days
	}
}

// growth is how an archive grows: until it has reached its depth or its size,
// then one hour goes for each that comes.
type growth struct {
	rate float64 // bytes a second
	left time.Duration
}

// growthOf is how the archive of a status grows.
func growthOf(st *serve.ArchiveStatus) growth {
	g := growth{rate: st.BytesPerSec, left: seconds(st.Depth - st.Reached)}
	if st.SizeLimit > 0 && g.rate > 0 {
		g.left = min(g.left, seconds(float64(st.SizeLimit-st.Bytes)/g.rate))
	}
	return g
}

// seconds is a duration, as far as there are such.
func seconds(s float64) time.Duration {
	const most = 1 << 62
	return time.Duration(min(max(s*float64(time.Second), 0), most))
}

// lasts says for how long there is room for bytes more; false: for ever, since
// the archives stop growing before. An archive that has grown as far as it may
// is at most an hour smaller at times.
func lasts(room int64, grow []growth) (time.Duration, bool) {
	slices.SortFunc(grow, func(a, b growth) int { return int(min(max(a.left-b.left, -1), 1)) })
	rate := 0.0
	for _, g := range grow {
		if g.left > 0 {
			rate += g.rate
		}
	}
	at, free := time.Duration(0), float64(room)
	for _, g := range grow {
		if g.left <= 0 || g.rate <= 0 {
			continue
		}
		need := rate * (g.left - at).Seconds()
		if need > free {
			return at + seconds(max(free, 0)/rate), true
		}
		free -= need
		at, rate = g.left, rate-g.rate
	}
	return 0, false
}
