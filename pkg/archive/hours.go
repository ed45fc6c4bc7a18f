package archive

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// recheck is how long what was read of an hour is believed without looking at
// its directory again. Segments added by anyone are seen at once, through
// changes; this is for files that appear or vanish without being announced,
// such as hours copied in from a backup.
const recheck = 30 * time.Second

// version says what state of an hour something was computed from. 0 is an hour
// without a file, or one before the horizon that is not kept.
type version uint64

// hourCache is what a Stream remembers of its hours. It remembers a few words
// for each hour that was asked for; records and views are in a cache shared by
// all streams and bounded in bytes.
type hourCache struct {
	s *Stream

	mu     sync.Mutex
	seen   int64 // changes are known up to this offset of the file
	seenID uint64
	reach  reach // which hours exist, as of the last look
	list   []hour
	listed time.Time
	state  map[hour]*hourState
	doubts int // how often hours were found dirty

	// doubted are hours of which a segment was taken back that readers may have
	// seen. They have a lock of their own, which nobody keeps: a writer never
	// waits for readers.
	doubtMu sync.Mutex
	doubted []hour
}

type hourState struct {
	version version
	checked time.Time
	dirty   bool         // announced as changed since it was checked
	files   []extentFile // that version was computed from, until they are read

	sum        Hour
	sumOf      [3]version // what sum was computed from
	haveSum    bool
	begins     m4f.UTC                      // start of the first element of sum's view
	ends       m4f.UTC                      // end of the last
	fold       *fold                        // its part of the totals; nil: not known
	grows      bool                         // it has changed since it was first looked at
	lastExtent map[extentName]*loadedExtent // of an hour that grows
}

type loadedExtent struct {
	sig uint64
	x   *extent
}

func (c *hourCache) init(s *Stream) {
	c.s = s
	c.state = make(map[hour]*hourState)
}

// doubt has an hour read afresh.
func (c *hourCache) doubt(h hour) {
	c.doubtMu.Lock()
	defer c.doubtMu.Unlock()
	if !slices.Contains(c.doubted, h) {
		c.doubted = append(c.doubted, h)
	}
}

// settle takes note of the hours that are in doubt. Callers hold mu.
func (c *hourCache) settle() {
	c.doubtMu.Lock()
	defer c.doubtMu.Unlock()
	c.doubts += len(c.doubted)
	for _, h := range c.doubted {
		if st := c.state[h]; st != nil {
			st.dirty = true
		}
	}
	c.doubted = c.doubted[:0]
}

// refresh takes note of what changes announces. Callers hold mu.
func (c *hourCache) refresh() error {
	c.settle()
	r, err := c.s.openChanges()
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.close()
	if r.lineage != c.seenID || c.seen > r.size || c.seen < r.base {
		// Another file, or the first look: every hour is read afresh anyway.
		c.doubts++
		for _, st := range c.state {
			st.dirty = true
		}
		c.listed = time.Time{}
		c.seenID, c.seen = r.lineage, r.size
		return nil
	}
	off := c.seen
	for {
		ch, next, ok, err := r.next(off)
		if err != nil {
			return err
		}
		if !ok {
			c.seen = next
			return nil
		}
		off = next
		c.doubts++
		st := c.state[ch.hour]
		if st != nil {
			st.dirty = true
		}
		c.insert(ch.hour)
	}
}

// know takes note of an hour that has a directory now, though no segment of it
// is announced: one of events. A writer never waits for readers: while one is
// reading the hour is left to be found later.
func (c *hourCache) know(h hour) {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if !c.listed.IsZero() {
		c.insert(h)
	}
}

func (c *hourCache) insert(h hour) {
	if i, found := slices.BinarySearch(c.list, h); !found {
		c.list = slices.Insert(c.list, i, h)
	}
}

// hours returns the hours that exist, at or after the horizon or kept, and that
// a segment in [from, to) may begin in. to 0 is the end of the archive.
func (s *Stream) hours(from, to m4f.UTC) ([]hour, error) {
	r, err := s.reach()
	if err != nil {
		return nil, err
	}
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reach = r
	if err := c.refresh(); err != nil {
		return nil, err
	}
	if now := s.clock.Now(); c.listed.IsZero() || now.Sub(c.listed) > recheck || now.Before(c.listed) {
		if c.list, err = listHours(s.fs, s.dir); err != nil {
			return nil, err
		}
		c.listed = now
		for h := range c.state {
			if _, found := slices.BinarySearch(c.list, h); !found {
				delete(c.state, h)
			}
		}
	}
	lo, _ := slices.BinarySearch(c.list, hourOf(from)-1)
	hi := len(c.list)
	if to != 0 {
		hi, _ = slices.BinarySearch(c.list, hourOf(to-1)+1)
	}
	out := slices.Clone(c.list[lo:max(lo, hi)])
	before, _ := slices.BinarySearch(out, r.first)
	kept := 0
	for _, h := range out[:before] {
		if r.has(h) {
			out[kept] = h
			kept++
		}
	}
	return slices.Delete(out, kept, before), nil
}

