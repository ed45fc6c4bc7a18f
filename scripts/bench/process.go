package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running program whose use of the machine is counted.
type process struct {
	*exec.Cmd
	signal os.Signal // asks it to end; nil: it ends by itself
	stderr bytes.Buffer
}

// running are the processes that have been started and not waited for.
var running struct {
	sync.Mutex
	list  map[*process]bool
	ended bool // no more are started
}

// Start starts a process, in a process group of its own: an interrupt from the
// terminal reaches this program alone, which then ends them all. Should this
// program be killed, the kernel ends them.
func (p *process) Start() error {
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	running.Lock()
	defer running.Unlock()
	if running.ended {
		return errors.New("interrupted")
	}
	if err := p.Cmd.Start(); err != nil {
		return err
	}
	if running.list == nil {
		running.list = map[*process]bool{}
	}
	running.list[p] = true
	return nil
}

// Wait waits for a process to end, and takes what it has left running with it.
func (p *process) Wait() error {
	err := p.Cmd.Wait()
	running.Lock()
	delete(running.list, p)
	running.Unlock()
	syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // mostly there is nobody
	return err
}

// killAll ends all processes and lets none start. Whoever waits for them gets an error.
func killAll() {
	running.Lock()
	defer running.Unlock()
	running.ended = true
	for p := range running.list {
		syscall.Kill(-p.Process.Pid, syscall.SIGKILL) // it may have ended already
	}
}

// start starts a program.
func start(signal os.Signal, name string, args ...string) (*process, error) {
	p := command(signal, name, args...)
	return p, p.Start()
}

func command(signal os.Signal, name string, args ...string) *process {
	p := &process{Cmd: exec.Command(name, args...), signal: signal}
	p.Stderr = &p.stderr
	return p
}

// usage is what processes have used.
type usage struct {
	user, system time.Duration
}

func (u usage) cpu() time.Duration { return u.user + u.system }

// stopAll ends the processes and returns what they have used in all.
func stopAll(list []*process) (usage, error) { return stopWithin(list, 0) }

// stopWithin is stopAll for processes that take so long to end by themselves.
func stopWithin(list []*process, d time.Duration) (usage, error) {
	for _, p := range list {
		if p.signal != nil {
			p.Process.Signal(p.signal) // it may have ended already
		}
	}
	var u usage
	var errs error
	for _, p := range list {
		late := time.AfterFunc(d+60*time.Second, func() { p.Process.Kill() })
		err := p.Wait()
		late.Stop()
		u.user += p.ProcessState.UserTime()
		u.system += p.ProcessState.SystemTime()
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w: %s", p.Path, err, bytes.TrimSpace(p.stderr.Bytes())))
		}
	}
	return u, errs
}

// kill ends processes after an error.
func kill(list []*process) {
	for _, p := range list {
		p.Process.Kill()
		p.Wait()
	}
}

// pause waits so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// watchMemory watches the memory of processes until the function that it returns is
// called, which returns the largest sum seen, in bytes.
func watchMemory(list []*process) (peak func() int64) {
	ctx, stop := context.WithCancel(context.Background())
	found := make(chan int64, 1)
	go func() { found <- mostMemory(ctx, list) }()
	return func() int64 {
		stop()
		return <-found
	}
}

// mostMemory is the largest sum of the processes' memory, in bytes, seen until ctx
// ends: pages that several share count once (proportional set size).
func mostMemory(ctx context.Context, list []*process) int64 {
	var peak int64
	for tick := time.NewTicker(100*time.Millisecond + time.Duration(len(list))*20*time.Millisecond); ; {
		var sum int64
		for _, p := range list {
			sum += pss(p.Process.Pid)
		}
		peak = max(peak, sum)
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return peak
		}
	}
}

// pss is the proportional set size of a process, bytes.
func pss(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// waitBound waits until something listens on each of the UDP ports.
func waitBound(ctx context.Context, list []*process, first, count int) error {
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, p := range list {
			if p.Process.Signal(syscall.Signal(0)) != nil || zombie(p.Process.Pid) {
				return fmt.Errorf("%s has ended: %s", p.Path, bytes.TrimSpace(p.stderr.Bytes()))
			}
		}
		if bound(first, count) {
			time.Sleep(500 * time.Millisecond) // for what comes after binding
			return nil
		}
	}
	return fmt.Errorf("nothing listens on all UDP ports from %d to %d after a minute", first, first+count-1)
}

// zombie says whether a process has ended and not been waited for.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}

// bound says whether something listens on each of the UDP ports.
func bound(first, count int) bool {
	have := boundPorts()
	for port := first; port < first+count; port++ {
		if !have[port] {
			return false
		}
	}
	return true
}

// freePorts is the first of so many UDP ports that nothing listens on, below those
// that the kernel gives out. It is another each time: no datagram of one measurement
// reaches the next, and benches that run at once are not in each other's way.
func freePorts(count int) int {
	have := boundPorts()
	for {
		first := 10000 + rand.IntN(22000-count)
		taken := false
		for port := first; port < first+count; port++ {
			taken = taken || have[port]
		}
		if !taken {
			return first
		}
	}
}

// boundPorts are the UDP ports that something listens on.
func boundPorts() map[int]bool {
	have := map[int]bool{}
	for _, name := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a machine without IPv6
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 {
				_, hex, _ := strings.Cut(f[1], ":")
				if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
					have[int(port)] = true
				}
			}
		}
	}
	return have
}
