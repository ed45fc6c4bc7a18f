package m4fhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// ErrNoSalvage is wrapped by the error of a peer that lists no salvage at all: its
// twindvr is older than that, or it has no such stream.
var ErrNoSalvage = errors.New("it lists no salvage")

const (
	// maxEntries bounds the lines of a list of salvage.
	maxEntries = 2 * salvage.MaxEntries
	// maxListedItems bounds the holes, and eight times the segments, of a list.
	maxListedItems = 1 << 21
	// What a hash and a block take in a list, see the package salvage.
	hashBytes, blockBytes = 4, 10
	// maxRangesText is how many bytes of ranges a client puts into one request.
	maxRangesText = 4 << 10
)

// Salvage asks for the peer's entries of salvage that are for segments of a
// span, by start. The error wraps ErrNoSalvage where the peer does not know
// the question.
func (c *Client) Salvage(ctx context.Context, from, to m4f.UTC) ([]salvage.Entry, error) {
	var list []salvage.Entry
	items := 0
	err := c.lines(ctx, "salvage", span(from, to), maxEntries, func(line []byte) error {
		var w SalvageEntry
		if err := json.Unmarshal(line, &w); err != nil {
			return err
		}
		e, err := w.Entry()
		if err != nil {
			return err
		}
		if items += len(e.Holes) + 8*len(e.Segments); items > maxListedItems {
			return errors.New("too many holes and segments in all")
		}
		list = append(list, e)
		return nil
	})
	if StatusOf(err) == http.StatusNotFound {
		return nil, salvage404(err, ErrNoSalvage)
	}
	return list, err
}

// salvage404 says what kind of thing is not there, and keeps the peer's words.
func salvage404(err, kind error) error {
	var pe *PeerError
	if errors.As(err, &pe) {
		return &PeerError{pe.Peer, fmt.Errorf("%w: %w", kind, pe.Err)}
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// SalvageCopy is the copy of one of the peer's entries, as Salvage listed it: a
// salvage.Peer. Every read goes through throttle, which may be nil. Its methods'
// errors wrap salvage.ErrGone where the peer has the entry no more, and
// are *PeerError.
func (c *Client) SalvageCopy(e *salvage.Entry, throttle func(io.Reader) io.Reader) *SalvageCopy {
	return &SalvageCopy{c, e, throttle}
}

// SalvageCopy implements salvage.Peer.
type SalvageCopy struct {
	c        *Client
	e        *salvage.Entry
	throttle func(io.Reader) io.Reader
}

var _ salvage.Peer = (*SalvageCopy)(nil)

// Blocks implements salvage.Peer.
func (p *SalvageCopy) Blocks(ctx context.Context) ([]salvage.Block, error) {
	// Blocks are of at least one packet: the list has an end.
	body, err := p.get(ctx, "hashes", url.Values{"coarse": {""}}, func(size int64) bool { return size <= int64(p.e.Len())*blockBytes })
	if err != nil {
		return nil, err
	}
	blocks, err := salvage.ParseBlocks(body)
	if err != nil {
		return nil, p.bad("%w", err)
	}
	n := 0
	for _, b := range blocks {
		n += b.Packets
	}
	if n != p.e.Len() {
		return nil, p.bad("blocks of %d packets, listed are %d", n, p.e.Len())
	}
	return blocks, nil
}

// Hashes implements salvage.Peer.
func (p *SalvageCopy) Hashes(ctx context.Context, ranges []salvage.Range) ([]uint32, error) {
	var out []uint32
	err := p.ranges(ctx, "hashes", hashBytes, ranges, func(body []byte) error {
		hashes, err := salvage.ParseHashes(body)
		out = append(out, hashes...)
		return err
	})
	return out, err
}

// Packets implements salvage.Peer.
func (p *SalvageCopy) Packets(ctx context.Context, ranges []salvage.Range) ([]byte, error) {
	var out []byte
	err := p.ranges(ctx, "packets", salvage.PacketSize, ranges, func(body []byte) error {
		for i := 0; i < len(body); i += salvage.PacketSize {
			if body[i] != 0x47 {
				return errors.New("a packet that does not begin with 0x47")
			}
		}
		out = append(out, body...)
		return nil
	})
	return out, err
}

// ranges asks for so many bytes of each packet of some ranges, in as many
// requests as that takes.
func (p *SalvageCopy) ranges(ctx context.Context, what string, each int64, ranges []salvage.Range, fn func([]byte) error) error {
	for len(ranges) > 0 {
		text, n := rangesText(ranges)
		packets := int64(0)
		for _, r := range ranges[:n] {
			packets += int64(r.To - r.From)
		}
		ranges = ranges[n:]
		body, err := p.get(ctx, what, url.Values{"ranges": {text}}, func(size int64) bool { return size == packets*each })
		if err != nil {
			return err
		}
		if err := fn(body); err != nil {
			return p.bad("%w", err)
		}
	}
	return nil
}

// rangesText is how the first of some ranges are named in a request, and how many
// of them are.
func rangesText(ranges []salvage.Range) (text string, n int) {
	var b strings.Builder
	for ; n < len(ranges) && n < maxRanges && b.Len() < maxRangesText; n++ {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(ranges[n].From) + "-" + strconv.Itoa(ranges[n].To))
	}
	return b.String(), n
}

// get asks for something of the entry. Its length is the peer's to say, and to
// be right before anything is allocated.
func (p *SalvageCopy) get(ctx context.Context, what string, query url.Values, right func(size int64) bool) ([]byte, error) {
	res, err := p.c.get(ctx, false, "salvage/"+p.e.Name+"/"+what, query)
	if err != nil {
		if err = p.c.wrap(ctx, err); StatusOf(err) == http.StatusNotFound {
			err = salvage404(err, salvage.ErrGone)
		}
		return nil, err
	}
	defer res.Body.Close()
	if !right(res.ContentLength) || res.ContentLength < 0 {
		return nil, p.bad("%s of %d bytes", what, res.ContentLength)
	}
	in := io.Reader(res.Body)
	if p.throttle != nil {
		in = p.throttle(in)
	}
	body := make([]byte, res.ContentLength)
	if _, err := io.ReadFull(in, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrCut
		}
		return nil, p.c.wrap(ctx, fmt.Errorf("salvage %s: %w", p.e.Name, err))
	}
	return body, nil
}

func (p *SalvageCopy) bad(format string, args ...any) error {
	return &PeerError{p.c.peer, badAnswer("salvage %s: %w", p.e.Name, fmt.Errorf(format, args...))}
}
