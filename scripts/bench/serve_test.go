package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// TestLoad counts every byte of every answer, with and without TLS, and takes no
// refusal for one.
func TestLoad(t *testing.T) {
	body := bytes.Repeat([]byte("m4f "), 300_000)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})
	paths := []string{"/1", "/2", "/3", "/4", "/5"}
	for _, secret := range []bool{false, true} {
		s := httptest.NewUnstartedServer(h)
		var cert *certificate
		if s.Start(); secret {
			s.Close()
			s, cert = httptest.NewTLSServer(h), &certificate{}
		}
		defer s.Close()
		addr := s.Listener.Addr().String()
		for _, conns := range []int{1, 3} {
			if n, err := load(t.Context(), addr, cert, paths, conns); err != nil || n != int64(len(paths)*len(body)) {
				t.Errorf("TLS %v, %d connections: %d bytes, %v", secret, conns, n, err)
			}
		}
		if _, err := load(t.Context(), addr, cert, []string{"/missing"}, 1); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("TLS %v: %v where there is nothing", secret, err)
		}
	}
}
