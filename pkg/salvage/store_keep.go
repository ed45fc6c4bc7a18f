package salvage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Run keeps what one run of a segmenter hands out. It is used by one goroutine
// at a time, holds nothing open and needs no end.
type Run struct {
	s     *Store
	id    uint64
	files []runFile // written by Keep that later packets may be in, in order
}

// runFile is a file of packets and where it was last seen.
type runFile struct {
	first, end int64
	entry      string // name of an entry that has it
}

// NewRun begins a run: packet numbers of different runs have nothing to do with
// each other.
func (s *Store) NewRun() *Run { return &Run{s: s, id: newRunID()} }

func newRunID() uint64 {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("salvage: no randomness: %v", err))
	}
	return binary.BigEndian.Uint64(b[:])
}

// Keep writes the packets of k that no earlier Keep of the run has written, and
// publishes an entry. The bytes of k are not used after it returns. An error
// (*StoreError, or one that says what is wrong with k) leaves nothing behind,
// and what was kept before stays. When it returns nil, readers in every process
// see the entry.
//
// What the limits given to Expire do not allow is dropped, the oldest first.
func (r *Run) Keep(k *Kept) (Entry, error) {
	e := &Entry{
		Run: r.id, From: k.First, To: k.First + int64(k.Len()), Program: k.Program, Target: k.Target,
		Segments: []m4f.Header{k.Header}, Holes: slices.Clone(k.Holes), Kept: r.s.Now(),
	}
	added, err := r.s.write(e, k.pieces(), r.files)
	if err != nil {
		return Entry{}, err
	}
	r.remember(e)
	r.s.grow(added)
	return *e, nil
}

// remember notes where the run's packets are. Those before the entry are not
// asked for again.
func (r *Run) remember(e *Entry) {
	kept := r.files[:0]
	for _, p := range e.parts {
		kept = append(kept, runFile{first: p.file, end: p.file + int64(p.size), entry: e.Name})
	}
	r.files = kept
}

// Merged is a copy that a merge has made.
type Merged struct {
	Copy
	Segments []m4f.Header // that it is still needed for: damaged or partial
	Gained   int          // packets that the merge added to the entries that it replaces
}

// Put keeps a merged copy in place of the entries that it was made from, at
// least one. Errors are those of Run.Keep; the entries then stay. That one of
// them has gone meanwhile is no error.
func (s *Store) Put(m *Merged, of ...Entry) (Entry, error) {
	if len(of) == 0 {
		return Entry{}, errors.New("a merged copy replaces at least one entry")
	}
	e := &Entry{
		Run: newRunID(), To: int64(m.Len()), Program: of[0].Program, Target: of[0].Target,
		Segments: slices.Clone(m.Segments), Holes: slices.Clone(m.Holes), Kept: of[0].Kept, Gained: m.Gained,
	}
	for i := range of {
		if of[i].Kept.After(e.Kept) {
			e.Kept = of[i].Kept // no merge makes salvage live longer
		}
		e.Gained += of[i].Gained
	}
	e.Gained = min(e.Gained, m.Len())
	added, err := s.write(e, pieces{m.Packets}, nil)
	if err != nil {
		return Entry{}, err
	}
	s.grow(added)
	return *e, s.Remove(of...) // 7
}

// write is the numbered steps of Keep in the doc of Store. It fills in the
// entry's name and parts, and says how many bytes are new.
func (s *Store) write(e *Entry, c pieces, have []runFile) (added int64, err error) {
	if err := checkCopy(e, c); err != nil {
		return 0, err
	}
	e.Name = e.name()
	// The directory above is the stream's: where that is gone, so is the volume.
	if err := s.mkdir(s.dir); err != nil && !errors.Is(err, fs.ErrExist) { // 1
		return 0, s.fail(err)
	}
	tmp := filepath.Join(s.dir, tempPrefix+e.Name)
	if err := s.mkdir(tmp); err != nil { // 2
		return 0, s.fail(err)
	}
	added, err = s.fill(tmp, e, c, have)
	if err == nil {
		err = s.fs.Rename(tmp, filepath.Join(s.dir, e.Name)) // 6
	}
	if err != nil {
		e.parts = nil
		s.empty(tmp)
		return 0, s.fail(err)
	}
	return added, nil
}

