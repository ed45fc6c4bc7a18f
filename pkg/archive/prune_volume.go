package archive

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Member is a stream whose hours may make room on its volume, and what limits
// it itself; 0 is no limit.
type Member struct {
	Stream *Stream
	Depth  time.Duration
	Size   int64
	// Percent asks for this stream's hours as long as more of the volume is in
	// use.
	Percent int
}

// VolumeOptions say how much room is wanted on a volume.
type VolumeOptions struct {
	// MinFree bytes are to stay free, and MinFreePercent of the size of the
	// volume. All members give hours for them.
	MinFree        int64
	MinFreePercent int
	DryRun, Force  bool
	// Usage returns how full the volume is. Nil: as the first member's directory
	// says.
	Usage func() (Usage, error)
	// Where names the streams to the operator, as the arguments of prune.
	Where string
}

// Wanted is how many bytes are to be free on a volume.
func (o *VolumeOptions) Wanted(u Usage) int64 {
	return max(o.MinFree, int64(float64(u.Total)*float64(o.MinFreePercent)/100))
}

// emergencyPart: when less than this part of what is wanted is free, hours go
// although the pass is held, one by one, or recording would stop.
const emergencyPart = 4

// Exceeded says whether any limit on the volume is.
func (o *VolumeOptions) Exceeded(u Usage, members []Member) bool {
	return u.Free < o.Wanted(u) || slices.ContainsFunc(members, func(m Member) bool { return u.over(m.Percent) })
}

// Urgent says whether so little is free that recording is about to stop.
func (o *VolumeOptions) Urgent(u Usage) bool { return u.Free < o.Wanted(u)/emergencyPart }

func (u Usage) over(percent int) bool { return percent > 0 && u.Percent() > float64(percent) }

// freed is the usage when some bytes more are free.
func (u Usage) freed(n int64) Usage {
	u.Used -= n
	u.Free += n
	return u
}

// VolumeResult says what a pass over a volume did, or would do.
type VolumeResult struct {
	Usage   Usage         // before the pass
	Streams []PruneResult // of the members, in their order
	Hours   int           // removed, of all members
	Bytes   int64         // of their files
	Held    *PruneHeldError
	Unmet   *LimitError // nil: the limits are met, or will be
	// Urgent: hours went although the pass was held, so that recording goes on.
	Urgent bool
}

// PruneVolume keeps each member to its depth and its size, as Stream.Prune does,
// and then makes room on the volume: the oldest hour of all members goes, and
// the next, until every limit is met. A limit on the use of the volume takes
// only from the streams that have it. Kept spans stay, and of each stream the
// newest two hours that hold segments.
//
// No clock is asked what is old, but a volume may be filled by something else,
// or a limit mistyped. So where a stream would lose more than a tenth of its
// hours beyond what the passing of time explains, the pass stops before the
// first of these and Held says so, until one is run with Force. When so little
// is free that recording is about to stop, hours go all the same, the oldest
// first and no more of them than that takes.
//
// An error of one stream does not keep the others from giving hours.
func PruneVolume(now time.Time, members []Member, opt VolumeOptions) (VolumeResult, error) {
	v := volumePass{opt: opt, members: members}
	v.res.Streams = make([]PruneResult, len(members))
	if len(members) == 0 {
		return v.res, nil
	}
	if opt.Usage == nil {
		v.opt.Usage = func() (Usage, error) { return UsageOf(members[0].Stream.dir) }
	}
	var err error
	if v.res.Usage, err = v.opt.Usage(); err != nil {
		return v.res, err
	}
	if !opt.Exceeded(v.res.Usage, members) && !slices.ContainsFunc(members, func(m Member) bool { return m.Depth != 0 || m.Size != 0 }) {
		return v.res, nil
	}
	v.plan(now)
	v.choose()
	v.guard()
	v.apply()
	return v.res, errors.Join(v.errs...)
}

// volumePass is a pass over a volume.
type volumePass struct {
	opt     VolumeOptions
	members []Member
	plans   []*pruning // nil: the stream cannot be pruned
	queue   [][]hour   // what each stream may still give
	picks   []pick     // in the order in which they go
	now     Usage      // with the picks gone
	res     VolumeResult
	errs    []error
}

// pick is an hour that is to go.
type pick struct {
	member int
	hour   hour
	frees  int64
	why    Reason
}

func (v *volumePass) fail(i int, err error) {
	v.plans[i], v.queue[i] = nil, nil
	v.errs = append(v.errs, fmt.Errorf("%s: %w", v.members[i].Stream.Name(), err))
}

func (v *volumePass) plan(now time.Time) {
	v.plans = make([]*pruning, len(v.members))
	v.queue = make([][]hour, len(v.members))
	v.now = v.res.Usage
	for i, m := range v.members {
		p, err := m.Stream.planFor(now, m.Depth, m.Size, v.opt.Force)
		if err != nil {
			v.fail(i, err)
			continue
		}
		v.plans[i] = p
		if v.queue[i], err = p.candidates(); err != nil {
			v.fail(i, err)
			continue
		}
		for _, h := range p.all { // what the stream's own limits free
			if h >= p.goal {
				break
			}
			if size, err := p.size(h); err == nil && !p.kept.touch(h) {
				v.now = v.now.freed(size.blocks)
			}
		}
	}
}

