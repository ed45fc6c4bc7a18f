package archive

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// mostLoaders is how many read at once, at most.
	mostLoaders = 4
	// loadedTogether is of how many hours the records are read in a go: goroutines that
	// wait for each other hour by hour cost as much as reading.
	loadedTogether = 8
	// loadedAhead is how many times as many are read ahead of the hour that is summed
	// up: few enough to be remembered until then.
	loadedAhead = 4
	// mostAhead is of how many streams hours are read ahead at a time: what is
	// remembered of hours is for all.
	mostAhead = 2
)

// readingAhead has an entry for each stream of which hours are read ahead.
var readingAhead = make(chan struct{}, mostAhead)

// ahead reads the records of hours while those before them are summed up. It only
// fills the cache: what is not there is read when it is needed. A nil one reads nothing.
type ahead struct {
	c       *hourCache
	goes    [][]hour
	loaded  []chan struct{} // closed when the hours of that go have been read, or cannot be
	tokens  chan struct{}   // to read a go with
	stopped chan struct{}
	next    atomic.Int32 // the number of the next go
	wg      sync.WaitGroup
}

// loadAhead begins to read hours, if of enough of them no sum is known and not enough
// other streams are being read. stop must be called.
func (c *hourCache) loadAhead(hours []hour) *ahead {
	loaders := min(runtime.GOMAXPROCS(0), mostLoaders)
	if loaders < 2 || c.unknown(hours) < loadedTogether {
		return nil
	}
	select {
	case readingAhead <- struct{}{}:
	default:
		return nil
	}
	a := &ahead{
		c:       c,
		goes:    slices.Collect(slices.Chunk(hours, loadedTogether)),
		tokens:  make(chan struct{}, loadedAhead),
		stopped: make(chan struct{}),
	}
	for range a.goes {
		a.loaded = append(a.loaded, make(chan struct{}))
	}
	for range loadedAhead {
		a.tokens <- struct{}{}
	}
	for range loaders {
		a.wg.Go(a.load)
	}
	return a
}

// unknown is of how many hours no sum is known.
func (c *hourCache) unknown(hours []hour) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range hours {
		if !c.known(h) {
			n++
		}
	}
	return n
}

// known says whether a sum of an hour is known, be it an old one. Callers hold mu.
func (c *hourCache) known(h hour) bool {
	st := c.state[h]
	return st != nil && st.haveSum
}

// load reads hours, in order among all that do.
func (a *ahead) load() {
	for {
		select {
		case <-a.stopped:
			return
		case <-a.tokens:
		}
		i := int(a.next.Add(1)) - 1
		if i >= len(a.goes) {
			return
		}
		a.c.prepare(a.goes[i])
		close(a.loaded[i])
	}
}

// wait waits until the hour of a number and the one behind it have been read. Numbers
// come in order.
func (a *ahead) wait(i int) {
	if a == nil {
		return
	}
	n := i / loadedTogether
	<-a.loaded[n]
	if (i+1)%loadedTogether == 0 {
		a.tokens <- struct{}{}
		if n+1 < len(a.loaded) {
			<-a.loaded[n+1]
		}
	}
}

// stop ends the reading.
func (a *ahead) stop() {
	if a != nil {
		close(a.stopped)
		a.wg.Wait()
		<-readingAhead
	}
}

// prepare looks at the directories of hours and reads their records, unless a sum is
// known. Whatever goes wrong shows when they are needed.
func (c *hourCache) prepare(hours []hour) {
	var wanted []hour
	c.mu.Lock()
	doubts, now := c.doubts, c.s.clock.Now()
	for _, h := range hours {
		if !c.known(h) {
			wanted = append(wanted, h)
		}
	}
	c.mu.Unlock()
	files := make(map[hour][]extentFile, len(wanted))
	for _, h := range wanted {
		if list, err := c.s.hourFiles(h); err == nil && len(list) > 0 {
			files[h] = list
		}
	}
	c.mu.Lock()
	for h, list := range files {
		// Not where a change was announced meanwhile, or somebody has looked since.
		if st := c.state[h]; c.doubts == doubts && c.reach.has(h) && (st == nil || st.checked.Before(now)) {
			c.looked(h, list, now)
		}
	}
	c.mu.Unlock()
	for _, h := range wanted {
		key, v := cacheKey{c, h, kindRecords}, cacheVersion{versionOfFiles(files[h])}
		if _, ok := shared.get(key, v); ok || len(files[h]) == 0 {
			continue
		}
		if r, err := c.s.loadHour(h, files[h]); err == nil {
			shared.put(key, v, r, r.size())
		}
	}
}
