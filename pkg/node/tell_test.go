package node

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/segment"
)

// An input that delivers for a second and dies is opened less and less often;
// one that has run for longer than the longest pause is opened again at once.
func TestBackoff(t *testing.T) {
	errGone := errors.New("gone")
	b := backoff{most: 10 * time.Second}
	var got []time.Duration
	for range 8 {
		got = append(got, b.after(time.Second, errGone))
	}
	want := []time.Duration{250, 500, 1000, 2000, 4000, 8000, 10000, 10000}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Fatalf("%v, want %v ms", got, want)
		}
	}
	if d := b.after(time.Hour, errGone); d != firstPause {
		t.Errorf("after an hour %v", d)
	}
	if d := (&backoff{most: 100 * time.Millisecond}).after(0, errGone); d != 100*time.Millisecond {
		t.Errorf("beyond the longest: %v", d)
	}
	// A clip of 40 s that a server gives again each time is no steady input.
	b = backoff{most: 10 * time.Second}
	for range 8 {
		b.after(40*time.Second, errEnded)
	}
	if d := b.after(40*time.Second, errEnded); d != b.most {
		t.Errorf("after a short recording %v", d)
	}
	if d := b.after(time.Hour, errEnded); d != firstPause {
		t.Errorf("after a long recording %v", d)
	}
}

// Whatever an input does, its log stays short, and says what is new.
func TestTellerOfLosses(t *testing.T) {
	now := time.Now()
	lines, back := 0, 0
	var te teller
	lose := func(err error, steady bool) int {
		tell, times := te.lost(err, steady, now)
		if !tell {
			return 0
		}
		lines++
		return times
	}
	// One that does not answer: once for each reason, whatever its port.
	for i := range 1000 {
		now = now.Add(10 * time.Second)
		lose(fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:80: reset", 40000+i), false)
		if i > 500 {
			lose(errors.New("404 Not Found"), false)
		}
	}
	if lines != 2 {
		t.Errorf("%d lines of two reasons", lines)
	}
	if !te.delivers() || te.delivers() {
		t.Error("that it delivers at last is told once")
	}
	// One that dies each second, for half an hour.
	lines = 0
	for range 1800 {
		now = now.Add(time.Second)
		if te.delivers() {
			back++
		}
		lose(errors.New("it has ended"), false)
	}
	if lines < 6 || lines > 8 || back < 5 || back > 8 {
		t.Errorf("%d times lost and %d times back", lines, back)
	}
	// One that had delivered for long: each time, and so that it is back.
	for range 3 {
		now = now.Add(20 * time.Second)
		if n := lose(errors.New("it has ended"), true); n < 1 || !te.delivers() {
			t.Errorf("a steady input that was lost is told as %d", n)
		}
	}
	// One with an endless number of reasons.
	lines = 0
	for i := range 100 {
		lose(fmt.Errorf("reason %d", i), false)
	}
	if lines > maxReasons {
		t.Errorf("%d lines of 100 reasons", lines)
	}
}

func TestTellerOfLostPackets(t *testing.T) {
	var l lossTeller
	now := time.Now()
	var seg segment.Stats
	var io ingest.Stats
	if f := l.take(now, seg, io); f != nil {
		t.Errorf("of nothing: %v", f)
	}
	seg.Lost, io.Lost = 3, 1
	if f := l.take(now, seg, io); !reflect.DeepEqual(f, []any{"lost", uint64(3), "datagrams_lost", uint64(1)}) {
		t.Errorf("first: %v", f)
	}
	seg.Lost = 10
	if f := l.take(now.Add(59*time.Second), seg, io); f != nil {
		t.Errorf("within a minute: %v", f)
	}
	io.Recovered = 5
	if f := l.take(now.Add(time.Minute), seg, io); !reflect.DeepEqual(f, []any{"lost", uint64(7), "recovered", uint64(5), "over", time.Minute}) {
		t.Errorf("after a minute: %v", f)
	}
	if f := l.take(now.Add(time.Hour), seg, io); f != nil {
		t.Errorf("of nothing more: %v", f)
	}
}

// No counter is forgotten when runs are summed up.
func TestSums(t *testing.T) {
	var one ingest.Stats
	v := reflect.ValueOf(&one).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.Uint64 {
			v.Field(i).SetUint(uint64(i + 1))
		}
	}
	one.LastArrival = time.Unix(5, 0)
	two := reflect.ValueOf(addIO(one, one))
	for i := range two.NumField() {
		if two.Field(i).Kind() == reflect.Uint64 && two.Field(i).Uint() != 2*uint64(i+1) {
			t.Errorf("%s is %d", two.Type().Field(i).Name, two.Field(i).Uint())
		}
	}
	if !addIO(ingest.Stats{}, one).LastArrival.Equal(one.LastArrival) {
		t.Error("the last arrival is forgotten")
	}
}
