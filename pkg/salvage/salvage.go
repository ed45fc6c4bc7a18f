// Package salvage heals what no node has clean. The transport packets of a damaged
// or partial segment are kept beside the archive until a clean segment covers
// them; nodes that heard the same source compare the hashes of their packets,
// fetch those that they lack, merge both copies and cut the result again.
package salvage

import (
	"bytes"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// PacketSize is the size of a transport packet in bytes (13818-1 2.4.3.2).
const PacketSize = 188

// Copy is what one recorder has of a stretch of one program: transport packets
// in the order in which they were received, without null packets and other
// programs.
type Copy struct {
	Packets []byte // a multiple of PacketSize
	Holes   []Hole // in order of At
}

// Hole is a place where packets are missing as the kernel or a transport's
// sequence numbers tell; those that continuity counters show have none.
type Hole struct {
	At      int // it is ahead of this packet, counted from 0
	Missing int // so many packets at most
}

// Len is the number of packets.
func (c *Copy) Len() int { return len(c.Packets) / PacketSize }

// Packet is the k-th packet.
func (c *Copy) Packet(k int) []byte { return c.Packets[k*PacketSize : (k+1)*PacketSize] }

// Kept is what a segmenter hands out with a damaged or partial segment: the
// packets that it was made of, from the one before which nothing matters to it
// up to the one that completed it. What came ahead of the first segment of a run
// is handed out likewise, with a header of the time that it covers.
type Kept struct {
	Header  m4f.Header // of the segment
	Program uint16     // number of the program
	Target  int64      // D in ticks
	// First is the number of the first packet of Copy, counted over the kept
	// packets of the run: those of segments that follow each other overlap.
	First int64
	// Copy are the packets, or what is beside them in Pieces.
	Copy
	// Pieces, where set, are the packets instead of Copy.Packets: whole ones, one
	// piece behind the other, in memory that others use as well.
	Pieces [][]byte
	// Hold, where set, has the memory of Pieces kept as it is, beyond the call
	// that hands them out, until the function that it returns is called, from
	// whatever goroutine.
	Hold func() (release func())
}

// Len is the number of packets.
func (k *Kept) Len() int { return k.Size() / PacketSize }

// Size is how many bytes the packets are.
func (k *Kept) Size() int { return int(k.pieces().size()) }

// Join is a copy of the packets in one piece.
func (k *Kept) Join() []byte { return bytes.Join(k.pieces(), nil) }

func (k *Kept) pieces() pieces {
	if k.Pieces != nil {
		return k.Pieces
	}
	return pieces{k.Packets}
}

// pieces are packets in order, of which each piece holds whole ones.
type pieces [][]byte

// cut is packets from up to end, counted from 0.
func (p pieces) cut(from, end int64) (out pieces) {
	from, end = from*PacketSize, end*PacketSize
	for _, b := range p {
		n := int64(len(b))
		if lo, hi := max(from, 0), min(end, n); lo < hi {
			out = append(out, b[lo:hi])
		}
		from, end = from-n, end-n
	}
	return out
}

// size is how many bytes they are.
func (p pieces) size() (n int64) {
	for _, b := range p {
		n += int64(len(b))
	}
	return n
}
