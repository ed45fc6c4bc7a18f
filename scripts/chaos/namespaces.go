package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// namespaces is a network of namespaces: a hub with the source, and one for
// each node. Each node has two links to the hub, one that its source comes by
// (src0, 10.79.N.1) and one at a bridge where its peers are (net0, 10.79.0.N).
type namespaces struct {
	prefix string
	nodes  int
}

// Addresses and ports inside the namespaces.
const (
	nsHTTP   = 8081
	nsSource = 5000
)

var labs atomic.Int32

func newNamespaces(nodes int) (*namespaces, error) {
	n := &namespaces{prefix: fmt.Sprintf("twindvr-chaos-%d-%d-", os.Getpid(), labs.Add(1)), nodes: nodes}
	if err := n.make(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *namespaces) hub() string     { return n.prefix + "hub" }
func (n *namespaces) ns(i int) string { return n.prefix + strconv.Itoa(i+1) }
func (n *namespaces) kind() string    { return "network namespaces" }
func (n *namespaces) http(int) string { return strconv.Itoa(nsHTTP) }
func (n *namespaces) all() (l []string) {
	for i := range n.nodes {
		l = append(l, n.ns(i))
	}
	return append(l, n.hub())
}

func (n *namespaces) make() error {
	for _, name := range n.all() {
		if err := ip("netns", "add", name); err != nil {
			return err
		}
	}
	steps := []string{"link add br0 type bridge", "link set br0 up", "link set lo up"}
	for i := 1; i <= n.nodes; i++ {
		steps = append(steps,
			fmt.Sprintf("link add net%d type veth peer name net0 netns %s", i, n.ns(i-1)),
			fmt.Sprintf("link add src%d type veth peer name src0 netns %s", i, n.ns(i-1)),
			fmt.Sprintf("link set net%d master br0", i),
			fmt.Sprintf("link set net%d up", i),
			fmt.Sprintf("addr add 10.79.%d.254/24 dev src%d", i, i),
			fmt.Sprintf("link set src%d up", i))
	}
	for _, s := range steps {
		if err := ip(append([]string{"-n", n.hub()}, strings.Fields(s)...)...); err != nil {
			return err
		}
	}
	for i := 1; i <= n.nodes; i++ {
		for _, s := range []string{"link set lo up",
			fmt.Sprintf("addr add 10.79.0.%d/24 dev net0", i), "link set net0 up",
			fmt.Sprintf("addr add 10.79.%d.1/24 dev src0", i), "link set src0 up"} {
			if err := ip(append([]string{"-n", n.ns(i - 1)}, strings.Fields(s)...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *namespaces) close() {
	for _, name := range n.all() {
		ip("netns", "del", name) // one that was not made is no matter
	}
}

func (n *namespaces) sourcePort(_, s int) int { return nsSource + s }

func (n *namespaces) sourceURL(node, s int) string {
	return fmt.Sprintf("udp://10.79.%d.1:%d", node+1, nsSource+s)
}

func (n *namespaces) output(node, s int) (out *testsrc.Output, err error) {
	nserr := inNamespace(n.hub(), func() { out, err = testsrc.OpenOutput(n.sourceURL(node, s), testsrc.OutputOptions{}) })
	return out, errors.Join(nserr, err)
}

func (n *namespaces) peer(_, to int) string { return fmt.Sprintf("10.79.0.%d:%d", to+1, nsHTTP) }

func (n *namespaces) dial(ctx context.Context, node int) (c net.Conn, err error) {
	nserr := inNamespace(n.ns(node), func() {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", nsHTTP))
	})
	return c, errors.Join(nserr, err)
}

func (n *namespaces) on(node int, fn func()) error { return inNamespace(n.ns(node), fn) }

// isolate takes the node's link off the bridge: nothing passes any more, and
// neither side is told.
func (n *namespaces) isolate(node int, cut bool) error {
	if cut {
		return ip("-n", n.hub(), "link", "set", fmt.Sprintf("net%d", node+1), "nomaster")
	}
	return ip("-n", n.hub(), "link", "set", fmt.Sprintf("net%d", node+1), "master", "br0")
}

// between sums up what the nodes have sent on their links to the bridge, all
// headers included.
func (n *namespaces) between() (total int64, err error) {
	var b []byte
	nserr := inNamespace(n.hub(), func() { b, err = os.ReadFile("/proc/thread-self/net/dev") })
	if err := errors.Join(nserr, err); err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, counts, _ := strings.Cut(strings.TrimSpace(line), ":")
		if f := strings.Fields(counts); strings.HasPrefix(name, "net") && len(f) > 0 {
			bytes, _ := strconv.ParseInt(f[0], 10, 64)
			total += bytes
		}
	}
	return total, nil
}

// inNamespace runs fn on a thread of its own in a network namespace.
func inNamespace(name string, fn func()) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so that
		// nothing else ever runs in the namespace.
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + name)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			fn()
		}
		done <- err
	}()
	return <-done
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
