package m4fhttp

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/icholy/digest"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Whatever a peer's line holds: it is refused, or is a record that travels on
// unchanged.
func FuzzRecord(f *testing.F) {
	good, err := json.Marshal(RecordOf(&archive.Record{Header: segment(f, 0, 0, 0).Header}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"damaged":false`), []byte(`"damaged":true,"parts":[[0,5],[7,9]]`), 1))
	f.Add([]byte(`{"id":""}`))
	f.Add([]byte(`{"start":"9999-12-31T23:59:59.999999999Z","arrived":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var w Record
		if json.Unmarshal(line, &w) != nil {
			return
		}
		e, err := w.Element()
		if err != nil {
			return
		}
		if e.Length > m4f.MaxMedia || e.Duration == 0 || len(e.Parts) == 0 {
			t.Fatalf("taken: %+v", e)
		}
		again, err := json.Marshal(ElementOf(&e))
		if err != nil {
			t.Fatalf("%+v does not travel: %v", e, err)
		}
		var w2 Record
		if err := json.Unmarshal(again, &w2); err != nil {
			t.Fatal(err)
		}
		e2, err := w2.Element()
		if err != nil || e2.Record != e.Record || len(e2.Parts) != len(e.Parts) {
			t.Fatalf("%+v\ntravels as %+v, %v", e, e2, err)
		}
	})
}

// Whatever a Range header says: it is ignored, unsatisfiable, or inside the
// answer.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=3-7", "bytes=9223372036854775807-", "bytes=-9223372036854775808", "bytes=1-2,3-4"} {
		f.Add(s, int64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		from, to, err := parseRange(header, size)
		if err == nil && (from < 0 || from >= to || to > size) {
			t.Fatalf("%q of %d bytes: %d to %d", header, size, from, to)
		}
	})
}

// Whatever credentials say: without the key they are refused.
func FuzzAuthorization(f *testing.F) {
	a := NewAuth([]string{"s3cret"}, nil, quiet)
	c := &digest.Challenge{Realm: Realm, Nonce: a.newNonce(), Algorithm: algorithm, QOP: []string{"auth"}}
	for _, key := range []string{"wrong", ""} {
		cred, err := digest.Digest(c, digest.Options{Method: "GET", URI: "/x/m4f/info", Count: 1, Username: User, Password: key})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(cred.String())
	}
	f.Add(`Digest username="m4f", nc=-1, response=""`)
	f.Add(`Digest `)
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "/x/m4f/info", nil)
		r.Header.Set("Authorization", header)
		if a.Allow(httptest.NewRecorder(), r) {
			t.Fatalf("%q is let in", header)
		}
	})
}

// Whatever a peer lists: what is taken of it lies below the root, and nothing in
// it harms a terminal.
func FuzzListed(f *testing.F) {
	f.Add([]byte(`{"name":"sport/hd","target_duration":360000,"via":["0123456789abcdef"]}`))
	f.Add([]byte(`{"name":"../x","target_duration":-1,"via":null}`))
	f.Add([]byte(`{"name":"a/./b","via":["\u001b[2J"]}`))
	f.Add([]byte(`{"name":"a\u0000b\\c","target_duration":1e300}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, ok, err := parseListed(line)
		if err != nil || !ok {
			return
		}
		dir := filepath.Join("/root", filepath.FromSlash(l.Name))
		if rel, err := filepath.Rel("/root", dir); err != nil || rel != l.Name || strings.HasPrefix(rel, ".") {
			t.Fatalf("%q lies at %s", l.Name, dir)
		}
		if len(l.Name) > 255 || l.TargetDuration < 0 || len(l.Via) > maxListed {
			t.Fatalf("taken: %+v", l)
		}
		for _, id := range l.Via {
			if len(id) > maxText+4 || strings.ContainsAny(id, "\x1b\n\x00") {
				t.Fatalf("taken: %q", id)
			}
		}
	})
}
