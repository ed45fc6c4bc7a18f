package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// loop is after how many pictures those of the test stream look the same again.
const loop = 200

// decoded is what ffmpeg makes of an export.
type decoded struct {
	inside     []uint64 // numbers of the pictures in the file, in the order of decoding
	pictures   []uint64 // numbers of the pictures decoded, as they are shown
	unlike     []uint64 // of them, those that do not look as they were sent
	complaints []string // errors and warnings
}

// decode has ffmpeg decode the video of a file. The number of a decoded picture
// is that of the sample with its PTS.
func decode(ctx context.Context, file string) (*decoded, error) {
	looks, err := looksOnce()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := &decoded{inside: testsrc.FrameNumbers(b)}
	samples, _, err := frameCRCs(ctx, file, copied)
	if err != nil {
		return nil, err
	}
	if len(samples) != len(d.inside) {
		return nil, fmt.Errorf("%s has %d samples and %d pictures with a number", file, len(samples), len(d.inside))
	}
	number := map[int64]uint64{}
	for i, s := range samples {
		number[s.pts] = d.inside[i]
	}
	pictures, complaints, err := frameCRCs(ctx, file, shown)
	if err != nil {
		return nil, err
	}
	d.complaints = complaints
	for _, p := range pictures {
		n, ok := number[p.pts]
		if !ok {
			d.complaints = append(d.complaints, fmt.Sprintf("a picture is shown at %d, where there is none", p.pts))
			continue
		}
		d.pictures = append(d.pictures, n)
		if p.crc != looks[n%loop] {
			d.unlike = append(d.unlike, n)
		}
	}
	return d, nil
}

// What ffmpeg is to do with the pictures of a file.
var (
	// copied: list them as they are in the file.
	copied = how{out: []string{"-c", "copy"}}
	// shown: decode, and keep each picture and its own time. Where pictures are
	// missing, ffmpeg would rather believe the times of decoding.
	shown = how{in: []string{"-fflags", "+igndts"}, out: []string{"-fps_mode", "passthrough", "-enc_time_base", "-1"}}
)

// how are ffmpeg's options of a file that is read and of what is written.
type how struct{ in, out []string }

// frameCRC is a line of ffmpeg's framecrc.
type frameCRC struct {
	pts int64
	crc string
}

// frameCRCs has ffmpeg list the pictures of a file, in the order in which it
// reads or shows them, and says what it complained of.
func frameCRCs(ctx context.Context, file string, do how) (list []frameCRC, complaints []string, err error) {
	cmd := exec.CommandContext(ctx, "ffmpeg", slices.Concat(
		[]string{"-hide_banner", "-nostats", "-nostdin", "-v", "warning", "-copyts"}, do.in, []string{"-i", file, "-map", "0:v"}, do.out,
		[]string{"-f", "framecrc", "-"})...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("ffmpeg: %w", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		f := strings.Split(lines.Text(), ",")
		if strings.HasPrefix(f[0], "#") || len(f) < 6 {
			continue
		}
		pts, err := strconv.ParseInt(strings.TrimSpace(f[2]), 10, 64)
		if err == nil {
			list = append(list, frameCRC{pts, strings.TrimSpace(f[5])})
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, nil, fmt.Errorf("ffmpeg: %w: %s", err, errs.String())
	}
	for line := range strings.Lines(errs.String()) {
		complaints = append(complaints, strings.TrimSpace(line))
	}
	return list, complaints, nil
}

// looksOnce are the check sums of the pictures of the test stream as they look
// when they are decoded, by number modulo loop.
var looksOnce = sync.OnceValues(func() ([]string, error) {
	g, err := testsrc.New(testsrc.Options{StartPTS: testsrc.DefaultStartPTS, Duration: loop * 40 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "chaos-*.ts")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := g.WriteTo(f); err != nil {
		return nil, err
	}
	list, complaints, err := frameCRCs(context.Background(), f.Name(), shown)
	if err != nil || len(list) != loop || len(complaints) > 0 {
		return nil, fmt.Errorf("decoding the test stream: %d pictures, %q, %w", len(list), complaints, err)
	}
	// Shown order to numbers: the stream itself numbers in decoding order.
	samples, _, err := frameCRCs(context.Background(), f.Name(), copied)
	if err != nil || len(samples) != loop {
		return nil, fmt.Errorf("reading the test stream: %d samples: %w", len(samples), err)
	}
	order := map[int64]int{}
	for i, s := range samples {
		order[s.pts] = i
	}
	looks := make([]string, loop)
	for _, p := range list {
		n, ok := order[p.pts]
		if !ok {
			return nil, fmt.Errorf("decoding the test stream: no sample has the time %d", p.pts)
		}
		looks[n] = p.crc
	}
	return looks, nil
})
