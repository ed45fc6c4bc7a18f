package salvage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// listed is a peer with a copy; it counts what it is asked for.
type listed struct {
	c               *Copy
	hashes, packets int
	lie             func(packets []byte)
}

func (l *listed) Blocks(context.Context) ([]Block, error) {
	return ParseBlocks(AppendBlocks(nil, Blocks(l.c)))
}

func (l *listed) Hashes(_ context.Context, ranges []Range) ([]uint32, error) {
	all := Hashes(l.c)
	var out []byte
	for _, r := range ranges {
		out = AppendHashes(out, all[r.From:r.To])
	}
	l.hashes += len(out) / 4
	return ParseHashes(out)
}

func (l *listed) Packets(_ context.Context, ranges []Range) ([]byte, error) {
	var out []byte
	for _, r := range ranges {
		out = append(out, l.c.Packets[r.From*PacketSize:r.To*PacketSize]...)
	}
	l.packets += len(out) / PacketSize
	if l.lie != nil {
		l.lie(out)
	}
	return out, nil
}

// randomPacket has a sync byte and the PID; the rest is random.
func randomPacket(rng *rand.Rand, pid uint16, cc int) []byte {
	p := make([]byte, PacketSize)
	for k := 4; k < len(p); k += 8 {
		binary.BigEndian.PutUint64(p[k:], rng.Uint64())
	}
	p[0], p[1], p[2], p[3] = 0x47, byte(pid>>8), byte(pid), 0x10|byte(cc&15)
	return p
}

func randomCopy(rng *rand.Rand, n int) *Copy {
	c := &Copy{}
	for k := range n {
		c.Packets = append(c.Packets, randomPacket(rng, 256, k)...)
	}
	return c
}

// without is c without the packets that lost says.
func without(c *Copy, lost func(k int) bool) *Copy {
	out := &Copy{}
	for k := range c.Len() {
		if !lost(k) {
			out.Packets = append(out.Packets, c.Packet(k)...)
		}
	}
	return out
}

func TestFetchTransfersWhatIsLacking(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	all := randomCopy(rng, 16000)
	for _, loss := range []int{0, 1, 10, 50} { // of 1000
		lose := func() func(int) bool {
			gone := make([]bool, all.Len()/7+1)
			for k := range gone {
				gone[k] = rng.IntN(1000) < loss
			}
			return func(k int) bool { return gone[k/7] }
		}
		own, peer := without(all, lose()), &listed{c: without(all, lose())}
		lacking := lacks(own, peer.c)
		got, err := Fetch(context.Background(), own, peer)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Packets, peer.c.Packets) {
			t.Fatalf("loss of %d in 1000: another copy came out", loss)
		}
		if peer.packets != lacking {
			t.Errorf("loss of %d in 1000: %d packets fetched, %d were lacking", loss, peer.packets, lacking)
		}
		coarse := len(AppendBlocks(nil, Blocks(peer.c)))
		t.Logf("loss of %d in 1000: %d packets; coarse list %.3f %% of the bytes, hashes %.3f %%, packets %.2f %% (%d lacking)", loss,
			peer.c.Len(), 100*float64(coarse)/float64(len(peer.c.Packets)), 400*float64(peer.hashes)/float64(len(peer.c.Packets)),
			100*float64(peer.packets)/float64(peer.c.Len()), lacking)
		if coarse > len(peer.c.Packets)/500 {
			t.Errorf("the coarse list has %d bytes", coarse)
		}
		if loss == 0 && peer.hashes > 0 {
			t.Errorf("%d hashes asked for of equal copies", peer.hashes)
		}
	}
}

