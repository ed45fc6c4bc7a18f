package testsrc

import (
	_ "embed"
	"errors"
	"fmt"
	"sync"
)

// clipTS is made by scripts/make-clip.sh: 8 s of H.264 with closed GOPs on PID
// 0x100 and AAC on PID 0x101.
//
//go:embed clip.ts
var clipTS []byte

const (
	frameTicks = 3600 // of a video frame: 25 a second
	audioTicks = 1920 // of an audio frame: 1024 samples of 48 kHz
	loopFrames = 200  // video frames of the clip
	loopAudio  = 375  // audio frames of the clip, as long as the video frames
	reorder    = 3600 // PTS - DTS of a keyframe
)

// clip is the embedded clip taken apart.
type clip struct {
	video []picture // in decode order
	audio [][]byte  // ADTS frames
}

// picture is a coded video frame.
type picture struct {
	head []byte // access unit delimiter and parameter sets, with start codes
	body []byte // slices, with start codes
	pts  int64  // ticks after the clip's first picture's PTS
	key  bool
}

var loadClip = sync.OnceValues(func() (*clip, error) { return parseClip(clipTS) })

// parseClip takes the clip apart. It knows what make-clip.sh makes and no more.
func parseClip(ts []byte) (*clip, error) {
	c := &clip{}
	video, audio := pesPackets(ts, 0x100), pesPackets(ts, 0x101)
	for _, pes := range video {
		p, err := parsePicture(pes)
		if err != nil {
			return nil, fmt.Errorf("embedded clip, picture %d: %w", len(c.video), err)
		}
		c.video = append(c.video, p)
	}
	for _, pes := range audio {
		for es := pes[9+int(pes[8]):]; len(es) >= 7; {
			n := int(es[3]&3)<<11 | int(es[4])<<3 | int(es[5])>>5
			if n < 7 || n > len(es) {
				return nil, errors.New("embedded clip: an audio frame is cut")
			}
			c.audio, es = append(c.audio, es[:n]), es[n:]
		}
	}
	if len(c.video) != loopFrames || len(c.audio) != loopAudio {
		return nil, fmt.Errorf("embedded clip has %d pictures and %d audio frames, not %d and %d",
			len(c.video), len(c.audio), loopFrames, loopAudio)
	}
	first := c.video[0].pts
	for i := range c.video {
		c.video[i].pts -= first
	}
	return c, nil
}

// pesPackets returns the PES packets of a PID.
func pesPackets(ts []byte, pid int) [][]byte {
	var list [][]byte
	for ; len(ts) >= 188; ts = ts[188:] {
		p := ts[:188]
		if int(p[1]&0x1f)<<8|int(p[2]) != pid || p[3]&0x10 == 0 {
			continue
		}
		if p[1]&0x40 != 0 {
			list = append(list, nil)
		}
		start := 4
		if p[3]&0x20 != 0 {
			start = 5 + int(p[4])
		}
		list[len(list)-1] = append(list[len(list)-1], p[start:]...)
	}
	return list
}

func parsePicture(pes []byte) (picture, error) {
	if len(pes) < 14 || pes[7]&0x80 == 0 {
		return picture{}, errors.New("no PTS")
	}
	t := pes[9:]
	p := picture{pts: int64(t[0]&0xe)<<29 | int64(t[1])<<22 | int64(t[2]&0xfe)<<14 | int64(t[3])<<7 | int64(t[4])>>1}
	es := pes[9+int(pes[8]):]
	for i := 0; i+4 < len(es); i++ {
		if es[i] != 0 || es[i+1] != 0 || es[i+2] != 1 {
			continue
		}
		if kind := es[i+3] & 0x1f; kind == 1 || kind == 5 {
			p.key = kind == 5
			if i > 0 && es[i-1] == 0 {
				i--
			}
			p.head, p.body = es[:i], es[i:]
			return p, nil
		}
	}
	return picture{}, errors.New("no slice")
}
