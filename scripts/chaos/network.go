package main

import (
	"context"
	"net"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// network joins the nodes of a lab with its source and with each other. Nodes
// count from 0.
type network interface {
	// kind names it for the report.
	kind() string
	// sourceURL is where a node hears a stream, number s of the lab.
	sourceURL(node, s int) string
	// sourcePort is the UDP port of that URL.
	sourcePort(node, s int) int
	// output opens the way of a stream from the source to a node.
	output(node, s int) (*testsrc.Output, error)
	// http is the address that a node listens on, as its configuration has it.
	http(node int) string
	// peer is where node from reaches node to: HOST:PORT.
	peer(from, to int) string
	// dial connects to a node from inside that node, as an operator there does.
	dial(ctx context.Context, node int) (net.Conn, error)
	// on runs fn on a thread that is at the node: what it starts or opens is the
	// node's.
	on(node int, fn func()) error
	// isolate cuts a node off from all others, silently, or joins it again.
	isolate(node int, cut bool) error
	// between is how many bytes have gone between the nodes so far.
	between() (int64, error)
	close()
}

// newNetwork makes network namespaces where that is permitted, and goes by
// loopback otherwise; why says what was not.
func newNetwork(nodes int, loopbackOnly bool) (n network, why error, err error) {
	if !loopbackOnly {
		ns, err := newNamespaces(nodes)
		if err == nil {
			return ns, nil, nil
		}
		why = err
	}
	lo, err := newLoopback(nodes)
	return lo, why, err
}
