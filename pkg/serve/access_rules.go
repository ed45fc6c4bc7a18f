package serve

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Access decides who may see, read and change what, but for M4F. It may be used by
// many goroutines, and its rules changed while it is.
type Access struct {
	clock clock.Clock
	log   *slog.Logger
	rules atomic.Pointer[rules]
	tries *tries // of passwords
	known *known

	mu      sync.Mutex
	held    map[*held]bool // answers under way
	refused int            // wrong passwords, tokens and keys since the last line in the log
	logged  time.Time
}

// rules are one configuration's. Of secrets that are compared hashes are kept, so
// that comparing takes as long for any of them.
type rules struct {
	config.Access
	users       []user
	read, write []digest
}

type digest [sha256.Size]byte

// NewAccess returns an Access by a configuration. A nil clock or logger means the
// system's.
func NewAccess(c *config.Access, cl clock.Clock, log *slog.Logger) *Access {
	if cl == nil {
		cl = clock.System
	}
	if log == nil {
		log = slog.Default()
	}
	a := &Access{clock: cl, log: log, tries: newTries(), known: newKnown(), held: map[*held]bool{}}
	a.Set(c)
	return a
}

// Set changes the rules. Answers under way that they refuse end.
func (a *Access) Set(c *config.Access) {
	r := &rules{Access: *c, read: digests(c.ReadKeys), write: digests(c.WriteKeys)}
	for _, u := range c.Users {
		one := user{userLine: userLine{sha256.Sum256([]byte(u.Name)), sha256.Sum256([]byte(u.Password))}}
		if u.Hashed() {
			one.hash = []byte(u.Password)
		}
		r.users = append(r.users, one)
	}
	a.rules.Store(r)
	a.known.only(r.users)
	a.mu.Lock()
	all := slices.Collect(maps.Keys(a.held))
	a.mu.Unlock()
	for _, x := range all {
		go func() { // a password may have to wait for its turn
			if x.may() != nil {
				x.cancel()
			}
		}()
	}
}

// held is an answer that goes on for as long as the rules allow it.
type held struct {
	may    func() *refusal
	cancel context.CancelFunc
}

// hold returns a request that ends when changed rules refuse it, by the judgement
// that has just let it in. The function gives it up.
func (a *Access) hold(r *http.Request, may func(*http.Request) *refusal) (*http.Request, func()) {
	ctx, cancel := context.WithCancel(r.Context())
	x := &held{func() *refusal { return may(r) }, cancel}
	a.mu.Lock()
	a.held[x] = true
	a.mu.Unlock()
	if x.may() != nil { // the rules have just changed
		cancel()
	}
	return r.WithContext(ctx), func() {
		cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.held, x)
	}
}

func digests(secrets []string) []digest {
	var out []digest
	for _, s := range secrets {
		out = append(out, sha256.Sum256([]byte(s)))
	}
	return out
}

// holds says whether a key is among the digests, in the same time for any key.
func holds(list []digest, key string) bool {
	sum, found := sha256.Sum256([]byte(key)), 0
	for i := range list {
		found |= subtle.ConstantTimeCompare(list[i][:], sum[:])
	}
	return found == 1
}

// grant is what a request may see.
type grant struct {
	token *Token // what it covers; nil: everything
	known bool   // it was let in for a token or a password

	// What has been asked of the token.
	stream, span bool
}

// refusal is why a request may not do what it asks for.
type refusal struct {
	status    int
	challenge []string // WWW-Authenticate, RFC 9110 11.6.1
	why       string
}

// view says what a request may see.
func (a *Access) view(r *http.Request) (*grant, *refusal) {
	c := a.rules.Load()
	switch {
	case c.Open:
		return &grant{}, nil
	case c.Closed():
		if local(r) {
			return &grant{}, nil
		}
		return nil, &refusal{status: http.StatusForbidden, why: "this node shows its archive to its own machine only; view_auth in its configuration says who else may see it"}
	}
	if text := tokenOf(r); text != "" && len(c.TokenSecrets) > 0 {
		t, err := openToken(text, c.TokenSecrets, a.clock.Now())
		if err != nil {
			if errors.Is(err, errTokenWrong) {
				a.tell(r, "token")
			}
			return nil, &refusal{status: http.StatusForbidden, why: err.Error()}
		}
		return &grant{token: t, known: true}, nil
	}
	name, pass, given := r.BasicAuth()
	if given && len(c.users) > 0 {
		switch right, err := a.password(r.Context(), c, name, pass, r.RemoteAddr); {
		case err != nil:
			return nil, &refusal{status: http.StatusTooManyRequests, why: err.Error()}
		case right:
			return &grant{known: true}, nil
		}
		a.tell(r, "password")
	}
	return nil, c.askViewer()
}

