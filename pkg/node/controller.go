package node

import (
	"context"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// lookEvery is how often the inputs are looked at.
	lookEvery = 200 * time.Millisecond
	// firstLook is how long the first input may take to begin before a later
	// one counts as recorded from. Hot inputs are recorded from the start.
	firstLook = 3 * time.Second
)

// controller chooses the input that a stream is recorded from, opens and
// closes the cold ones, and says which mode the stream is in.
type controller struct {
	s *stream

	mu     sync.Mutex
	active int // index of the input; -1: none works
	mode   string
	since  time.Time
	began  time.Time

	offline offlineTeller // used by Serve's goroutine alone
}

func newController(s *stream) *controller {
	return &controller{s: s, active: -1, mode: serve.Offline, since: s.node.now()}
}

func (c *controller) String() string { return "choice of input of " + c.s.cfg.Name }

func (c *controller) activeInput() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Serve implements suture.Service.
func (c *controller) Serve(ctx context.Context) error {
	c.mu.Lock()
	c.began = c.s.node.now()
	c.mu.Unlock()
	for {
		c.look(c.s.node.now())
		if !c.s.node.pause(ctx, lookEvery) {
			return ctx.Err()
		}
	}
}

// look judges the inputs once.
func (c *controller) look(now time.Time) {
	n := len(c.s.cfg.Inputs)
	good := make([]bool, n)
	from := make([]time.Time, n)
	for i := range n {
		if c.s.sources[i] != nil {
			good[i], from[i] = c.s.sources[i].good(now)
		} else {
			good[i], from[i] = c.s.links[i].good(now)
		}
	}
	c.mu.Lock()
	before := c.active
	c.active = choose(c.s.cfg.Inputs, good, from, before, now, now.Sub(c.began) < firstLook)
	active := c.active
	c.mu.Unlock()
	c.open(good, active)
	if active != before {
		c.tellInput(before, active)
	}
	c.tellOffline(active, now)
	c.setMode(active, now)
}

// choose returns the input to record from: the one in use while it works, until
// an earlier one has been good for its return_after; else the first that works;
// -1 for none. At the start the first input is given time to begin.
func choose(in []*config.Input, good []bool, from []time.Time, active int, now time.Time, starting bool) int {
	if active >= 0 && good[active] {
		for i := range active {
			if good[i] && now.Sub(from[i]) >= in[i].ReturnAfter {
				return i
			}
		}
		return active
	}
	for i := range in {
		if good[i] {
			if starting && active < 0 && i > 0 {
				return -1
			}
			return i
		}
	}
	return -1
}

// open opens and closes the sources: hot ones are always heard, cold ones while
// no earlier input works, and while they are in use.
func (c *controller) open(good []bool, active int) {
	earlier := false
	for i, in := range c.s.cfg.Inputs {
		if src := c.s.sources[i]; src != nil {
			src.want(in.Standby == config.Hot || i == 0 || i == active || !earlier)
		}
		earlier = earlier || good[i]
	}
}

func (c *controller) inputURL(i int) string {
	if i < 0 {
		return "none"
	}
	if c.s.sources[i] != nil {
		return c.s.sources[i].url()
	}
	return c.s.links[i].url()
}

func (c *controller) tellInput(before, active int) {
	from, to := c.inputURL(before), c.inputURL(active)
	if active < 0 {
		c.s.log.Error("no input works", "was", from)
		c.s.note(event.Event{Kind: event.SourceLost, Msg: "no input works"})
		return
	}
	c.s.log.Info("input in use", "input", to, "was", from)
	c.s.note(event.Event{Kind: event.Switch, Msg: "recorded from " + to, Attrs: map[string]any{"from": from, "to": to}})
}

// setMode works the mode out: the first that holds.
func (c *controller) setMode(active int, now time.Time) {
	mode := serve.Normal
	switch {
	case active < 0:
		mode = serve.Offline
	case active > 0:
		mode = serve.Emergency
	default:
		for _, l := range c.s.replicas() {
			if l.recovering(now, c.s.holes) {
				mode = serve.Recovery
			}
		}
	}
	c.mu.Lock()
	before := c.mode
	if mode != before {
		c.mode, c.since = mode, now
	}
	c.mu.Unlock()
	if mode != before {
		c.s.log.Info("mode", "mode", mode, "was", before, "input", c.inputURL(active))
	}
}

func (c *controller) modeNow() (string, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mode, c.since
}

// live is what peers are told of the stream. Its chain names the nodes that the
// data came through: this node alone where it hears a source itself.
func (s *stream) live() m4fhttp.Live {
	now := s.node.now()
	s.mu.Lock()
	retired := s.retired
	s.mu.Unlock()
	if retired {
		return m4fhttp.Live{Chain: []string{}}
	}
	mode, _ := s.ctl.modeNow()
	active := s.ctl.activeInput()
	l := m4fhttp.Live{Mode: mode, Chain: []string{}}
	own := false
	for i := range s.cfg.Inputs {
		in := m4fhttp.Input{URL: s.ctl.inputURL(i), Active: i == active}
		if c := s.sources[i]; c != nil {
			c.mu.Lock()
			in.State = c.state
			c.mu.Unlock()
			if age, ok := c.age(now); ok && (l.SourceAge == nil || age.Seconds() < *l.SourceAge) {
				sec := age.Seconds()
				l.SourceAge = &sec
			}
			if ok, _ := c.good(now); ok {
				own = true
			}
		} else {
			in.State = s.links[i].state(now)
		}
		l.Inputs = append(l.Inputs, in)
	}
	if own {
		l.Chain = []string{s.node.id}
		return l
	}
	if active >= 0 && s.links[active] != nil {
		if chain, age, ok := s.links[active].chain(now); ok {
			l.Chain = append(append(l.Chain, chain...), s.node.id)
			l.SourceAge = &age
		}
	}
	return l
}
