package ingest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/sdp"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// Parameter sets of H.264 of pictures of 320x180 and 192x108, and parts of pictures.
var (
	spsA = []byte{0x67, 0x42, 0xc0, 0x0c, 0xd9, 0x01, 0x41, 0x9f, 0x9f, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0x20, 0xf1, 0x42, 0xa4, 0x80}
	spsB = []byte{0x67, 0x42, 0xc0, 0x0b, 0xd9, 0x03, 0x0f, 0xfb, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x3c, 0x50, 0xa9, 0x20}
	ppsA = []byte{0x68, 0xcb, 0x83, 0xcb, 0x20}
	ppsB = []byte{0x68, 0xcb, 0x83, 0xcb, 0x21}
	idr  = []byte{0x65, 0x88, 0x84, 0x11}
	pic  = []byte{0x41, 0x9a, 0x22, 0x33}
	aud  = []byte{0x09, 0xf0}
)

// rig is a session whose packets a test makes up.
type rig struct {
	src  *rtspSource
	desc *description.Session
	seq  []uint16
	now  time.Time
}

func newRig(t testing.TB, formats ...format.Format) *rig {
	t.Helper()
	r := &rig{src: &rtspSource{wake: make(chan struct{}, 1)}, desc: &description.Session{}, seq: make([]uint16, len(formats)), now: time.Unix(1_700_000_000, 0)}
	for _, f := range formats {
		typ := description.MediaTypeAudio
		if _, ok := f.(*format.H264); ok {
			typ = description.MediaTypeVideo
		}
		r.desc.Medias = append(r.desc.Medias, &description.Media{Type: typ, Formats: []format.Format{f}})
	}
	p, media, left, err := rtspProgram(r.desc)
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	r.src.session = newRTSPSession(r.src, p, media)
	return r
}

// send sends a packet of medium k.
func (r *rig) send(k int, stamp uint32, marker bool, payload []byte) {
	r.seq[k]++
	r.src.session.packet(k, &rtp.Packet{Header: rtp.Header{Version: 2, Marker: marker, PayloadType: 96, SequenceNumber: r.seq[k], Timestamp: stamp, SSRC: uint32(k) + 7}, Payload: payload}, r.now)
}

// picture sends NAL units, each in a packet.
func (r *rig) picture(k int, stamp uint32, nals ...[]byte) {
	for j, nal := range nals {
		r.send(k, stamp, j == len(nals)-1, nal)
	}
}

// report sends a sender report.
func (r *rig) report(k int, at time.Time, stamp uint32) {
	sec, frac := uint64(at.Unix()+2208988800), uint64(at.Nanosecond())<<32/uint64(time.Second)
	r.src.session.report(k, &rtcp.SenderReport{SSRC: uint32(k) + 7, NTPTime: sec<<32 | frac, RTPTime: stamp})
}

// drain returns what is to be read.
func (r *rig) drain() (units []mpegts.Unit, lost []uint16) {
	for b := r.src.take(); b != nil; b = r.src.take() {
		units = append(units, b.Units...)
		lost = append(lost, b.LostPIDs...)
	}
	return units, lost
}

func avcFormat(sets bool) *format.H264 {
	f := &format.H264{PayloadTyp: 96, PacketizationMode: 1}
	if sets {
		f.SPS, f.PPS = spsA, ppsA
	}
	return f
}

// nalsOf names the types of the NAL units of a unit.
func nalsOf(u *mpegts.Unit) string {
	out := ""
	for _, r := range u.NALs {
		out += fmt.Sprintf("%d ", u.Data[r.Off]&31)
	}
	return strings.TrimSpace(out)
}

