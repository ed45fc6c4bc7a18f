package ingest

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// spell is a time in which a sender keeps one rate.
type spell struct {
	rate float64 // bytes a second, in the kernel's accounting
	long time.Duration
}

// charged is the rate at which the kernel charges a stream in datagrams of a
// size to a socket.
func charged(mbit float64, size int) float64 {
	return mbit * 1e6 / 8 / float64(size) * float64(charge(1, size))
}

// model is a socket that a sender fills and a pace has emptied.
type model struct {
	pace
	now  time.Duration
	late func(nap time.Duration) time.Duration // by how much a nap is longer than asked
	held float64                               // bytes in the socket
	most float64                               // held at any time
}

// run sends, one spell after the other.
func (m *model) run(spells ...spell) {
	from, wake := m.now, m.wake()
	for _, s := range spells {
		for end := m.now + s.long; m.now < end; {
			next := min(end, wake)
			m.held += s.rate * (next - m.now).Seconds()
			m.most = max(m.most, m.held)
			if m.now = next; m.now == wake {
				m.emptied(from, m.now, int(m.held))
				from, m.held, wake = m.now, 0, m.wake()
			}
		}
	}
}

func (m *model) wake() time.Duration {
	nap := m.nap()
	at := m.now + nap - m.now%nap
	if m.late != nil {
		at += m.late(nap)
	}
	return at
}

func TestNapFor(t *testing.T) {
	for _, c := range []struct {
		mbit   float64
		buffer int
		want   time.Duration
	}{
		{0, 8 << 20, 40 * time.Millisecond},
		{6, 8 << 20, 80 * time.Millisecond},
		{100, 8 << 20, 80 * time.Millisecond},
		{800, 8 << 20, 10 * time.Millisecond},
		{6, 4 << 20, 80 * time.Millisecond},
		{6, 1 << 20, 40 * time.Millisecond},
		{0, 212992, 5 * time.Millisecond},
		{6, 212992, 10 * time.Millisecond},
		{100, 212992, 2 * time.Millisecond},
		{10000, 212992, time.Millisecond},
		{0, 0, time.Millisecond},
		{6, 0, time.Millisecond},
	} {
		m := model{pace: newPace(c.buffer)}
		m.run(spell{charged(c.mbit, 1316), time.Second})
		if got := m.nap(); got != c.want {
			t.Errorf("%v Mbit/s, buffer %d: %v, want %v", c.mbit, c.buffer, got, c.want)
		}
	}
}

// A stream that comes after silence is looked at often until its rate is known.
func TestNapsBeginShort(t *testing.T) {
	p := newPace(8 << 20)
	if p.nap() != time.Millisecond {
		t.Errorf("at first %v", p.nap())
	}
	m := model{pace: p}
	m.run(spell{0, time.Second})
	m.emptied(m.now, m.now+m.nap(), 2340)
	if m.nap() != time.Millisecond {
		t.Errorf("after the first datagram %v", m.nap())
	}
}

// A stream that pauses is read as often as its bursts need, not as its mean; a
// minute after the last burst it is no more.
func TestBurstsAreRemembered(t *testing.T) {
	m := model{pace: newPace(8 << 20)}
	fast, slow := charged(800, 1316), charged(6, 1316)
	for range 20 {
		m.run(spell{fast, 300 * time.Millisecond}, spell{slow, time.Second}, spell{0, 3 * time.Second})
		if m.nap() != 10*time.Millisecond {
			t.Fatalf("after a burst %v", m.nap())
		}
	}
	m.run(spell{slow, time.Minute})
	if m.nap() != naps[0] {
		t.Errorf("a minute later %v", m.nap())
	}
}

// What comes at once, as pictures of a stream do, is no rate: the nap and the
// buffer are by what comes in 80 ms.
func TestPicturesAtOnce(t *testing.T) {
	m := model{pace: newPace(8 << 20)}
	for range 50 {
		m.run(spell{200e6, time.Millisecond}, spell{0, 39 * time.Millisecond})
	}
	if m.nap() != naps[0] || m.rate() > 8e6 {
		t.Errorf("nap %v, rate %v", m.nap(), m.rate())
	}
}

// Whatever a sender does below the rate that may come at any time, the kernel
// drops nothing, with any buffer that holds it for the shortest nap, and where
// naps are a quarter longer than asked for.
func TestBurstsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buffer := rapid.IntRange(32<<10, 16<<20).Draw(t, "buffer")
		if rapid.Bool().Draw(t, "small") {
			buffer = rapid.SampledFrom([]int{32 << 10, 212992, 425984, 1 << 20}).Draw(t, "buffer")
		}
		size := rapid.SampledFrom([]int{1128, 1316, 1472, 8948}).Draw(t, "size")
		spells := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) spell {
			mbit := rapid.OneOf(rapid.Just(0.), rapid.Just(100.), rapid.Float64Range(0, 100)).Draw(t, "Mbit/s")
			long := rapid.OneOf(rapid.IntRange(1, 400), rapid.IntRange(1, 25000)).Draw(t, "ms")
			return spell{charged(mbit, size), time.Duration(long) * time.Millisecond}
		}), 1, 8).Draw(t, "spells")
		late := rapid.Float64Range(0, 0.25).Draw(t, "late")
		m := model{pace: newPace(buffer), late: func(nap time.Duration) time.Duration { return time.Duration(late * float64(nap)) }}
		if m.run(spells...); m.most > 2*float64(buffer) {
			t.Fatalf("%.0f bytes in a buffer of %d", m.most, 2*buffer)
		}
	})
}

// Faster streams fit into a buffer that suits them, too, whenever they begin and
// however they pause.
func TestFastBurstsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := charged(rapid.Float64Range(100, 900).Draw(t, "Mbit/s"), 1316)
		m := model{pace: newPace(8 << 20)}
		for range rapid.IntRange(1, 5).Draw(t, "bursts") {
			m.run(spell{0, time.Duration(rapid.IntRange(0, 30000).Draw(t, "off ms")) * time.Millisecond},
				spell{rate, time.Duration(rapid.IntRange(1, 2000).Draw(t, "on ms")) * time.Millisecond})
		}
		if m.most > 2*(8<<20) {
			t.Fatalf("%.0f bytes in a buffer of %d", m.most, 16<<20)
		}
	})
}
