package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
)

// The bounds of salvage, verify and the size of a stream.
const (
	minSalvage     = 1 << 20
	minSalvageAge  = time.Second
	minVerifyEvery = time.Hour
	minVerifyRate  = 256 << 10
	minSize        = 10 << 20
)

// salvage reads SIZE AGE, or off.
func (r *reader) salvage(st *statement) Salvage {
	const want = "salvage SIZE AGE; or salvage off;"
	size := st.Words[1]
	if size.text == "off" {
		r.nothingMore(st, 2, want)
		return Salvage{Off: true}
	}
	if len(st.Words) < 3 {
		r.errorf(pos(st.end()), "salvage is incomplete; expected %s", want)
		return Salvage{}
	}
	var s Salvage
	var err error
	s.Bytes, err = ParseSize(size.text)
	switch {
	case err != nil:
		r.errorf(pos(size.Pos), "%v", err)
	case s.Bytes < minSalvage:
		r.errorf(pos(size.Pos), "%s is too small; the least is 1M, and salvage off; keeps nothing", clip(size.text))
	}
	s.Age = r.duration(st.Words[2], "", minSalvageAge, maxDepth)
	return s
}

func setVerify(r *reader, c *Config, st *statement) {
	if st.Words[1].text == "off" {
		r.nothingMore(st, 2, "verify PERIOD [RATE]; or verify off;")
		c.Verify = Verify{Off: true}
		return
	}
	c.Verify.Every = r.duration(st.Words[1], "", minVerifyEvery, maxDepth)
	if len(st.Words) > 2 {
		w := st.Words[2]
		rate, err := ParseRate(w.text)
		switch {
		case err != nil:
			r.errorf(pos(w.Pos), "%v", err)
		case rate < minVerifyRate:
			r.errorf(pos(w.Pos), "%s is too slow; expected a rate of 256K (bytes a second) or more, and verify off; reads nothing", clip(w.text))
		}
		c.Verify.Rate = rate
	}
}

// maxSinks bounds where events are sent to.
const maxSinks = 4

func setEventSink(r *reader, c *Config, st *statement) {
	for _, w := range st.args() {
		if slices.Contains(c.EventSinks, w.text) {
			r.errorf(pos(w.Pos), "event_sink names this twice")
			return
		}
		if w.text != EventLog {
			if _, err := event.ParseTarget(w.text); err != nil {
				r.errorf(pos(w.Pos), "event_sink: %v, or log", err)
				return
			}
		}
		c.EventSinks = append(c.EventSinks, w.text)
	}
}

// nothingMore refuses the words of a statement from the i-th on.
func (r *reader) nothingMore(st *statement, i int, want string) {
	if len(st.Words) > i {
		r.errorf(pos(st.Words[i].Pos), "unexpected %s; expected %s", quoted(st.Words[i].text), want)
	}
}

func setMinFree(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	var err error
	c.MinFree = Free{}
	switch {
	case isPercent(w.text):
		c.MinFree.Percent, err = parsePercent(w.text)
	case isNumber(w.text) && w.text != "0":
		err = fmt.Errorf("%s has no unit; expected a size, as %sG, or a percentage, as %s%%", clip(w.text), clip(w.text), clip(w.text))
	default:
		c.MinFree.Bytes, err = ParseSize(w.text)
	}
	if err != nil {
		r.errorf(pos(w.Pos), "%v", err)
	}
}

func setTLS(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	if w.text == "" || strings.ContainsRune(w.text, 0) {
		r.errorf(pos(w.Pos), "expected the path of a file")
		return
	}
	path := filepath.Clean(w.text)
	switch st.Words[0].text {
	case "tls_cert":
		c.TLS.Cert, c.TLS.certPos = path, pos(w.Pos)
	case "tls_key":
		c.TLS.Key, c.TLS.keyPos = path, pos(w.Pos)
	case "tls_ca":
		c.TLS.CA, c.TLS.caPos = path, pos(w.Pos)
	}
}

// isPercent says whether s is written as a percentage.
func isPercent(s string) bool {
	number, unit := cutNumber(s)
	return number != "" && unit == "%"
}

// isNumber says whether s is a number without a unit.
func isNumber(s string) bool {
	number, unit := cutNumber(s)
	return number != "" && unit == ""
}

// parsePercent reads a whole percentage from 1% to 99%.
func parsePercent(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(s, "%"), 10, 8)
	if err != nil || n < 1 || n > 99 {
		return 0, fmt.Errorf("%s is no percentage; expected a whole number from 1%% to 99%%", clip(s))
	}
	return int(n), nil
}

// parseLimit reads a size that something can be kept within.
func parseLimit(s string) (int64, error) {
	n, err := ParseSize(s)
	switch {
	case err != nil:
	case n == 0:
		err = errors.New("a size of nothing keeps nothing; leave it out for no limit")
	case n < minSize:
		err = fmt.Errorf("%s is too small; expected a size of 10M or more, or none for no limit", clip(s))
	}
	return n, err
}
