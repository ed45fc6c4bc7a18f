package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/ac3"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg1audio"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/opus"
	"github.com/pion/rtp"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// rtspFirstPID is the PID of a session's first track; the others follow in the
// order of its description.
const rtspFirstPID = 0x100

// maxRTSPTracks bounds the tracks of a session.
const maxRTSPTracks = 32

// rtspMedia is a medium of a session that is recorded.
type rtspMedia struct {
	media  *description.Media
	format format.Format
	track  *mpegts.Track // nil: a transport stream
	rate   int64         // Hz of its timestamps
	// renew makes the depacketizer anew, as after a loss.
	renew func() error
	// pictures and frames take a packet and return the NAL units of a whole
	// picture, or whole frames; one of them is nil. More packets may be needed:
	// then there is no error and nothing else.
	pictures func(*rtp.Packet) ([][]byte, error)
	frames   func(*rtp.Packet) ([]rtpFrame, error)
	sets     [][]byte // parameter sets out of the description
}

// rtpFrame is an audio frame: what its sample holds, the header for the sample
// entry, and its length in units of the medium's clock.
type rtpFrame struct {
	data, header []byte
	length       int64
}

// rtspProgram says what of a session is recorded, as a program map where it is
// no transport stream; left names the rest.
func rtspProgram(desc *description.Session) (p *mpegts.Program, media []*rtspMedia, left []string, err error) {
	var tracks []mpegts.Track
	for _, m := range desc.Medias {
		if m.IsBackChannel {
			continue
		}
		one, t := (*rtspMedia)(nil), mpegts.Track{}
		for _, f := range m.Formats {
			if one, t = rtspFormat(f); one != nil {
				one.media, one.format = m, f
				break
			}
		}
		switch {
		case one == nil:
			left = append(left, describeMedia(m))
		case len(media) == maxRTSPTracks:
			left = append(left, "a track beyond the 32nd")
		default:
			media = append(media, one)
			t.PID = rtspFirstPID + uint16(len(tracks))
			tracks = append(tracks, t)
		}
	}
	if k := slices.IndexFunc(media, func(m *rtspMedia) bool { return m.isTS() }); k >= 0 {
		return nil, media[k : k+1], left, nil // it holds the rest
	}
	if len(media) == 0 {
		if len(left) == 0 {
			return nil, nil, nil, errors.New("the session has no media")
		}
		return nil, nil, nil, fmt.Errorf("the session has nothing that can be recorded: %s", strings.Join(left, ", "))
	}
	p = mpegts.NewProgram(1, 0, tracks)
	for k, m := range media {
		m.track = p.Track(rtspFirstPID + uint16(k))
	}
	p.PCRPID = p.Leading().PID
	return p, media, left, nil
}

func (m *rtspMedia) isTS() bool { _, ok := m.format.(*format.MPEGTS); return ok }

// describeMedia names a medium for an operator.
func describeMedia(m *description.Media) string {
	var codecs []string
	for _, f := range m.Formats {
		name := f.RTPMap()
		if name == "" {
			name = fmt.Sprintf("RTP payload type %d", f.PayloadType())
		}
		codecs = append(codecs, name)
	}
	return fmt.Sprintf("%s (%s)", m.Type, strings.Join(codecs, ", "))
}

// rtspFormat says how a format is recorded: nil, it is not.
func rtspFormat(f format.Format) (*rtspMedia, mpegts.Track) {
	m := &rtspMedia{rate: int64(f.ClockRate())}
	var t mpegts.Track
	switch f := f.(type) {
	case *format.H264:
		t = mpegts.Track{Codec: m4f.CodecH264, StreamType: 0x1b}
		m.h264(f)
	case *format.H265:
		t = mpegts.Track{Codec: m4f.CodecHEVC, StreamType: 0x24}
		m.h265(f)
	case *format.MPEG4Audio:
		t = m.aac(f)
	case *format.MPEG4AudioLATM:
		t = m.latm(f)
	case *format.Opus:
		t = m.opus(f)
	case *format.G711:
		t = m.g711(f)
	case *format.MPEG1Audio:
		t = mpegts.Track{Codec: m4f.CodecMPEGAudio, StreamType: 0x03}
		m.mpegAudio(f)
	case *format.AC3:
		t = mpegts.Track{Codec: m4f.CodecAC3, StreamType: 0x81}
		m.ac3(f)
	case *format.MPEGTS:
		return m, t
	default:
		return nil, t
	}
	if m.renew == nil || m.rate <= 0 || m.renew() != nil {
		return nil, t
	}
	return m, t
}