// collide changes bytes 184 to 187 of p so that it gets the hash of q.
func collide(p, q []byte) {
	// CRC is affine: one bit of the last four bytes changes the hash by what
	// does not depend on the others.
	want := Hash(p) ^ Hash(q)
	var rows [32][2]uint32 // what a bit does, which bits
	zero := Hash(p)
	for b := range 32 {
		p[184+b/8] ^= 1 << (b % 8)
		rows[b] = [2]uint32{Hash(p) ^ zero, 1 << b}
		p[184+b/8] ^= 1 << (b % 8)
	}
	var bits uint32
	for b := range 32 {
		k := slices.IndexFunc(rows[b:], func(r [2]uint32) bool { return r[0]>>b&1 == 1 }) + b
		rows[b], rows[k] = rows[k], rows[b]
		for k := range rows {
			if k != b && rows[k][0]>>b&1 == 1 {
				rows[k][0] ^= rows[b][0]
				rows[k][1] ^= rows[b][1]
			}
		}
	}
	for b := range 32 {
		if want>>b&1 == 1 {
			bits ^= rows[b][1]
		}
	}
	for b := range 32 {
		p[184+b/8] ^= byte(bits>>b&1) << (b % 8)
	}
}

func TestFetchSurvivesCollisions(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	all := randomCopy(rng, 2000)
	// 700 of the peer has the hash of 100, which both have; 900 and 901 of the
	// own copy have the same hash, and the peer has 901.
	collide(all.Packet(700), all.Packet(100))
	collide(all.Packet(901), all.Packet(900))
	if Hash(all.Packet(700)) != Hash(all.Packet(100)) || bytes.Equal(all.Packet(700), all.Packet(100)) {
		t.Fatal("no collision was made")
	}
	own := without(all, func(k int) bool { return k >= 695 && k < 705 })
	peer := &listed{c: without(all, func(k int) bool { return k == 900 })}
	got, err := Fetch(context.Background(), own, peer)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Packets, peer.c.Packets) {
		t.Fatal("a collision of hashes changed packets")
	}
	if peer.packets > 2*BlockPackets+11 {
		t.Errorf("%d packets fetched", peer.packets)
	}
}

func TestFetchNoticesLies(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	all := randomCopy(rng, 1000)
	own := without(all, func(k int) bool { return k >= 500 && k < 510 })
	peer := &listed{c: all, lie: func(p []byte) { p[len(p)/2] ^= 1 }}
	if _, err := Fetch(context.Background(), own, peer); !errors.Is(err, ErrMismatch) {
		t.Fatalf("a changed packet: %v", err)
	}
	short := &listed{c: all, lie: func([]byte) {}}
	p, err := NewPlan(own, Blocks(all))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetHashes(make([]uint32, 3)); err == nil {
		t.Error("too few hashes were taken")
	}
	if err := p.SetHashes(mustHashes(t, short, p.NeedHashes())); err != nil {
		t.Fatal(err)
	}
	if err := p.SetPackets(make([]byte, PacketSize)); err == nil {
		t.Error("too few packets were taken")
	}
	if _, err := p.Copy(); err == nil {
		t.Error("a copy came of a plan that is not done")
	}
}

