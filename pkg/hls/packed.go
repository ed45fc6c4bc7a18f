package hls

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Frame is a frame of packed audio; times of 1/90 000 s.
type Frame struct {
	PTS, Duration int64
	Header        []byte // ADTS
	Data          []byte // without it
}

// IsPacked says whether a segment is packed audio (RFC 8216 3.4): frames, with
// an ID3 tag before them that has the time of the first.
func IsPacked(b []byte) bool {
	return len(b) > 10 && (string(b[:3]) == "ID3" || b[0] == 0xff && b[1]&0xf6 == 0xf0)
}

// timestampOwner is the owner of the ID3 frame that tells when a segment
// begins (RFC 8216 3.4).
const timestampOwner = "com.apple.streaming.transportStreamTimestamp\x00"

// ReadPacked reads a segment of packed audio whose frames are AAC in ADTS; other
// codecs are not supported. It returns what it has read ahead of an error.
// Any input is safe.
func ReadPacked(b []byte) ([]Frame, error) {
	start, dated := int64(0), false
	for len(b) >= 10 && string(b[:3]) == "ID3" {
		n := 10 + int(synchsafe(b[6:]))
		if n > len(b) {
			return nil, errors.New("packed audio: the ID3 tag runs past the end")
		}
		if t, ok := timestamp(b[10:n], b[3]); ok {
			start, dated = t, true
		}
		b = b[n:]
	}
	if !dated {
		return nil, errors.New("packed audio: no ID3 tag tells when it begins")
	}
	var out []Frame
	before := int64(0) // sampling rate
	for samples := int64(0); len(b) > 0; samples += 1024 {
		if len(out) == maxSamples {
			return out, fmt.Errorf("packed audio: more than %d frames", maxSamples)
		}
		rate, head, size, ok := adts(b)
		if !ok || size > len(b) {
			return out, fmt.Errorf("packed audio: no whole frame of AAC in ADTS %d bytes before the end; other codecs are not supported", len(b))
		}
		if rate != before && len(out) > 0 { // counted anew from where the last frame ends
			last := &out[len(out)-1]
			start, samples = last.PTS+last.Duration, 0
		}
		before = rate
		at := samples * m4f.Timescale / rate
		out = append(out, Frame{PTS: start + at, Duration: (samples+1024)*m4f.Timescale/rate - at, Header: b[:min(size, 64)], Data: b[head:size:size]})
		b = b[size:]
	}
	return out, nil
}

// synchsafe reads a number of four times seven bits.
func synchsafe(b []byte) uint32 {
	return uint32(b[0]&127)<<21 | uint32(b[1]&127)<<14 | uint32(b[2]&127)<<7 | uint32(b[3]&127)
}

// timestamp finds the time in the frames of an ID3 tag of version 2.3 or 2.4.
func timestamp(b []byte, version byte) (int64, bool) {
	for len(b) >= 10 && b[0] != 0 {
		n := binary.BigEndian.Uint32(b[4:])
		if version >= 4 {
			n = synchsafe(b[4:])
		}
		if uint64(n) > uint64(len(b)-10) {
			return 0, false
		}
		body := b[10 : 10+n]
		if string(b[:4]) == "PRIV" && len(body) == len(timestampOwner)+8 && string(body[:len(timestampOwner)]) == timestampOwner {
			return int64(binary.BigEndian.Uint64(body[len(timestampOwner):]) & (m4f.Wrap - 1)), true
		}
		b = b[10+n:]
	}
	return 0, false
}

var adtsRates = [...]int64{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

// adts reads the header of a frame with one raw data block (ISO/IEC 14496-3
// 1.A.2.2): its sampling rate, the size of the header and of the whole.
func adts(b []byte) (rate int64, head, size int, ok bool) {
	if len(b) < 7 || b[0] != 0xff || b[1]&0xf6 != 0xf0 || b[6]&3 != 0 || int(b[2]>>2&15) >= len(adtsRates) {
		return
	}
	head = 7
	if b[1]&1 == 0 {
		head = 9
	}
	size = int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5]>>5)
	return adtsRates[b[2]>>2&15], head, size, size > head
}
