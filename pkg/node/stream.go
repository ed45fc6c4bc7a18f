package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/replicate"
)

// retryOpen is how often an archive that cannot be opened is tried again.
const retryOpen = 2 * time.Second

// stream is one stream of a node.
type stream struct {
	node *Node
	cfg  *config.Stream
	log  *slog.Logger

	sources []*source // by input; nil for a peer
	links   []*link   // by input; nil for a source
	mirrors []*link   // replication where it has a port of its own
	ctl     *controller
	share   *replicate.Share // what the links have in common
	heal    healing
	peers   *peerTeller

	notes   chan event.Event // events to be kept, so that a slow disk holds up nobody
	sum     summary          // of the archive
	verify  verifyState      // of its bytes
	salv    keptSalvage      // packets of damaged segments
	asked   asked            // backfills that the API was asked for
	through *through         // what is fetched while it is played
	made    atomic.Int64     // how often the archive was begun anew
	began   time.Time

	writing atomic.Int64 // since when a segment has been being recorded, Unix nanoseconds; 0: none is
	newest  atomic.Int64 // the end of the newest segment that was added since the node began, m4f.UTC; 0: none was

	full    chan struct{} // wakes the pruner: there was no room
	wasFull atomic.Bool   // there was none since it looked last
	device  atomic.Uint64 // of the volume that the archive lies on

	mu      sync.Mutex // never held during input or output
	arc     *archive.Stream
	openErr error
	retired bool
	disk    error     // why nothing can be written
	diskOK  time.Time // since when it has gone well again
}

func newStream(n *Node, c *config.Stream) *stream {
	s := &stream{node: n, cfg: c, log: n.log.With("stream", c.Name), notes: make(chan event.Event, 64), full: make(chan struct{}, 1), began: n.now(), asked: newAsked()}
	s.share, s.peers = newShare(s), newPeerTeller(s)
	s.through = newThrough(s)
	s.sources = make([]*source, len(c.Inputs))
	s.links = make([]*link, len(c.Inputs))
	for i, in := range c.Inputs {
		if in.Peer == nil {
			s.sources[i] = newSource(s, i)
			continue
		}
		s.links[i] = &link{s: s, index: i, peer: *in.Peer, replicate: c.DVR.Replicate}
		if p := c.DVR.ReplicationPort; c.DVR.Replicate && p != 0 && p != in.Peer.Port {
			far := *in.Peer
			far.Port = p
			s.links[i].replicate = false
			s.mirrors = append(s.mirrors, &link{s: s, index: i, peer: far, replicate: true, mirror: true})
		}
	}
	s.ctl = newController(s)
	return s
}

func (s *stream) String() string { return "stream " + s.cfg.Name }

// retire turns a stream that has stopped into one that is only served and
// pruned.
func (s *stream) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
}

// Serve implements suture.Service: it opens the archive and runs the stream's
// parts.
func (s *stream) Serve(ctx context.Context) error {
	for {
		err := s.open()
		if err == nil {
			break
		}
		s.mu.Lock()
		told := s.openErr != nil && s.openErr.Error() == err.Error()
		s.openErr = err
		s.mu.Unlock()
		if !told {
			s.log.Error("archive cannot be opened; trying again", "dir", s.cfg.DVR.Dir, "err", err)
		}
		if !s.node.pause(ctx, retryOpen) {
			return ctx.Err()
		}
	}
	sup := suture.New(s.cfg.Name, s.node.spec(s.log))
	sup.Add(&pruner{s: s})
	sup.Add(&noter{s: s})
	sup.Add(&keeper{s})
	sup.Add(&verifier{s: s})
	sup.Add(&mender{s})
	sup.Add(&expirer{s})
	sup.Add(&orderly{s})
	sup.Add(s.through)
	sup.Add(&changeTeller{s: s})
	s.mu.Lock()
	retired := s.retired
	s.mu.Unlock()
	if !retired {
		s.note(event.Event{Kind: event.Start, Msg: "the node began to record"})
		sup.Add(s.ctl)
		sup.Add(s.peers)
		for i := range s.cfg.Inputs {
			if s.sources[i] != nil {
				sup.Add(s.sources[i])
			} else {
				sup.Add(s.links[i])
			}
		}
		for _, l := range s.mirrors {
			sup.Add(l)
		}
	}
	err := sup.Serve(ctx)
	s.closeHealer()
	if !retired {
		s.note(event.Event{Kind: event.Stop, Msg: "the node was stopped"})
	}
	s.keepNotes()
	return err
}

func (s *stream) open() error {
	if s.cfg.DVR.Mounted {
		if err := fsx.CheckMounted(s.cfg.DVR.Root); err != nil {
			return err
		}
	}
	a, err := archive.Create(s.cfg.DVR.Dir, s.cfg.Name, archive.CreateOptions{
		TargetDuration: s.target(), Clock: s.node.opt.Clock, FS: s.node.measures.disk(s.node.opt.FS, s.cfg.DVR.Root),
		OnEvent: s.node.happened, OnAdd: s.onAdd(),
	})
	if err != nil {
		return err
	}
	if u, err := archive.UsageOf(a.Dir()); err == nil {
		s.device.Store(u.Device)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.openErr != nil {
		s.log.Info("archive is open", "dir", s.cfg.DVR.Dir)
	}
	s.arc, s.openErr = a, nil
	return nil
}

// onAdd returns what looks at each segment that is added to the archive.
func (s *stream) onAdd() func(*archive.Record) {
	count := s.node.measures.added(s.cfg.Name)
	return func(r *archive.Record) {
		count(r)
		s.took(&r.Header)
		s.peers.heals.add(r, s.node.now())
	}
}

// target is the target duration of a segment in ticks.
func (s *stream) target() int64 { return m4f.Ticks(s.cfg.SegmentDuration) }

// archive is nil until it could be opened.
func (s *stream) archive() *archive.Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arc
}

