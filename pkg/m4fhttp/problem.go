package m4fhttp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Problem is an error as it travels: problem details of RFC 9457. Detail is a
// sentence that says what to do.
type Problem struct {
	Type   string `json:"type"` // always about:blank (RFC 9457 4.2.1): the status says what kind it is
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Streams lists the streams that exist, where one was asked for that does
	// not.
	Streams []string `json:"streams,omitempty"`
	// Errors are the mistakes in a file that was to be read.
	Errors []Mistake `json:"errors,omitempty"`
}

// Mistake is a mistake in a file.
type Mistake struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // from 1, in characters
	Detail string `json:"detail"`
}

func (p *Problem) Error() string { return p.Detail }

// problemf makes a problem; its title is the status in words.
func problemf(status int, format string, args ...any) *Problem {
	return &Problem{
		Type:   "about:blank",
		Title:  http.StatusText(status),
		Status: status,
		Detail: fmt.Sprintf(format, args...),
	}
}

// Problemf makes a problem for a handler elsewhere to return or write. Its title is
// the status in words.
func Problemf(status int, format string, args ...any) *Problem {
	return problemf(status, format, args...)
}

// NoStream is the problem of a stream that does not exist, where these do.
func NoStream(name string, have []string) *Problem { return noStream(name, have) }

// Clip shortens what a stranger sent, and takes out what is not to be shown,
// before it is repeated.
func Clip(s string) string { return clip(s) }

// Write answers a request with the problem.
func (p *Problem) Write(w http.ResponseWriter) { p.write(w) }

const problemType = "application/problem+json"

// WriteProblem answers a request with problem details (RFC 9457).
func WriteProblem(w http.ResponseWriter, status int, format string, args ...any) {
	problemf(status, format, args...).write(w)
}

func (p *Problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, p.Detail, p.Status)
		return
	}
	body = append(body, '\n')
	h := w.Header()
	h.Del("Content-Encoding")
	h.Set("Content-Type", problemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	// The peer is gone if this fails; there is nobody to tell.
	_, _ = w.Write(body)
}

// maxListed bounds how many existing streams a problem names.
const maxListed = 100

// noStream is the answer for a stream that does not exist.
func noStream(name string, have []string) *Problem {
	var p *Problem
	switch {
	case len(have) == 0:
		p = problemf(http.StatusNotFound, "there is no stream %s here, nor any other yet", clip(name))
	case len(have) > maxListed:
		have = have[:maxListed]
		p = problemf(http.StatusNotFound, "there is no stream %s here; the first %d are %s",
			clip(name), maxListed, strings.Join(have, ", "))
	default:
		p = problemf(http.StatusNotFound, "there is no stream %s here; there is %s",
			clip(name), strings.Join(have, ", "))
	}
	p.Streams = have
	return p
}

// clip shortens what a stranger sent before it is repeated.
func clip(s string) string {
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s), "?")
}

// RefuseBody answers a request that carries a body, which none here has: it is
// not read, and a sender that dawdles is cut off. False: the request has none.
func RefuseBody(w http.ResponseWriter, r *http.Request) bool {
	if r.ContentLength == 0 {
		return false
	}
	// The deadline is a courtesy to the server; where it cannot be set the
	// connection is closed all the same.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
	w.Header().Set("Connection", "close")
	WriteProblem(w, http.StatusRequestEntityTooLarge, "this request takes no body; send none")
	return true
}
