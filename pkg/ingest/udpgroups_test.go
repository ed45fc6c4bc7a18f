package ingest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// hearEnv holds, in a process that TestUDPGroupsOfTwoProcesses has started,
// the URL that it is to hear.
const hearEnv = "TWINDVR_TEST_HEAR"

// TestHear is such a process, and nothing otherwise: it writes a line when it hears, one for each
// datagram, and ends with "end".
func TestHear(t *testing.T) {
	url := os.Getenv(hearEnv)
	if url == "" {
		return // it is for TestUDPGroupsOfTwoProcesses alone
	}
	s := open(t, url, Options{})
	fmt.Println("hearing")
	for {
		b, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b.Datagrams {
			fmt.Printf("%s\n", d)
			if string(d) == "end" {
				return
			}
		}
	}
}

// TestUDPGroupsOfTwoProcesses has two processes hear two groups on one port, and
// a third one of the two again: each hears its own alone.
func TestUDPGroupsOfTwoProcesses(t *testing.T) {
	p := port()
	groups := []string{"239.77.9.1", "239.77.9.2", "239.77.9.1"}
	var lines []*bufio.Scanner
	var ends []func() error
	for _, g := range groups {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHear$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=udp://%s:%d?interface=lo", hearEnv, g, p))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		s := bufio.NewScanner(out)
		if !s.Scan() || s.Text() != "hearing" {
			t.Fatalf("a process says %q", s.Text())
		}
		lines, ends = append(lines, s), append(ends, cmd.Wait)
	}
	for k := range 30 {
		for _, g := range groups[:2] {
			sender(t, "", fmt.Sprintf("%s:%d", g, p)).Write([]byte(fmt.Sprintf("%s %d", g, k)))
		}
	}
	for _, g := range groups[:2] {
		sender(t, "", fmt.Sprintf("%s:%d", g, p)).Write([]byte("end"))
	}
	for i, s := range lines {
		for k := range 31 {
			want := fmt.Sprintf("%s %d", groups[i], k)
			if k == 30 {
				want = "end"
			}
			if !s.Scan() || s.Text() != want {
				t.Fatalf("process %d hears %q, want %q", i, s.Text(), want)
			}
		}
		for s.Scan() {
		}
		if err := ends[i](); err != nil {
			t.Error(err)
		}
	}
}
