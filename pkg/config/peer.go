package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// DefaultPort is where a node listens, and where a peer is looked for, when
// nothing else is said.
const DefaultPort = 8081

// Peer is the address of a stream's archive on another node.
type Peer struct {
	Scheme string // m4f, or m4fs for M4F over TLS
	Host   string // name or address; IPv6 without brackets
	Port   int
	Stream string // may hold slashes
}

// IsPeerURL says whether s is written as the address of a peer.
func IsPeerURL(s string) bool {
	return strings.HasPrefix(s, "m4f://") || strings.HasPrefix(s, "m4fs://")
}

// ParsePeer reads m4f://HOST[:PORT]/STREAM, or m4fs:// for TLS, an IPv6
// address in brackets. The stream's name is percent-decoded and must be valid.
func ParsePeer(s string) (Peer, error) {
	const want = "write a peer as m4f://HOST[:PORT]/STREAM"
	u, err := url.Parse(s)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return Peer{}, fmt.Errorf("%s: %v; %s, an IPv6 address in brackets", clip(s), err, want)
	}
	switch {
	case u.Scheme != "m4f" && u.Scheme != "m4fs", u.Opaque != "":
		return Peer{}, fmt.Errorf("%s is no peer; %s", clip(s), want)
	case u.User != nil:
		return Peer{}, fmt.Errorf("%s holds a key; keep it in a file and name that as the cluster key file", clip(u.Redacted()))
	case u.Hostname() == "":
		return Peer{}, fmt.Errorf("%s names no host; %s", clip(s), want)
	case strings.Count(u.Hostname(), ":") > 0 && !strings.HasPrefix(u.Host, "["):
		return Peer{}, fmt.Errorf("%s: put an IPv6 address in brackets", clip(s))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Peer{}, fmt.Errorf("%s has something after the stream's name; %s", clip(s), want)
	}
	p := Peer{Scheme: u.Scheme, Host: u.Hostname(), Port: DefaultPort, Stream: strings.TrimPrefix(u.Path, "/")}
	if text := u.Port(); text != "" || strings.HasSuffix(u.Host, ":") {
		if p.Port, err = ParsePort(text); err != nil {
			return Peer{}, fmt.Errorf("%s: %w", clip(s), err)
		}
	}
	if p.Stream == "" {
		return Peer{}, fmt.Errorf("%s names no stream; %s", clip(s), want)
	}
	if err := ValidName(p.Stream); err != nil {
		return Peer{}, fmt.Errorf("%s: %w", clip(s), err)
	}
	return p, nil
}

// ParsePort reads a TCP port, 1 to 65535.
func ParsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s is no port; a port is a number from 1 to 65535", clip(s))
	}
	return int(n), nil
}

// Addr returns HOST:PORT, as net.Dial takes it.
func (p Peer) Addr() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

// TLS says whether the peer is reached over TLS.
func (p Peer) TLS() bool { return p.Scheme == "m4fs" }

// String returns the peer's URL, its port always present.
func (p Peer) String() string {
	u := url.URL{Scheme: p.Scheme, Host: p.Addr(), Path: "/" + p.Stream}
	return u.String()
}

// The bounds of a stream's name: in bytes, and in parts between slashes.
const (
	maxName  = 255
	maxParts = 8
)

// ValidName says why s cannot be the name of a stream: names are one or more
// parts with slashes between them, and lie below the root of an archive.
func ValidName(s string) error {
	switch {
	case s == "":
		return errors.New("a stream's name is empty")
	case len(s) > maxName:
		return fmt.Errorf("stream %s: the name is longer than %d bytes", clip(s), maxName)
	case strings.HasPrefix(s, "/"):
		return fmt.Errorf("stream %s: a name does not begin with a slash", clip(s))
	case strings.Count(s, "/") >= maxParts:
		return fmt.Errorf("stream %s: the name has more than %d parts", clip(s), maxParts)
	}
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			return fmt.Errorf("stream %s: the name is not UTF-8", clip(s))
		case r < 0x20 || r == 0x7f || r == '\\':
			return fmt.Errorf("stream %s: a name holds no control character and no backslash", clip(s))
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "":
			return fmt.Errorf("stream %s: a part of the name is empty", clip(s))
		case part == "." || part == "..":
			return fmt.Errorf("stream %s: a name that holds %q would climb out of the archive", clip(s), part)
		case part[0] == '.':
			return fmt.Errorf("stream %s: a part of a name does not begin with a dot", clip(s))
		case part == "m4f" && part != s:
			return fmt.Errorf("stream %s: \"m4f\" is a part of the protocol's addresses; take another name", clip(s))
		}
	}
	return nil
}
