package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
		got, err := parseTime(v.s, now)
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
			if got, err := parseTime(s, time.Time{}); err != nil || got != u {
				t.Fatalf("%d is written %s and read %d, %v", u, s, got, err)
			}
		}
	})
}

func TestParseLocation(t *testing.T) {
	for _, v := range []struct{ s, want, err string }{
		{"/storage/example", "/storage/example", ""},
		{"../storage/example", "../storage/example", ""},
		{"m4f://b/example", "m4f://b:8081/example", ""},
		{"m4fs://[::1]:9/a/b", "m4fs://[::1]:9/a/b", ""},
		{"m4f://b/../example", "", "climb out"},
		{"m4f://b", "", "names no stream"},
		{"http://b/example", "", "is no archive; it is a stream's directory or m4f://HOST[:PORT]/STREAM"},
		{"", "", "is empty"},
		{"a\x00b", "", "is no directory"},
	} {
		got, err := parseLocation(v.s)
		switch {
		case v.err == "" && (err != nil || got.String() != v.want || (got.Dir == "") == (got.Peer == nil)):
			t.Errorf("%q: %+v, %v", v.s, got, err)
		case v.err != "" && (err == nil || !strings.Contains(err.Error(), v.err)):
			t.Errorf("%q: %v; want %q", v.s, err, v.err)
		}
	}
}

func TestFlags(t *testing.T) {
	var (
		span spanFlags
		d    time.Duration
		rate int64
		size int64
	)
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	span.AddFlags(fs, System().Clock)
	addDuration(fs, &d, "duration", "4s", "")
	addRate(fs, &rate, "limit-rate", "", "")
	addSize(fs, &size, "size", "1G", "")
	if d != 4*time.Second || size != 1<<30 {
		t.Errorf("defaults %v, %d", d, size)
	}
	if err := fs.Parse([]string{"--from", "-90m", "--to=now", "--duration", "1m", "--limit-rate", "50M"}); err != nil {
		t.Fatal(err)
	}
	if !span.From.IsSet || span.To.UTC <= span.From.UTC || d != time.Minute || rate != 50<<20 {
		t.Errorf("%+v %v %d", span, d, rate)
	}
	if err := span.check(); err != nil {
		t.Error(err)
	}
	if err := fs.Parse([]string{"--from", "now", "--to", "-1s"}); err != nil {
		t.Fatal(err)
	}
	if err := span.check(); err == nil || err.Error() != "--to -1s is not after --from now" {
		t.Error(err)
	}
}

func TestExitStatus(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	cmd := &cobra.Command{Use: "twindvr"}
	for _, v := range []struct {
		ctx    context.Context
		err    error
		status int
		text   string
	}{
		{nil, nil, 0, ""},
		{nil, ErrDiffer, 1, ""},
		{nil, statusf("%d gaps", 3), 1, "twindvr: 3 gaps\n"},
		{nil, fmt.Errorf("/a: %w", statusf("%d gaps", 3)), 1, "twindvr: /a: 3 gaps\n"},
		{nil, errors.New("disk full"), 2, "twindvr: disk full\n"},
		{nil, errors.New("x:1:1: a\nx:2:1: b\n"), 2, "twindvr: x:1:1: a\ntwindvr: x:2:1: b\n"},
		{nil, usageError{cmd, errors.New("DIR is missing")}, 2, "twindvr: DIR is missing (see 'twindvr --help')\n"},
		{nil, context.Canceled, 2, "twindvr: context canceled\n"},
		{cancelled, fmt.Errorf("read: %w", context.Canceled), 2, "twindvr: interrupted\n"},
		{cancelled, nil, 0, ""},
	} {
		ctx := v.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		var b strings.Builder
		if got := exitStatus(ctx, v.err, &b); got != v.status || b.String() != v.text {
			t.Errorf("%v: %d %q, want %d %q", v.err, got, b.String(), v.status, v.text)
		}
	}
}

func TestWantArgs(t *testing.T) {
	for _, v := range []struct {
		names []string
		args  int
		err   string
	}{
		{nil, 0, ""},
		{nil, 1, `unexpected argument "a"`},
		{[]string{"A", "B"}, 1, "B is missing"},
		{[]string{"A", "B"}, 2, ""},
		{[]string{"A", "B"}, 3, `unexpected argument "a" after B`},
		{[]string{"[URL]"}, 0, ""},
		{[]string{"[URL]"}, 2, `unexpected argument "a" after [URL]`},
		{[]string{"DIR..."}, 0, "DIR is missing"},
		{[]string{"DIR..."}, 9, ""},
		{[]string{"[DIR...]"}, 0, ""},
		{[]string{"[DIR...]"}, 9, ""},
	} {
		args := strings.Split(strings.Repeat("a ", v.args), " ")[:v.args]
		err := wantArgs(v.names...)(nil, args)
		if text := fmt.Sprint(err); v.err == "" && err != nil || v.err != "" && text != v.err {
			t.Errorf("%v with %d: %v, want %q", v.names, v.args, err, v.err)
		}
	}
}

// Every command says in its help what its exit statuses are, has no flag whose
// environment variable another flag has, and no flag without a description.
func TestEveryCommand(t *testing.T) {
	root := newRootCmd(System())
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if !strings.Contains(cmd.Long, "Exit status:") {
			t.Errorf("%s: its help has no \"Exit status:\"", cmd.Name())
		}
		if cmd.Args == nil {
			t.Errorf("%s: does not check its arguments", cmd.Name())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: description %q", cmd.Name(), f.Name, f.Usage)
			}
		})
	}
}