// TestRTSPParameterSets has keyframes given the parameter sets in force, of the
// description and of the stream.
func TestRTSPParameterSets(t *testing.T) {
	r := newRig(t, avcFormat(true))
	r.now = r.now.Add(time.Minute)
	r.picture(0, 0, idr)                                   // sets of the description
	r.picture(0, 3600, aud, pic)                           // none
	r.picture(0, 7200, aud, idr)                           // behind the delimiter
	r.picture(0, 10800, spsB, ppsB, idr)                   // its own: they change
	r.picture(0, 14400, idr)                               // the new ones
	r.picture(0, 18000, []byte{0x67, 0x42, 0xc0, 0x1e, 1}) // alone: for the picture that follows
	r.picture(0, 21600, ppsA, idr)
	r.now = r.now.Add(time.Minute)
	r.picture(0, 25200, pic)
	units, lost := r.drain()
	want := []string{"7 8 5", "9 1", "9 7 8 5", "7 8 5", "7 8 5", "7 8 5", "1"}
	if len(units) != len(want) || len(lost) > 0 {
		t.Fatalf("%d units, want %d; lost %v", len(units), len(want), lost)
	}
	for k := range units {
		u := &units[k]
		if got := nalsOf(u); got != want[k] || u.Key != strings.HasSuffix(want[k], "5") || u.Marked {
			t.Errorf("unit %d: %s, want %s; keyframe %v, marked %v", k, got, want[k], u.Key, u.Marked)
		}
		if d := m4f.Diff33(u.PTS, units[0].PTS); k > 0 && k < 5 && d != int64(k)*3600 || u.DTS != u.PTS {
			t.Errorf("unit %d: %d ticks from the first, DTS %d", k, d, m4f.Diff33(u.DTS, u.PTS))
		}
	}
	if u := units[4]; !slices.Equal(u.Data[3:3+len(spsB)], spsB) {
		t.Errorf("the fifth picture has other parameter sets than those that came last: %x", u.Data)
	}
}

// TestRTSPBrokenPictures has what lacks packets marked, or not delivered.
func TestRTSPBrokenPictures(t *testing.T) {
	fragments := func(first, last bool) []byte {
		h := byte(5)
		if first {
			h |= 0x80
		}
		if last {
			h |= 0x40
		}
		return []byte{0x7c, h, 0x88, 1, 2}
	}
	r := newRig(t, avcFormat(true))
	r.now = r.now.Add(time.Minute)
	r.send(0, 0, true, fragments(false, true)) // recording begins in its middle
	r.picture(0, 3600, []byte{0x41, 0x22, 1})  // a slice, not the first
	r.picture(0, 7200, pic)
	r.send(0, 10800, false, fragments(true, false))
	r.seq[0]++ // lost: the middle of a picture
	r.send(0, 10800, true, fragments(false, true))
	r.picture(0, 14400, pic)
	r.picture(0, 18000, pic)
	r.seq[0] += 5 // lost: whole pictures
	r.picture(0, 36000, pic)
	r.picture(0, 39600, pic)
	r.now = r.now.Add(time.Minute)
	r.picture(0, 43200, pic)
	units, lost := r.drain()
	var got []string
	for k := range units {
		got = append(got, fmt.Sprint(m4f.Diff33(units[k].PTS, units[0].PTS)/3600, units[k].Marked))
	}
	want := "[0 true 1 false 3 true 4 false 9 true 10 false 11 false]"
	if fmt.Sprint(got) != want || len(lost) < 2 || r.src.stats.Lost != 6 {
		t.Errorf("got %v, want %s; losses told %v, %+v", got, want, lost, r.src.stats)
	}
}

// TestRTSPWithoutMarker has a camera that does not mark the end of a picture.
func TestRTSPWithoutMarker(t *testing.T) {
	r := newRig(t, avcFormat(true))
	r.now = r.now.Add(time.Minute)
	for k := range uint32(10) {
		if k == 5 {
			r.now = r.now.Add(time.Minute)
		}
		r.send(0, k*3600, false, idr)
		r.send(0, k*3600, false, pic)
	}
	units, _ := r.drain()
	for k := range units {
		if d := m4f.Diff33(units[k].PTS, units[0].PTS); d != int64(k)*3600 || nalsOf(&units[k]) != "7 8 5 1" {
			t.Errorf("unit %d: %s at %d", k, nalsOf(&units[k]), d)
		}
	}
	if len(units) != 9 {
		t.Errorf("%d units", len(units))
	}
}

