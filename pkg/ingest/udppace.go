package ingest

import "time"

// The naps of a network source, longest first. One of 80 ms is 12 wake-ups a
// second and adds 40 ms to the delay, on average; with 40 ms recording costs 7 %
// more.
var naps = [...]time.Duration{80 * time.Millisecond, 40 * time.Millisecond, 20 * time.Millisecond, 10 * time.Millisecond,
	5 * time.Millisecond, 2 * time.Millisecond, time.Millisecond}

const (
	// shortest is the index of the shortest nap.
	shortest = len(naps) - 1
	// burst is what a sender may begin with at any time, whatever it has sent so
	// far, in bytes a second of the kernel's accounting: 100 Mbit/s in datagrams
	// of 1316 bytes that drivers of network cards keep in a page each.
	burst = 100e6 / 8 / 1316 * (4096 + 256)
	// memory is for how long bursts are remembered, at least; at most it is twice
	// as long.
	memory = 10 * time.Second
)

// pace finds the nap of a socket by what came of late: the longest of those that
// would at no time have found more than a budget in the socket, and after which a
// burst still fits into it. Times are since a common moment, bytes those of the
// kernel's accounting (see charge).
type pace struct {
	budget  float64 // bytes
	longest int     // index of the longest nap in which a burst fits
	at      int     // index of the nap
	fills   [len(naps)]fill
	turned  time.Duration // when the fills began to remember anew
}

// newPace returns the pace for a socket with a receive buffer of so many bytes
// (as asked for: the kernel grants twice that). Until something has come and for
// long enough, naps are short.
func newPace(buffer int) pace {
	p := pace{budget: float64(buffer) / 4, at: shortest}
	for p.longest < shortest && burst*naps[p.longest].Seconds() > 2*float64(buffer) {
		p.longest++
	}
	return p
}

// nap returns how long to leave the socket alone.
func (p *pace) nap() time.Duration { return naps[p.at] }

// emptied notes that reading emptied the socket of so many bytes, which had
// come since the time from. Naps become shorter at once and longer by steps: what
// came in the first of a stream says little of its rate.
func (p *pace) emptied(from, to time.Duration, bytes int) {
	begins := p.silent() && bytes > 0
	if to-p.turned >= memory {
		for i := range p.fills {
			p.fills[i].turn()
		}
		p.turned = to
	}
	for i := range p.fills {
		p.fills[i].add(naps[i], from, to, float64(bytes))
	}
	if begins {
		p.at = shortest
	} else {
		p.at = max(p.suited(), p.at-1)
	}
}

// suited is the index of the nap that suits what came of late.
func (p *pace) suited() int {
	i := p.longest
	if p.silent() { // it may begin as fast as it likes
		return min(i+1, shortest)
	}
	for i < shortest && p.fills[i].peak() > p.budget {
		i++
	}
	return i
}

// silent says that nothing came of late.
func (p *pace) silent() bool { return p.fills[0].peak() == 0 }

// rate is the highest of late, of the longest of all naps, in bytes a second.
func (p *pace) rate() float64 { return p.fills[0].peak() / naps[0].Seconds() }

// fill is how many bytes naps of one length would have found in a socket.
type fill struct {
	period    time.Duration // the one under way, counted
	sum       float64       // of it so far
	most, was float64       // the highest sum since the last turn, and from the last but one to it
}

// add notes what came in a time: in a longer one than the nap as if evenly.
func (f *fill) add(nap, from, to time.Duration, bytes float64) {
	if d := to - from; d > nap {
		f.most = max(f.most, bytes*float64(nap)/float64(d))
		return
	}
	if period := from / nap; period != f.period {
		f.period, f.sum = period, 0
	}
	f.sum += bytes
	f.most = max(f.most, f.sum)
}

// turn forgets what was before the last turn.
func (f *fill) turn() { f.most, f.was = 0, f.most }

func (f *fill) peak() float64 { return max(f.most, f.was) }