// versionOf returns the version that an hour has now. Callers hold mu.
func (c *hourCache) versionOf(h hour) (version, error) {
	if !c.reach.has(h) {
		return 0, nil
	}
	now := c.s.clock.Now()
	st := c.state[h]
	if st == nil {
		st = &hourState{dirty: true}
		c.state[h] = st
	}
	if !st.dirty && now.Sub(st.checked) < recheck && !now.Before(st.checked) {
		return st.version, nil
	}
	files, err := c.s.hourFiles(h)
	if err != nil {
		return 0, err
	}
	return c.looked(h, files, now), nil
}

// looked takes note of what is in an hour's directory since a look at it that began
// now. Callers hold mu.
func (c *hourCache) looked(h hour, files []extentFile, now time.Time) version {
	st := c.state[h]
	if st == nil {
		st = &hourState{}
		c.state[h] = st
	}
	before := st.version
	st.dirty, st.checked, st.version, st.files = false, now, versionOfFiles(files), files
	st.grows = st.grows || before != 0 && st.version != before
	return st.version
}

func versionOfFiles(files []extentFile) version {
	if len(files) == 0 {
		return 0
	}
	sum := fnv.New64a()
	for _, f := range files {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], f.sig)
		sum.Write(b[:])
	}
	return version(sum.Sum64() | 1)
}

// extentFile is an extent in an hour's directory.
type extentFile struct {
	name extentName
	sig  uint64 // of its files' names, sizes and times
}

// hourFiles looks at the files of an hour.
func (s *Stream) hourFiles(h hour) ([]extentFile, error) {
	entries, err := readDir(s.fs, s.hourDir(h))
	if err != nil {
		return nil, err
	}
	byBase := make(map[string][]fs.DirEntry)
	for _, e := range entries {
		if i := strings.LastIndexByte(e.Name(), '.'); i > 0 {
			byBase[e.Name()[:i]] = append(byBase[e.Name()[:i]], e)
		}
	}
	var out []extentFile
	for _, e := range entries {
		base, isMedia := strings.CutSuffix(e.Name(), mediaExt)
		name, ok := parseExtentName(base)
		if !isMedia || !ok {
			continue
		}
		sum := fnv.New64a()
		for _, e := range byBase[base] {
			info, err := e.Info()
			if err != nil {
				continue // removed meanwhile
			}
			sum.Write([]byte(e.Name()))
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], uint64(info.Size()))
			binary.BigEndian.PutUint64(b[8:], uint64(info.ModTime().UnixNano()))
			sum.Write(b[:])
		}
		out = append(out, extentFile{name, sum.Sum64()})
	}
	slices.SortFunc(out, func(a, b extentFile) int {
		return int(a.name.ms)*65536 + int(a.name.n) - int(b.name.ms)*65536 - int(b.name.n)
	})
	return out, nil
}

// hourRecords is what the extents of an hour hold, as they have it one after the other.
type hourRecords struct {
	recs    []stored
	sorted  bool // by UTC, of which no two have the same
	longest m4f.UTC
}

// recordsOf returns what the extents of an hour hold. The result is shared.
// Callers hold mu.
func (c *hourCache) recordsOf(h hour, v version) ([]stored, error) {
	r, err := c.records(h, v)
	return r.recs, err
}

// noRecords are those of an hour without any.
var noRecords = &hourRecords{sorted: true}

// records is recordsOf, with what is known of them as a whole. It is never nil.
func (c *hourCache) records(h hour, v version) (*hourRecords, error) {
	if v == 0 {
		return noRecords, nil
	}
	key := cacheKey{c, h, kindRecords}
	if r, ok := shared.get(key, cacheVersion{v}); ok {
		return r.(*hourRecords), nil
	}
	st := c.state[h]
	files := st.files
	if st.files = nil; files == nil {
		var err error
		if files, err = c.s.hourFiles(h); err != nil {
			return noRecords, err
		}
	}
	var out *hourRecords
	var err error
	if n := len(c.list); n > 0 && h >= c.list[n-1] && st.grows {
		out, err = c.loadGrowing(h, files)
	} else {
		out, err = c.s.loadHour(h, files)
	}
	if err != nil {
		return noRecords, err
	}
	shared.put(key, cacheVersion{v}, out, out.size())
	return out, nil
}