// TestRTSPTimes relates the tracks' times: by sender reports, by arrival where
// there are none, and by reports that come late or drift.
func TestRTSPTimes(t *testing.T) {
	type feed struct {
		reports, late, drift bool
		wrong                time.Duration // of the camera's clock
		skew                 int64         // ticks by which sound arrives late
		want                 int64         // by how much it may be off at the end
	}
	for name, c := range map[string]feed{
		"reports":                      {reports: true, skew: 20000, want: 3},
		"reports of a wrong clock":     {reports: true, wrong: 3 * time.Hour, skew: 20000, want: 3},
		"no reports":                   {skew: 4500, want: 4500},
		"reports after ten seconds":    {reports: true, late: true, skew: 20000, want: slewFrom},
		"the clocks run apart":         {reports: true, drift: true, want: slewFrom},
		"far off, reports come late":   {reports: true, late: true, skew: 3 * m4f.Timescale, want: slewFrom},
		"without reports, and no skew": {want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			sound := &format.G711{PayloadTyp: 0, MULaw: true, SampleRate: 8000, ChannelCount: 1}
			r := newRig(t, avcFormat(true), sound)
			start := r.now
			var got [2][]mpegts.Unit
			const seconds = 120
			for ms := 0; ms < seconds*1000; ms += 20 {
				at := start.Add(time.Duration(ms) * time.Millisecond)
				if ms%40 == 0 {
					r.now = at
					r.picture(0, 0xffff0000+uint32(ms*90), idr)
				}
				// The camera's sound card runs 200 ppm fast.
				n := uint32(ms * 8)
				if c.drift {
					n += uint32(ms * 8 * 200 / 1_000_000)
				}
				r.now = at.Add(time.Duration(c.skew) * time.Second / m4f.Timescale)
				r.send(1, 0x7fffff00+n, false, make([]byte, 160))
				if c.reports && ms%5000 == 0 && (!c.late || ms >= 10000) {
					ntp := at.Add(c.wrong)
					r.report(0, ntp, 0xffff0000+uint32(ms*90))
					r.report(1, ntp, 0x7fffff00+n)
				}
				units, lost := r.drain()
				if len(lost) > 0 {
					t.Fatalf("lost %v", lost)
				}
				for _, u := range units {
					got[u.Track.PID-rtspFirstPID] = append(got[u.Track.PID-rtspFirstPID], u)
				}
			}
			v, a := got[0], got[1]
			if len(v) != seconds*25 || len(a) != seconds*50 {
				t.Fatalf("%d pictures, %d frames", len(v), len(a))
			}
			if d := m4f.Diff33(v[0].PTS, int64(m4f.UTCOf(start))); max(d, -d) > 90 {
				t.Errorf("media time begins %d ticks from the wall clock", d)
			}
			if d := m4f.Diff33(a[len(a)-1].PTS, v[len(v)-1].PTS) - 1800; max(d, -d) > c.want {
				t.Errorf("sound is %d ticks off, want %d at most", d, c.want)
			}
			steps := 0
			for k := 1; k < len(a); k++ {
				if d := m4f.Diff33(a[k].PTS, a[k-1].PTS) - a[k-1].Duration; max(d, -d) > a[k].Duration/4 {
					steps++
				}
			}
			if steps > 1 || steps == 1 && c.skew < slewMost {
				t.Errorf("the time of sound steps %d times", steps)
			}
		})
	}
}

// TestRTSPSilentTrack has sound that begins after some seconds, and another
// source take a track over.
func TestRTSPSilentTrack(t *testing.T) {
	r := newRig(t, avcFormat(true), &format.Opus{PayloadTyp: 96, ChannelCount: 2})
	for k := range uint32(250) {
		r.now = r.now.Add(40 * time.Millisecond)
		r.picture(0, k*3600, idr)
		if k >= 200 {
			r.send(1, 77+k*1920, true, []byte{0xfc, 1, 2}) // 20 ms
		}
	}
	units, lost := r.drain()
	if len(units) != 300 || len(lost) > 0 {
		t.Fatalf("%d units, lost %v", len(units), lost)
	}
	at := slices.IndexFunc(units, func(u mpegts.Unit) bool { return u.Track.Kind == mpegts.Audio })
	if d := m4f.Diff33(units[at].PTS, units[at-1].PTS); d != 0 {
		t.Errorf("the first frame of sound lies %d ticks from the picture that it came with", d)
	}
	if len(r.src.session.program.Tracks) != 2 || units[at].Duration != 1800 {
		t.Errorf("%+v, %d", r.src.session.program.Tracks, units[at].Duration)
	}
	last := units[len(units)-1].PTS
	r.src.session.tracks[0].ssrc = 1 // another begins
	for k := range uint32(3) {
		r.now = r.now.Add(40 * time.Millisecond)
		r.picture(0, 12345678+k*3600, idr)
	}
	units, lost = r.drain()
	if len(units) != 3 || len(lost) == 0 {
		t.Fatalf("%d units, lost %v", len(units), lost)
	}
	if d := m4f.Diff33(units[0].PTS, last); d != 3600 {
		t.Errorf("another source's time goes on by %d ticks", d)
	}
}

