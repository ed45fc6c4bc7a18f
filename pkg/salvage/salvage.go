// Package salvage heals what no node has clean. The transport packets of a damaged
// or partial segment are kept beside the archive until a clean segment covers
// them; nodes that heard the same source compare the hashes of their packets,
// fetch those that they lack, merge both copies and cut the result again.
package salvage

import "github.com/twindvr/twindvr/pkg/m4f"

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
	Copy
}
