package serve

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// writeTime says how a time is written.
const writeTime = "write it as 2026-11-22T12:00:00Z, as Unix seconds, as now, or as -90m or -3d"

var timeType = reflect.TypeFor[Time]()

// Time is an instant as the API answers it: RFC 3339 in UTC, rounded down to the
// millisecond. It takes RFC 3339, Unix seconds, now, and times before now.
type Time m4f.UTC

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// String returns the instant in RFC 3339.
func (t Time) String() string { return m4f.UTC(t).Time().Format(timeFormat) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalJSON implements json.Unmarshaler: a string, or a number of seconds.
func (t *Time) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && strings.ContainsAny(text, "eE") {
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	u, err := parseTime(text)
	if err != nil {
		return &json.UnmarshalTypeError{Value: text, Type: timeType} // json adds which member it is
	}
	*t = Time(u)
	return nil
}

// latest bounds the times that are taken: archives end there.
const latest = 253370764800 // Unix seconds: 9999-01-01

// parseTime reads an instant as the command line does: RFC 3339, Unix seconds, now,
// or a time before now.
func parseTime(text string) (m4f.UTC, error) {
	if len(text) > 64 {
		return 0, errors.New("too long")
	}
	u, err := config.ParseTime(text, time.Now())
	if err == nil && u >= latest*m4f.Timescale {
		err = errors.New("outside the years 1970 to 9998")
	}
	return u, err
}

// timeOf is an instant that may not be known.
func timeOf(u m4f.UTC) *Time {
	if u == 0 {
		return nil
	}
	t := Time(u)
	return &t
}

// seconds is a number of ticks in seconds, to the microsecond.
func seconds(ticks int64) float64 { return math.Round(float64(ticks)/m4f.Timescale*1e6) / 1e6 }
