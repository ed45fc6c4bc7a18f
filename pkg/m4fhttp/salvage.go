package m4fhttp

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

const (
	packetsType = "video/mp2t"
	numbersType = "application/octet-stream"

	// maxRanges is how many ranges one request may name: their text
	// stays well below maxHeader.
	maxRanges = 400
	// salvageMemory bounds the bytes of salvage that are in memory for all
	// answers at once; one entry is read in any case.
	salvageMemory = 256 << 20
)

// SalvageEntry is an entry of a salvage.Store as it travels: the copy of a
// stretch of packets, and the damaged or partial segments that it is kept for.
type SalvageEntry struct {
	Name           string    `json:"entry"`
	Run            string    `json:"run"`             // 16 hexadecimal digits
	From           int64     `json:"from"`            // number of its first packet in the run
	To             int64     `json:"to"`              // behind its last
	Program        uint16    `json:"program"`         // program_number
	TargetDuration int64     `json:"target_duration"` // D, ticks of 1/90000 s
	Kept           time.Time `json:"kept"`            // when, to the millisecond
	Gained         int       `json:"gained"`          // packets that merges added
	Segments       []Record  `json:"segments"`
	// Holes are places where packets are missing as a transport or a kernel
	// tells: [number of the packet behind it, counted from 0; how many at most].
	Holes [][2]int `json:"holes,omitempty"`
}

// SalvageEntryOf is the form in which an entry travels.
func SalvageEntryOf(e *salvage.Entry) SalvageEntry {
	w := SalvageEntry{
		Name: e.Name, Run: fmt.Sprintf("%016x", e.Run), From: e.From, To: e.To,
		Program: e.Program, TargetDuration: e.Target, Kept: e.Kept.UTC(), Gained: e.Gained,
	}
	for i := range e.Segments {
		w.Segments = append(w.Segments, RecordOf(&archive.Record{Header: e.Segments[i]}))
	}
	for _, h := range e.Holes {
		w.Holes = append(w.Holes, [2]int{h.At, h.Missing})
	}
	return w
}

// Entry checks what came from a peer and returns it as a Store knows it.
func (w *SalvageEntry) Entry() (salvage.Entry, error) {
	run, err := strconv.ParseUint(w.Run, 16, 64)
	if err != nil || len(w.Run) != 16 {
		return salvage.Entry{}, errors.New("a run that is not 16 hexadecimal digits")
	}
	e := salvage.Entry{
		Name: w.Name, Run: run, From: w.From, To: w.To,
		Program: w.Program, Target: w.TargetDuration, Kept: w.Kept, Gained: w.Gained,
		Segments: make([]m4f.Header, 0, min(len(w.Segments), salvage.MaxSegments)),
	}
	if len(w.Segments) > salvage.MaxSegments || len(w.Holes) > salvage.MaxHoles {
		return e, fmt.Errorf("%d segments and %d holes", len(w.Segments), len(w.Holes))
	}
	for i := range w.Segments {
		r, err := w.Segments[i].Record()
		if err != nil {
			return e, err
		}
		e.Segments = append(e.Segments, r.Header)
	}
	for _, h := range w.Holes {
		e.Holes = append(e.Holes, salvage.Hole{At: h[0], Missing: h[1]})
	}
	return e, e.Check()
}

// routeSalvage finds what answers what is behind salvage/.
func (h *Handler) routeSalvage(what string) (serve func(*request) error, allowed string) {
	name, of, _ := strings.Cut(what, "/")
	switch of {
	case "hashes":
		return func(q *request) error { return h.serveHashes(q, name) }, "coarse ranges "
	case "packets":
		return func(q *request) error { return h.servePackets(q, name) }, "ranges "
	}
	return nil, ""
}

// serveSalvage answers with the entries that are for segments of a span.
func (h *Handler) serveSalvage(q *request) error {
	from, to, err := q.span()
	if err != nil {
		return err
	}
	entries, err := q.stream.Archive().Salvage().Entries(from, to)
	if err != nil {
		return err
	}
	l := newLineWriter(q, false)
	for i := range entries {
		err = errors.Join(err, l.line(SalvageEntryOf(&entries[i])))
	}
	if errors.Join(err, l.end()) != nil {
		cut()
	}
	return nil
}

