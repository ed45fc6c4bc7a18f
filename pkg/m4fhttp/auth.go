package m4fhttp

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/icholy/digest"

	"github.com/twindvr/twindvr/pkg/clock"
)

const (
	// User is the user name of HTTP Digest authentication; the password is the
	// cluster key.
	User = "m4f"
	// Realm is the realm of HTTP Digest authentication.
	Realm = "twindvr"

	algorithm = "SHA-256"

	nonceLife = 5 * time.Minute
	// maxNonces bounds the nonces whose counts are remembered; only requests
	// that hold the key add to them.
	maxNonces = 1 << 14
	// nonceWindow is how far behind the highest count of a nonce another may
	// come, since requests of one client overtake each other.
	nonceWindow = 64
)

// Auth is the server side of HTTP Digest access authentication (RFC 7616) with
// SHA-256 and qop=auth: the cluster key never travels, the nonces are the
// server's and expire, and no request can be sent twice. Its methods may be
// called at once from many goroutines.
type Auth struct {
	clock  clock.Clock
	log    *slog.Logger
	secret [32]byte
	start  time.Time // with a monotonic reading, so that nonces do not mind a stepped clock
	serial atomic.Uint64

	mu     sync.Mutex
	ha1    []string // hex SHA-256 of user:realm:key, for each key that is accepted
	held   map[*grant]bool
	nonces map[string]*nonceUse
	order  []string // nonces in the order in which they were first used
	floor  uint64   // a nonce of no higher serial that is not in nonces counts as used

	refused int       // refusals since the last line in the log
	logged  time.Time // when that was
}

// nonceUse is which counts of a nonce were used: the highest, and bit i for
// the count i below it.
type nonceUse struct {
	nonce
	highest uint64
	used    uint64
}

// nonce is what a nonce says: its age at issue, since the start of the server,
// and its serial number.
type nonce struct {
	issued time.Duration
	serial uint64
}

// NewAuth returns an Auth that accepts keys; with none of them it lets
// everybody in. A nil clock or logger means the system's.
func NewAuth(keys []string, c clock.Clock, log *slog.Logger) *Auth {
	if c == nil {
		c = clock.System
	}
	if log == nil {
		log = slog.Default()
	}
	a := &Auth{clock: c, log: log, start: c.Now(), nonces: map[string]*nonceUse{}, held: map[*grant]bool{}}
	if _, err := rand.Read(a.secret[:]); err != nil {
		panic(fmt.Sprintf("m4fhttp: no randomness: %v", err))
	}
	a.SetKeys(keys)
	return a
}

// SetKeys replaces the keys that are accepted. Two of them let a key be
// replaced on one node after the other without an outage. Endless answers to
// who came with a key that is accepted no more end.
func (a *Auth) SetKeys(keys []string) {
	ha1 := make([]string, len(keys))
	for i, key := range keys {
		sum := sha256.Sum256([]byte(User + ":" + Realm + ":" + key))
		ha1[i] = hex.EncodeToString(sum[:])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ha1 = ha1
	for g := range a.held {
		if !a.accepts(g.ha1) {
			g.cancel()
		}
	}
}

// accepts says whether a key still is, given its hash; "" is that of a request
// that needed none. Callers hold mu.
func (a *Auth) accepts(ha1 string) bool {
	return len(a.ha1) == 0 || slices.Contains(a.ha1, ha1)
}

// grant is a request that goes on for as long as its key is accepted.
type grant struct {
	ha1    string
	cancel context.CancelFunc
}

// hold returns a context that ends with the request's, and when the key with
// which it was granted is accepted no more. The function gives it up.
func (a *Auth) hold(ctx context.Context, ha1 string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	g := &grant{ha1, cancel}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[g] = true
	if !a.accepts(ha1) {
		cancel()
	}
	return ctx, func() {
		cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.held, g)
	}
}

// Open says whether everybody is let in, for want of a key.
func (a *Auth) Open() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ha1) == 0
}

