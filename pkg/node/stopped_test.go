package node_test

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestStoppedNode stops a node of a pair (SIGSTOP), as a machine does that has no
// time for it: when it goes on, what the kernel dropped meanwhile is known to be
// missing and fetched from its twin. TWINDVR_STOP is for how many seconds.
func TestStoppedNode(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	stop, err := strconv.Atoi(os.Getenv("TWINDVR_STOP"))
	if err != nil {
		stop = 8
	}
	group := multicast()
	main, standby := pair(t, group+"&buffer_size=2M", "segment_duration 1s;")
	start(t, "source", "testsrc", group, "--bitrate", "6M")
	main.up()
	standby.up()
	nodes := []*testNode{main, standby}
	for _, n := range nodes {
		within(t, time.Minute, n.name+" records", func() bool { return wroteWhole(n.stream(example), n.started) })
	}
	victim := nodes[rng.IntN(2)]
	missing := func() (n int64) {
		st := victim.status()
		if st == nil {
			return 0
		}
		for _, in := range st.Streams[0].Inputs {
			n += in.Lost + in.Dropped
		}
		return n
	}
	before := missing()
	victim.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(time.Duration(stop) * time.Second)
	victim.cmd.Process.Signal(syscall.SIGCONT)
	on := time.Now()
	within(t, time.Minute, "the node says what it has missed", func() bool { return missing() > before })
	within(t, time.Minute, "the node records on", func() bool { return wroteWhole(victim.stream(example), on) })
	t.Logf("%s was stopped for %d s and missed %d datagrams and packets", victim.name, stop, missing()-before)
	checkPair(t, main, standby)
}
