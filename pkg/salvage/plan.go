package salvage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// ErrMismatch is returned when a peer's packets are not those that it lists.
var ErrMismatch = errors.New("the peer's packets are not those that it lists")

// Range is a run of packets of a copy, From to To, To not included.
type Range struct{ From, To int }

// rangesLen is the number of packets of all ranges.
func rangesLen(ranges []Range) int {
	n := 0
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n
}

// Peer is where the copy of another node can be read.
type Peer interface {
	// Blocks returns all blocks of the copy.
	Blocks(ctx context.Context) ([]Block, error)
	// Hashes returns the hashes of the packets of some ranges, end to end.
	Hashes(ctx context.Context, ranges []Range) ([]uint32, error)
	// Packets returns the packets of some ranges, end to end.
	Packets(ctx context.Context, ranges []Range) ([]byte, error)
}

// Fetch makes the copy that a peer has, byte for byte, out of the own one and
// as few packets of the peer as may be. The result has no holes: a list of
// them comes with the peer's entry.
func Fetch(ctx context.Context, own *Copy, peer Peer) (*Copy, error) {
	blocks, err := peer.Blocks(ctx)
	if err != nil {
		return nil, err
	}
	p, err := NewPlan(own, blocks)
	if err != nil {
		return nil, err
	}
	if need := p.NeedHashes(); len(need) > 0 {
		hashes, err := peer.Hashes(ctx, need)
		if err != nil {
			return nil, err
		}
		if err := p.SetHashes(hashes); err != nil {
			return nil, err
		}
	}
	for {
		need := p.NeedPackets()
		if len(need) == 0 {
			return p.Copy()
		}
		packets, err := peer.Packets(ctx, need)
		if err != nil {
			return nil, err
		}
		if err := p.SetPackets(packets); err != nil {
			return nil, err
		}
	}
}

// Plan works out which packets of a peer's copy the own one does not have, and
// puts the peer's copy together. Blocks that both have are taken from the own
// copy, and so are packets with the same hash in other blocks; every block is
// checked against its sum, so a collision of hashes costs another question and
// never a wrong packet. The steps, in this order:
//
//	NewPlan(own, the peer's blocks)
//	SetHashes(the hashes of NeedHashes), unless it needs none
//	SetPackets(the packets of NeedPackets), until it needs none
//	Copy
type Plan struct {
	own     *Copy
	blocks  []Block
	from    []int   // the first packet of each block, and the end
	source  []int32 // of each packet: its number in own, fetch or fetched
	fetched []byte  // of packets that are fetched, at their place
	hashed  bool    // what the unmatched blocks hold is known
	checked []bool  // of each block: its bytes are known to be right
}

const (
	fetch   = -1
	fetched = -2
)

// NewPlan compares a peer's blocks with the own copy.
func NewPlan(own *Copy, blocks []Block) (*Plan, error) {
	total, err := countPackets(blocks)
	if err != nil {
		return nil, err
	}
	p := &Plan{own: own, blocks: blocks, from: make([]int, 0, len(blocks)+1),
		source: make([]int32, total), checked: make([]bool, len(blocks))}
	have, k := make(map[Block]int32), int32(0)
	for _, b := range Blocks(own) {
		have[b] = k
		k += int32(b.Packets)
	}
	at := 0
	for i, b := range blocks {
		p.from = append(p.from, at)
		k, ok := have[b]
		p.checked[i] = ok
		for ; b.Packets > 0; b.Packets-- {
			if p.source[at] = fetch; ok {
				p.source[at] = k
				k++
			}
			at++
		}
	}
	p.from = append(p.from, at)
	return p, nil
}

// NeedHashes are the ranges of the peer's packets whose hashes SetHashes is to
// be given; none where all blocks are known.
func (p *Plan) NeedHashes() []Range {
	if p.hashed {
		return nil
	}
	return p.lacking()
}

// SetHashes is told the hashes of the packets of NeedHashes, end to end.
func (p *Plan) SetHashes(hashes []uint32) error {
	need := p.NeedHashes()
	if len(hashes) != rangesLen(need) {
		return fmt.Errorf("%d hashes came for %d packets", len(hashes), rangesLen(need))
	}
	p.hashed = true
	if len(hashes) == 0 {
		return nil
	}
	have := make(map[uint32]int32, p.own.Len())
	for k, h := range Hashes(p.own) {
		if old, ok := have[h]; !ok {
			have[h] = int32(k)
		} else if old != fetch && !bytes.Equal(p.own.Packet(int(old)), p.own.Packet(k)) {
			have[h] = fetch // which of them is not known
		}
	}
	for _, r := range need {
		for at := r.From; at < r.To; at++ {
			if k, ok := have[hashes[0]]; ok {
				p.source[at] = k
			}
			hashes = hashes[1:]
		}
	}
	return p.check()
}

// NeedPackets are the ranges of the peer's packets that SetPackets is to be
// given next; none when the copy is complete.
func (p *Plan) NeedPackets() []Range { return p.lacking() }

// SetPackets is given the packets of NeedPackets, end to end. ErrMismatch: the
// peer does not have what it listed.
func (p *Plan) SetPackets(packets []byte) error {
	need := p.NeedPackets()
	if len(packets) != rangesLen(need)*PacketSize {
		return fmt.Errorf("%d bytes came for %d packets", len(packets), rangesLen(need))
	}
	if p.fetched == nil && len(packets) > 0 {
		p.fetched = make([]byte, len(p.source)*PacketSize)
	}
	p.hashed = true
	for _, r := range need {
		packets = packets[copy(p.fetched[r.From*PacketSize:r.To*PacketSize], packets):]
		for at := r.From; at < r.To; at++ {
			p.source[at] = fetched
		}
	}
	return p.check()
}

// Copy is the peer's copy, without holes.
func (p *Plan) Copy() (*Copy, error) {
	if n := rangesLen(p.lacking()); n > 0 {
		return nil, fmt.Errorf("%d packets are still to be fetched", n)
	}
	out := make([]byte, 0, len(p.source)*PacketSize)
	for at := range p.source {
		out = append(out, p.packet(at)...)
	}
	return &Copy{Packets: out}, nil
}

// lacking are the packets to be fetched.
func (p *Plan) lacking() []Range {
	var out []Range
	for at, k := range p.source {
		if k != fetch {
			continue
		}
		if n := len(out); n > 0 && out[n-1].To == at {
			out[n-1].To++
		} else {
			out = append(out, Range{at, at + 1})
		}
	}
	return out
}

func (p *Plan) packet(at int) []byte {
	if k := p.source[at]; k >= 0 {
		return p.own.Packet(int(k))
	}
	return p.fetched[at*PacketSize : (at+1)*PacketSize]
}

// check compares every block that is complete with its sum. Where it differs,
// own packets have the hash of others: those are fetched too.
func (p *Plan) check() error {
	var block []byte
	for i, b := range p.blocks {
		if p.checked[i] {
			continue
		}
		source := p.source[p.from[i]:p.from[i+1]]
		if slices.Contains(source, fetch) {
			continue
		}
		block = block[:0]
		for at := p.from[i]; at < p.from[i+1]; at++ {
			block = append(block, p.packet(at)...)
		}
		if p.checked[i] = sum(block) == b.Sum; p.checked[i] {
			continue
		}
		guessed := false
		for k := range source {
			if source[k] >= 0 {
				source[k], guessed = fetch, true
			}
		}
		if !guessed {
			return ErrMismatch
		}
	}
	return nil
}
