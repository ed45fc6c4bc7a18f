package ingest

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// srtLatency is how long a missing packet is waited for unless the URL
	// says otherwise. It is more than SRT's usual 120 ms: an archive is in no
	// hurry, and only what comes behind a missing packet waits at all.
	srtLatency = time.Second
	// srtMaxLatency is what the handshake's field of milliseconds can say.
	srtMaxLatency = 65535 * time.Millisecond
	// srtBareLatency is the longest latency= without a unit. A higher number
	// is in the microseconds of ffmpeg's URLs.
	srtBareLatency = 10 * time.Second
	// srtConnect is how long a caller tries to be answered, as with other
	// programs.
	srtConnect = 3 * time.Second
)

// srtURL is what an srt URL says.
type srtURL struct {
	host       string // address or name; empty: every address of this machine
	port       uint16
	listen     bool
	passphrase string
	streamID   string
	latency    time.Duration
	keyLength  int // bytes; 0: the peer's choice, else 16
	timeout    time.Duration
	ifname     string
}

// srtOptions are the options that an srt URL may have.
const srtOptions = "mode=, latency=, passphrase=, pbkeylen=, streamid=, connect_timeout= and interface="

// checkSRT says what is wrong with an srt URL.
func checkSRT(rest string) error {
	if _, err := parseSRT(rest, Options{}); err != nil {
		return &URLError{"srt:" + rest, err}
	}
	return nil
}

// parseSRT reads //HOST:PORT[?OPTIONS].
func parseSRT(rest string, opt Options) (*srtURL, error) {
	place, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	u := &srtURL{latency: srtLatency, timeout: srtConnect, ifname: opt.Interface}
	if err := u.parsePlace(strings.TrimSuffix(place, "/")); err != nil {
		return nil, err
	}
	mode, err := u.parseOptions(query)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(u.host)
	unspecified := u.host == "" || err == nil && addr.IsUnspecified()
	if err == nil && addr.IsMulticast() {
		return nil, fmt.Errorf("%s is a multicast group; SRT has one sender and one receiver", addr)
	}
	switch mode {
	case "":
		u.listen = unspecified
	case "listener":
		u.listen = true
	case "caller":
		if unspecified {
			return nil, errors.New("mode=caller needs the host to call: srt://HOST:PORT")
		}
	default:
		return nil, fmt.Errorf("mode=%s: a source is caller or listener", mode)
	}
	return u, nil
}

func (u *srtURL) parsePlace(place string) error {
	if strings.Contains(place, "@") { // ahead of what quotes a part of it
		return errors.New("unexpected @; SRT has passphrase= and streamid= instead of a user")
	}
	i := strings.LastIndexByte(place, ':')
	if i < 0 || strings.HasSuffix(place, "]") {
		return errors.New("no port; write srt://HOST:PORT to call, or srt://:PORT to listen")
	}
	host, portText := place[:i], place[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", portText)
	}
	inner, bracket := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	switch {
	case bracket != closed:
		return fmt.Errorf("address %q has no ] to its [", host)
	case strings.Contains(host, ":") && !bracket:
		return fmt.Errorf("an IPv6 address stands in brackets: srt://[%s]:%d", host, port)
	case strings.ContainsAny(inner, "/ []#"):
		return fmt.Errorf("%q is no host name", host)
	}
	if inner = strings.Replace(inner, "%25", "%", 1); inner == "*" {
		inner = ""
	}
	if _, err := netip.ParseAddr(inner); err != nil && inner != "" && (bracket || strings.Trim(inner, "0123456789.") == "") {
		return fmt.Errorf("%q is not an IP address", inner)
	}
	u.host, u.port = inner, uint16(port)
	return nil
}

// parseOptions reads the options and returns the mode, which may be empty.
func (u *srtURL) parseOptions(query string) (mode string, err error) {
	for opt := range strings.SplitSeq(query, "&") {
		if opt == "" {
			continue
		}
		name, v, _ := strings.Cut(opt, "=")
		// Not url.ParseQuery: a stream identifier may hold what that refuses.
		if plain, err := url.QueryUnescape(v); err == nil {
			v = plain
		}
		switch name {
		case "mode":
			mode = v
		case "passphrase":
			u.passphrase, err = v, srtPassphrase(v)
		case "streamid", "srt_streamid":
			if u.streamID = v; len(v) > 512 {
				err = fmt.Errorf("streamid= has %d bytes, and SRT carries 512 at most", len(v))
			}
		case "latency", "rcvlatency":
			u.latency, err = srtMillis(name, v, srtBareLatency, srtMaxLatency)
		case "connect_timeout", "conntimeo":
			if u.timeout, err = srtMillis(name, v, 10*time.Minute, 10*time.Minute); err == nil && u.timeout == 0 {
				err = fmt.Errorf("%s=0 leaves no time to connect", name)
			}
		case "pbkeylen":
			u.keyLength, err = strconv.Atoi(v)
			if err != nil || !slices.Contains([]int{0, 16, 24, 32}, u.keyLength) {
				err = fmt.Errorf("pbkeylen=%s is not 16, 24 or 32 (bytes of the key)", v)
			}
		case "interface":
			u.ifname = v
		case "transtype":
			if v != "live" {
				err = fmt.Errorf("transtype=%s is not supported; a stream is transtype=live", v)
			}
		case "pkt_size", "payload_size": // the sender's
		default:
			err = fmt.Errorf("unknown option %q; an srt source has %s", name, srtOptions)
		}
		if err != nil {
			return "", err
		}
	}
	return mode, nil
}

// srtPassphrase says what is wrong with a passphrase, without showing it.
func srtPassphrase(v string) error {
	if n := len(v); n != 0 && (n < 10 || n > 79) {
		return fmt.Errorf("passphrase= has %d bytes, and SRT wants 10 to 79", n)
	}
	return nil
}

// srtMillis reads a time in milliseconds, or with its unit. A bare number
// above bare would be a mistake of unit.
func srtMillis(name, v string, bare, most time.Duration) (time.Duration, error) {
	var d time.Duration
	n, err := strconv.ParseUint(v, 10, 32)
	switch {
	case err == nil && time.Duration(n)*time.Millisecond > bare:
		return 0, srtUnit(name, n, most)
	case err == nil:
		d = time.Duration(n) * time.Millisecond
	default:
		if d, err = time.ParseDuration(v); err != nil {
			return 0, fmt.Errorf("%s=%s is no time; write milliseconds (%s=500) or a unit (%s=500ms, %s=2s)", name, v, name, name, name)
		}
	}
	if d < 0 || d > most {
		return 0, fmt.Errorf("%s=%s is not between 0 and %v", name, v, most)
	}
	return d, nil
}

// srtUnit says how to write a number that is a mistake of unit, or might be.
func srtUnit(name string, n uint64, most time.Duration) error {
	millis, micros := time.Duration(n)*time.Millisecond, time.Duration(n)*time.Microsecond
	advice := fmt.Sprintf("%s=%v", name, micros)
	switch {
	case micros > most:
		return fmt.Errorf("%s=%d is not between 0 and %v; a number is milliseconds here", name, n, most)
	case millis <= most:
		advice += fmt.Sprintf(" or %s=%v", name, millis)
	}
	return fmt.Errorf("%s=%d would be %v: a number is milliseconds here, and ffmpeg's is microseconds; write the unit, as in %s", name, n, millis, advice)
}