// TestRTSPTransportStream hands on a transport stream as it is.
func TestRTSPTransportStream(t *testing.T) {
	r := newRig(t, &format.MPEGTS{})
	for k := range 5 {
		if k == 3 {
			r.seq[0] += 2
		}
		r.send(0, 0, false, []byte{0x47, byte(k)})
	}
	var got []byte
	lost := -1
	for b := r.src.take(); b != nil; b = r.src.take() {
		if b.Lost > 0 {
			lost = len(got)
		}
		for _, d := range b.Datagrams {
			got = append(got, d...)
		}
	}
	if fmt.Sprintf("%x", got) != "47004701470247034704" || lost != 6 || r.src.stats.Lost != 2 {
		t.Errorf("%x, a loss at %d, %+v", got, lost, r.src.stats)
	}
}

// TestRTSPShort has a session end before its tracks' times were settled: what
// has come is handed out.
func TestRTSPShort(t *testing.T) {
	r := newRig(t, avcFormat(false), &format.Opus{PayloadTyp: 96, ChannelCount: 2})
	sps := bytes.Clone(spsA)
	sps[3] = 0xff // a level that is none, and no depth
	for k := range uint32(5) {
		r.now = r.now.Add(40 * time.Millisecond)
		r.picture(0, k*3600, sps[:5], ppsA, idr)
		r.send(1, k*1920, true, []byte{0xfc, 1, 2})
	}
	if units, _ := r.drain(); len(units) > 0 {
		t.Fatalf("%d units before their times are settled", len(units))
	}
	r.src.session.end()
	if units, lost := r.drain(); len(units) != 10 || len(lost) > 0 {
		t.Errorf("%d units, lost %v", len(units), lost)
	}
}

// TestRTSPQueue bounds what waits to be read, and tells what was dropped.
func TestRTSPQueue(t *testing.T) {
	r := newRig(t, avcFormat(true))
	big := append(slices.Clone(idr), bytes.Repeat([]byte{0x55}, 1<<20)...)
	for k := range uint32(100) {
		r.now = r.now.Add(40 * time.Millisecond)
		r.picture(0, k*3600, big)
	}
	n := 0
	for b := r.src.take(); b != nil; b = r.src.take() {
		n += len(b.Units)
	}
	r.now = r.now.Add(time.Second)
	r.picture(0, 200*3600, idr)
	b := r.src.take()
	if n < 30 || n > 70 || b == nil || !b.LostUnits || r.src.bytes != 0 {
		t.Errorf("%d units of a megabyte kept; then %+v; %d bytes", n, b, r.src.bytes)
	}
}

// TestDecodeOrder gives pictures of any pattern the times of their decoding: in
// order, never behind the PTS, and the same wherever one begins to look.
func TestDecodeOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		told := rapid.Bool().Draw(rt, "the depth is told")
		step := int64(rapid.SampledFrom([]int{1500, 3003, 3600, 9000}).Draw(rt, "step"))
		var pts []int64
		keys, depth := []int{}, 0
		for g, at := 0, int64(0); g < 12; g++ {
			keys = append(keys, len(pts))
			pts = append(pts, at*step)
			at++
			for range 1 + rng.IntN(8) { // groups of an anchor and what precedes it
				n := int64(rng.IntN(4))
				pts = append(pts, (at+n)*step)
				if n >= 3 && rng.IntN(2) == 0 { // a pyramid
					pts = append(pts, (at+1)*step, at*step, (at+2)*step)
				} else {
					for k := range n {
						pts = append(pts, (at+k)*step)
					}
				}
				at += n + 1
			}
		}
		var all []timedPicture
		for _, p := range pts {
			all = append(all, timedPicture{pts: p})
		}
		depth = inversions(all)
		run := func(from int) []int64 {
			d, out := newDecodeOrder(), []int64(nil)
			tell := -1
			if told {
				tell = depth
			}
			for _, p := range all[from:] {
				d.add(p, tell, func(p timedPicture) { out = append(out, p.dts) })
			}
			d.flush(func(p timedPicture) { out = append(out, p.dts) })
			return out
		}
		full := run(0)
		if len(full) != len(all) {
			rt.Fatalf("%d of %d pictures", len(full), len(all))
		}
		for k, dts := range full {
			if k > 0 && dts < full[k-1] || told && (dts > pts[k] || k > 0 && dts == full[k-1]) {
				rt.Fatalf("picture %d: DTS %d, PTS %d, the one before %v", k, dts, pts[k], full[max(k-1, 0)])
			}
		}
		if !told {
			return
		}
		from := keys[rng.IntN(len(keys)-1)]
		part := run(from)
		for k := depth; k < len(part); k++ {
			if part[k] != full[from+k] {
				rt.Fatalf("begun at %d, picture %d has the DTS %d, otherwise %d", from, from+k, part[k], full[from+k])
			}
		}
	})
}

