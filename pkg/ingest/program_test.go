package ingest

import (
	"errors"
	"strings"
	"testing"
)

func TestSplitProgram(t *testing.T) {
	for _, c := range []struct {
		url, rest string
		program   uint16
	}{
		{"udp://239.1.1.1:1234?program=1", "udp://239.1.1.1:1234", 1},
		{"udp://239.1.1.1:1234?program=65535&interface=lo", "udp://239.1.1.1:1234?interface=lo", 65535},
		{"udp://239.1.1.1:1234?interface=lo&program=12&buffer_size=1M", "udp://239.1.1.1:1234?interface=lo&buffer_size=1M", 12},
		{"UDP://239.1.1.1:1234?program=3&program=3", "UDP://239.1.1.1:1234", 3},
		{"rtp://239.1.1.1:1234,239.1.1.2:1234?program=7&fec=on", "rtp://239.1.1.1:1234,239.1.1.2:1234?fec=on", 7},
		{"srt://host:9000?streamid=a%26b&program=2", "srt://host:9000?streamid=a%26b", 2},
		{"udp://239.1.1.1:1234", "udp://239.1.1.1:1234", 0},
		{"udp://239.1.1.1:1234?", "udp://239.1.1.1:1234", 0},
		{"http://host/a.ts?program=3", "http://host/a.ts?program=3", 0},
		{"/a/file?program=3", "/a/file?program=3", 0},
		{"-", "-", 0},
	} {
		rest, program, err := SplitProgram(c.url)
		if err != nil || rest != c.rest || program != c.program {
			t.Errorf("%s: %q, %d, %v; want %q, %d", c.url, rest, program, err, c.rest, c.program)
		}
	}
	for _, u := range []string{"udp://:1?program=0", "udp://:1?program=", "udp://:1?program=65536", "rtp://:1?program=-1", "srt://h:1?program=x", "udp://:1?program=1&program=2"} {
		_, _, err := SplitProgram(u)
		var ue *URLError
		if !errors.As(err, &ue) || !strings.Contains(err.Error(), "program=") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
