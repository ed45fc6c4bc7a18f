package ingest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// stoppedChild, set to a URL, makes the test binary a recorder of it.
const stoppedChild = "TWINDVR_STOPPED_CHILD"

// TestStopped stops recorders for longer than their source may be silent
// (SIGSTOP), while the source goes on: what they find when they go on is in
// their sockets' buffers, and no source was lost.
func TestStopped(t *testing.T) {
	if url := os.Getenv(stoppedChild); url != "" {
		src, err := Open(t.Context(), url, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		seg := segment.New(segment.Config{}, func(*m4f.Segment) {})
		err = Pump(t.Context(), src, seg, PumpOptions{Silence: 1500 * time.Millisecond})
		var silent *SilentError
		if !errors.As(err, &silent) || src.Stats().Packets < 200 {
			t.Fatalf("ended after %d packets: %v", src.Stats().Packets, err)
		}
		return
	}
	t.Parallel()
	const children = 6
	var conns []net.Conn
	var cmds []*exec.Cmd
	for range children {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := c.LocalAddr().String()
		c.Close()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestStopped$", "-test.v")
		cmd.Env = append(os.Environ(), stoppedChild+"=udp://"+addr)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		cmds, conns = append(cmds, cmd), append(conns, conn)
	}
	// It is the number that is sent, not the time, that the children count.
	null := make([]byte, 188)
	copy(null, []byte{0x47, 0x1f, 0xff, 0x10})
	for k := range 350 {
		for _, conn := range conns {
			conn.Write(null) // refused until the child listens
		}
		switch k {
		case 50:
			for _, cmd := range cmds {
				cmd.Process.Signal(syscall.SIGSTOP)
			}
		case 200: // three seconds later
			for _, cmd := range cmds {
				cmd.Process.Signal(syscall.SIGCONT)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for k, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("recorder %d: %v", k, err)
		}
	}
}
