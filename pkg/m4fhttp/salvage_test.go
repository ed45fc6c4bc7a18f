package m4fhttp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// transport makes n transport packets; equal seeds make equal ones.
func transport(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n*salvage.PacketSize)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:min(i+8, len(b))][:8:8], r.Uint64())
	}
	for i := 0; i < len(b); i += salvage.PacketSize {
		b[i] = 0x47
	}
	return b
}

// without leaves out every k-th packet.
func without(b []byte, k int) []byte {
	var out []byte
	for i := 0; i*salvage.PacketSize < len(b); i++ {
		if i%k != 0 {
			out = append(out, b[i*salvage.PacketSize:(i+1)*salvage.PacketSize]...)
		}
	}
	return out
}

func salvageOf(t testing.TB, n int, first int64, packets []byte, holes ...salvage.Hole) *salvage.Kept {
	t.Helper()
	return &salvage.Kept{Header: segment(t, n, 0, m4f.Damaged).Header, Program: 3, Target: length, First: first,
		Copy: salvage.Copy{Packets: packets, Holes: holes}}
}

func keep(t testing.TB, a *archive.Stream, k ...*salvage.Kept) (out []salvage.Entry) {
	t.Helper()
	run := a.Salvage().NewRun()
	for _, k := range k {
		e, err := run.Keep(k)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// bare is an entry as a peer knows it.
func bare(t testing.TB, e salvage.Entry) salvage.Entry {
	t.Helper()
	w := SalvageEntryOf(&e)
	b, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) >= maxLine {
		t.Fatalf("a line of %d bytes", len(b))
	}
	var back SalvageEntry
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	out, err := back.Entry()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What a client reads of salvage over HTTP is what the store itself says, and a
// copy is fetched by what the own one lacks of it.
func TestSalvageTravels(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "x")
	c := n.client(t, "x")
	ctx := t.Context()
	if list, err := c.Salvage(ctx, 0, 0); err != nil || len(list) != 0 {
		t.Errorf("of an empty store: %d entries, %v", len(list), err)
	}
	all := transport(1, 5000)
	theirs := without(all, 100)
	kept := keep(t, a, salvageOf(t, 0, 7, theirs[:3000*188], salvage.Hole{At: 0, Missing: 3}, salvage.Hole{At: 3000, Missing: 1}), salvageOf(t, 1, 2507, theirs[2500*188:]))
	list, err := c.Salvage(ctx, 0, 0)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	for i := range kept {
		if want := bare(t, kept[i]); !reflect.DeepEqual(list[i], want) {
			t.Errorf("entry %d: %+v, want %+v", i, list[i], want)
		}
	}
	if one, err := c.Salvage(ctx, epoch.Add(length), 0); err != nil || len(one) != 1 || one[0].Name != kept[1].Name {
		t.Errorf("of a span: %d entries, %v", len(one), err)
	}
	own := &salvage.Copy{Packets: without(all, 77)}
	var copies []*salvage.Copy
	for i := range list {
		before, _ := c.Traffic()
		got, err := salvage.Fetch(ctx, own, c.SalvageCopy(&list[i], nil))
		if err != nil {
			t.Fatal(err)
		}
		after, _ := c.Traffic()
		if size := int64(len(got.Packets)); after-before > size/3 {
			t.Errorf("entry %d: %d bytes came for a copy of %d", i, after-before, size)
		}
		copies = append(copies, got)
	}
	got, err := salvage.Join(list, copies)
	if err != nil || !bytes.Equal(got.Packets, theirs) || !reflect.DeepEqual(got.Holes, []salvage.Hole{{At: 0, Missing: 3}, {At: 3000, Missing: 1}}) {
		t.Errorf("%d packets, %v", got.Len(), err)
	}
	want, err := a.Salvage().Read(kept...)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read here it is another: %v", err)
	}
	// More ranges than one request takes.
	var ranges []salvage.Range
	var packets []byte
	for k := 0; k < 3000; k += 2 {
		ranges = append(ranges, salvage.Range{From: k, To: k + 1})
		packets = append(packets, theirs[k*188:(k+1)*188]...)
	}
	read := 0
	throttle := func(r io.Reader) io.Reader { read++; return r }
	one := c.SalvageCopy(&list[0], throttle)
	if b, err := one.Packets(ctx, ranges); err != nil || !bytes.Equal(b, packets) || read < 2 {
		t.Errorf("%d bytes in %d requests, %v", len(b), read, err)
	}
	if h, err := one.Hashes(ctx, ranges); err != nil || !reflect.DeepEqual(h, salvage.Hashes(&salvage.Copy{Packets: packets})) {
		t.Errorf("%d hashes, %v", len(h), err)
	}
}