// choose picks the oldest hours until the limits are met.
func (v *volumePass) choose() {
	for {
		best, why := -1, Reason("")
		for i := range v.members {
			r := v.wants(i)
			if r != "" && len(v.queue[i]) > 0 && (best < 0 || v.queue[i][0] < v.queue[best][0]) {
				best, why = i, r
			}
		}
		if best < 0 {
			break
		}
		h := v.queue[best][0]
		size, err := v.plans[best].size(h)
		if err != nil {
			v.fail(best, err)
			continue
		}
		v.queue[best] = v.queue[best][1:]
		v.picks = append(v.picks, pick{best, h, size.blocks, why})
		v.now = v.now.freed(size.blocks)
	}
	if short := v.short(v.now); short > 0 {
		v.res.Unmet = &LimitError{Where: v.opt.Where, Limit: v.limit(), Over: short, Kept: v.anyKept(), Volume: true}
	}
}

// wants says which limit asks for hours of a stream now, or "".
func (v *volumePass) wants(i int) Reason {
	switch {
	case v.now.Free < v.opt.Wanted(v.now):
		return ByMinFree
	case v.now.over(v.members[i].Percent):
		return ByPercent
	}
	return ""
}

// short is how many bytes the limits still ask for.
func (v *volumePass) short(u Usage) int64 {
	n := v.opt.Wanted(u) - u.Free
	for _, m := range v.members {
		if u.over(m.Percent) {
			n = max(n, int64(math.Ceil((u.Percent()-float64(m.Percent))*float64(u.Used+u.Free)/100)))
		}
	}
	return n
}

// limit is the limits that are exceeded, in words.
func (v *volumePass) limit() string {
	var l []string
	u := v.res.Usage
	if u.Free < v.opt.Wanted(u) {
		l = append(l, v.opt.minFree(u)+" free on the volume")
	}
	if p := v.percent(); p > 0 {
		l = append(l, fmt.Sprintf("%d%% of the volume in use", p))
	}
	return strings.Join(l, " and ")
}

// minFree is what is to be free as it was given, the greater of both.
func (o *VolumeOptions) minFree(u Usage) string {
	if o.Wanted(u) > o.MinFree {
		return fmt.Sprintf("%d%%", o.MinFreePercent)
	}
	return bytesText(o.MinFree)
}

// flags is the limits that are exceeded, as flags of prune.
func (v *volumePass) flags() string {
	var l []string
	u := v.res.Usage
	if u.Free < v.opt.Wanted(u) {
		l = append(l, "--min-free "+v.opt.minFree(u))
	}
	if p := v.percent(); p > 0 {
		l = append(l, fmt.Sprintf("--percent %d%%", p))
	}
	return strings.Join(l, " ")
}

// percent is the lowest limit on the use of the volume that is exceeded, or 0.
func (v *volumePass) percent() int {
	least := 0
	for _, m := range v.members {
		if v.res.Usage.over(m.Percent) && (least == 0 || m.Percent < least) {
			least = m.Percent
		}
	}
	return least
}

func (v *volumePass) anyKept() bool {
	return slices.ContainsFunc(v.plans, func(p *pruning) bool { return p != nil && len(p.kept) > 0 })
}

// guard cuts the picks off before the first that a stream is held at, but for
// those without which recording would stop.
func (v *volumePass) guard() {
	if v.opt.Force {
		return
	}
	want := make([]hour, len(v.plans)) // where the picks move the horizons
	for _, k := range v.picks {
		want[k.member] = k.hour + 1
	}
	cut := len(v.picks)
	for i, p := range v.plans {
		if p == nil || want[i] == 0 {
			continue
		}
		own := p.held
		p.held = nil
		explained, err := p.allow(want[i], p.last.left(), "a limit of "+v.limit(), v.flags())
		if err != nil {
			v.fail(i, err)
			continue
		}
		if p.held == nil {
			p.held = own
			continue
		}
		p.held.Where = v.opt.Where
		at := slices.IndexFunc(v.picks, func(k pick) bool { return k.member == i && k.hour >= explained })
		if at >= 0 && (at < cut || v.res.Held == nil) {
			cut, v.res.Held = min(cut, at), p.held
		}
	}
	if v.res.Held == nil {
		return
	}
	v.res.Unmet = nil // what is held comes first
	u := v.now
	for _, k := range v.picks[cut:] {
		u = u.freed(-k.frees)
	}
	for ; cut < len(v.picks) && v.opt.Urgent(u); cut++ {
		v.res.Urgent = true
		u = u.freed(v.picks[cut].frees)
	}
	v.picks, v.now = v.picks[:cut], u
}

// apply removes what is picked, stream by stream.
func (v *volumePass) apply() {
	for _, k := range v.picks {
		p := v.plans[k.member]
		if p == nil {
			continue
		}
		p.goal = max(p.goal, k.hour+1)
		p.why = append(p.why, until{k.hour + 1, k.why})
	}
	for i, p := range v.plans {
		if p == nil {
			continue
		}
		if p.depth == 0 && p.idle() {
			v.res.Streams[i] = PruneResult{Horizon: p.goal.start(), Unmet: p.unmet, Held: p.held}
			continue
		}
		res, err := p.apply(v.opt.DryRun)
		if err != nil {
			v.fail(i, err)
		}
		v.res.Streams[i] = res
		v.res.Hours += len(res.Hours)
		v.res.Bytes += res.Bytes
	}
}

// idle says whether there is nothing to be done for the stream.
func (p *pruning) idle() bool {
	return p.goal == hourOf(p.mark.horizon()) &&
		!slices.ContainsFunc(p.all, func(h hour) bool { return h < p.goal && !p.kept.touch(h) })
}

// NearBytes writes about how many bytes there are, in a decimal unit.
func NearBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < 4 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTP"[unit])
}

// bytesText writes a number of bytes as the configuration does, in the largest
// unit that has no fraction.
func bytesText(n int64) string {
	unit := 0
	for n >= 1024 && n%1024 == 0 && unit < 4 {
		n, unit = n/1024, unit+1
	}
	return fmt.Sprintf("%d%s", n, []string{"", "K", "M", "G", "T"}[unit])
}
