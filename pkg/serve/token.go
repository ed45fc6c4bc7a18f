package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Token is what a viewer may see who brings it signed, in the query of a request
// (?token=…): a JSON Web Token (RFC 7519) signed with HMAC-SHA256 (HS256, RFC 7518
// 3.2). Its claims are exp and nbf of RFC 7519 4.1, and stream, from and to.
type Token struct {
	// Stream is a stream's name, the beginning of names with a * behind it, or *
	// for all.
	Stream string
	// From and To bound what of the stream; zero: nothing does.
	From, To time.Time
	// Expires is when the token is no longer accepted, and NotBefore, where it is
	// set, from when on it is.
	Expires, NotBefore time.Time
}

// claims are a Token's as they travel.
type claims struct {
	Stream string `json:"stream"`
	From   unix   `json:"from,omitempty"`
	To     unix   `json:"to,omitempty"`
	jwt.RegisteredClaims
}

// unix is a time in Unix seconds that fits into the clock's range.
type unix int64

// UnmarshalJSON implements json.Unmarshaler. A fraction is cut off: others sign,
// too.
func (u *unix) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if f < 0 || f > maxSeconds {
		return errors.New("no time in Unix seconds")
	}
	*u = unix(f)
	return nil
}

// maxToken bounds a token in bytes.
const maxToken = 4096

// Check says what is wrong with a token.
func (t *Token) Check() error {
	name := strings.TrimSuffix(t.Stream, "*")
	switch {
	case t.Stream == "":
		return errors.New("a token is for a stream; give its name, the beginning of names with a * behind it, or * for all")
	case strings.Contains(name, "*"):
		return fmt.Errorf("%s: a * stands at the end only", t.Stream)
	case name == t.Stream && archive.ValidName(name) != nil:
		return archive.ValidName(name)
	case t.Expires.IsZero():
		return errors.New("a token expires; say when")
	case !t.From.IsZero() && !t.To.IsZero() && !t.From.Before(t.To):
		return errors.New("the span of the token ends before it begins")
	}
	return nil
}

// Sign returns the token as it travels.
func (t *Token) Sign(secret string) (string, error) {
	if err := t.Check(); err != nil {
		return "", err
	}
	c := claims{Stream: t.Stream, RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(t.Expires)}}
	if !t.From.IsZero() {
		c.From = unix(t.From.Unix())
	}
	if !t.To.IsZero() {
		c.To = unix(t.To.Unix())
	}
	if !t.NotBefore.IsZero() {
		c.NotBefore = jwt.NewNumericDate(t.NotBefore)
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
}

// The reasons that a token is not accepted.
var (
	errTokenExpired = errors.New("the token has expired; ask for another one")
	errTokenEarly   = errors.New("the token is not valid yet")
	errTokenWrong   = errors.New("the token is not one of this node, or was changed")
)

// openToken reads a token that one of the secrets has signed and that is valid
// now. Its error is one of those above.
func openToken(text string, secrets []string, now time.Time) (*Token, error) {
	if len(text) > maxToken {
		return nil, errTokenWrong
	}
	keys := jwt.VerificationKeySet{}
	for _, s := range secrets {
		keys.Keys = append(keys.Keys, []byte(s))
	}
	var c claims
	_, err := jwt.ParseWithClaims(text, &c, func(*jwt.Token) (any, error) { return keys, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, errTokenExpired
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return nil, errTokenEarly
	case err != nil:
		return nil, errTokenWrong
	}
	t := &Token{Stream: c.Stream, Expires: c.ExpiresAt.Time}
	if c.From > 0 {
		t.From = time.Unix(int64(c.From), 0)
	}
	if c.To > 0 {
		t.To = time.Unix(int64(c.To), 0)
	}
	if t.Check() != nil {
		return nil, errTokenWrong
	}
	return t, nil
}

// all says whether the token opens everything.
func (t *Token) all() bool { return t.Stream == "*" && t.From.IsZero() && t.To.IsZero() }

// names says whether the token is for a stream.
func (t *Token) names(stream string) bool {
	begin, open := strings.CutSuffix(t.Stream, "*")
	return stream == t.Stream || open && strings.HasPrefix(stream, begin)
}

// tokenGrace is how far beyond a token's span what it opens may reach: segments
// and lists of what is live begin before they are asked for.
const tokenGrace = time.Minute

// spans says whether [from, to) lies within the token's span.
func (t *Token) spans(from, to m4f.UTC) bool {
	return (t.From.IsZero() || !from.Time().Before(t.From.Add(-tokenGrace))) &&
		(t.To.IsZero() || !to.Time().After(t.To.Add(tokenGrace)))
}