// An entry that has gone, or that is damaged on the peer's disk, is one that
// is no longer kept.
func TestSalvageGone(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	kept := keep(t, a, salvageOf(t, 0, 0, transport(1, 50)), salvageOf(t, 2, 900, transport(2, 50)))
	c := n.client(t, "x")
	list, err := c.Salvage(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Salvage().Remove(kept[0]); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(a.Salvage().Dir(), kept[1].Name, "*.ts"))
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[700] ^= 4
	if err := os.WriteFile(files[0], b, 0o640); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		p := c.SalvageCopy(&list[i], nil)
		one := []salvage.Range{{From: 3, To: 4}}
		_, err1 := p.Blocks(t.Context())
		_, err2 := p.Hashes(t.Context(), one)
		_, err3 := p.Packets(t.Context(), one)
		for _, err := range []error{err1, err2, err3} {
			var pe *PeerError
			if !errors.Is(err, salvage.ErrGone) || StatusOf(err) != http.StatusNotFound || !errors.As(err, &pe) || strings.Count(err.Error(), "peer ") != 1 {
				t.Errorf("entry %d: %v", i, err)
			}
		}
	}
}

// A peer of an older version does not know the question.
func TestSalvageOfOlderPeer(t *testing.T) {
	c := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, http.StatusNotFound, "there is no m4f/salvage; there is info, changes, hours, segments, media and live")
	})
	_, err := c.Salvage(t.Context(), 0, 0)
	if !errors.Is(err, ErrNoSalvage) || StatusOf(err) != 404 || !strings.Contains(err.Error(), "there is info") {
		t.Error(err)
	}
}

