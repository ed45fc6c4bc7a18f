package hls

import (
	"strings"
	"testing"
)

// packedSeed is an ID3 tag with the time 0x1_0000_0001 and two frames at 48 kHz.
const packedSeed = "ID3\x04\x00\x00\x00\x00\x00\x3fPRIV\x00\x00\x00\x35\x00\x00" + timestampOwner + "\x00\x00\x00\x01\x00\x00\x00\x01" +
	"\xff\xf1\x4c\x80\x01\x1f\xfcA" + "\xff\xf0\x4c\x80\x01\x5f\xfc\x00\x00B"

func TestPacked(t *testing.T) {
	f, err := ReadPacked([]byte(packedSeed))
	if err != nil || len(f) != 2 || string(f[0].Data) != "A" || string(f[1].Data) != "B" || f[0].PTS != 1<<32+1 || f[1].PTS != 1<<32+1+1920 || f[1].Duration != 1920 {
		t.Errorf("%+v, %v", f, err)
	}
	if !IsPacked([]byte(packedSeed)) || !IsPacked([]byte(packedSeed[73:]+"padding")) || IsPacked([]byte("G@\x00\x10 a transport stream")) {
		t.Error("taken for something else")
	}
	for name, v := range map[string]struct{ in, err string }{
		"cut":      {packedSeed[:len(packedSeed)-1], "no whole frame"},
		"tag":      {packedSeed[:40], "runs past the end"},
		"no time":  {strings.Replace(packedSeed, "PRIV", "TXXX", 1), "when it begins"},
		"no tag":   {"\xff\xf1\x4c\x80\x01\x1f\xfcA", "when it begins"},
		"an AC-3":  {packedSeed[:73] + "\x0b\x77abcdefgh", "other codecs"},
		"no bytes": {"", "when it begins"},
	} {
		if _, err := ReadPacked([]byte(v.in)); err == nil || !strings.Contains(err.Error(), v.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPacked: no bytes bring the reader of packed audio down, and frames lie
// end to end in time.
func FuzzPacked(f *testing.F) {
	f.Add([]byte(packedSeed))
	f.Add([]byte(strings.Replace(packedSeed, "\x04", "\x03", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, _ := ReadPacked(b)
		for k := range frames {
			if len(frames[k].Data) == 0 || k > 0 && frames[k].PTS < frames[k-1].PTS {
				t.Fatalf("%+v", frames[k])
			}
		}
	})
}
