package replicate

import (
	"context"
	"io"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// Salvage implements Side.
func (d Dir) Salvage(_ context.Context, from, to m4f.UTC) ([]salvage.Entry, error) {
	return d.Stream.Salvage().Entries(from, to)
}

// SalvageCopy implements Side.
func (d Dir) SalvageCopy(e *salvage.Entry, flow *Flow) salvage.Peer {
	return &storedCopy{store: d.Stream.Salvage(), entry: *e, flow: flow}
}

// SalvageCopy implements Side.
func (p Peer) SalvageCopy(e *salvage.Entry, flow *Flow) salvage.Peer {
	if flow == nil {
		return p.Client.SalvageCopy(e, nil)
	}
	// The reads of one copy come one after the other, in whichever context.
	c := &flowingCopy{flow: flow}
	c.Peer = p.Client.SalvageCopy(e, func(r io.Reader) io.Reader { return &flowing{c.ctx, r, flow} })
	return c
}

// flowingCopy is a peer's copy whose bytes pass a flow. It belongs to one
// goroutine.
type flowingCopy struct {
	salvage.Peer
	ctx  context.Context // of the question being asked
	flow *Flow
}

func (c *flowingCopy) Blocks(ctx context.Context) ([]salvage.Block, error) {
	c.ctx = ctx
	return c.Peer.Blocks(ctx)
}

func (c *flowingCopy) Hashes(ctx context.Context, ranges []salvage.Range) ([]uint32, error) {
	c.ctx = ctx
	return c.Peer.Hashes(ctx, ranges)
}

func (c *flowingCopy) Packets(ctx context.Context, ranges []salvage.Range) ([]byte, error) {
	c.ctx = ctx
	return c.Peer.Packets(ctx, ranges)
}

// storedCopy is the copy of an entry on this machine. It belongs to one
// goroutine.
type storedCopy struct {
	store *salvage.Store
	entry salvage.Entry
	flow  *Flow
	copy  *salvage.Copy // once it was read
}

func (c *storedCopy) read() (err error) {
	if c.copy == nil {
		c.copy, err = c.store.Read(c.entry)
	}
	return err
}

// Blocks implements salvage.Peer.
func (c *storedCopy) Blocks(context.Context) ([]salvage.Block, error) {
	if err := c.read(); err != nil {
		return nil, err
	}
	return salvage.Blocks(c.copy), nil
}

// Hashes implements salvage.Peer.
func (c *storedCopy) Hashes(_ context.Context, ranges []salvage.Range) ([]uint32, error) {
	if err := c.read(); err != nil {
		return nil, err
	}
	var out []uint32
	for _, r := range ranges {
		for k := r.From; k < r.To; k++ {
			out = append(out, salvage.Hash(c.copy.Packet(k)))
		}
	}
	return out, nil
}

// Packets implements salvage.Peer.
func (c *storedCopy) Packets(ctx context.Context, ranges []salvage.Range) ([]byte, error) {
	if err := c.read(); err != nil {
		return nil, err
	}
	var out []byte
	for _, r := range ranges {
		out = append(out, c.copy.Packets[r.From*salvage.PacketSize:r.To*salvage.PacketSize]...)
	}
	return out, c.flow.pass(ctx, len(out))
}
