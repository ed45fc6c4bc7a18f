package render

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Picture is one picture of an archive, as an MP4 file.
type Picture struct {
	UTC m4f.UTC // at which it is shown
	// Tag names the file's bytes: two Pictures with one Tag are equal.
	Tag string
	MP4 []byte
	// Settled: the segment that holds the asked time is in the archive, so that
	// nothing but a healing changes which picture is the answer.
	Settled bool
}

// ErrNoPicture is returned where there is no picture to show.
var ErrNoPicture = errors.New("no picture was recorded in the two hours up to that time")

// previewReach is how far back from the asked time a picture is looked for: at
// first, and if there is none, further.
var previewReach = []time.Duration{30 * time.Second, 10 * time.Minute, 2 * time.Hour}

// maxPicture bounds the bytes of a picture.
const maxPicture = 16 << 20

// Preview returns the last picture that decoding can begin at and that is shown
// at or before a time, of the first video track. It reads the index, the heads of
// one segment or a few, and the picture.
func Preview(ctx context.Context, a *archive.Stream, at m4f.UTC) (*Picture, error) {
	for _, reach := range previewReach {
		var list []archive.Piece
		err := a.EachPiece(max(at.Add(-m4f.Ticks(reach)), 1), at+1, func(p archive.Piece) {
			if p.Start() <= at {
				e := *p.Element
				list = append(list, archive.Piece{Element: &e, Part: p.Part})
			}
		})
		if err != nil {
			return nil, err
		}
		for i := len(list) - 1; i >= 0; i-- {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			pic, err := previewOf(a, list[i], at)
			if err != nil || pic != nil {
				return pic, err
			}
		}
	}
	return nil, ErrNoPicture
}

// previewOf is the picture of a piece, nil if it has none.
func previewOf(a *archive.Stream, p archive.Piece, at m4f.UTC) (*Picture, error) {
	open, err := a.OpenElement(p.Element)
	if err != nil {
		return nil, err
	}
	defer open.Close()
	pl := &plan{length: p.To - p.From}
	m, err := pl.know(p.Element, open.Init)
	if err != nil {
		return nil, err
	}
	tracks := mergeTracks([]*mapping{m})
	if !tracks[0].info.Config.Codec.IsVideo() {
		return nil, nil
	}
	pl.tracks = tracks[:1] // its number is 1
	c := &chunk{placed: &placed{Piece: p}}
	defer c.close()
	f, err := openHead(a, p.Element, m.init, c)
	if err == nil {
		err = c.fill(m, f)
	}
	if err != nil {
		return nil, err
	}
	key := c.keyframe(tracks[0], int64(at-p.Start()))
	if key == nil {
		return nil, nil
	}
	pic := &Picture{UTC: p.Start().Add(key.pts), Settled: at < p.Stop()}
	var off [8]byte
	binary.BigEndian.PutUint64(off[:], uint64(key.off))
	sum := sha256.Sum256(append(p.ID[:], off[:]...))
	pic.Tag = hex.EncodeToString(sum[:16])
	pic.MP4, err = c.picture(pl, key)
	return pic, err
}

// keyframe is the last sync sample of a track that is presented at or before a
// time, and in the part that is shown: ticks from the start of the piece.
func (c *chunk) keyframe(t *track, at int64) (key *sample) {
	for k := range c.parts {
		if c.parts[k].track != t {
			continue
		}
		for j := range c.parts[k].samples {
			s := &c.parts[k].samples[j]
			if s.sync && s.pts >= 0 && s.pts <= at && s.pts < c.To-c.From && s.len <= maxPicture && (key == nil || s.pts >= key.pts) {
				key = s
			}
		}
	}
	return key
}

// picture is a file of one picture.
func (c *chunk) picture(pl *plan, key *sample) ([]byte, error) {
	data := make([]byte, key.len)
	if _, err := c.file.File.ReadAt(data, c.file.Offset+int64(key.off)); err != nil {
		return nil, unreadable(c.Element, err)
	}
	s := *key
	s.dts, s.pts, s.dur = 0, 0, max(s.dur, 1)
	tables := map[*track]*table{pl.tracks[0]: {}}
	for k := range c.parts {
		if c.parts[k].track != pl.tracks[0] {
			continue
		}
		if err := tables[pl.tracks[0]].add(&part{mapped: c.parts[k].mapped, samples: []sample{s}}, 0); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	w := &walker{plan: pl}
	if err := w.writeHead(&out, tables, uint64(len(data))); err != nil {
		return nil, err
	}
	out.Write(data)
	return out.Bytes(), nil
}
