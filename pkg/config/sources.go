package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Sources is what the language has to know of the URLs of sources. Package
// ingest knows it; this package knows the URLs of peers alone.
type Sources struct {
	// Schemes are the kinds of source, as udp or file.
	Schemes []string
	// Program takes the number of a program out of a URL: what is left is the
	// address of the source. 0: the URL names none.
	Program func(url string) (rest string, program uint16, err error)
	// Check says what is wrong with an address, without touching anything
	// outside the process.
	Check func(url string) error
	// Shared says whether hearing a source costs its sender nothing, so that
	// a standby hears it all the time.
	Shared func(url string) bool
	// Redact returns a URL without its secrets, for those who read an error.
	Redact func(url string) string
}

// slashes is how a scheme is written in a URL.
func slashes(scheme string) string {
	if scheme == "file" {
		return "file:"
	}
	return scheme + "://"
}

// kinds lists the kinds of input for an operator.
func (s *Sources) kinds() string {
	list := make([]string, 0, len(s.Schemes)+2)
	for _, scheme := range s.schemes() {
		list = append(list, slashes(scheme))
	}
	return oneOf(list)
}

// schemes are those of sources and peers.
func (s *Sources) schemes() []string {
	all := append([]string{"m4f", "m4fs"}, s.Schemes...)
	slices.Sort(all)
	return slices.Compact(all)
}

// inputURL reads the URL of an input.
func (r *reader) inputURL(in *Input) bool {
	scheme, rest, ok := strings.Cut(in.URL, ":")
	if !ok || scheme == "" || strings.ContainsAny(scheme, "/.[") {
		r.errorf(in.Pos, "%s is no URL; expected %s", quoted(r.sources.Redact(in.URL)), r.sources.kinds())
		return false
	}
	scheme = strings.ToLower(scheme)
	switch {
	case scheme == "tshttp" || scheme == "tshttps": // as other servers' files have it
		r.errorf(in.Pos, "%s is written %s here", slashes(scheme), slashes(strings.TrimPrefix(scheme, "ts")))
		return false
	case !slices.Contains(r.sources.schemes(), scheme):
		r.errorf(in.Pos, "unknown kind of input %s%s; expected %s", quoted(scheme), didYouMean(scheme, r.sources.schemes()), r.sources.kinds())
		return false
	case scheme != "file" && !strings.HasPrefix(rest, "//"):
		r.errorf(in.Pos, "%s is no URL; expected %s after the kind of input", clip(r.sources.Redact(in.URL)), slashes(scheme))
		return false
	}
	if err := r.readURL(in, scheme); err != nil {
		r.errorf(in.Pos, "%s", oneLine(err.Error()))
		return false
	}
	return true
}

// readURL reads the URL of an input of a known scheme.
func (r *reader) readURL(in *Input, scheme string) error {
	if scheme == "m4f" || scheme == "m4fs" {
		p, err := ParsePeer(in.URL)
		if err == nil {
			in.Peer = &p
		}
		return err
	}
	rest, program, err := r.sources.Program(in.URL)
	if err == nil {
		err = r.sources.Check(rest)
	}
	if err != nil {
		// The error about a URL names it, secrets and all.
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return fmt.Errorf("%s: %w", clip(r.sources.Redact(in.URL)), err)
	}
	in.URL, in.Program, in.shared = rest, program, r.sources.Shared(rest)
	return nil
}

// oneLine makes a line of what may quote anything.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return '?'
		}
		return c
	}, s)
}