func TestSalvageProblems(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "here")
	e := keep(t, a, salvageOf(t, 0, 0, transport(1, 50)))[0]
	if err := os.WriteFile(filepath.Join(n.root, "secret"), []byte("secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	at := "/here/m4f/salvage/" + e.Name
	for _, c := range []struct {
		path   string
		status int
		say    string
	}{
		{"/here/m4f/salvage?from=x", 400, "is no time"},
		{"/here/m4f/salvage?coarse", 400, "takes no coarse"},
		{"/here/m4f/salvage/", 404, "there is no m4f/"},
		{at, 404, "there is no m4f/"},
		{at + "/", 404, "there is no m4f/"},
		{at + "/entry", 404, "there is no m4f/"},
		{at + "/hashes/x", 404, "there is no m4f/"},
		{"/here/m4f/salvage//hashes", 404, "ask for the list"},
		{"/here/m4f/salvage/../hashes", 404, "ask for the list"},
		{"/here/m4f/salvage/..%2F../hashes", 404, "there is no m4f/"},
		{"/here/m4f/salvage/%2e%2e/packets", 404, "ask for the list"},
		{"/here/m4f/salvage/" + strings.Repeat("9", 5000) + "/packets", 404, "ask for the list"},
		{"/here/m4f/salvage/" + e.Name + "%00/packets", 404, "ask for the list"},
		{"/here/m4f/salvage/.tmp-" + e.Name + "/packets", 404, "ask for the list"},
		{at[:len(at)-1] + "1/packets", 404, "ask for the list"},
		{at + "/packets?coarse", 400, "takes no coarse"},
		{at + "/hashes?coarse&ranges=0-1", 400, "leave out ranges"},
		{at + "/packets?ranges=0-51", 400, "up to 50"},
		{at + "/packets?ranges=-1", 400, "FROM-TO"},
		{at + "/packets?ranges=1", 400, "FROM-TO"},
		{at + "/packets?ranges=1-1", 400, "FROM-TO"},
		{at + "/packets?ranges=1-2,1-2", 400, "FROM-TO"},
		{at + "/packets?ranges=5-6,1-2", 400, "FROM-TO"},
		{at + "/packets?ranges=1-2,", 400, "FROM-TO"},
		{at + "/packets?ranges=1-99999999999999999999", 400, "FROM-TO"},
		{at + "/packets?ranges=" + strings.Repeat("1-2,", 1000), 400, "ranges"},
	} {
		res, body := get(t, n, c.path)
		var p Problem
		if err := json.Unmarshal(body, &p); err != nil || res.Header.Get("Content-Type") != problemType {
			t.Errorf("%s: %s is no problem: %v", c.path, body, err)
			continue
		}
		if res.StatusCode != c.status || !strings.Contains(p.Detail, c.say) {
			t.Errorf("%s: %d, %q; want %d with %q", c.path, res.StatusCode, p.Detail, c.status, c.say)
		}
	}
	for path, size := range map[string]int64{at + "/packets": 50 * 188, at + "/packets?ranges=3-5": 376, at + "/hashes": 200, at + "/hashes?ranges=3-4,5-6": 8} {
		res, err := http.Head(n.srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || res.ContentLength != size {
			t.Errorf("HEAD %s: %d, %d bytes", path, res.StatusCode, res.ContentLength)
		}
	}
	strange := serve(t, "s3cret")
	keep(t, strange.stream(t, "here"), salvageOf(t, 0, 0, transport(1, 50)))
	for _, path := range []string{"/here/m4f/salvage", at + "/packets", at + "/hashes"} {
		if res, body := get(t, strange, path); res.StatusCode != http.StatusUnauthorized || bytes.Contains(body, []byte("salvage")) {
			t.Errorf("%s without the key: %d %s", path, res.StatusCode, body)
		}
	}
}

// A peer may send what it likes instead of salvage: the error says so, of its
// kind, in bounded time and memory.
func TestHostileSalvage(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	packets := transport(1, 50)
	e := bare(t, keep(t, a, salvageOf(t, 0, 0, packets, salvage.Hole{At: 3, Missing: 1}))[0])
	send := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(b) }
	}
	list := func(change func(*SalvageEntry)) http.HandlerFunc {
		w := SalvageEntryOf(&e)
		w.Segments = append([]Record{}, w.Segments...)
		change(&w)
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		return send(append(b, '\n'))
	}
	for name, answer := range map[string]http.HandlerFunc{
		"no JSON":              send([]byte("hello\n")),
		"an empty line":        send([]byte("\n")),
		"a climbing name":      list(func(w *SalvageEntry) { w.Name = "../../etc" }),
		"another's name":       list(func(w *SalvageEntry) { w.From++ }),
		"a run of words":       list(func(w *SalvageEntry) { w.Run = "zzzzzzzzzzzzzzzz" }),
		"no packets":           list(func(w *SalvageEntry) { w.To = w.From }),
		"packets behind -1":    list(func(w *SalvageEntry) { w.From = -1 }),
		"too many packets":     list(func(w *SalvageEntry) { w.To = w.From + salvage.MaxPackets + 1 }),
		"overflowing packets":  list(func(w *SalvageEntry) { w.To = -1 << 63 }),
		"no segment":           list(func(w *SalvageEntry) { w.Segments = nil }),
		"too many segments":    list(func(w *SalvageEntry) { w.Segments = make([]Record, salvage.MaxSegments+1) }),
		"an empty segment":     list(func(w *SalvageEntry) { w.Segments[0] = Record{} }),
		"too many holes":       list(func(w *SalvageEntry) { w.Holes = make([][2]int, salvage.MaxHoles+1) }),
		"a hole outside":       list(func(w *SalvageEntry) { w.Holes = [][2]int{{51, 1}} }),
		"holes in disorder":    list(func(w *SalvageEntry) { w.Holes = [][2]int{{9, 1}, {3, 1}} }),
		"a hole of less":       list(func(w *SalvageEntry) { w.Holes = [][2]int{{9, -1}} }),
		"a gain of less":       list(func(w *SalvageEntry) { w.Gained = -1 }),
		"a duration of months": list(func(w *SalvageEntry) { w.TargetDuration = 1 << 60 }),
		"a line without end":   send(bytes.Repeat([]byte("x"), maxLine+10)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var bad *BadAnswerError
			if got, err := hostile(t, answer).Salvage(t.Context(), 0, 0); !errors.As(err, &bad) || len(got) > 0 {
				t.Errorf("%d entries, %v", len(got), err)
			}
		})
	}
	if got, err := hostile(t, list(func(*SalvageEntry) {})).Salvage(t.Context(), 0, 0); err != nil || !reflect.DeepEqual(got, []salvage.Entry{e}) {
		t.Errorf("as it is: %v", err)
	}
	flipped := bytes.Clone(packets)
	flipped[10*188] ^= 1
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
	}{
		{"nothing", send(nil), nil},
		{"one byte less", send(packets[1:]), nil},
		{"one packet more", send(append(bytes.Clone(packets), packets[:188]...)), nil},
		{"no sync byte", send(flipped), nil},
		{"a huge Content-Length", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(1<<50))
			w.Write(packets)
		}, nil},
		{"no length", func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			endless(w, packets)
		}, nil},
		{"cut against its Content-Length", func(w http.ResponseWriter, r *http.Request) {
			size := len(packets)
			if strings.HasSuffix(r.URL.Path, "hashes") {
				size = 200
			}
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(packets[:20])
		}, ErrCut},
		{"silence", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ErrSilent},
		{"silence inside", func(w http.ResponseWriter, r *http.Request) {
			size := len(packets)
			if strings.HasSuffix(r.URL.Path, "hashes") {
				size = 200
			}
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(packets[:20])
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, ErrSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := hostile(t, c.answer).SalvageCopy(&e, nil)
			all := []salvage.Range{{From: 0, To: 50}}
			check := func(what string, err error) {
				var bad *BadAnswerError
				if c.want == nil && !errors.As(err, &bad) || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, err := p.Packets(t.Context(), all)
			check("packets", err)
			if c.name == "no sync byte" {
				return
			}
			_, err = p.Hashes(t.Context(), all)
			check("hashes", err)
			if strings.HasPrefix(c.name, "cut") || strings.HasPrefix(c.name, "silence inside") {
				return // 200 bytes are a list of 20 blocks
			}
			_, err = p.Blocks(t.Context())
			check("blocks", err)
		})
	}
	// Other packets than those of its list: the plan finds out.
	lying := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("coarse") {
			w.Write(salvage.AppendBlocks(nil, salvage.Blocks(&salvage.Copy{Packets: packets})))
		} else if strings.HasSuffix(r.URL.Path, "hashes") {
			w.Write(make([]byte, 200))
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(50*188))
			w.Write(transport(2, 50))
		}
	})
	if _, err := salvage.Fetch(t.Context(), &salvage.Copy{}, lying.SalvageCopy(&e, nil)); !errors.Is(err, salvage.ErrMismatch) {
		t.Errorf("other packets: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lying.SalvageCopy(&e, nil).Blocks(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// An entry has a place in a line, however many holes and segments it has.
func TestLongestSalvageLine(t *testing.T) {
	a := newArchive(t, filepath.Join(t.TempDir(), "x"))
	k := salvageOf(t, 0, 1<<59, transport(1, 2000))
	for i := range salvage.MaxHoles {
		k.Holes = append(k.Holes, salvage.Hole{At: 1000 + i, Missing: 1 << 30})
	}
	e := keep(t, a, k)[0]
	for len(e.Segments) < salvage.MaxSegments {
		h := e.Segments[0]
		h.Lost, h.Errored, h.Length, h.Flags = 1<<32-1, 1<<32-1, m4f.MaxMedia, m4f.Damaged
		e.Segments = append(e.Segments, h)
	}
	bare(t, e)
}

func FuzzSalvageEntry(f *testing.F) {
	h := segment(f, 0, 0, m4f.Damaged).Header
	e := salvage.Entry{Name: "20261122T120000.000-00000000000000ff-5", Run: 255, From: 5, To: 9, Program: 1, Target: length, Segments: []m4f.Header{h}, Holes: []salvage.Hole{{At: 1, Missing: 2}}}
	b, err := json.Marshal(SalvageEntryOf(&e))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"entry":"x","holes":[[1,2]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w SalvageEntry
		if json.Unmarshal(b, &w) != nil {
			return
		}
		e, err := w.Entry()
		if err != nil {
			return
		}
		if !salvage.ValidName(e.Name) || e.Len() < 1 || e.Len() > salvage.MaxPackets {
			t.Fatalf("%+v", e)
		}
		again := SalvageEntryOf(&e)
		back, err := again.Entry()
		if err != nil || !reflect.DeepEqual(e.Segments, back.Segments) || !reflect.DeepEqual(e.Holes, back.Holes) {
			t.Fatalf("%+v came back as %+v, %v", e, back, err)
		}
	})
}

func FuzzPacketRanges(f *testing.F) {
	f.Add("0-1,3-50", 50)
	f.Add("", 7)
	f.Add("1-2,2-3", 3)
	f.Fuzz(func(t *testing.T, text string, n int) {
		if n < 1 || n > salvage.MaxPackets {
			return
		}
		ranges, err := parseRanges(text, n, "packets")
		if err != nil {
			if StatusOf(err) != http.StatusBadRequest {
				t.Fatal(err)
			}
			return
		}
		at := 0
		for _, r := range ranges {
			if r.From < at || r.To <= r.From || r.To > n {
				t.Fatalf("%q of %d: %v", text, n, ranges)
			}
			at = r.To
		}
	})
}
