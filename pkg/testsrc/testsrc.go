// Package testsrc makes an endless, deterministic H.264 and AAC transport
// stream for tests and demonstrations: a clip of 8 s with a visible clock, looped
// without a seam.
//
// PTS, DTS, PCR and continuity counters run on across the loops, every picture
// carries its own number (FrameNumbers), and equal options make equal bytes,
// whenever and wherever. 25 pictures a second of 640x360, a keyframe every 2 s,
// two B-pictures in a row; AAC of 48 kHz; PAT and PMT every 40 ms, a clock
// reference at least as often.
package testsrc

import (
	"fmt"
	"io"
	"time"
)

// Options say what to make. The zero value is the clip at its own bit rate,
// without end.
type Options struct {
	// Bitrate is that of the whole transport stream, bits per second, reached
	// with NAL units of noise behind the slices of the pictures, so that
	// recorded bytes have it too, and that packets differ as those of any
	// encoder do. 0: what the clip needs.
	Bitrate int64
	// StartPTS is the PTS of the first picture, ticks of 1/90000 s, modulo
	// 2^33. The first decoding time is 3600 ticks before.
	StartPTS int64
	// RestartEvery starts the encoder anew after each such time: the clip from
	// its beginning, timestamps and continuity counters too. Only the numbers
	// of the pictures run on. 0: never. It is rounded down to a picture.
	RestartEvery time.Duration
	// Duration ends the stream, rounded down to a picture. 0: never.
	Duration time.Duration
}

// DefaultStartPTS is where the command begins: 1 s.
const DefaultStartPTS = 90000

const (
	// framePeriod is the time of a picture.
	framePeriod = 40 * time.Millisecond
	// decodeDelay is how long a picture's first packet is sent before it is
	// to be decoded, ticks.
	decodeDelay = 18000
	// datagramPackets fill a datagram: 1316 bytes, as is usual.
	datagramPackets = 7
)

// Generator makes the stream. It is used by one goroutine.
type Generator struct {
	opt  Options
	clip *clip
	mux  *muxer

	frames  uint64 // pictures made
	end     uint64 // pictures to make, 0: no end
	restart uint64 // pictures between restarts, 0: none
	since   int64  // pictures since the last restart
	audio   int64  // audio frames since the last restart
	packets int64  // since the last restart

	queue []datagram
	rest  []byte        // packets that do not fill a datagram yet
	due   time.Duration // of the last of them
}

type datagram struct {
	bytes []byte
	due   time.Duration
}

// New returns a generator, or an error when the bit rate is too low for the clip.
func New(opt Options) (*Generator, error) {
	c, err := loadClip()
	if err != nil {
		return nil, err
	}
	opt.StartPTS &= wrap33 - 1
	g := &Generator{opt: opt, clip: c, mux: newMuxer(),
		end: uint64(opt.Duration / framePeriod), restart: uint64(opt.RestartEvery / framePeriod)}
	if opt.Bitrate < 0 || opt.Bitrate > 0 && opt.Bitrate < c.minBitrate() {
		return nil, fmt.Errorf("a bit rate of %d is too low: the clip needs %d", opt.Bitrate, c.minBitrate())
	}
	if opt.Duration < 0 || opt.Duration > 0 && g.end == 0 {
		return nil, fmt.Errorf("a duration of %v is less than a picture, %v", opt.Duration, framePeriod)
	}
	if opt.RestartEvery < 0 || opt.RestartEvery > 0 && g.restart == 0 {
		return nil, fmt.Errorf("restarting every %v is less than a picture, %v", opt.RestartEvery, framePeriod)
	}
	return g, nil
}

// minBitrate is what the clip needs, rounded up to 1000 bit/s.
func (c *clip) minBitrate() int64 {
	packets := int64(3 * loopFrames) // PAT, PMT, clock
	for i := range c.video {
		packets += int64(packetsFor(len(c.video[i].head) + len(c.video[i].body) + len(appendFrameSEI(nil, 0)) + 19))
	}
	for _, a := range c.audio {
		packets += int64((len(a) + 14 + 183) / 184)
	}
	return (packets*packetSize*8/8 + 999) / 1000 * 1000 // in 8 s
}

// Next returns the next datagram, the time at which it is due after the first
// moment of the stream, and whether there was one: false after the stream's
// end. A datagram holds seven packets; the last before a restart or the end may
// hold fewer. It is the caller's to keep.
func (g *Generator) Next() (p []byte, due time.Duration, ok bool) {
	for len(g.queue) == 0 {
		if g.end > 0 && g.frames == g.end {
			if len(g.rest) == 0 {
				return nil, 0, false
			}
			g.flush()
			break
		}
		g.period()
	}
	d := g.queue[0]
	g.queue = g.queue[1:]
	return d.bytes, d.due, true
}