// size is how many bytes of memory they take.
func (r *hourRecords) size() int { return len(r.recs)*160 + 64 }

// extentBuffersPool has what the extents of hours are read into.
var extentBuffersPool = sync.Pool{New: func() any { return new(extentBuffers) }}

// mostBuffered bounds the index for which buffers are kept: 8 hours of 4 s segments.
const mostBuffered = 1 << 20

// loadHour reads the extents of an hour.
func (s *Stream) loadHour(h hour, files []extentFile) (*hourRecords, error) {
	b := extentBuffersPool.Get().(*extentBuffers)
	defer func() {
		if b.index.Cap() < mostBuffered { // others are too large to be kept
			extentBuffersPool.Put(b)
		}
	}()
	out := &hourRecords{recs: []stored{}}
	for _, f := range files {
		x, err := s.loadExtentIn(b, h, f.name)
		if err != nil {
			return nil, err
		}
		out.add(h, f.name, x)
	}
	out.done()
	return out, nil
}

// loadGrowing is loadHour for the newest hour, where it has been seen to grow: its
// parsed extents are remembered, those of no other hour, so that only the extent that
// grew is read again. Callers hold mu.
func (c *hourCache) loadGrowing(h hour, files []extentFile) (*hourRecords, error) {
	last := c.state[h].lastExtent
	kept := make(map[extentName]*loadedExtent)
	out := &hourRecords{recs: []stored{}}
	for _, f := range files {
		l := last[f.name]
		if l == nil || l.sig != f.sig {
			x, err := c.s.loadExtent(h, f.name)
			if err != nil {
				return nil, err
			}
			l = &loadedExtent{f.sig, x}
		}
		kept[f.name] = l
		out.add(h, f.name, l.x)
	}
	for _, st := range c.state {
		st.lastExtent = nil
	}
	c.state[h].lastExtent = kept
	out.done()
	return out, nil
}

func (r *hourRecords) add(h hour, name extentName, x *extent) {
	r.recs = slices.Grow(r.recs, len(x.records))
	for i := range x.records {
		rec := &x.records[i]
		r.recs = append(r.recs, stored{Record: rec.Record, at: location{h, name, rec.number, x.initLen, rec.offset}})
	}
}

// done notes what is known of all.
func (r *hourRecords) done() {
	r.sorted = true
	for i := range r.recs {
		r.longest = max(r.longest, m4f.UTC(r.recs[i].Duration))
		r.sorted = r.sorted && (i == 0 || r.recs[i-1].UTC < r.recs[i].UTC)
	}
}

// viewOf returns the elements of the view that begin in an hour. They depend
// on that hour and its neighbours. The result is shared and not to be modified.
func (s *Stream) viewOf(h hour) ([]Element, error) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	els, _, err := c.view(h)
	return els, err
}

func (c *hourCache) view(h hour) ([]Element, cacheVersion, error) {
	v, vs, err := c.viewed(h)
	return v.els, vs, err
}

// hourView is the view of an hour.
type hourView struct {
	els   []Element
	plain bool // it is the hour's records as they are
}

// viewed is view, and says how the view came about.
func (c *hourCache) viewed(h hour) (v hourView, vs cacheVersion, err error) {
	vs, err = c.versions(h)
	if err != nil || vs[1] == 0 { // nothing there
		return v, vs, err
	}
	key := cacheKey{c, h, kindView}
	if v, ok := shared.get(key, vs); ok {
		return v.(hourView), vs, nil
	}
	all, err := c.around(h, vs)
	if err != nil {
		return v, vs, err
	}
	recs := near(all, h)
	if v.els, v.plain = plainView(recs, h); !v.plain {
		v.els = inHour(view(recs), h)
	}
	shared.put(key, vs, v, len(v.els)*224+64)
	return v, vs, nil
}

// versions returns those of the hour before, the hour, and the one after.
func (c *hourCache) versions(h hour) (vs cacheVersion, err error) {
	for i := range vs {
		if vs[i], err = c.versionOf(h - 1 + hour(i)); err != nil {
			return vs, err
		}
	}
	return vs, nil
}

