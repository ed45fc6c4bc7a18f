package serve

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// grantKey is the key of a request's grant, where that is not for everything.
type grantKey struct{}

func grantOf(r *http.Request) *grant {
	g, _ := r.Context().Value(grantKey{}).(*grant)
	return g
}

// permitStream says whether a request may see anything of a stream: nil, or a
// *m4fhttp.Problem.
func permitStream(r *http.Request, stream string) error {
	g := grantOf(r)
	if g == nil {
		return nil
	}
	if !g.token.names(stream) {
		return m4fhttp.Problemf(http.StatusForbidden, "this token is not for the stream %s", stream)
	}
	g.stream = true
	return nil
}

// permitSpan says whether a request may see [from, to) of its stream, as
// permitStream does. What is live ends now.
func permitSpan(r *http.Request, from, to m4f.UTC) error {
	g := grantOf(r)
	if g == nil {
		return nil
	}
	if !g.token.spans(from, to) {
		return m4fhttp.Problemf(http.StatusForbidden, "this token is for %s", g.token.span())
	}
	g.span = true
	return nil
}

// span is the token's span in words.
func (t *Token) span() string {
	at := func(u time.Time) string { return u.UTC().Format(time.RFC3339) }
	switch {
	case t.From.IsZero() && t.To.IsZero():
		return "any time"
	case t.From.IsZero():
		return "what was before " + at(t.To)
	case t.To.IsZero():
		return "what was from " + at(t.From) + " on"
	}
	return at(t.From) + " to " + at(t.To)
}

// permitted is the answer to a viewer who has shown who he is: it is for nobody
// else, and of what a token is for, there is no content without having asked
// whether the token covers it.
type permitted struct {
	http.ResponseWriter
	grant  *grant
	begun  bool
	denied bool
}

// Unwrap is for http.ResponseController.
func (p *permitted) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (p *permitted) WriteHeader(status int) {
	if !p.begun && status < http.StatusBadRequest && status >= http.StatusOK && !p.grant.asked() {
		p.begun, p.denied = true, true
		clear(p.Header())
		m4fhttp.WriteProblem(p.ResponseWriter, http.StatusForbidden, "a token does not open this")
	}
	if p.denied {
		return
	}
	p.begun = p.begun || status >= http.StatusOK
	keepPrivate(p.Header())
	p.ResponseWriter.WriteHeader(status)
}

// asked says whether all that the token bounds was asked for.
func (g *grant) asked() bool {
	t := g.token
	return t == nil || g.stream && (g.span || t.From.IsZero() && t.To.IsZero())
}

// keepPrivate has no cache that others share keep an answer: it would give it to
// anybody, and beyond a token's end (RFC 9111 5.2.2.7).
func keepPrivate(h http.Header) {
	var rest []string
	for part := range strings.SplitSeq(h.Get("Cache-Control"), ",") {
		switch part = strings.TrimSpace(part); strings.ToLower(part) {
		case "private", "no-store":
			return
		case "public", "":
		default:
			rest = append(rest, part)
		}
	}
	h.Set("Cache-Control", strings.Join(append([]string{"private"}, rest...), ", "))
}

// Write implements http.ResponseWriter.
func (p *permitted) Write(b []byte) (int, error) {
	if !p.begun {
		p.WriteHeader(http.StatusOK)
	}
	if p.denied {
		return 0, http.ErrAbortHandler
	}
	return p.ResponseWriter.Write(b)
}

// ReadFrom implements io.ReaderFrom: files go out as they do without a token.
func (p *permitted) ReadFrom(r io.Reader) (int64, error) {
	if !p.begun {
		p.WriteHeader(http.StatusOK)
	}
	if p.denied {
		return 0, http.ErrAbortHandler
	}
	return io.Copy(p.ResponseWriter, r)
}

// passToken adds the token of a request for a playlist to a URI in it, so that
// what the playlist names is opened by the same token. Added to nothing it is what
// can be added to any URI that has no query.
func passToken(r *http.Request, uri string) string {
	token := tokenOf(r)
	if token == "" {
		return uri
	}
	sep := "?"
	if strings.Contains(uri, "?") {
		sep = "&"
	}
	return uri + sep + "token=" + url.QueryEscape(token)
}
