package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/ingest"
)

// floorMain runs the floor as a process of its own: what any recorder has to do,
// and nothing else.
//
//	floor DIR PORT N         receives N UDP streams and writes each to a file
//	floor-file INPUT OUTPUT  copies a file with read and write
func floorMain(args []string) int {
	var err error
	switch {
	case args[0] == "floor" && len(args) == 4:
		err = floorUDP(args[1], args[2], args[3])
	case args[0] == "floor-file" && len(args) == 3:
		err = floorFile(args[1], args[2])
	default:
		err = errors.New("wrong arguments")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		return 2
	}
	return 0
}

func floorUDP(dir, firstText, countText string) error {
	first, err1 := strconv.Atoi(firstText)
	n, err2 := strconv.Atoi(countText)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			errs[i] = receive(ctx, first+i, filepath.Join(dir, fmt.Sprintf("%03d.ts", i)))
			if errs[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// receive writes a UDP stream to a file until ctx ends: recvmmsg and writev.
func receive(ctx context.Context, port int, path string) error {
	src, err := ingest.Open(ctx, fmt.Sprintf("udp://127.0.0.1:%d", port), ingest.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for {
		b, err := src.Read(ctx)
		if err == nil {
			_, err = unix.Writev(int(f.Fd()), b.Datagrams)
		}
		if ctx.Err() != nil {
			return f.Close()
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
}

func floorFile(input, output string) error {
	src, err := ingest.Open(context.Background(), input, ingest.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	for {
		b, err := src.Read(context.Background())
		if err == io.EOF {
			return f.Close()
		}
		if err == nil {
			_, err = f.Write(b.Datagrams[0])
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
}