// around returns the records of the hour before an hour, of the hour, and of the one
// after.
func (c *hourCache) around(h hour, vs cacheVersion) (all [3][]stored, err error) {
	for i, v := range vs {
		if all[i], err = c.recordsOf(h-1+hour(i), v); err != nil {
			return all, err
		}
	}
	return all, nil
}

func inHour(els []Element, h hour) []Element {
	out := make([]Element, 0, len(els)/2)
	for _, e := range els {
		if hourOf(e.UTC) == h {
			out = append(out, e)
		}
	}
	return out
}

// Hour sums up the elements of the view that begin in a UTC hour.
type Hour struct {
	Start    m4f.UTC
	Segments int
	Bytes    int64 // of moof and mdat
	Damaged  int   // segments
	Partial  int   // segments
	// Digest is SHA-256 over the elements in playing order: the identity and a
	// byte that is 1 if damaged, plus 2 if partial. Equal digests are equal
	// hours.
	Digest [sha256.Size]byte
}

// Hours sums up each hour that holds segments and touches [from, to); to 0 is
// the end of the archive.
func (s *Stream) Hours(from, to m4f.UTC) ([]Hour, error) {
	hours, err := s.hours(from, to)
	if err != nil {
		return nil, err
	}
	out := make([]Hour, 0, len(hours))
	ahead := s.cache.loadAhead(hours)
	defer ahead.stop()
	for i, h := range hours {
		ahead.wait(i)
		if h < hourOf(from) {
			continue
		}
		sum, err := s.cache.summary(h)
		if err != nil {
			return nil, err
		}
		if sum.Segments > 0 {
			out = append(out, sum)
		}
	}
	return out, nil
}

func (c *hourCache) summary(h hour) (Hour, error) {
	sum, _, _, err := c.summaryAndEnds(h)
	return sum, err
}

// summaryAndEnds returns an hour's summary, and the start of the first element of
// its view and the end of the last; 0: it has none.
func (c *hourCache) summaryAndEnds(h hour) (sum Hour, begins, ends m4f.UTC, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	vs, err := c.versions(h)
	if err != nil {
		return Hour{}, 0, 0, err
	}
	st := c.state[h]
	if st == nil { // pruned meanwhile
		return Hour{Start: h.start(), Digest: noDigest}, 0, 0, nil
	}
	if !st.haveSum || st.sumOf != vs {
		sum, k, err := c.sumUp(h, vs)
		if err != nil {
			return Hour{}, 0, 0, err
		}
		c.keepSketch(h, vs, k)
		st.sum, st.sumOf, st.haveSum = sum, vs, true
		st.begins, st.ends = k.begins, k.ends
	}
	return st.sum, st.begins, st.ends, nil
}

// noDigest is that of an hour without segments.
var noDigest = sha256.Sum256(nil)

// cacheBytes bounds what all streams of the process remember of their records.
const cacheBytes = 12 << 20

var shared = &lru{limit: cacheBytes, at: make(map[cacheKey]*list.Element)}

const (
	kindRecords = iota
	kindView
)

type cacheKey struct {
	c    *hourCache
	hour hour
	kind uint8
}

type cacheVersion = [3]version

// lru is a cache of hours, bounded in bytes, the least recently used going
// first. A value is good for the version it was put with.
type lru struct {
	mu    sync.Mutex
	limit int
	bytes int
	order list.List
	at    map[cacheKey]*list.Element
}

type lruEntry struct {
	key     cacheKey
	version cacheVersion
	value   any
	bytes   int
}

func (l *lru) get(key cacheKey, v cacheVersion) (any, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	el := l.at[key]
	if el == nil || el.Value.(*lruEntry).version != v {
		return nil, false
	}
	l.order.MoveToFront(el)
	return el.Value.(*lruEntry).value, true
}

func (l *lru) put(key cacheKey, v cacheVersion, value any, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if el := l.at[key]; el != nil {
		l.remove(el)
	}
	l.at[key] = l.order.PushFront(&lruEntry{key, v, value, bytes})
	l.bytes += bytes
	for l.bytes > l.limit && l.order.Len() > 1 {
		l.remove(l.order.Back())
	}
}

func (l *lru) remove(el *list.Element) {
	e := l.order.Remove(el).(*lruEntry)
	delete(l.at, e.key)
	l.bytes -= e.bytes
}
