package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wallClock is the wall clock of one process, which alone sees it wrong.
//
// Linux has no namespace for the wall clock. So the process is stopped at its
// first instruction, and the function of the vDSO that a Go program reads the
// time with is replaced, in that process, by one that asks the kernel and adds
// an offset to the answer for CLOCK_REALTIME. The program itself is as built.
type wallClock struct {
	pid    int
	offset int64 // address of the seconds that are added
}

// clockCode is void clock_gettime(clockid_t rdi, struct timespec *rsi).
var clockCode = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov $228 (clock_gettime), %eax
	0x0f, 0x05, // syscall
	0x85, 0xff, // test %edi, %edi (CLOCK_REALTIME is 0)
	0x75, 0x0a, // jne 1f
	0x48, 0x8b, 0x0d, 4, 0, 0, 0, // mov offset(%rip), %rcx
	0x48, 0x01, 0x0e, // add %rcx, (%rsi)
	0xc3,                   // 1: ret
	0, 0, 0, 0, 0, 0, 0, 0, // offset
}

// startWithClock starts a program and gives it a wall clock of its own before
// it runs. The goroutine is locked to its thread, which traces the program.
func startWithClock(cmd *exec.Cmd) (*wallClock, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	var st unix.WaitStatus
	if _, err := unix.Wait4(pid, &st, 0, nil); err != nil {
		return nil, err
	}
	c, err := plantClock(pid)
	return c, errors.Join(err, unix.PtraceDetach(pid))
}

func plantClock(pid int) (*wallClock, error) {
	from, to, err := mapping(pid, "[vdso]")
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, from); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	list, err := f.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Name != "__vdso_clock_gettime" || s.Size < uint64(len(clockCode)) {
			continue
		}
		at := from + int64(s.Value)
		if _, err := mem.WriteAt(clockCode, at); err != nil {
			return nil, err
		}
		return &wallClock{pid, at + int64(len(clockCode)) - 8}, nil
	}
	return nil, errors.New("the vDSO has no function to replace")
}

// mapping is where a named part of a process's memory lies.
func mapping(pid int, name string) (from, to int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(strings.TrimSpace(line), name) {
			_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, fmt.Errorf("process %d has no %s", pid, name)
}

// set puts the clock ahead of the machine's.
func (c *wallClock) set(ahead time.Duration) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(int64(ahead/time.Second)))
	_, err = mem.WriteAt(b[:], c.offset)
	return err
}
