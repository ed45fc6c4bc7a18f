package mpegts_test

import (
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// registration is a registration descriptor.
func registration(format string) []byte { return append([]byte{0x05, 4}, format...) }

// TestClassify has every stream type that the registries of several bodies give
// to different things.
func TestClassify(t *testing.T) {
	const data, sections = m4f.CodecData, m4f.CodecSections
	hdmv := registration("HDMV")
	for _, c := range []struct {
		name    string
		typ     byte
		program []byte
		desc    []byte
		want    m4f.Codec
	}{
		{"MPEG-2 video", 0x02, nil, nil, m4f.CodecMPEG2Video},
		{"MPEG-4 part 2", 0x10, nil, nil, data},
		{"VVC", 0x33, nil, nil, data},
		{"AVS", 0x42, nil, nil, data},
		{"VC-1", 0xea, nil, registration("VC-1"), data},
		{"HEVC in private data", 0x06, nil, registration("HEVC"), m4f.CodecHEVC},
		{"LATM", 0x11, nil, []byte{0x7c, 1, 0x51}, m4f.CodecLATM},
		{"raw AAC", 0x1c, nil, nil, data},
		{"metadata", 0x15, nil, nil, data},
		{"metadata sections", 0x16, nil, nil, sections},
		{"AIT", 0x05, nil, []byte{0x6f, 3, 0, 0x10, 0xe0}, sections},
		{"object carousel", 0x0b, nil, []byte{0x13, 5, 0, 0, 0, 0, 0}, sections},
		{"KLV", 0x06, nil, registration("KLVA"), data},
		{"S302M", 0x06, nil, registration("BSSD"), data},
		{"AC-4", 0x06, nil, []byte{0x7f, 2, 0x15, 0}, data},
		{"AC-4, registered", 0x06, nil, registration("AC-4"), data},
		{"teletext", 0x06, nil, []byte{0x56, 5, 'e', 'n', 'g', 9, 0}, data},
		{"AC-3 of DVB", 0x06, nil, []byte{0x6a, 1, 0}, m4f.CodecAC3},
		{"E-AC-3 of DVB", 0x06, nil, []byte{0x7a, 1, 0}, m4f.CodecEAC3},
		{"DTS of DVB", 0x06, nil, []byte{0x7b, 5, 0x38, 0, 0, 0, 0}, m4f.CodecDTS},
		{"DTS-HD of DVB", 0x06, nil, []byte{0x7f, 2, 0x0e, 0}, m4f.CodecDTS},
		{"DTS, registered", 0x06, nil, registration("DTS2"), m4f.CodecDTS},
		{"Opus", 0x06, nil, mpegts.OpusDescriptors(2), m4f.CodecOpus},
		{"AC-3 of ATSC", 0x81, nil, nil, m4f.CodecAC3},
		{"AC-3 of HDMV", 0x81, hdmv, nil, m4f.CodecAC3},
		{"E-AC-3 of ATSC", 0x87, nil, nil, m4f.CodecEAC3},
		{"LPCM of HDMV", 0x80, hdmv, nil, data},
		{"TrueHD of HDMV", 0x83, hdmv, nil, data},
		{"E-AC-3 of HDMV", 0x84, hdmv, nil, m4f.CodecEAC3},
		{"0x84 of others", 0x84, nil, nil, data},
		{"secondary E-AC-3 of HDMV", 0xa1, hdmv, nil, m4f.CodecEAC3},
		{"secondary DTS of HDMV", 0xa2, hdmv, nil, m4f.CodecDTS},
		{"0xa2 of others", 0xa2, nil, nil, data},
		{"subtitles of HDMV", 0x90, hdmv, nil, data},
		{"subtitles of HDMV, stream registered", 0x90, nil, hdmv, data},
		{"A-law", 0x90, nil, nil, m4f.CodecALaw},
		{"mu-law", 0x91, nil, nil, m4f.CodecMuLaw},
		{"DTS of ffmpeg", 0x82, nil, nil, m4f.CodecDTS},
		{"DTS of HDMV", 0x82, hdmv, nil, m4f.CodecDTS},
		{"SCTE 27", 0x82, registration("SCTE"), nil, sections},
		{"DTS in a program of ATSC", 0x82, registration("GA94"), registration("DTS1"), m4f.CodecDTS},
		{"DTS-HD of HDMV", 0x85, hdmv, nil, m4f.CodecDTS},
		{"0x85 of others", 0x85, nil, nil, data},
		{"DTS-HD MA of HDMV", 0x86, hdmv, nil, m4f.CodecDTS},
		{"SCTE 35", 0x86, registration("CUEI"), nil, sections},
		{"SCTE 35, stream registered", 0x86, nil, registration("CUEI"), sections},
		{"SCTE 35, not registered", 0x86, nil, nil, sections},
		{"DTS-HD MA, registered", 0x86, nil, registration("DTS3"), m4f.CodecDTS},
		{"DTS", 0x8a, nil, nil, m4f.CodecDTS},
		{"a descriptor that says nothing", 0x06, nil, []byte{0x7f, 0}, data},
	} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmtWith(1, c.program, es{0x101, c.typ, c.desc}))
		f, _ := demux(0, m.out, nil)
		if len(f.programs) != 1 || len(f.programs[0].Tracks) != 1 {
			t.Errorf("%s: %v", c.name, f.programs)
			continue
		}
		tr := f.programs[0].Tracks[0]
		kind := mpegts.Data
		if c.want.IsVideo() {
			kind = mpegts.Video
		} else if c.want.IsAudio() {
			kind = mpegts.Audio
		}
		if tr.Codec != c.want || tr.Kind != kind {
			t.Errorf("%s: %v of kind %d, want %v", c.name, tr.Codec, tr.Kind, c.want)
		}
	}
}

