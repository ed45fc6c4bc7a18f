package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// recordOptions are the flags of record.
type recordOptions struct {
	dir     string
	name    string
	sync    time.Duration
	mounted bool
}

// AddFlags adds the flags of record.
func (o *recordOptions) AddFlags(fs *pflag.FlagSet) {
	addQuantity(fs, &quantity[time.Duration]{p: &o.sync, kind: "WHEN", parse: parseSync}, "sync", "1s",
		"make what was written durable `WHEN`: at this interval, always (each segment), or off")
	fs.BoolVar(&o.mounted, "mounted", false, "refuse a directory on the root volume: its disk is not mounted")
	fs.StringVar(&o.name, "name", "", "`NAME` of a stream that is made; its directory's if not given")
}

// parseSync reads the value of --sync.
func parseSync(s string) (time.Duration, error) {
	switch s {
	case "always":
		return archive.SyncAlways, nil
	case "off":
		return archive.SyncOff, nil
	}
	d, err := config.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not when to sync; write an interval such as 1s, always, or off", s)
	}
	return d, nil
}

func newRecordCmd(io IO) *cobra.Command {
	var o recordOptions
	cmd := &cobra.Command{
		Use:   "record DIR",
		Short: "Write M4F from standard input into an archive",
		Long: `record reads M4F from standard input, as ingest writes it, and adds each segment
to the archive of the stream in DIR. Several recorders may write into one
archive at once.

DIR is made where nothing is, missing directories too. A directory that holds
something else, or lies below or above another stream, is refused. A segment
that the archive has already, as good and at that time, is not written again.
Where the archive holds the timeline that comes in, dated within a second of it,
the archive's dates are kept, so that a recorder that is started again goes on
without a gap.

What came whole is kept, whatever follows. While the disk is full or fails,
segments are lost, which is said once, and each new one is tried.

Exit status: 0 the input has ended, 2 trouble.`,
		Example: `  twindvr ingest udp://239.1.2.3:1234 | twindvr record /storage/example
  cat 0000.120.mp4 | twindvr record /storage/copy`,
		Args: wantArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = args[0]
			return o.run(cmd.Context(), io)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

// drainTime is how long record goes on reading after a signal: whoever writes
// into the pipe has been told too, and closes its open segment.
const drainTime = 3 * time.Second

func (o *recordOptions) run(ctx context.Context, io IO) error {
	if err := o.check(); err != nil {
		return err
	}
	r := &recorder{o: o, io: io}
	widen(io.In)
	err := readSegments(ctx, io, r.take)
	if r.w == nil && r.lost == 0 && err == nil {
		return errors.New("standard input held no segment; is the command before this one in the pipe running?")
	}
	return r.close(err)
}

// check refuses a directory that no stream can be in.
func (o *recordOptions) check() error {
	if err := archive.CanCreate(o.dir, o.name); err != nil || !o.mounted {
		return err
	}
	return fsx.CheckMounted(o.dir)
}

// readSegments calls take with each segment of standard input until it ends. A
// segment's media is valid during the call.
// After a signal it goes on for drainTime.
func readSegments(ctx context.Context, in IO, take func(*m4f.Segment) error) error {
	type item struct {
		seg *m4f.Segment
		err error
	}
	items := make(chan item)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		// It may be left waiting for standard input when the command ends, and
		// the process with it.
		r := m4f.NewReader(in.In)
		for {
			seg, err := r.Next()
			select {
			case items <- item{seg, err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	done := ctx.Done()
	var expired <-chan time.Time
	for {
		select {
		case it := <-items:
			if errors.Is(it.err, io.EOF) && !errors.Is(it.err, io.ErrUnexpectedEOF) {
				return nil
			}
			if it.err != nil {
				return fmt.Errorf("standard input: %w", it.err)
			}
			if err := take(it.seg); err != nil {
				return err
			}
			it.seg.Recycle()
		case <-done:
			done, expired = nil, in.Clock.After(drainTime)
		case <-expired:
			return nil
		}
	}
}

// recorder puts segments into an archive.
type recorder struct {
	o     *recordOptions
	io    IO
	fs    fsx.FS // nil: the operating system's
	s     *archive.Stream
	w     *archive.Writer
	dates *archive.Redater

	failing bool // the last write failed
	lost    int  // segments that could not be written
}

// open makes the stream, once there is something to put into it.
func (r *recorder) open() error {
	s, err := archive.Create(r.o.dir, r.o.name, archive.CreateOptions{Clock: r.io.Clock, FS: r.fs})
	if err != nil {
		return err
	}
	r.s, r.dates = s, s.NewRedater()
	r.w = s.Writer(archive.Imported, 0, archive.WriterOptions{Sync: r.o.sync})
	return nil
}

// close ends the recording: it returns the first error, err being one of before.
func (r *recorder) close(err error) error {
	if r.w != nil {
		if cerr := r.w.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil && r.lost > 0 {
		err = fmt.Errorf("%d segments could not be written; the peer, if there is one, heals them", r.lost)
	}
	return err
}

// take puts a segment into the archive. What the disk refuses is tried once
// more, as an error may be that of an earlier segment's fdatasync, and then
// counted as lost. Other errors end the recording.
func (r *recorder) take(seg *m4f.Segment) error {
	err := r.put(seg)
	if r.w == nil && refused(err) {
		return err
	}
	if diskTrouble(err) {
		slog.Debug("a write has failed and is repeated", "dir", r.o.dir, "reason", err)
		err = r.put(seg)
	}
	switch {
	case err == nil && r.failing:
		r.failing = false
		slog.Info("writing works again", "stream", r.s.Name(), "lost", r.lost)
	case diskTrouble(err):
		if r.lost++; !r.failing {
			r.failing = true
			slog.Error("segments cannot be written, each new one is tried", "dir", r.o.dir, "reason", err)
		}
		return nil
	}
	return err
}

// put dates a segment and appends it, unless the archive has it. It may be
// called again with the same one.
func (r *recorder) put(seg *m4f.Segment) error {
	if r.w == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	dated := *seg
	if err := r.dates.Apply(&dated.Header); err != nil {
		return err
	}
	if there, err := r.s.Present(&dated.Header); err != nil || there {
		return err
	}
	return r.w.Append(&dated)
}

// diskTrouble says whether an error is the disk's, which may pass: what the
// archive could not write or read, or what a system call returned.
func diskTrouble(err error) bool {
	var write *archive.WriteError
	var corrupt *archive.CorruptError
	var errno syscall.Errno
	return errors.As(err, &write) || errors.As(err, &corrupt) || errors.As(err, &errno)
}

// refused says whether an error is one that does not pass by itself: of a
// directory that is not to be written.
func refused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}
