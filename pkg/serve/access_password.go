package serve

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

type user struct {
	userLine
	hash []byte // by bcrypt; nil: the password is what the line has
}

// userLine is a user as the configuration has it.
type userLine struct {
	name, pass digest
}

// named is the line of a name, or one without a password.
func (c *rules) named(name digest) userLine {
	l := userLine{name: name}
	for i := range c.users {
		u := &c.users[i]
		subtle.ConstantTimeCopy(subtle.ConstantTimeCompare(u.name[:], name[:]), l.pass[:], u.pass[:])
	}
	return l
}

var (
	errTries = errors.New("too many passwords are being tried; try again in a second")
	errGone  = errors.New("the client has gone")
)

// password says whether a name and a password belong together, as who is at an
// address says. Every user is looked at, whoever it is. The error is errTries or
// errGone.
func (a *Access) password(ctx context.Context, c *rules, name, pass, from string) (bool, error) {
	n := sha256.Sum256([]byte(name))
	l, at := c.named(n), guesser(from)
	id := a.known.id(l, pass)
	for {
		if a.known.has(id) {
			return true, nil
		}
		asked, first := a.tries.ask(question{at, id})
		if first {
			// Who asked before may have been answered meanwhile.
			if asked.right = a.known.has(id); !asked.right {
				asked.right, asked.err = a.look(ctx, c, guess{at, n}, id, pass)
			}
			if asked.right {
				a.known.add(id, l)
			}
			a.tries.answered(question{at, id}, asked)
			return asked.right, asked.err
		}
		select {
		case <-asked.done:
			if asked.err != errGone {
				return asked.right, asked.err
			}
		case <-ctx.Done():
			return false, errGone
		}
	}
}

// look says whether a password is right that is not known to be, unless too many
// wrong ones came of who guesses.
func (a *Access) look(ctx context.Context, c *rules, who guess, id digest, pass string) (right bool, err error) {
	t, known, err := a.tries.begin(who, id, a.clock.Now())
	if known || err != nil {
		return false, err
	}
	defer func() { a.tries.end(t, id, !right && err == nil, a.clock.Now()) }()
	p := sha256.Sum256([]byte(pass))
	ok, named := 0, false
	var hash []byte // that of the name, or else of anybody: it takes as long
	for i := range c.users {
		u := &c.users[i]
		same := subtle.ConstantTimeCompare(u.name[:], who.name[:])
		if u.hash == nil {
			ok |= same & subtle.ConstantTimeCompare(u.pass[:], p[:])
			continue
		}
		if same == 1 {
			named = true
		}
		if same == 1 || hash == nil {
			hash = u.hash
		}
	}
	if hash == nil || ok == 1 {
		return ok == 1, nil
	}
	if err := a.turn(ctx, who.at); err != nil {
		return false, err
	}
	return a.known.has(id) || bcrypt.CompareHashAndPassword(hash, []byte(pass)) == nil && named, nil
}

// turn waits until another hashed password may be looked at.
func (a *Access) turn(ctx context.Context, at netip.Prefix) error {
	if !a.tries.queue(at, 1) {
		return errTries
	}
	defer a.tries.queue(at, -1)
	now := a.clock.Now()
	r := a.tries.hashed.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > hashWait {
		r.CancelAt(now)
		return errTries
	}
	if wait <= 0 {
		return nil
	}
	select {
	case <-a.clock.After(wait):
		return nil
	case <-ctx.Done():
		r.CancelAt(a.clock.Now())
		return errGone
	}
}

// known remembers which passwords were right, by hashes that say nothing outside of
// this process: who plays asks often. What is known of a user is so for as long as
// the configuration has the same line of it.
type known struct {
	seed [32]byte
	mu   sync.Mutex
	ids  map[digest]userLine
}

// maxKnown bounds the passwords that are remembered.
const maxKnown = 10000

func newKnown() *known {
	k := &known{ids: map[digest]userLine{}}
	_, _ = rand.Read(k.seed[:]) // it never fails
	return k
}

// id stands for a password that is tried for a line.
func (k *known) id(l userLine, pass string) digest {
	m := hmac.New(sha256.New, k.seed[:])
	m.Write(l.name[:])
	m.Write(l.pass[:])
	m.Write([]byte(pass))
	return digest(m.Sum(nil))
}

func (k *known) has(id digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.ids[id]
	return ok
}

