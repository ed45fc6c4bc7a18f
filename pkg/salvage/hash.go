package salvage

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// BlockPackets is the largest number of packets in a Block.
const BlockPackets = 256

const (
	blockMask  = 63 // a block ends behind a packet whose hash has none of these bits
	blockBytes = 10 // of a block in a list
	hashBytes  = 4  // of a hash in a list
)

var packetCRC = crc32.MakeTable(crc32.Castagnoli)

// Hash is the name that nodes give to a packet in their lists: CRC-32C (RFC 3720
// B.4) over its bytes. Two packets may have the same one; Plan notices.
func Hash(packet []byte) uint32 { return crc32.Checksum(packet, packetCRC) }

// Hashes are the hashes of the packets of c, in order.
func Hashes(c *Copy) []uint32 {
	h := make([]uint32, c.Len())
	for k := range h {
		h[k] = Hash(c.Packet(k))
	}
	return h
}

// Block is a stretch of a copy that is cut by content: it ends behind a packet
// whose hash has its six lowest bits 0, after BlockPackets packets or with the
// copy. So a packet that one copy lacks changes one block of it, or two, and
// shifts none.
type Block struct {
	Packets int    // 1 to BlockPackets
	Sum     uint64 // the first 8 bytes of SHA-256 over the packets, big-endian
}

// Blocks are the blocks of c, in order: about one for 64 packets.
func Blocks(c *Copy) []Block { return blocksOf(c, Hashes(c)) }

func blocksOf(c *Copy, hashes []uint32) []Block {
	var out []Block
	for from, k := 0, 0; k < len(hashes); k++ {
		if n := k + 1 - from; hashes[k]&blockMask == 0 || n == BlockPackets || k+1 == len(hashes) {
			out = append(out, Block{n, sum(c.Packets[from*PacketSize : (k+1)*PacketSize])})
			from = k + 1
		}
	}
	return out
}

func sum(packets []byte) uint64 {
	s := sha256.Sum256(packets)
	return binary.BigEndian.Uint64(s[:])
}

// AppendHashes writes a list of hashes as nodes exchange it; FORMAT.md.
func AppendHashes(dst []byte, hashes []uint32) []byte {
	for _, h := range hashes {
		dst = binary.BigEndian.AppendUint32(dst, h)
	}
	return dst
}

// ParseHashes reads what AppendHashes wrote.
func ParseHashes(b []byte) ([]uint32, error) {
	if len(b)%hashBytes != 0 || len(b) > MaxPackets*hashBytes {
		return nil, fmt.Errorf("a list of hashes of %d bytes", len(b))
	}
	out := make([]uint32, len(b)/hashBytes)
	for k := range out {
		out[k] = binary.BigEndian.Uint32(b[k*hashBytes:])
	}
	return out, nil
}

// AppendBlocks writes a list of blocks as nodes exchange it; FORMAT.md.
func AppendBlocks(dst []byte, blocks []Block) []byte {
	for _, b := range blocks {
		dst = binary.BigEndian.AppendUint16(dst, uint16(b.Packets))
		dst = binary.BigEndian.AppendUint64(dst, b.Sum)
	}
	return dst
}

// ParseBlocks reads what AppendBlocks wrote.
func ParseBlocks(b []byte) ([]Block, error) {
	if len(b)%blockBytes != 0 || len(b) > MaxPackets*blockBytes {
		return nil, fmt.Errorf("a list of blocks of %d bytes", len(b))
	}
	out := make([]Block, len(b)/blockBytes)
	for k := range out {
		p := b[k*blockBytes:]
		out[k] = Block{int(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint64(p[2:])}
	}
	_, err := countPackets(out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

var errTooMany = errors.New("a copy of more packets than any has")

// countPackets is the number of packets in all blocks.
func countPackets(blocks []Block) (int, error) {
	total := 0
	for _, b := range blocks {
		if b.Packets < 1 || b.Packets > BlockPackets {
			return 0, fmt.Errorf("a block of %d packets, the most are %d", b.Packets, BlockPackets)
		}
		if total += b.Packets; total > MaxPackets {
			return 0, errTooMany
		}
	}
	return total, nil
}
