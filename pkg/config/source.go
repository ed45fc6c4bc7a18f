package config

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Source is a source block: all streams of another node, or some of them.
type Source struct {
	Pos Pos
	// Peer is the other node; its Stream is empty.
	Peer Peer
	// Only, if not empty, names the streams that are taken; Except those that
	// are not.
	Only, Except []string
	// DVR is where and how long each stream is kept; Dir is empty.
	DVR     DVR
	Salvage Salvage
	// SourceTimeout, ReturnAfter and MaxRetryTimeout are those of the one
	// input of each stream.
	SourceTimeout, ReturnAfter, MaxRetryTimeout time.Duration
}

// Takes says whether the block takes a stream of this name.
func (s *Source) Takes(name string) bool {
	return (len(s.Only) == 0 || slices.Contains(s.Only, name)) && !slices.Contains(s.Except, name)
}

// Stream is the stream that the block makes of one of the peer's, whose name
// must be valid and whose segments have the target duration d.
func (s *Source) Stream(name string, d time.Duration) *Stream {
	peer := s.Peer
	peer.Stream = name
	dvr := s.DVR
	dvr.Dir = filepath.Join(dvr.Root, filepath.FromSlash(name))
	return &Stream{
		Name: name, Pos: s.Pos, DVR: dvr, SegmentDuration: d, Salvage: s.Salvage,
		Inputs: []*Input{{
			Pos: s.Pos, URL: peer.String(), Peer: &peer,
			SourceTimeout: s.SourceTimeout, ReturnAfter: s.ReturnAfter, MaxRetryTimeout: s.MaxRetryTimeout,
		}},
	}
}

// ListPeer is the address of the peer for everything but live.
func (s *Source) ListPeer() Peer {
	p := s.Peer
	if s.DVR.ReplicationPort != 0 {
		p.Port = s.DVR.ReplicationPort
	}
	return p
}

// String is the peer's address as an operator writes it.
func (s *Source) String() string {
	u := url.URL{Scheme: s.Peer.Scheme, Host: s.Peer.Addr()}
	return u.String()
}

// sourceBlock is a source while its block is read.
type sourceBlock struct {
	*Source
	defaults options
	salvaged bool
	except   map[string]Pos
}

func (b *sourceBlock) knows(name string) bool { return find(sourceWords, name) != nil }

func setSource(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	peer, ok := r.sourcePeer(w)
	if !ok {
		return
	}
	s := &Source{Pos: pos(w.Pos), Peer: peer}
	for _, other := range c.Sources {
		if other.Peer.Addr() == peer.Addr() {
			r.errorf(s.Pos, "a second source %s; the first is in line %d", clip(w.text), other.Pos.Line)
			return
		}
	}
	c.Sources = append(c.Sources, s)
	owner := "source " + clip(w.text)
	errors := len(r.errs)
	b := &sourceBlock{Source: s, except: map[string]Pos{}}
	interpret(r, sourceWords, b, owner, st.Block.Statements)
	if len(r.errs) > errors {
		return
	}
	in := &Input{Peer: &s.Peer}
	b.defaults.fill(in, false)
	s.SourceTimeout, s.ReturnAfter, s.MaxRetryTimeout = in.SourceTimeout, in.ReturnAfter, in.MaxRetryTimeout
	if !b.salvaged {
		r.inherit = append(r.inherit, &s.Salvage)
	}
	if s.DVR.Root == "" {
		r.errorf(s.Pos, "%s has no dvr; expected dvr PATH DEPTH replicate;", owner)
	}
	for _, name := range s.Only {
		if at, ok := b.except[name]; ok {
			r.errorf(at, "stream %s is in only and in except; expected it in one of them", clip(name))
		}
	}
}

// sourcePeer reads HOST, HOST:PORT, or either behind m4f:// or m4fs://.
func (r *reader) sourcePeer(w *word) (Peer, bool) {
	const want = "expected HOST, HOST:PORT, or m4fs://HOST:PORT for TLS"
	text, at := w.text, pos(w.Pos)
	p := Peer{Scheme: "m4f", Port: DefaultPort}
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if p.Scheme = scheme; !IsPeerURL(text) {
			r.errorf(at, "%s is no address of a node; %s", quoted(r.sources.Redact(text)), want)
			return p, false
		}
		text = strings.TrimSuffix(rest, "/")
	}
	if address(text).Is6() && !strings.HasPrefix(text, "[") {
		r.errorf(at, "%s: put an IPv6 address in brackets", clip(text))
		return p, false
	}
	p.Host = text
	if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
		p.Host = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(text, ":") {
		host, port, err := net.SplitHostPort(text)
		if err != nil {
			r.errorf(at, "%s is no address of a node; %s", quoted(text), want)
			return p, false
		}
		if p.Port, err = ParsePort(port); err != nil {
			r.errorf(at, "%v", err)
			return p, false
		}
		p.Host = host
	}
	// What ParsePeer takes of a URL is taken here, too.
	if again, err := ParsePeer(p.Scheme + "://" + net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) + "/x"); err != nil || again.Host != p.Host {
		r.errorf(at, "%s is no address of a node; %s", quoted(w.text), want)
		return p, false
	}
	return p, true
}

func setNames(r *reader, b *sourceBlock, st *statement) {
	list := &b.Only
	if st.Words[0].text == "except" {
		list = &b.Except
	}
	for _, w := range st.args() {
		switch err := ValidName(w.text); {
		case err != nil:
			r.errorf(pos(w.Pos), "%v", err)
		case slices.Contains(*list, w.text):
			r.errorf(pos(w.Pos), "a second %s in %s", clip(w.text), st.Words[0].text)
		default:
			*list = append(*list, w.text)
		}
		if list == &b.Except {
			b.except[w.text] = pos(w.Pos)
		}
	}
}

func setSourceOption(r *reader, b *sourceBlock, st *statement) {
	b.defaults.set(r, st.Words[1], st.Words[0].text, st.Words[1].text, "")
}
