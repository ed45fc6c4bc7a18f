package serve

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/time/rate"
)

type user struct {
	name digest
	pass digest // where it is not hashed
	hash []byte // by bcrypt
}

var errTries = errors.New("too many passwords are being tried; try again in a second")

// password says whether a name and a password belong together, as who is at an
// address says. Every user is looked at, whoever it is. The error is errTries.
func (a *Access) password(c *rules, name, pass, from string) (bool, error) {
	n, p := sha256.Sum256([]byte(name)), sha256.Sum256([]byte(pass))
	if c.known.has(n, pass) {
		return true, nil
	}
	if !a.tries.more(from, a.clock.Now()) {
		return false, errTries
	}
	right, named := 0, false
	var hash []byte // that of the name, or else of anybody: it takes as long
	for i := range c.users {
		u := &c.users[i]
		same := subtle.ConstantTimeCompare(u.name[:], n[:])
		if u.hash == nil {
			right |= same & subtle.ConstantTimeCompare(u.pass[:], p[:])
			continue
		}
		if same == 1 {
			named = true
		}
		if same == 1 || hash == nil {
			hash = u.hash
		}
	}
	if hash != nil && right == 0 {
		if !a.tries.hashed.AllowN(a.clock.Now(), 1) {
			return false, errTries
		}
		if bcrypt.CompareHashAndPassword(hash, []byte(pass)) == nil && named {
			right = 1
		}
	}
	if right == 0 {
		a.tries.failed(from, a.clock.Now())
		return false, nil
	}
	c.known.add(n, pass)
	return true, nil
}

// known remembers which passwords were right, by hashes that say nothing outside of
// this process: who plays asks often.
type known struct {
	seed [32]byte
	mu   sync.Mutex
	ids  map[digest]bool
}

// maxKnown bounds the passwords that are remembered.
const maxKnown = 10000

func newKnown() *known {
	k := &known{ids: map[digest]bool{}}
	_, _ = rand.Read(k.seed[:]) // it never fails
	return k
}

func (k *known) id(name digest, pass string) digest {
	m := hmac.New(sha256.New, k.seed[:])
	m.Write(name[:])
	m.Write([]byte(pass))
	return digest(m.Sum(nil))
}

func (k *known) has(name digest, pass string) bool {
	id := k.id(name, pass)
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[id]
}

func (k *known) add(name digest, pass string) {
	id := k.id(name, pass)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ids) < maxKnown {
		k.ids[id] = true
	}
}

const (
	// wrongTries is how many wrong passwords an address has in a second, and
	// wrongBurst at once; then none of it is looked at.
	wrongTries = 1
	wrongBurst = 20
	// hashTries is how many hashed passwords are looked at in a second, and
	// hashBurst at once, of all addresses: that is work, and anybody can ask for
	// it.
	hashTries = 5
	hashBurst = 20
	// maxGuessers bounds the addresses whose wrong passwords are counted.
	maxGuessers = 10000
)

// tries bounds how fast passwords can be guessed.
type tries struct {
	hashed *rate.Limiter
	mu     sync.Mutex
	wrong  map[netip.Prefix]*rate.Limiter
}

func newTries() *tries {
	return &tries{hashed: rate.NewLimiter(hashTries, hashBurst), wrong: map[netip.Prefix]*rate.Limiter{}}
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

// more says whether another password from an address may be looked at.
func (t *tries) more(from string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.wrong[guesser(from)]
	return l == nil || l.TokensAt(now) >= 1
}

// failed counts a wrong password.
func (t *tries) failed(from string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := guesser(from)
	l := t.wrong[at]
	if l == nil {
		if len(t.wrong) >= maxGuessers {
			clear(t.wrong)
		}
		l = rate.NewLimiter(wrongTries, wrongBurst)
		t.wrong[at] = l
	}
	l.AllowN(now, 1)
}