// Handler lets only authorised requests through to next.
func (a *Auth) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.Allow(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Allow says whether a request is authorised. One that is not has been
// answered, with a challenge and nothing else.
func (a *Auth) Allow(w http.ResponseWriter, r *http.Request) bool {
	_, ok := a.allow(w, r)
	return ok
}

// allow says with which key, too; "" is none.
func (a *Auth) allow(w http.ResponseWriter, r *http.Request) (ha1 string, ok bool) {
	a.mu.Lock()
	keys := a.ha1
	a.mu.Unlock()
	if len(keys) == 0 {
		Trust(r.Context())
		return "", true
	}
	verdict, ha1 := a.check(r, keys)
	if verdict == granted {
		Trust(r.Context())
		return ha1, true
	}
	if verdict == refused {
		a.logRefusal(r)
	}
	challenge := digest.Challenge{
		Realm:     Realm,
		Nonce:     a.newNonce(),
		Stale:     verdict == stale,
		Algorithm: algorithm,
		QOP:       []string{"auth"},
		Charset:   "UTF-8",
	}
	w.Header().Set("WWW-Authenticate", challenge.String())
	WriteProblem(w, http.StatusUnauthorized,
		"this node wants its cluster key: give --cluster-key-file, or with curl --digest -u %s:KEY", User)
	return "", false
}

type verdict int

const (
	absent verdict = iota // no credentials: the usual first request
	refused
	stale // the key is right; the nonce is spent, or of before this server began
	granted
)

// check follows RFC 7616 3.4. It returns the hash of the key that is right.
func (a *Auth) check(r *http.Request, keys []string) (verdict, string) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return absent, ""
	}
	c, err := digest.ParseCredentials(header)
	if err != nil || c.Username != User || c.Realm != Realm || c.Algorithm != algorithm ||
		c.QOP != "auth" || c.Userhash || c.Nc < 1 || c.Cnonce == "" || c.URI != r.RequestURI {
		return refused, ""
	}
	right := ""
	for _, ha1 := range keys {
		want, err := digest.Digest(
			&digest.Challenge{Realm: Realm, Nonce: c.Nonce, Algorithm: algorithm, QOP: []string{"auth"}},
			digest.Options{Method: r.Method, URI: c.URI, Count: c.Nc, Username: User, A1: ha1, Cnonce: c.Cnonce})
		if err != nil {
			return refused, ""
		}
		if subtle.ConstantTimeCompare([]byte(want.Response), []byte(c.Response)) == 1 {
			right = ha1
		}
	}
	if right == "" {
		return refused, ""
	}
	// Who holds the key and has a nonce of before a restart asks once more,
	// RFC 7616 3.3.
	if n, ok := a.openNonce(c.Nonce); !ok || !a.use(c.Nonce, n, uint64(c.Nc)) {
		return stale, right
	}
	return granted, right
}

// nonceBody is the part of a nonce that its HMAC covers. The HMAC makes it this
// server's, so that nothing is kept for those who never come back with one.
const nonceBody = 16

func (a *Auth) now() time.Duration { return a.clock.Now().Sub(a.start) }

func (a *Auth) newNonce() string {
	b := make([]byte, nonceBody, nonceBody+sha256.Size)
	binary.BigEndian.PutUint64(b, uint64(a.now()))
	binary.BigEndian.PutUint64(b[8:], a.serial.Add(1))
	return base64.RawURLEncoding.EncodeToString(append(b, a.sign(b)...))
}

func (a *Auth) sign(body []byte) []byte {
	m := hmac.New(sha256.New, a.secret[:])
	m.Write(body)
	return m.Sum(nil)
}

// openNonce reads one of this server's nonces.
func (a *Auth) openNonce(text string) (n nonce, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != nonceBody+sha256.Size || !hmac.Equal(b[nonceBody:], a.sign(b[:nonceBody])) {
		return nonce{}, false
	}
	return nonce{time.Duration(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])}, true
}

// use marks a count of a nonce as used; false when it was before, or when that
// is no longer known.
func (a *Auth) use(text string, n nonce, nc uint64) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now-n.issued > nonceLife {
		return false
	}
	u := a.nonces[text]
	if u == nil {
		if n.serial <= a.floor {
			return false
		}
		a.forget(now)
		u = &nonceUse{nonce: n}
		a.nonces[text] = u
		a.order = append(a.order, text)
	}
	return u.take(nc)
}

// take is the anti-replay window of RFC 4303 3.4.3.
func (u *nonceUse) take(nc uint64) bool {
	switch {
	case nc > u.highest:
		if shift := nc - u.highest; shift < nonceWindow {
			u.used = u.used<<shift | 1
		} else {
			u.used = 1
		}
		u.highest = nc
		return true
	case u.highest-nc >= nonceWindow || u.used&(1<<(u.highest-nc)) != 0:
		return false
	}
	u.used |= 1 << (u.highest - nc)
	return true
}

// forget drops nonces that have expired, and the oldest of too many.
func (a *Auth) forget(now time.Duration) {
	for len(a.order) > 0 {
		u := a.nonces[a.order[0]]
		expired := now-u.issued > nonceLife
		if !expired && len(a.order) < maxNonces {
			return
		}
		if !expired {
			a.floor = max(a.floor, u.serial)
		}
		delete(a.nonces, a.order[0])
		a.order = a.order[1:]
	}
}

// logRefusal writes at most one line in ten seconds.
func (a *Auth) logRefusal(r *http.Request) {
	now := a.clock.Now()
	a.mu.Lock()
	a.refused++
	n, due := a.refused, now.Sub(a.logged) >= 10*time.Second || now.Before(a.logged)
	if due {
		a.refused, a.logged = 0, now
	}
	a.mu.Unlock()
	if due {
		a.log.Warn("refused a request with a wrong cluster key", "from", r.RemoteAddr, "times", n)
	}
}