// serveHashes answers with the hashes of an entry's packets, or with its blocks.
func (h *Handler) serveHashes(q *request, name string) error {
	return h.withCopy(q, name, func(c *salvage.Copy, ranges []salvage.Range) error {
		if q.query.Has("coarse") {
			return q.writeWhole(numbersType, salvage.AppendBlocks(nil, salvage.Blocks(c)))
		}
		var list []byte
		for _, r := range ranges {
			for k := r.From; k < r.To; k++ {
				list = salvage.AppendHashes(list, []uint32{salvage.Hash(c.Packet(k))})
			}
		}
		return q.writeWhole(numbersType, list)
	})
}

// servePackets answers with packets of an entry, end to end.
func (h *Handler) servePackets(q *request, name string) error {
	return h.withCopy(q, name, func(c *salvage.Copy, ranges []salvage.Range) error {
		var parts [][]byte
		for _, r := range ranges {
			parts = append(parts, c.Packets[r.From*salvage.PacketSize:r.To*salvage.PacketSize])
		}
		return q.writeWhole(packetsType, parts...)
	})
}

// withCopy reads an entry, every byte of it checked, and the ranges of it that
// are asked for. The memory of all that are read at once is bounded.
func (h *Handler) withCopy(q *request, name string, fn func(*salvage.Copy, []salvage.Range) error) error {
	store := q.stream.Archive().Salvage()
	e, err := store.Entry(name)
	if err != nil {
		return salvageProblem(err)
	}
	ranges, err := parseRanges(q.query.Get("ranges"), e.Len(), "packets")
	if err != nil {
		return err
	}
	if q.query.Has("coarse") && q.query.Has("ranges") {
		return problemf(http.StatusBadRequest, "blocks are listed for all of an entry; leave out ranges")
	}
	size := min(int64(e.Len())*salvage.PacketSize, salvageMemory)
	if err := h.salvage.Acquire(q.r.Context(), size); err != nil {
		return err
	}
	defer h.salvage.Release(size)
	c, err := store.Read(e)
	if err != nil {
		return salvageProblem(err)
	}
	return fn(c, ranges)
}

// salvageProblem is the answer where an entry cannot be read: to the asker one
// that is damaged is none.
func salvageProblem(err error) error {
	var corrupt *salvage.CorruptError
	if errors.Is(err, salvage.ErrGone) || errors.As(err, &corrupt) {
		return problemf(http.StatusNotFound, "there is no such entry of salvage; it was healed or dropped, ask for the list again")
	}
	return err
}

// parseRanges reads ranges of packets, or of what is named, FROM-TO each, TO not
// included, in order and without overlap. Without any it is all n of them.
func parseRanges(text string, n int, what string) ([]salvage.Range, error) {
	if text == "" {
		return []salvage.Range{{From: 0, To: n}}, nil
	}
	if strings.Count(text, ",") >= maxRanges {
		return nil, problemf(http.StatusBadRequest, "more than %d ranges; ask several times", maxRanges)
	}
	var out []salvage.Range
	at := 0
	for word := range strings.SplitSeq(text, ",") {
		first, end, _ := strings.Cut(word, "-")
		from, ferr := strconv.ParseUint(first, 10, 31)
		to, terr := strconv.ParseUint(end, 10, 31)
		if ferr != nil || terr != nil || int(from) < at || to <= from || int(to) > n {
			return nil, problemf(http.StatusBadRequest, "%s is no range here; write FROM-TO in %s, TO not included, in order, up to %d", clip(word), what, n)
		}
		out = append(out, salvage.Range{From: int(from), To: int(to)})
		at = int(to)
	}
	return out, nil
}

// writeWhole answers with bytes in memory, each piece in its own time.
func (q *request) writeWhole(kind string, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	q.w.Header().Set("Content-Type", kind)
	q.w.Header().Set("Content-Length", strconv.Itoa(size))
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodHead {
		return nil
	}
	out := timelyWriter{q.w}
	for _, p := range parts {
		for len(p) > 0 {
			n, err := out.Write(p[:min(len(p), pieceSize)])
			if err != nil {
				cut()
			}
			p = p[n:]
		}
	}
	return nil
}