func mustHashes(t *testing.T, l *listed, ranges []Range) []uint32 {
	t.Helper()
	h, err := l.Hashes(context.Background(), ranges)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestListsAreBounded(t *testing.T) {
	for name, b := range map[string][]byte{
		"half a block":     make([]byte, 15),
		"an empty block":   make([]byte, blockBytes),
		"a large block":    AppendBlocks(nil, []Block{{BlockPackets + 1, 0}}),
		"too many packets": bytes.Repeat(AppendBlocks(nil, []Block{{BlockPackets, 0}}), MaxPackets/BlockPackets+1),
	} {
		if _, err := ParseBlocks(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := ParseHashes(make([]byte, 7)); err == nil {
		t.Error("half a hash: taken")
	}
	if _, err := ParseHashes(make([]byte, hashBytes*(MaxPackets+1))); err == nil {
		t.Error("too many hashes: taken")
	}
}

// TestLostPacketChangesFewBlocks is what blocks cut by content are for.
func TestLostPacketChangesFewBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	all := randomCopy(rng, 3000)
	have := map[Block]bool{}
	for _, b := range Blocks(all) {
		have[b] = true
	}
	for lost := 0; lost < all.Len(); lost += 61 {
		changed := 0
		for _, b := range Blocks(without(all, func(k int) bool { return k == lost })) {
			if !have[b] {
				changed++
			}
		}
		if changed > 3 { // a stretch longer than a block may be cut elsewhere
			t.Fatalf("packet %d lost: %d blocks changed", lost, changed)
		}
	}
}

func TestHashIsTheDocumentedOne(t *testing.T) {
	p := make([]byte, PacketSize)
	for k := range p {
		p[k] = byte(k)
	}
	if h := Hash(p); h != 0xfc6705d3 {
		t.Errorf("hash %#08x", h)
	}
	c := &Copy{Packets: p}
	if b := Blocks(c); len(b) != 1 || b[0] != (Block{1, 0x93301c8548f3afc2}) {
		t.Errorf("blocks %#v", b)
	}
}

func TestFetchMakesThePeersCopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		// Few different packets: most occur several times.
		kinds := randomCopy(rng, rapid.IntRange(1, 40).Draw(t, "kinds"))
		pick := func(name string) *Copy {
			c := &Copy{}
			for range rapid.IntRange(0, 600).Draw(t, name) {
				c.Packets = append(c.Packets, kinds.Packet(rng.IntN(kinds.Len()))...)
			}
			return c
		}
		peer, own := &listed{c: pick("peer")}, pick("own")
		lacking := lacks(own, peer.c)
		got, err := Fetch(context.Background(), own, peer)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Packets, peer.c.Packets) {
			t.Fatal("another copy came out")
		}
		if peer.packets != lacking {
			t.Fatalf("%d packets fetched, %d were lacking", peer.packets, lacking)
		}
	})
}

// FuzzPlan has a peer list and send whatever it likes.
func FuzzPlan(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 5))
	all := randomCopy(rng, 120)
	own := without(all, func(k int) bool { return k%40 == 7 })
	hashes := Hashes(all)
	f.Add(AppendBlocks(nil, Blocks(all)), AppendHashes(nil, hashes), all.Packets)
	f.Add(AppendBlocks(nil, Blocks(own)), []byte{}, []byte{})
	f.Add(AppendBlocks(nil, []Block{{3, 0}, {256, 1}}), AppendHashes(nil, hashes), all.Packets[:259*PacketSize%len(all.Packets)])
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 0, 0, 0}, make([]byte, PacketSize))
	f.Fuzz(func(t *testing.T, list, hashList, packets []byte) {
		blocks, err := ParseBlocks(list)
		if err != nil {
			return
		}
		p, err := NewPlan(own, blocks)
		if err != nil {
			return
		}
		hashes, err := ParseHashes(hashList)
		if err != nil {
			return
		}
		n := rangesLen(p.NeedHashes())
		if n > 1<<12 {
			return
		}
		for len(hashes) < n {
			hashes = append(hashes, uint32(len(hashes)))
		}
		if err := p.SetHashes(hashes[:n]); err != nil {
			return
		}
		for round := 0; ; round++ {
			need := rangesLen(p.NeedPackets()) * PacketSize
			if need == 0 {
				break
			}
			if round > 2 {
				t.Fatal("packets are asked for without end")
			}
			send := make([]byte, need)
			packets = packets[copy(send, packets):]
			if err := p.SetPackets(send); err != nil {
				return
			}
		}
		c, err := p.Copy()
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, b := range blocks {
			if sum(c.Packets[at*PacketSize:(at+b.Packets)*PacketSize]) != b.Sum {
				t.Fatal("a block is not what was listed")
			}
			at += b.Packets
		}
	})
}

// lacks counts the packets of a copy that another one has none like.
func lacks(own, other *Copy) (n int) {
	have := map[string]bool{}
	for k := range own.Len() {
		have[string(own.Packet(k))] = true
	}
	for k := range other.Len() {
		if !have[string(other.Packet(k))] {
			n++
		}
	}
	return n
}
