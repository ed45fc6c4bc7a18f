package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxUnix is the last second of the year 9999, the last that RFC 3339 can say.
const maxUnix = 253402300799

// ParseTime reads an instant: RFC 3339 (2026-11-22T12:00:00Z), Unix seconds
// with an optional fraction, "now", or a time before now (-90m, -3d).
func ParseTime(s string, now time.Time) (m4f.UTC, error) {
	switch {
	case s == "now":
		return m4f.UTCOf(now), nil
	case strings.HasPrefix(s, "-"):
		d, err := ParseDuration(s[1:])
		if err != nil {
			return 0, fmt.Errorf("a time before now: %w", err)
		}
		u := m4f.UTCOf(now).Add(-m4f.Ticks(d))
		if u < 0 {
			return 0, fmt.Errorf("%s ago is before 1970", s[1:])
		}
		return u, nil
	case s != "" && strings.Trim(s, "0123456789.") == "":
		return parseUnix(s)
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("%q is no time; write it as 2026-11-22T12:00:00Z, as Unix seconds, as now, or as -90m or -3d", s)
	}
	if t.Unix() < 0 || t.Unix() > maxUnix {
		return 0, fmt.Errorf("%q is outside the years 1970 to 9999", s)
	}
	return m4f.UTCOf(t), nil
}

// parseUnix reads decimal Unix seconds exactly, rounding down to a tick.
func parseUnix(s string) (m4f.UTC, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || strings.Contains(fraction, ".") {
		return 0, fmt.Errorf("%q is not a number of Unix seconds", s)
	}
	if sec > maxUnix {
		return 0, fmt.Errorf("%q is after the year 9999; is it in milliseconds? Unix seconds are wanted", s)
	}
	nano := (fraction + "000000000")[:9]
	ns, err := strconv.ParseUint(nano, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of Unix seconds", s)
	}
	return m4f.UTCOf(time.Unix(int64(sec), int64(ns))), nil
}