// Frames is the number of pictures made so far.
func (g *Generator) Frames() uint64 { return g.frames }

// WriteTo writes the stream to its end, without pauses. It needs a Duration.
func (g *Generator) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for p, _, ok := g.Next(); ok; p, _, ok = g.Next() {
		n, err := w.Write(p)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// flush queues the packets that do not fill a datagram.
func (g *Generator) flush() {
	if len(g.rest) > 0 {
		g.queue = append(g.queue, datagram{g.rest, g.due})
	}
	g.rest = nil
}

// period makes the packets of one picture's time: a picture and the audio of
// the same time, spread evenly over 40 ms.
func (g *Generator) period() {
	if g.restart > 0 && g.frames > 0 && g.frames%g.restart == 0 {
		g.flush()
		g.mux, g.since, g.audio, g.packets = newMuxer(), 0, 0, 0
	}
	list := g.interleave()
	start := time.Duration(g.frames) * framePeriod
	buf := make([]byte, 0, len(g.rest)+len(list)*packetSize)
	buf = append(buf, g.rest...)
	for i, p := range list {
		buf = append(buf, p...)
		due := start + framePeriod*time.Duration(i+1)/time.Duration(len(list))
		if len(buf) == datagramPackets*packetSize {
			g.queue = append(g.queue, datagram{buf[:len(buf):len(buf)], due})
			buf = buf[len(buf):]
		}
		g.due = due
	}
	g.rest = buf
	g.frames++
	g.since++
	g.packets += int64(len(list))
}

// interleave returns the packets of a period in order: tables, the picture with
// a clock reference in its first packet, a second clock reference half a
// period later, the audio spread over the picture.
func (g *Generator) interleave() [][]byte {
	audio := g.audioPackets()
	pes, count, key := g.picturePES(len(audio))
	base := g.opt.StartPTS - reorder - decodeDelay + g.since*frameTicks
	clock := func(i int) int64 {
		const wrap = wrap33 * 300
		return ((base*300+frameTicks*300*int64(i)/int64(count))%wrap + wrap) % wrap
	}
	list := g.mux.tables()
	video := g.mux.packets(pidVideo, pes, clock(len(list)), key)
	list, video = append(list, video[0]), video[1:]
	half := max(count/2, len(list))
	for sent, i := 0, len(list); i < count; i++ {
		switch {
		case i == half:
			list = append(list, g.mux.clockPacket(pidVideo, clock(i), len(video)))
		case sent < len(audio) && (len(video) == 0 || i*(len(audio)+1) >= (sent+1)*count):
			list = append(list, audio[sent])
			sent++
		default:
			list, video = append(list, video[0]), video[1:]
		}
	}
	return list
}

// audioPackets returns the audio of this period, one frame a PES packet.
func (g *Generator) audioPackets() [][]byte {
	var list [][]byte
	for ; g.audio*audioTicks < (g.since+1)*frameTicks; g.audio++ {
		frame := g.clip.audio[g.audio%loopAudio]
		pts := g.opt.StartPTS + g.audio*audioTicks
		pes := append(pesHeader(0xc0, len(frame), pts, pts), frame...)
		list = append(list, g.mux.packets(pidAudio, pes, noPCR, false)...)
	}
	return list
}

// picturePES returns the PES packet of this period's picture, filled up to the
// bit rate, and the number of packets of the whole period with so many of audio.
func (g *Generator) picturePES(audio int) (pes []byte, count int, key bool) {
	p := &g.clip.video[g.since%loopFrames]
	dts := g.opt.StartPTS - reorder + g.since*frameTicks
	pts := g.opt.StartPTS + g.since/loopFrames*loopFrames*frameTicks + p.pts
	es := append([]byte(nil), p.head...)
	es = appendFrameSEI(es, g.frames)
	header := len(pesHeader(0xe0, 0, pts, dts))
	others := 3 + audio // tables and clock
	packets := packetsFor(header + len(es) + len(p.body))
	if want := g.allowed() - others; want > packets {
		packets = want
	}
	gap := packets*184 - pcrField - header - len(es) - len(p.body)
	es = append(es, p.body...)
	if g.opt.Bitrate > 0 && gap >= minFill {
		es = appendFill(es, gap, g.frames)
	}
	return append(pesHeader(0xe0, len(es), pts, dts), es...), others + packets, p.key
}

// allowed is how many packets the bit rate leaves for this period. Where a
// picture took more, later ones get less.
func (g *Generator) allowed() int {
	const packetBits = packetSize * 8 * 25
	return int((g.since+1)*g.opt.Bitrate/packetBits - g.packets)
}
