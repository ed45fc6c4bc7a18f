package archive

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// childEnv makes the test binary a writer, in a process of its own: it appends
// contiguous segments from $TWINDVR_ARCHIVE_MEDIA (seconds) on, as many as
// $TWINDVR_ARCHIVE_COUNT says, and prints the number of each when Append has
// returned.
const (
	childEnv      = "TWINDVR_ARCHIVE_CHILD"
	childMediaEnv = "TWINDVR_ARCHIVE_MEDIA"
	childCountEnv = "TWINDVR_ARCHIVE_COUNT"
)

func childMain(dir string) int {
	media, _ := strconv.Atoi(os.Getenv(childMediaEnv))
	count, _ := strconv.Atoi(os.Getenv(childCountEnv))
	if err := childRun(dir, int64(media), count); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childRun(dir string, media int64, count int) error {
	s, err := Create(dir, "", Options{})
	if err != nil {
		return err
	}
	w := s.Writer(Live, 0, WriterOptions{Sync: 10 * time.Millisecond})
	for i := range int64(count) {
		at := media + 4*i
		seg := spec{media: at * sec, utc: noon.Add(at * sec), duration: 4 * sec, size: 200_000}.build(childT{})
		if err := w.Append(seg); err != nil {
			return err
		}
		fmt.Println(i)
	}
	return w.Close()
}

// childT lets the helpers of the tests work in a child.
type childT struct{ testing.TB }

func (childT) Helper()           {}
func (childT) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// child starts a writer; lines are what it prints.
func child(t *testing.T, dir string, media, count int) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprint(childMediaEnv, "=", media), fmt.Sprint(childCountEnv, "=", count))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKillWriter kills a writing process at random moments, again and again on
// one archive: every segment whose Append had returned is there and whole, and
// at most one more of each run.
func TestKillWriter(t *testing.T) {
	s := newStream(t, Options{})
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	const each = 1000 // more than a run gets to
	inOneRun := make([]int, rounds)
	for round := range rounds {
		cmd, lines := child(t, s.Dir(), round*each*4, each)
		last := rand.IntN(30)
		for lines.Scan() {
			inOneRun[round]++
			if inOneRun[round] > last {
				break
			}
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it had printed by then
			inOneRun[round]++
		}
		cmd.Wait()
	}
	var total, cut int
	els := span(t, reopen(t, s))
	have := make([]int, rounds)
	for i := range els {
		if _, err := s.ReadElement(&els[i]); err != nil {
			t.Fatal(err)
		}
		have[int(els[i].UTC-noon)/(4*each*sec)]++
	}
	for round, n := range have {
		total += n
		switch n {
		case inOneRun[round]:
		case inOneRun[round] + 1:
			cut++
		default:
			t.Errorf("run %d: %d segments in the archive, %d were appended", round, n, inOneRun[round])
		}
	}
	t.Logf("%d kills, %d segments appended, none lost; %d runs ended between a segment and its report", rounds, total, cut)
	gaps, err := s.Gaps(0, 0)
	if err != nil || len(gaps) != rounds-1 {
		t.Fatalf("%d gaps, %v", len(gaps), err)
	}
	for _, g := range gaps {
		if g.Cause != "no recorder was running" {
			t.Errorf("%+v", g)
		}
	}
}

// TestFollowAcrossProcesses follows two writing processes at once.
func TestFollowAcrossProcesses(t *testing.T) {
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon.Add(-hourTicks), 0, 1)...)
	start, err := s.End()
	if err != nil {
		t.Fatal(err)
	}
	const each = 30
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	var worst time.Duration
	got := make([]map[m4f.Identity]bool, 3)
	for i := range got {
		got[i] = make(map[m4f.Identity]bool)
		wg.Go(func() {
			done := fmt.Errorf("enough")
			err := s.Changes(ctx, start, func(r Record, c Cursor) error {
				if i == 0 {
					worst = max(worst, time.Since(time.UnixMilli(r.Arrived)))
				}
				if _, err := s.ReadSegment(r.ID, r.UTC); err != nil {
					return err
				}
				if got[i][r.ID] = true; len(got[i]) == 2*each {
					return done
				}
				return nil
			})
			if err != done {
				t.Errorf("follower %d has %d: %v", i, len(got[i]), err)
			}
		})
	}
	var kids []*exec.Cmd
	for k := range 2 {
		cmd, _ := child(t, s.Dir(), k*10000, each)
		kids = append(kids, cmd)
	}
	wg.Wait()
	for _, k := range kids {
		if err := k.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d segments of 2 processes seen by 3 followers, the latest %v after it began to be written", 2*each, worst)
}

