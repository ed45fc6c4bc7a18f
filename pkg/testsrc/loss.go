package testsrc

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Loss says which datagrams an output leaves out, as a bad network would.
// Equal values leave out the same.
type Loss struct {
	// Rate is the share of datagrams lost, 0 to 1.
	Rate float64
	// Burst is how many are lost in a row each time; 0 and 1 mean one. The
	// rate stays what it is.
	Burst int
	// Seed chooses which.
	Seed uint64
}

// ParseRate reads a rate of loss: a percentage ("0.1%") or a share ("0.001").
func ParseRate(s string) (float64, error) {
	digits, percent := strings.CutSuffix(s, "%")
	r, err := strconv.ParseFloat(digits, 64)
	if percent {
		r /= 100
	}
	if err != nil || !(r >= 0 && r <= 1) {
		return 0, fmt.Errorf("loss %q is not a rate such as 0.1%% or 0.001", s)
	}
	return r, nil
}

// dropper decides about one datagram after the other.
type dropper struct {
	start float64 // probability that a burst begins
	burst int
	left  int // of the burst that runs
	rng   *rand.Rand
}

func newDropper(l Loss) *dropper {
	burst := max(l.Burst, 1)
	d := &dropper{burst: burst, rng: rand.New(rand.NewPCG(l.Seed, 0x7477696e647672))}
	// Of a mean run of g kept and burst lost datagrams, burst are lost.
	switch {
	case l.Rate >= 1:
		d.start = 1
	case l.Rate > 0:
		d.start = l.Rate / (l.Rate + float64(burst)*(1-l.Rate))
	}
	return d
}

// drop says whether the next datagram is lost.
func (d *dropper) drop() bool {
	if d.left == 0 && d.start > 0 && d.rng.Float64() < d.start {
		d.left = d.burst
	}
	if d.left == 0 {
		return false
	}
	d.left--
	return true
}