// askViewer is the refusal of a viewer who has brought nothing that is accepted.
func (c *rules) askViewer() *refusal {
	if len(c.users) == 0 {
		return &refusal{status: http.StatusForbidden, why: "this node shows its archive to who brings a token: add ?token=… to the address (twindvr token makes one)"}
	}
	return &refusal{
		status: http.StatusUnauthorized, challenge: []string{basicChallenge},
		why: "this node wants the name and the password of a viewer",
	}
}

const (
	basicChallenge  = `Basic realm="twindvr", charset="UTF-8"` // RFC 7617 2.1
	bearerChallenge = `Bearer realm="twindvr"`                 // RFC 6750 3
)

// read says whether a request may read the API and the metrics: who may see
// everything, who has a key, and the machine itself where there is no read key.
func (a *Access) read(r *http.Request) *refusal {
	c := a.rules.Load()
	if key, ok := bearer(r); ok {
		if holds(c.read, key) || holds(c.write, key) {
			return nil
		}
		a.tell(r, "API key")
		return wrongKey
	}
	if len(c.ReadKeys) == 0 && local(r) {
		return nil
	}
	g, no := a.view(r)
	switch {
	case no == nil && (g.token == nil || g.token.all()):
		return nil
	case no == nil:
		no = &refusal{status: http.StatusForbidden, why: "this token opens a stream, not the API"}
	case c.Closed():
		no = &refusal{status: http.StatusForbidden, why: "the API answers requests from the node's own machine only, and those with a key of the API"}
	}
	if len(c.read)+len(c.write) > 0 && no.status != http.StatusTooManyRequests {
		if !c.Closed() {
			no.why += ", or a key of the API, as Authorization: Bearer KEY"
		}
		no.status, no.challenge = http.StatusUnauthorized, append(no.challenge, bearerChallenge)
	}
	return no
}

// write says whether a request may change something: who has the write key, or
// where there is none the machine itself, and a browser on it only when a page of
// this node asks for it.
func (a *Access) write(r *http.Request) *refusal {
	c := a.rules.Load()
	if key, ok := bearer(r); ok && len(c.write) > 0 {
		if holds(c.write, key) {
			return nil
		}
		a.tell(r, "API key")
		if holds(c.read, key) {
			return &refusal{status: http.StatusForbidden, why: "this is the read key of the API; changes want the write key"}
		}
		return wrongKey
	}
	switch {
	case len(c.write) > 0:
		return &refusal{status: http.StatusUnauthorized, challenge: []string{bearerChallenge}, why: "changes want the write key of the API, as Authorization: Bearer KEY"}
	case !local(r):
		return &refusal{status: http.StatusForbidden, why: "the API takes changes from the node's own machine only; with api_write_key in its configuration, from who has that key, too"}
	case sameOrigin.Check(r) != nil:
		return &refusal{status: http.StatusForbidden, why: "a page of another site may not change anything here"}
	}
	return nil
}

var wrongKey = &refusal{
	status: http.StatusUnauthorized, challenge: []string{bearerChallenge + `, error="invalid_token"`},
	why: "this key of the API is wrong",
}

// write answers a request with a refusal.
func (no *refusal) write(w http.ResponseWriter, r *http.Request) {
	for _, c := range no.challenge {
		w.Header().Add("WWW-Authenticate", c)
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // the body is not read
	}
	if no.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	m4fhttp.WriteProblem(w, no.status, "%s", no.why)
}

// bearer is the key that a request brings, RFC 6750 2.1.
func bearer(r *http.Request) (key string, ok bool) {
	kind, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(key), strings.EqualFold(kind, "Bearer")
}

// tokenOf is the token in a request's query.
func tokenOf(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, "token=") {
		return ""
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return ""
	}
	return q.Get("token")
}

// tell logs refusals, at most one line in ten seconds.
func (a *Access) tell(r *http.Request, what string) {
	now := a.clock.Now()
	a.mu.Lock()
	a.refused++
	n, due := a.refused, a.logged.IsZero() || now.Sub(a.logged).Abs() >= 10*time.Second
	if due {
		a.refused, a.logged = 0, now
	}
	a.mu.Unlock()
	if due {
		a.log.Warn("refused a request that brought what is not accepted", "what", what, "from", r.RemoteAddr, "times", n)
	}
}
