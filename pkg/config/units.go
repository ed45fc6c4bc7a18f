package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unitsOfTime are the units of a duration, longest name first where one is the
// beginning of another.
var unitsOfTime = []struct {
	name string
	unit time.Duration
}{
	{"ms", time.Millisecond},
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"d", 24 * time.Hour},
	{"w", 7 * 24 * time.Hour},
}

// ParseDuration reads a length of time: one or more numbers, each with a unit
// of ms, s, m, h, d (24 hours) or w (7 days), as in 10s, 90m, 3d or 1d12h. A
// number may have a decimal fraction. Zero is written with a unit, too. There
// are no negative durations.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("an empty duration; write one as 10s, 90m or 3d")
	}
	const most = math.MaxInt64 / 2
	var total time.Duration
	for rest := s; rest != ""; {
		number, after := cutNumber(rest)
		whole, fraction, err := splitNumber(number)
		if err != nil {
			return 0, fmt.Errorf("%s is not a duration; write one as 10s, 90m or 3d", clip(s))
		}
		unit, tail, ok := cutUnit(after)
		if !ok && after == "" {
			return 0, fmt.Errorf("%s has no unit; write %ss, %sm, %sh or %sd", clip(s), clip(s), clip(s), clip(s), clip(s))
		}
		if !ok {
			return 0, fmt.Errorf("%s has an unknown unit; units of time are ms, s, m, h, d and w", clip(s))
		}
		part := time.Duration(math.Round(fraction * float64(unit)))
		if whole > uint64(most/unit) || total > most-time.Duration(whole)*unit-part {
			return 0, fmt.Errorf("%s is too long; the longest duration is 53375d", clip(s))
		}
		total += time.Duration(whole)*unit + part
		rest = tail
	}
	return total, nil
}

// splitNumber reads an unsigned decimal number as its whole part, exactly, and
// its fraction.
func splitNumber(s string) (whole uint64, fraction float64, err error) {
	w, f, _ := strings.Cut(s, ".")
	if w != "" || f == "" {
		if whole, err = strconv.ParseUint(w, 10, 64); err != nil {
			return 0, 0, err
		}
	}
	if f != "" {
		fraction, err = strconv.ParseFloat("0."+f, 64)
	}
	return whole, fraction, err
}

// FormatDuration writes a duration as ParseDuration reads it, in whole units
// and to the millisecond: 3d, 1h30m, 250ms, 0s.
func FormatDuration(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	return b.String()
}

// cutNumber splits s after its leading digits and decimal points.
func cutNumber(s string) (number, rest string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	return s[:i], s[i:]
}

func cutUnit(s string) (unit time.Duration, rest string, ok bool) {
	for _, u := range unitsOfTime {
		if rest, ok := strings.CutPrefix(s, u.name); ok {
			// "min" begins with m and "sec" with s: what follows a unit is a
			// number or nothing.
			if rest == "" || rest[0] >= '0' && rest[0] <= '9' || rest[0] == '.' {
				return u.unit, rest, true
			}
		}
	}
	return 0, s, false
}

// ParseSize reads a number of bytes: a whole or decimal number with K, M, G or
// T, the powers of 1024, or with none of them.
func ParseSize(s string) (int64, error) {
	number, unit := cutNumber(s)
	whole, fraction, err := splitNumber(number)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size; write one as 500M, 20G or 1.5T", clip(s))
	}
	shift := 0
	switch strings.TrimSuffix(strings.ToUpper(unit), "IB") {
	case "":
		if unit != "" {
			return 0, fmt.Errorf("%s has an unknown unit; units of size are K, M, G and T", clip(s))
		}
		if fraction != 0 {
			return 0, fmt.Errorf("%s is not a whole number of bytes", clip(s))
		}
	case "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	case "T":
		shift = 40
	default:
		return 0, fmt.Errorf("%s has an unknown unit; units of size are K, M, G and T", clip(s))
	}
	if whole >= 1<<(62-shift) {
		return 0, fmt.Errorf("%s is too large", clip(s))
	}
	return int64(whole<<shift) + int64(math.Round(fraction*float64(int64(1)<<shift))), nil
}

// ParseRate reads a rate in bytes a second, written as for curl's --limit-rate:
// a size, as in 50M (50 × 2^20 bytes a second). "/s" may follow it.
func ParseRate(s string) (int64, error) {
	number, unit := cutNumber(s)
	if strings.Contains(strings.ToLower(unit), "bit") || strings.HasSuffix(unit, "bps") {
		return 0, fmt.Errorf("%s is in bits; a rate is in bytes a second: for 8 Mbit/s write 1M", clip(s))
	}
	v, err := ParseSize(number + strings.TrimSuffix(unit, "/s"))
	if err != nil {
		return 0, fmt.Errorf("%s is not a rate in bytes a second; write one as 500K or 50M", clip(s))
	}
	if v == 0 {
		return 0, fmt.Errorf("%s lets nothing pass; leave the limit out for none", clip(s))
	}
	return v, nil
}

// clip shortens what an error quotes, so that a line of garbage stays a line.
func clip(s string) string {
	const most = 60
	q := strconv.Quote(s)
	q = q[1 : len(q)-1]
	if len(q) > most {
		q = strings.ToValidUTF8(q[:most], "") + "…"
	}
	if q == "" {
		return `""`
	}
	return q
}
