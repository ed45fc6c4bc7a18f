package event

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			Time:   time.UnixMilli(rapid.Int64Range(0, 1<<41).Draw(t, "ms")).UTC(),
			Stream: rapid.StringN(0, 20, -1).Draw(t, "stream"),
			Kind:   rapid.StringN(1, 10, -1).Draw(t, "kind"),
			Msg:    rapid.String().Draw(t, "msg"),
		}
		if rapid.Bool().Draw(t, "attrs") {
			e.Attrs = map[string]any{"n": float64(rapid.IntRange(0, 1000).Draw(t, "n"))}
		}
		b, err := e.AppendLine([]byte("{}\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := Parse(b)
		if len(got) != 1 || !reflect.DeepEqual(got[0], e) {
			t.Fatalf("%+v, want %+v", got, e)
		}
	})
}

func TestLongEventsAreClipped(t *testing.T) {
	for _, msg := range []string{strings.Repeat("x", 100_000), strings.Repeat("\x00", 100_000), strings.Repeat("é", 3000)} {
		b, err := Event{Time: time.Now(), Kind: Fault, Msg: msg, Attrs: map[string]any{"x": msg}}.AppendLine(nil)
		if err != nil || len(b) > MaxLine {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if got := Parse(b); len(got) != 1 || got[0].Kind != Fault || got[0].Msg == "" {
			t.Errorf("%+v", got)
		}
	}
}

func TestCutAndForeignLines(t *testing.T) {
	good, err := Event{Time: time.UnixMilli(1000), Kind: Disk, Msg: "full"}.AppendLine(nil)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(good) {
		b := append(append(bytes.Clone(good[:cut]), '\n'), good...)
		got := Parse(append(b, "[1]\nnot json\n\n{\"kind\":\"x\"}\n"...))
		want := 1
		if cut == len(good)-1 { // only the line feed was cut
			want = 2
		}
		if len(got) != want {
			t.Errorf("cut at %d: %d events", cut, len(got))
		}
	}
}

func TestExplains(t *testing.T) {
	for kind, want := range map[string]bool{SourceLost: true, Disk: true, Stop: true, Start: false, SourceBack: false, Heal: false, "other": false} {
		if e := (Event{Kind: kind}); e.Explains() != want {
			t.Errorf("%s explains: %v", kind, !want)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := Event{Time: time.UnixMilli(1000), Kind: Disk, Msg: "full", Attrs: map[string]any{"a": 1}}.AppendLine(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{\"time\":\"9999-12-31T23:59:59-23:59\",\"kind\":\"x\"}\n"))
	f.Add([]byte("{}\n{\"kind\":1}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range Parse(b) {
			line, err := e.AppendLine(nil)
			if err != nil || len(line) > MaxLine {
				t.Errorf("%d bytes, %v", len(line), err)
			}
		}
	})
}