// sdpOf is a session's description as it comes from a camera.
const sdpSeed = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n" +
	"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LAHtoCgL/lwEQ=,aM48gA==\r\na=control:trackID=0\r\n" +
	"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\na=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=1190\r\na=control:trackID=1\r\n"

// TestRTSPProgram maps what cameras offer.
func TestRTSPProgram(t *testing.T) {
	add := func(s string) string { return sdpSeed + s }
	for name, c := range map[string]struct{ sdp, want string }{
		"H.264 and AAC":   {sdpSeed, "256:h264:1b 257:aac:0f"},
		"H.265":           {strings.Replace(sdpSeed, "H264", "H265", 1), "256:hevc:24 257:aac:0f"},
		"HE-AAC":          {strings.Replace(sdpSeed, "config=1190", "config=2B118800", 1), "256:h264:1b 257:latm:11"},
		"AAC of 0 Hz":     {strings.Replace(sdpSeed, "config=1190", "config=2f800000118800", 1), "256:h264:1b not audio (mpeg4-generic/48000/2)"},
		"G.711":           {add("m=audio 0 RTP/AVP 8\r\nm=audio 0 RTP/AVP 0\r\n"), "256:h264:1b 257:aac:0f 258:alaw:90 259:mulaw:91"},
		"LATM":            {add("m=audio 0 RTP/AVP 98\r\na=rtpmap:98 MP4A-LATM/48000/2\r\na=fmtp:98 cpresent=0; config=400023203fc0\r\n"), "256:h264:1b 257:aac:0f 258:latm:11"},
		"Opus and AC-3":   {add("m=audio 0 RTP/AVP 98\r\na=rtpmap:98 opus/48000/2\r\nm=audio 0 RTP/AVP 99\r\na=rtpmap:99 AC3/48000/2\r\n"), "256:h264:1b 257:aac:0f 258:opus:06 259:ac3:81"},
		"metadata, MJPEG": {add("m=application 0 RTP/AVP 98\r\na=rtpmap:98 vnd.onvif.metadata/90000\r\nm=video 0 RTP/AVP 26\r\n"), "256:h264:1b 257:aac:0f not application (vnd.onvif.metadata/90000), video (JPEG/90000)"},
		"back channel":    {add("m=audio 0 RTP/AVP 0\r\na=sendonly\r\n"), "256:h264:1b 257:aac:0f"},
		"transport":       {add("m=video 0 RTP/AVP 33\r\n"), "transport stream"},
		"nothing":         {"v=0\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n", "the session has nothing that can be recorded: video (JPEG/90000)"},
	} {
		if got := mapSDP(c.sdp); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// mapSDP says in words what is made of a description.
func mapSDP(text string) string {
	desc, err := sessionOf(text)
	if err != nil {
		return err.Error()
	}
	p, media, left, err := rtspProgram(desc)
	if err != nil {
		return err.Error()
	}
	if p == nil {
		if len(media) != 1 || !media[0].isTS() {
			return "no map"
		}
		return "transport stream"
	}
	var out []string
	for _, t := range p.Tracks {
		out = append(out, fmt.Sprintf("%d:%v:%02x", t.PID, t.Codec, t.StreamType))
	}
	if len(left) > 0 {
		out = append(out, "not "+strings.Join(left, ", "))
	}
	return strings.Join(out, " ")
}

func sessionOf(text string) (*description.Session, error) {
	var s sdp.SessionDescription
	if err := s.Unmarshal([]byte(text)); err != nil {
		return nil, err
	}
	d := &description.Session{}
	return d, d.Unmarshal(&s)
}

// FuzzRTSP reads a description and packets of its media: a length of two bytes,
// a medium, flags, a timestamp and a payload each.
func FuzzRTSP(f *testing.F) {
	f.Add(sdpSeed, []byte{0, 10, 0, 1, 0, 0, 0, 0, 0x65, 0x88, 0x84, 1, 0, 9, 1, 1, 0, 0, 4, 0, 0, 16, 0})
	f.Add(strings.Replace(sdpSeed, "H264", "H265", 1), []byte{0, 9, 0, 1, 0, 0, 0, 0, 0x26, 1, 0xaf})
	f.Add(sdpSeed+"m=audio 0 RTP/AVP 98\r\na=rtpmap:98 MP4A-LATM/90000\r\na=fmtp:98 cpresent=1\r\n", []byte{0, 9, 2, 1, 0, 0, 0, 0, 0x20, 0, 0x11})
	f.Add(sdpSeed+"m=audio 0 RTP/AVP 98\r\na=rtpmap:98 MP4A-LATM/48000/2\r\na=fmtp:98 cpresent=0; config=400023203fc0\r\n", []byte{0, 9, 2, 1, 0, 0, 0, 0, 3, 1, 2})
	f.Add(sdpSeed+"m=audio 0 RTP/AVP 14\r\nm=audio 0 RTP/AVP 99\r\na=rtpmap:99 AC3/48000/2\r\n", []byte{0, 12, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfd, 0, 9, 3, 1, 0, 0, 0, 0, 0, 1, 0x0b})
	f.Add(strings.Replace(sdpSeed, "config=1190", "config=2f800000118800", 1), []byte{0, 16, 1, 1, 0, 0, 0, 0, 0, 16, 0, 0x20, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, text string, packets []byte) {
		desc, err := sessionOf(text)
		if err != nil {
			return
		}
		p, media, _, err := rtspProgram(desc)
		if err != nil {
			return
		}
		src := &rtspSource{wake: make(chan struct{}, 1)}
		src.session = newRTSPSession(src, p, media)
		now := time.Unix(1_700_000_000, 0)
		for seq := uint16(0); len(packets) >= 8; seq++ {
			n := min(max(int(binary.BigEndian.Uint16(packets)), 8), len(packets))
			one := packets[:n]
			packets = packets[n:]
			now = now.Add(time.Duration(one[3]) * 10 * time.Millisecond)
			k := int(one[2]) % len(media)
			if one[3]&4 != 0 {
				seq++
			}
			if one[3]&8 != 0 {
				src.session.report(k, &rtcp.SenderReport{SSRC: uint32(k), NTPTime: uint64(binary.BigEndian.Uint32(one[4:])) << 20, RTPTime: uint32(seq)})
			}
			src.session.packet(k, &rtp.Packet{Header: rtp.Header{Marker: one[3]&1 != 0, SequenceNumber: seq, Timestamp: binary.BigEndian.Uint32(one[4:]), SSRC: uint32(k)}, Payload: one[8:]}, now)
			for b := src.take(); b != nil; b = src.take() {
				for k := range b.Units {
					checkUnit(t, &b.Units[k])
				}
			}
		}
		if src.bytes != 0 {
			t.Errorf("%d bytes are counted as waiting, and none are", src.bytes)
		}
	})
}

// checkUnit wants a unit to be one that a segmenter may be given.
func checkUnit(t *testing.T, u *mpegts.Unit) {
	switch {
	case u.Track == nil || len(u.Data) == 0:
		t.Errorf("an empty unit: %+v", u)
	case u.PTS < 0 || u.PTS >= m4f.Wrap || u.DTS < 0 || u.DTS >= m4f.Wrap:
		t.Errorf("times beyond 33 bits: %d, %d", u.PTS, u.DTS)
	case u.Track.Kind == mpegts.Audio && (u.Duration < 0 || u.NALs != nil):
		t.Errorf("no frame of sound: %+v", u)
	}
}
