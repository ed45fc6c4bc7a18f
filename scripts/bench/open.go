package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// How long something took, and the proportional set size of what did it.
var (
	wall   = newMetric("time", "ms", 1)
	memory = newMetric("memory", "MB", 1)
)

// measureOpen measures how soon a process that has just been started answers, of a
// long archive and of many, and how soon an hour of the long one is listed. The
// indexes are in the page cache.
func (b *bench) measureOpen(ctx context.Context, t *table) error {
	dir := filepath.Join(b.dir, "open")
	defer os.RemoveAll(dir)
	init, err := b.testInit()
	if err != nil {
		return err
	}
	days, streams := pick(b, 365, 1), pick(b, 500, 2)
	year := &fake{dir: filepath.Join(dir, "year", "s"), init: init, first: lastHours(24 * days), hours: 24 * days}
	if err := year.make(); err != nil {
		return err
	}
	many := &fake{dir: filepath.Join(dir, "many", "s000"), init: init, first: lastHours(3 * 24), hours: 3 * 24}
	if err := many.make(); err != nil {
		return err
	}
	for i := 1; i < streams; i++ {
		if err := many.linked(filepath.Join(dir, "many", fmt.Sprintf("s%03d", i))); err != nil {
			return err
		}
	}
	unix.Sync()
	for _, c := range []struct {
		name, root string
		x          float64
		ask        []string
	}{
		{fmt.Sprintf("%d days of one stream", days), filepath.Dir(year.dir), float64(days), []string{"/s/m4f/info"}},
		{fmt.Sprintf("3 days of %d streams", streams), filepath.Join(dir, "many"), float64(streams), infoOf(streams)},
	} {
		found, err := b.compare(ctx, t, c.name, c.x, []contender{{name: "twindvr", run: func(ctx context.Context) (sample, error) {
			return b.firstAnswer(ctx, c.root, c.ask)
		}}})
		if err != nil {
			return err
		}
		t.atMost("first answer, "+c.name, found.values("twindvr", wall), 100, "ms")
		t.atMost("memory then, "+c.name, found.values("twindvr", memory), 64, "MB")
	}
	return b.measureHour(ctx, t, year)
}

// infoOf asks for the list of streams, then what there is of each.
func infoOf(streams int) []string {
	ask := []string{"/m4f/streams"}
	for i := range streams {
		ask = append(ask, fmt.Sprintf("/s%03d/m4f/info", i))
	}
	return ask
}

// firstAnswer measures the time from the start of a server to its first answer, and
// its memory when it has answered all.
func (b *bench) firstAnswer(ctx context.Context, root string, ask []string) (sample, error) {
	began := time.Now()
	s, err := b.serveM4F(ctx, root)
	if err != nil {
		return nil, err
	}
	out := sample{}
	for i, path := range ask {
		if _, err := get("http://" + s.addr + path); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		if i == 0 {
			out[wall] = ms(time.Since(began))
		}
	}
	out[memory] = float64(pss(s.Process.Pid)) / 1e6
	return out, s.stop()
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func get(url string) ([]byte, error) {
	res, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}

// measureHour lists hours in the middle of a long archive and plays such that have
// been recorded behind it, other ones each time.
func (b *bench) measureHour(ctx context.Context, t *table, year *fake) error {
	began := time.Now()
	if err := b.recordSmall(year.dir, pick(b, 7500, 120)); err != nil {
		return err
	}
	s, err := b.serveM4F(ctx, filepath.Dir(year.dir))
	if err != nil {
		return err
	}
	n := 0
	playlist := func() ([]byte, error) {
		n++
		return get(fmt.Sprintf("http://%s/s/archive-%d-%d.m3u8", s.addr, began.Add(time.Duration(n)*10*time.Second).Unix(), pick(b, 3600, 60)))
	}
	if _, err := playlist(); err != nil {
		return errors.Join(err, s.stop())
	}
	name := fmt.Sprintf("one hour of %d days", year.hours/24)
	found, err := b.compare(ctx, t, name, float64(year.hours/24), []contender{
		{name: "ls", run: func(ctx context.Context) (sample, error) {
			from := year.first.Add(time.Duration(year.hours/3+n) * time.Hour)
			began := time.Now()
			out, err := exec.CommandContext(ctx, b.twindvr, "ls", year.dir, "--from", from.Format(time.RFC3339), "--to", from.Add(time.Hour).Format(time.RFC3339)).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("ls: %w: %s", err, out)
			}
			return sample{wall: ms(time.Since(began))}, nil
		}},
		{name: "playlist", run: func(context.Context) (sample, error) {
			began := time.Now()
			_, err := playlist()
			return sample{wall: ms(time.Since(began))}, err
		}},
	})
	if err := errors.Join(err, s.stop()); err != nil {
		return err
	}
	t.atMost("ls, "+name, found.values("ls", wall), 20, "ms")
	t.atMost("HLS playlist, "+name, found.values("playlist", wall), 20, "ms")
	return nil
}

// recordSmall adds so many seconds of the test stream, of a low bit rate, to an
// archive, dated from now on.
func (b *bench) recordSmall(dir string, seconds int) error {
	input := filepath.Join(b.dir, "small.ts")
	defer os.Remove(input)
	small := *b
	small.bitrate = 600_000
	if err := small.makeInput(input, int64(seconds)); err != nil {
		return err
	}
	procs, err := b.ingestInto(dir, input)
	if err != nil {
		return err
	}
	_, err = stopAll(procs)
	return err
}