func (s *stream) openError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openErr
}

// note tells of an event and has it kept in the archive. Where there are more than
// the archive takes, the log alone has them.
func (s *stream) note(e event.Event) {
	if e.Stream = s.cfg.Name; e.Time.IsZero() {
		e.Time = s.node.now()
	}
	s.node.happened(e)
	select {
	case s.notes <- e:
	default:
		s.log.Debug("event is not kept: too many wait", "kind", e.Kind, "msg", e.Msg)
	}
}

// keepNotes writes the events that wait.
func (s *stream) keepNotes() {
	for {
		select {
		case e := <-s.notes:
			_ = s.keepNote(e) // it is the end: there is no later
		default:
			return
		}
	}
}

// keepNote writes an event.
func (s *stream) keepNote(e event.Event) error {
	a := s.archive()
	if a == nil {
		return nil // there is nowhere to keep it
	}
	err := a.Note(e)
	if err != nil {
		s.log.Debug("event could not be kept", "kind", e.Kind, "msg", e.Msg, "err", err)
	}
	return err
}

const (
	// notesAgain is how often events are tried again that could not be written:
	// they say why the disk, or the process, could not do it.
	notesAgain = 2 * time.Second
	// mostNotes is how many of them wait, and notesWait for how long.
	mostNotes = 64
	notesWait = time.Hour
)

// noter writes events.
type noter struct {
	s       *stream
	waiting []event.Event // could not be written
	since   time.Time     // when the first of them could not
}

func (n *noter) String() string { return "events of " + n.s.cfg.Name }

// Serve implements suture.Service.
func (n *noter) Serve(ctx context.Context) error {
	clock := n.s.node.opt.Clock
	again := clock.After(notesAgain)
	for {
		select {
		case <-ctx.Done():
			n.again()
			return ctx.Err()
		case e := <-n.s.notes:
			n.keep(e)
		case <-again:
			n.again()
			again = clock.After(notesAgain)
		}
	}
}

// keep writes an event behind those that wait.
func (n *noter) keep(e event.Event) {
	switch {
	case len(n.waiting) >= mostNotes: // the first ones tell what began it
	case len(n.waiting) > 0:
		n.waiting = append(n.waiting, e)
	case n.s.keepNote(e) != nil:
		n.waiting, n.since = append(n.waiting, e), n.s.node.now()
	}
}

// again tries to write what waits.
func (n *noter) again() {
	for len(n.waiting) > 0 {
		if n.s.keepNote(n.waiting[0]) != nil && n.s.node.since(n.since) < notesWait {
			return
		}
		n.waiting = n.waiting[1:]
	}
	n.waiting = nil
}

// keeper makes an archive anew whose directory is gone: another disk may have
// been mounted.
type keeper struct{ s *stream }

func (k *keeper) String() string { return "archive of " + k.s.cfg.Name }

// Serve implements suture.Service.
func (k *keeper) Serve(ctx context.Context) error {
	told := ""
	for k.s.node.pause(ctx, retryOpen) {
		if _, err := k.s.archive().Horizon(); !errors.Is(err, fs.ErrNotExist) {
			told = ""
			continue
		}
		if err := k.s.open(); err != nil {
			if told != err.Error() {
				told = err.Error()
				k.s.log.Error("the archive is gone and cannot be made anew; trying again", "dir", k.s.cfg.DVR.Dir, "err", err)
			}
			continue
		}
		k.s.made.Add(1)
		k.s.restartLinks()
		k.s.log.Warn("the archive was gone and is begun anew", "dir", k.s.cfg.DVR.Dir)
		k.s.note(event.Event{Kind: event.Disk, Msg: "the archive was gone and was begun anew"})
	}
	return ctx.Err()
}

// settled is for how long writing must have gone well after an error: what was
// written is only known to be kept when it has been synced.
const settled = 2 * archive.DefaultSync

// wrote takes the outcome of writing to the archive, and tells when it changes.
func (s *stream) wrote(err error) {
	now := s.node.now()
	s.mu.Lock()
	was := s.disk
	switch {
	case err != nil:
		s.disk, s.diskOK = err, time.Time{}
	case was != nil && s.diskOK.IsZero():
		s.diskOK = now
	}
	if err == nil && was != nil {
		if now.Sub(s.diskOK) < settled {
			s.mu.Unlock()
			return
		}
		s.disk = nil
	}
	s.mu.Unlock()
	s.wantRoom(err)
	switch {
	case err != nil && was == nil:
		s.log.Error("recording has stopped: the archive cannot be written; trying again", "err", err)
		s.note(event.Event{Kind: event.Disk, Msg: fmt.Sprintf("the archive could not be written: %v", err)})
	case err == nil && was != nil:
		s.log.Info("the archive is written again")
		s.note(event.Event{Kind: event.DiskBack, Msg: "the archive is written again"})
		s.reconcile()
	}
}

// restartLinks makes every connection to a peer begin anew.
func (s *stream) restartLinks() {
	for _, l := range append(append([]*link{}, s.links...), s.mirrors...) {
		if l != nil {
			l.restart()
		}
	}
}

// replicas are the links that fill gaps and damage.
func (s *stream) replicas() []*link {
	var out []*link
	for _, l := range append(append([]*link{}, s.links...), s.mirrors...) {
		if l != nil && l.replicate {
			out = append(out, l)
		}
	}
	return out
}