func (k *known) add(id digest, l userLine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ids) < maxKnown {
		k.ids[id] = l
	}
}

// only forgets what is known of other lines than these.
func (k *known) only(users []user) {
	have := map[userLine]bool{}
	for i := range users {
		have[users[i].userLine] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.ids, func(_ digest, l userLine) bool { return !have[l] })
}

const (
	// wrongTries is how many wrong passwords an address has for a name in a second,
	// and wrongBurst at once; then none of it is looked at. The same one again is
	// no guess.
	wrongTries = 1
	wrongBurst = 20
	// wrongKnown is how many wrong passwords of an address for a name are known.
	wrongKnown = 4
	// hashTries is how many hashed passwords are looked at in a second, and
	// hashBurst at once, of all addresses: that is work, and anybody can ask for
	// it. Further ones wait for their turn, at most hashWait; and of those that
	// wait at most hashQueue are one address's.
	hashTries = 5
	hashBurst = 20
	hashWait  = 10 * time.Second
	hashQueue = 40
	// maxGuesses bounds the addresses and names whose wrong passwords are counted.
	maxGuesses = 10000
)

// tries bounds how fast passwords can be guessed.
type tries struct {
	hashed *rate.Limiter
	mu     sync.Mutex
	wrong  map[guess]*wrong
	asked  map[question]*answer // under way
	queued map[netip.Prefix]int
}

// guess is whose wrong passwords are counted together: whoever is behind an address
// does not keep out others there.
type guess struct {
	at   netip.Prefix
	name digest
}

// wrong counts wrong passwords.
type wrong struct {
	rate  *rate.Limiter
	begun int      // passwords that are being looked at
	last  []digest // the latest of them, by known.id
}

// question is a password that is tried from an address; who asks the same meanwhile
// gets the same answer.
type question struct {
	at netip.Prefix
	id digest
}

type answer struct {
	done  chan struct{} // closed when the rest is there
	right bool
	err   error
}

func newTries() *tries {
	return &tries{
		hashed: rate.NewLimiter(hashTries, hashBurst),
		wrong:  map[guess]*wrong{}, asked: map[question]*answer{}, queued: map[netip.Prefix]int{},
	}
}

// ask returns the answer to a question, and whether who asks is to find it.
func (t *tries) ask(q question) (a *answer, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a = t.asked[q]; a != nil {
		return a, false
	}
	a = &answer{done: make(chan struct{})}
	t.asked[q] = a
	return a, true
}

func (t *tries) answered(q question, a *answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.asked, q)
	close(a.done)
}

// queue counts those of an address that wait for their turn, and says whether
// another one may.
func (t *tries) queue(at netip.Prefix, n int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > 0 && t.queued[at] >= hashQueue {
		return false
	}
	if t.queued[at] += n; t.queued[at] == 0 {
		delete(t.queued, at)
	}
	return true
}

// guesser is what counts as one address: that, or of IPv6 the network.
func guesser(from string) netip.Prefix {
	host, _, _ := net.SplitHostPort(from)
	at, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	at = at.Unmap().WithZone("")
	bits := at.BitLen()
	if at.Is6() {
		bits = 64
	}
	p, _ := at.Prefix(bits)
	return p
}

// begin says whether another password of who guesses may be looked at, or that it is
// known to be wrong. end is to follow.
func (t *tries) begin(who guess, id digest, now time.Time) (w *wrong, known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w = t.wrong[who]
	if w == nil {
		if len(t.wrong) >= maxGuesses {
			maps.DeleteFunc(t.wrong, func(_ guess, w *wrong) bool { return w.begun == 0 && w.rate.TokensAt(now) >= wrongBurst })
		}
		if len(t.wrong) >= maxGuesses {
			clear(t.wrong)
		}
		w = &wrong{rate: rate.NewLimiter(wrongTries, wrongBurst)}
		t.wrong[who] = w
	}
	switch {
	case slices.Contains(w.last, id):
		return w, true, nil
	case w.rate.TokensAt(now)-float64(w.begun) < 1:
		return w, false, errTries
	}
	w.begun++
	return w, false, nil
}

// end counts a password that was looked at.
func (t *tries) end(w *wrong, id digest, wrong bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.begun--
	if !wrong {
		return
	}
	w.rate.AllowN(now, 1)
	if len(w.last) == wrongKnown {
		w.last = slices.Delete(w.last, 0, 1)
	}
	w.last = append(w.last, id)
}
