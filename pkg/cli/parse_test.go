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
)

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
