package serve

import (
	"encoding/json"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Whatever a query or a body gives as a time: it is refused, or is one that an
// archive can hold and that reads the same again, to the millisecond.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2026-11-22T12:00:00Z", "2026-11-22T14:00:00.123456789+02:00", "1795350000", "1795350000.25", "1e9", "-0", "NaN", "Inf", "0x10", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseTime(text)
		if err != nil {
			return
		}
		if u < 0 || u >= m4f.UTC(latest)*m4f.Timescale {
			t.Fatalf("%q is %d", text, u)
		}
		b, err := json.Marshal(Time(u))
		if err != nil {
			t.Fatal(err)
		}
		var again Time
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("%q travels as %s: %v", text, b, err)
		}
		if d := m4f.Duration(int64(u - m4f.UTC(again))); d < 0 || d.Milliseconds() > 1 {
			t.Fatalf("%q travels as %s, %v off", text, b, d)
		}
	})
}

// Whatever comes as Last-Event-ID: it is passed over, or names an event.
func FuzzEventID(f *testing.F) {
	for _, s := range []string{"1795350000000-7-0123456789abcdef", "0-0-", "-1-2-3", "1-2", "9223372036854775807-18446744073709551615-x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := parseEventID(text)
		if !ok {
			return
		}
		if id.ms < 0 || id.ms >= latest*1000 || len(text) > 100 {
			t.Fatalf("%q is %+v", text, id)
		}
		if again, ok := parseEventID(id.String()); !ok || again != id {
			t.Fatalf("%q is %+v, and then %+v", text, id, again)
		}
	})
}