func (m *rtspMedia) h264(f *format.H264) {
	m.sets = [][]byte{f.SPS, f.PPS}
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.pictures = d.Decode
		}
		return err
	}
}

func (m *rtspMedia) h265(f *format.H265) {
	m.sets = [][]byte{f.VPS, f.SPS, f.PPS}
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.pictures = d.Decode
		}
		return err
	}
}

// aac takes AAC of RFC 3640.
func (m *rtspMedia) aac(f *format.MPEG4Audio) mpegts.Track {
	rate := int64(f.Config.SampleRate)
	if rate <= 0 { // as an explicit one may say
		return mpegts.Track{}
	}
	length, header, t := m.asc(f.Config)
	if f.Config.ExtensionSampleRate > 0 {
		// The clock is that of what comes out (RFC 3640 4.1, and its users).
		m.rate = int64(f.Config.ExtensionSampleRate)
	}
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.frames = each(d.Decode, func([]byte) ([]byte, int64) { return header, length * m.rate / rate })
		}
		return err
	}
	return t
}

// asc says of an AudioSpecificConfig how many samples of its own rate a frame
// has, and how it is recorded: as AAC in ADTS where an ADTS header can say as
// much, else with the configuration.
func (m *rtspMedia) asc(c *mpeg4audio.AudioSpecificConfig) (length int64, header []byte, t mpegts.Track) {
	length = 1024
	if c.FrameLengthFlag {
		length = 960
	}
	plain := c.Type >= 1 && c.Type <= 4 && c.ExtensionType == 0 && !c.FrameLengthFlag && c.ChannelConfig >= 1 && c.ChannelConfig <= 7
	if k := slices.Index(adtsRates, c.SampleRate); plain && k >= 0 && !c.DependsOnCoreCoder {
		n := c.ChannelConfig
		header = []byte{0xff, 0xf1, byte(c.Type-1)<<6 | byte(k)<<2 | n>>2, n << 6, 0, 0x1f, 0xfc}
		return length, header, mpegts.Track{Codec: m4f.CodecAAC, StreamType: 0x0f}
	}
	header, err := c.Marshal()
	if err != nil {
		header = nil
	}
	return length, header, mpegts.Track{Codec: m4f.CodecLATM, StreamType: 0x11}
}

// adtsRates are the sampling frequencies by index (ISO/IEC 14496-3 table 1.18).
var adtsRates = []int{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

// latm takes AAC of RFC 6416, its configuration in the description or in the
// stream.
func (m *rtspMedia) latm(f *format.MPEG4AudioLATM) mpegts.Track {
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err != nil {
			return err
		}
		mux := f.StreamMuxConfig
		m.frames = func(pkt *rtp.Packet) ([]rtpFrame, error) {
			element, err := d.Decode(pkt)
			if err != nil || element == nil {
				return nil, needMore(err)
			}
			e := mpeg4audio.AudioMuxElement{MuxConfigPresent: f.CPresent, StreamMuxConfig: mux}
			if err := e.Unmarshal(element); err != nil {
				return nil, err
			}
			mux = e.StreamMuxConfig
			return m.latmFrames(&e)
		}
		return nil
	}
	return mpegts.Track{Codec: m4f.CodecLATM, StreamType: 0x11}
}

// latmFrames returns the frames of an element's first layer.
func (m *rtspMedia) latmFrames(e *mpeg4audio.AudioMuxElement) ([]rtpFrame, error) {
	if len(e.StreamMuxConfig.Programs) == 0 || len(e.StreamMuxConfig.Programs[0].Layers) == 0 {
		return nil, errors.New("a LATM element without a layer")
	}
	c := e.StreamMuxConfig.Programs[0].Layers[0].AudioSpecificConfig
	if c == nil || c.SampleRate <= 0 {
		return nil, errors.New("a LATM element without a configuration")
	}
	header, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	length := int64(1024)
	if c.FrameLengthFlag {
		length = 960
	}
	var out []rtpFrame
	for _, sub := range e.Payloads {
		if len(sub) > 0 && len(sub[0]) > 0 && len(sub[0][0]) > 0 {
			out = append(out, rtpFrame{slices.Clone(sub[0][0]), header, length * m.rate / int64(c.SampleRate)})
		}
	}
	return out, nil
}

