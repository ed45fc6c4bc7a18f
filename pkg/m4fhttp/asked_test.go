package m4fhttp

import (
	"encoding/binary"
	"net/http"
	"os"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestAsked(t *testing.T) {
	var a asked
	id := func(n int) (id m4f.Identity) {
		binary.BigEndian.PutUint64(id[:], uint64(n))
		return id
	}
	for n := range 3 * maxAsked {
		if a.again(id(n)) {
			t.Fatalf("%d was not asked for before", n)
		}
	}
	if len(a.ids) != maxAsked || len(a.ring) != maxAsked {
		t.Errorf("%d and %d are remembered", len(a.ids), len(a.ring))
	}
	if a.again(id(0)) {
		t.Error("the first is still remembered")
	}
	last := id(3*maxAsked - 1)
	for _, want := range []bool{true, false, true} {
		if a.again(last) != want {
			t.Errorf("want %v", want)
		}
	}
}

// TestBadSegmentIsNotOfferedForEver: a segment that went bad on the disk is sent
// once, as nobody has looked at it, and refused by who gets it. When it is asked for
// again it is set aside, and from then on nothing offers it.
func TestBadSegmentIsNotOfferedForEver(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	appendAll(t, a, segment(t, 0, 0, 0), segment(t, 1, 1, 0))
	els, err := a.Span(0, 0)
	if err != nil || len(els) != 2 {
		t.Fatalf("%d elements, %v", len(els), err)
	}
	m, err := a.OpenElement(&els[1])
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.File.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0xAA, 0x55}, m.Offset+int64(m.Length)-2)
	f.Close()
	m.Close()
	if err != nil {
		t.Fatal(err)
	}
	path := "/x/m4f/media/" + els[1].ID.String()
	for i, want := range []int{http.StatusOK, http.StatusNotFound, http.StatusNotFound} {
		if resp, _ := get(t, n, path); resp.StatusCode != want {
			t.Errorf("request %d: %s", i, resp.Status)
		}
	}
	if left, err := a.Span(0, 0); err != nil || len(left) != 1 || left[0].ID != els[0].ID {
		t.Errorf("%d elements are shown, %v", len(left), err)
	}
	for range 3 { // a good one is looked at, and sent
		if resp, _ := get(t, n, "/x/m4f/media/"+els[0].ID.String()); resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
	}
}