// pmtWith makes a program map with descriptors of the program.
func pmtWith(program int, outer []byte, streams ...es) []byte {
	body := append([]byte{0xe1, 0x00, 0xf0, byte(len(outer))}, outer...)
	for _, s := range streams {
		body = append(body, s.typ, 0xe0|byte(s.pid>>8), byte(s.pid), 0xf0|byte(len(s.desc)>>8), byte(len(s.desc)))
		body = append(body, s.desc...)
	}
	return table(2, program, 0, 0, 0, body)
}

// A video that is carried as data has PES packets of any length; other data do
// not, and the memory that all of them may take is bounded.
func TestLargeData(t *testing.T) {
	big := make([]byte, 3<<19)
	for k := range big {
		big[k] = byte(k >> 8)
	}
	for _, c := range []struct {
		typ   byte
		whole bool
	}{{0x33, true}, {0x10, true}, {0x15, false}} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmt(1, 0, es{0x101, c.typ, nil}))
		for k := range int64(2) {
			m.packets(0x101, pes(0xe0, 3600*k, 3600*k, 0, big))
		}
		f, _ := demux(0, m.out, nil)
		if len(f.units) != 2 {
			t.Errorf("stream type %#x: %d PES packets of 1.5 MiB", c.typ, len(f.units))
		}
		for k, u := range f.units {
			if whole := len(u.Data) == len(big)+14; u.PTS != 3600*int64(k) || whole != c.whole || u.Marked == whole || len(f.losses) > 0 == whole {
				t.Errorf("stream type %#x: %d bytes at %d, marked %v", c.typ, len(u.Data), u.PTS, u.Marked)
			}
		}
	}
	var many []es
	for k := range 64 {
		many = append(many, es{0x101 + k, 0x33, nil})
	}
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, many...))
	m.packets(0x101, pes(0xe0, 0, 0, 0, slices.Concat(big, big)))
	m.packets(0x101, pes(0xe0, 0, 0, 0, nil))
	if f, _ := demux(0, m.out, nil); len(f.units) == 0 || len(f.units[0].Data) > 2<<20 {
		t.Errorf("a PES packet of %d bytes where 64 tracks share the memory", len(f.units[0].Data))
	}
}