// opus takes Opus (RFC 7587). Its channels are told by descriptors, as in a
// transport stream; up to two are any mixture of one and two.
func (m *rtspMedia) opus(f *format.Opus) mpegts.Track {
	n := max(f.ChannelCount, 2)
	if n > 8 {
		return mpegts.Track{}
	}
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.frames = each(one(d.Decode), func(b []byte) ([]byte, int64) { return nil, opus.PacketDuration2(b) })
		}
		return err
	}
	return mpegts.Track{Codec: m4f.CodecOpus, StreamType: 0x06, Descriptors: []byte{0x05, 4, 'O', 'p', 'u', 's', 0x7f, 2, 0x80, byte(n)}}
}

// g711 takes G.711: the length of a frame is that of its bytes.
func (m *rtspMedia) g711(f *format.G711) mpegts.Track {
	n := f.ChannelCount
	if n < 1 || n > 255 {
		return mpegts.Track{}
	}
	header := binary.BigEndian.AppendUint32([]byte{byte(n)}, uint32(f.SampleRate))
	m.renew = func() error {
		m.frames = func(pkt *rtp.Packet) ([]rtpFrame, error) {
			if len(pkt.Payload) == 0 {
				return nil, errors.New("a packet of G.711 without samples")
			}
			return []rtpFrame{{slices.Clone(pkt.Payload), header, int64(len(pkt.Payload) / n)}}, nil
		}
		return nil
	}
	if f.MULaw {
		return mpegts.Track{Codec: m4f.CodecMuLaw, StreamType: 0x91}
	}
	return mpegts.Track{Codec: m4f.CodecALaw, StreamType: 0x90}
}

// mpegAudio takes MPEG-1 and MPEG-2 audio (RFC 2250).
func (m *rtspMedia) mpegAudio(f *format.MPEG1Audio) {
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.frames = each(d.Decode, func(b []byte) ([]byte, int64) {
				var h mpeg1audio.FrameHeader
				if h.Unmarshal(b) != nil || h.SampleRate <= 0 {
					return nil, 0
				}
				return b[:min(len(b), 64)], int64(h.SampleCount()) * m.rate / int64(h.SampleRate)
			})
		}
		return err
	}
}

// ac3 takes AC-3 (RFC 4184).
func (m *rtspMedia) ac3(f *format.AC3) {
	m.renew = func() error {
		d, err := f.CreateDecoder()
		if err == nil {
			m.frames = each(d.Decode, func(b []byte) ([]byte, int64) {
				var h ac3.SyncInfo
				if h.Unmarshal(b) != nil || h.SampleRate() <= 0 {
					return nil, 0
				}
				return b[:min(len(b), 64)], 1536 * m.rate / int64(h.SampleRate())
			})
		}
		return err
	}
}

// one makes a depacketizer of single frames one of several.
func one(decode func(*rtp.Packet) ([]byte, error)) func(*rtp.Packet) ([][]byte, error) {
	return func(pkt *rtp.Packet) ([][]byte, error) {
		b, err := decode(pkt)
		return [][]byte{b}, err
	}
}

// each makes frames of what a depacketizer returns; info tells a frame's header
// and length. The memory of packets is not kept.
func each(decode func(*rtp.Packet) ([][]byte, error), info func([]byte) ([]byte, int64)) func(*rtp.Packet) ([]rtpFrame, error) {
	return func(pkt *rtp.Packet) ([]rtpFrame, error) {
		list, err := decode(pkt)
		if err != nil {
			return nil, needMore(err)
		}
		var out []rtpFrame
		for _, b := range list {
			if len(b) == 0 {
				continue
			}
			b = slices.Clone(b)
			header, length := info(b)
			if length <= 0 {
				return out, errors.New("a frame whose header makes no sense")
			}
			out = append(out, rtpFrame{b, header, length})
		}
		return out, nil
	}
}