func (s *Store) mkdir(dir string) error {
	if err := s.fs.Mkdir(dir, dirPerm); err != nil {
		return err
	}
	if s.owner != (fsx.Owner{}) && os.Geteuid() == 0 {
		// Whoever may read the directory above can do without; see Owner.Give.
		_ = s.fs.Chown(dir, s.owner.UID, s.owner.GID)
	}
	return nil
}

// checkCopy refuses what cannot be written.
func checkCopy(e *Entry, c pieces) error {
	for _, b := range c {
		if len(b)%PacketSize != 0 {
			return fmt.Errorf("%d bytes are no whole packets", len(b))
		}
	}
	if err := e.check(); err != nil {
		return err
	}
	at := 0
	for _, b := range c {
		if err := checkSync(b, at); err != nil {
			return err
		}
		at += len(b) / PacketSize
	}
	return nil
}

// syncByte begins every transport packet (13818-1 2.4.3.3).
const syncByte = 0x47

// checkSync looks at packets of which the first is number first.
func checkSync(packets []byte, first int) error {
	for i := 0; i < len(packets); i += PacketSize {
		if packets[i] != syncByte {
			return fmt.Errorf("packet %d does not begin with 0x47", first+i/PacketSize)
		}
	}
	return nil
}

// fill makes the files of an entry in its directory.
func (s *Store) fill(dir string, e *Entry, c pieces, have []runFile) (added int64, err error) {
	at := e.From
	put := func(end int64) error { // writes the packets from at on
		if at >= end {
			return nil
		}
		b := c.cut(at-e.From, end-e.From)
		if err := s.writeFile(filepath.Join(dir, packetName(at)), b...); err != nil { // 4
			return err
		}
		e.add(c, part{file: at, size: int(end - at), from: at, to: end})
		added += b.size()
		at = end
		return nil
	}
	for _, f := range have {
		if f.end <= at || f.first >= e.To || len(e.parts) >= maxParts-2 {
			continue
		}
		if f.first > at {
			if err := put(f.first); err != nil {
				return 0, err
			}
		}
		err := s.fs.Link(filepath.Join(s.dir, f.entry, packetName(f.first)), filepath.Join(dir, packetName(f.first))) // 3
		if errors.Is(err, fsx.ErrCrashed) {
			return 0, err
		}
		if err != nil {
			continue // it has gone, or there are no links here: written again
		}
		end := min(f.end, e.To)
		e.add(c, part{file: f.first, size: int(f.end - f.first), from: at, to: end})
		at = end
	}
	if err := put(e.To); err != nil {
		return 0, err
	}
	return added, s.writeFile(filepath.Join(dir, entryName), e.encode()) // 5
}

// add notes a part of the entry's packets.
func (e *Entry) add(c pieces, p part) {
	for _, b := range c.cut(p.from-e.From, p.to-e.From) {
		p.crc = crc32.Update(p.crc, castagnoli, b)
	}
	e.parts = append(e.parts, p)
}

func (s *Store) writeFile(name string, b ...[]byte) error {
	f, err := fsx.OpenNew(s.fs, name, os.O_WRONLY, filePerm, s.owner)
	if err != nil {
		return err
	}
	n, err := f.WriteBuffers(b...)
	if size := pieces(b).size(); err == nil && n != size {
		err = &fs.PathError{Op: "write", Path: name, Err: fmt.Errorf("%d of %d bytes written", n, size)}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// grow notes bytes that were written, and keeps the store within its limit
// until Expire is called again.
func (s *Store) grow(added int64) {
	s.mu.Lock()
	s.bytes += added
	limit, over := s.limit, s.limit.Bytes > 0 && s.bytes > s.limit.Bytes
	s.mu.Unlock()
	if !over {
		return
	}
	limit.Age = math.MaxInt64
	// What cannot be removed now is tried again with what is kept next.
	_, _ = s.expire(s.Now(), limit, nil)
}
