package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// decoded is what ffmpeg makes of an export.
type decoded struct {
	pictures   []uint64 // numbers of the pictures decoded, as they are shown
	complaints []string // errors and warnings
}

// decode has ffmpeg decode the video of a file and reads the number that each
// decoded picture carries.
func decode(ctx context.Context, file string) (*decoded, error) {
	cmd := exec.CommandContext(ctx, "ffmpeg", "-hide_banner", "-nostats", "-nostdin", "-loglevel", "level+info",
		"-i", file, "-map", "0:v", "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-")
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("ffmpeg: %w", err)
	}
	d := &decoded{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		d.line(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return d, fmt.Errorf("ffmpeg: %w: %s", err, strings.Join(d.complaints, "; "))
	}
	return d, nil
}

// line reads one line of the filter showinfo.
func (d *decoded) line(s string) {
	if _, data, ok := strings.Cut(s, "User Data="); ok {
		// The next line may follow without a line feed.
		if i := strings.IndexFunc(data, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }); i >= 0 {
			data = data[:i]
		}
		b, _ := hex.DecodeString(data)
		if text, ok := strings.CutPrefix(string(b), "twindvr testsrc frame "); ok && len(text) >= 16 {
			if n, err := strconv.ParseUint(text[:16], 10, 64); err == nil {
				d.pictures = append(d.pictures, n)
			}
		}
	}
	if strings.Contains(s, "[error]") || strings.Contains(s, "[warning]") || strings.Contains(s, "[fatal]") {
		d.complaints = append(d.complaints, s)
	}
}

// pictureNumbers reads the numbers of the pictures in an export without
// decoding them.
func pictureNumbers(file string) ([]uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return testsrc.FrameNumbers(b), nil
}