// TestManyWritersAndPruning: goroutines and processes write and prune at once,
// and a follower hears of everything that stays.
func TestManyWritersAndPruning(t *testing.T) {
	s := newStream(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const writers, each = 6, 40
	var mu sync.Mutex
	heard := make(map[m4f.Identity]bool)
	followed := make(chan error, 1)
	followCtx, stop := context.WithCancel(ctx)
	go func() {
		for {
			err := s.Changes(followCtx, "", func(r Record, _ Cursor) error {
				mu.Lock()
				defer mu.Unlock()
				heard[r.ID] = true
				return nil
			})
			if err != ErrCursorGone { // pruning was quicker: from the beginning
				followed <- err
				return
			}
		}
	}()
	var wg sync.WaitGroup
	var newest []m4f.Identity
	for k := range writers {
		wg.Go(func() {
			w := s.Writer(Healed, 0, WriterOptions{Sync: SyncOff})
			for i := range int64(each) {
				// From 3 hours ago to now, in its own order.
				at := noon.Add((i*4-160*int64(k%3))*60*sec + int64(k)*sec)
				seg := spec{media: int64(k)*100000*sec + i*240*sec, utc: at, duration: 4 * sec, content: uint64(k)}.build(t)
				err := w.Append(seg)
				if at >= noon.Add(hourTicks) {
					mu.Lock()
					newest = append(newest, seg.Header.ID)
					mu.Unlock()
				}
				if _, early := err.(*HorizonError); err != nil && !early {
					t.Error(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() { // each second pass also wants all but the newest two hours gone
		for h := range int64(8) {
			if _, err := s.Prune(noon.Add(h*hourTicks/2).Time(), PruneOptions{Depth: 2 * time.Hour, Size: h % 2, Force: true}); err != nil {
				t.Error(err)
			}
			if _, err := s.Span(0, 0); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	have := make(map[m4f.Identity]bool)
	for _, e := range span(t, reopen(t, s)) {
		have[e.ID] = true
	}
	for _, id := range newest {
		if !have[id] {
			t.Errorf("%v is lost", id)
		}
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		mu.Lock()
		missing := 0
		for id := range have {
			if !heard[id] {
				missing++
			}
		}
		mu.Unlock()
		if missing == 0 {
			break
		}
	}
	stop()
	if err := <-followed; err != context.Canceled {
		t.Error(err)
	}
	for id := range have {
		if !heard[id] {
			t.Errorf("the follower has not heard of %v", id)
		}
	}
	t.Logf("%d of %d segments stay, the follower heard of %d", len(have), writers*each, len(heard))
}

// TestFollowerOfAFileThatComesAndGoes: a follower begins before changes exists,
// and goes on when it was removed and made again.
func TestFollowerOfAFileThatComesAndGoes(t *testing.T) {
	s := newStream(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	seen := make(chan Record, 10) // the second may still be read from the file that is gone
	ended := make(chan error, 1)
	go func() {
		ended <- s.Changes(ctx, "", func(r Record, _ Cursor) error { seen <- r; return nil })
	}()
	w := s.Writer(Live, 0, WriterOptions{})
	segs := run(t, noon, 0, 2)
	if err := w.Append(segs[0]); err != nil {
		t.Fatal(err)
	}
	if r := <-seen; r.ID != segs[0].Header.ID {
		t.Error("another segment")
	}
	if err := os.Remove(s.changesPath()); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(segs[1]); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != ErrCursorGone {
		t.Errorf("%v: its cursor is of the file that is gone", err)
	}
	recs, _, err := s.ReadChanges("", 10)
	if err != nil || len(recs) != 1 || recs[0].ID != segs[1].Header.ID {
		t.Errorf("%d changes, %v", len(recs), err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestCursors(t *testing.T) {
	s := newStream(t, Options{})
	if c, err := s.End(); err != nil || c != "" {
		t.Errorf("%q, %v", c, err)
	}
	segs := run(t, noon, 0, 5)
	write(t, s, Live, segs...)
	var cursors []Cursor
	var got []m4f.Identity
	for c := Cursor(""); ; {
		recs, next, err := s.ReadChanges(c, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			if end, err := s.End(); err != nil || end != next {
				t.Errorf("ends at %q, End says %q, %v", next, end, err)
			}
			break
		}
		got = append(got, recs[0].ID)
		cursors = append(cursors, next)
		c = next
	}
	if len(got) != 5 || strings.ContainsAny(string(cursors[0]), " %&?#+/") {
		t.Errorf("%d changes, %q", len(got), cursors)
	}
	for _, c := range []Cursor{"x", "-", "0-64", "0123456789abcdef-64", cursors[0][:17] + "63", cursors[0][:17] + "99999", cursors[0][:17], cursors[0] + "x", cursors[0][:17] + "-1"} {
		if _, _, err := s.ReadChanges(c, 1); err != ErrCursorGone {
			t.Errorf("%q: %v", c, err)
		}
	}
}
