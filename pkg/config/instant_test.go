package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 500e6, time.UTC)
	at := func(s string) m4f.UTC {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return m4f.UTCOf(v)
	}
	for _, v := range []struct {
		s    string
		want m4f.UTC
		err  string
	}{
		{"2026-11-22T12:00:00Z", at("2026-11-22T12:00:00Z"), ""},
		{"2026-11-22T13:00:00+01:00", at("2026-11-22T12:00:00Z"), ""},
		{"2026-11-22T12:00:00.25Z", at("2026-11-22T12:00:00Z") + 22500, ""},
		{"1795348800", at("2026-11-22T12:00:00Z"), ""},
		{"1795348800.5", at("2026-11-22T12:00:00Z") + 45000, ""},
		{"1795348800.000011111", at("2026-11-22T12:00:00Z"), ""},
		{"1795348800.000011112", at("2026-11-22T12:00:00Z") + 1, ""},
		{"1795348800.99999999999999", at("2026-11-22T12:00:01Z") - 1, ""},
		{"0", 0, ""},
		{"now", at("2026-11-22T12:00:00.5Z"), ""},
		{"-90m", at("2026-11-22T10:30:00.5Z"), ""},
		{"-3d", at("2026-11-19T12:00:00.5Z"), ""},
		{"-0s", at("2026-11-22T12:00:00.5Z"), ""},
		{"", 0, "is no time; write it as"},
		{"yesterday", 0, "is no time; write it as"},
		{"2026-11-22", 0, "is no time; write it as"},
		{"2026-11-22T12:00:00", 0, "is no time; write it as"},
		{"1795348800000", 0, "milliseconds"},
		{"99999999999999999999", 0, "Unix seconds"},
		{"1.2.3", 0, "Unix seconds"},
		{".5", 0, "Unix seconds"},
		{"-3", 0, "has no unit"},
		{"-", 0, "empty duration"},
		{"-100000d", 0, "too long"},
		{"-30000d", 0, "before 1970"},
		{"1969-12-31T23:59:59Z", 0, "outside the years"},
	} {
		got, err := ParseTime(v.s, now)
		switch {
		case v.err == "" && (err != nil || got != v.want):
			t.Errorf("%q: %v, %v; want %v", v.s, got, err, v.want)
		case v.err != "" && (err == nil || !strings.Contains(err.Error(), v.err)):
			t.Errorf("%q: %v; want %q", v.s, err, v.err)
		}
	}
}

// A tick written as Unix seconds or in RFC 3339 is read back as that tick.
func TestParseTimeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := m4f.UTC(rapid.Int64Range(0, maxUnix*m4f.Timescale).Draw(t, "tick"))
		at := u.Time()
		for _, s := range []string{
			at.Format(time.RFC3339Nano),
			fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()),
		} {
			if got, err := ParseTime(s, time.Time{}); err != nil || got != u {
				t.Fatalf("%d is written %s and read %d, %v", u, s, got, err)
			}
		}
	})
}
