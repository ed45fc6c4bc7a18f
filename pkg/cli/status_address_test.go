package cli

import (
	"strings"
	"testing"
)

// The address of a node has no path: a stream is named behind it.
func TestNodeAddress(t *testing.T) {
	for s, want := range map[string]string{
		"": "http://127.0.0.1:8081", ":9": "http://127.0.0.1:9", "b:9": "http://b:9", "https://b/": "https://b",
	} {
		if got, err := nodeURL(s); got != want || err != nil {
			t.Errorf("%q: %s, %v; want %s", s, got, err, want)
		}
	}
	if _, err := nodeURL("http://b:9/sport/hd"); err == nil || !strings.Contains(err.Error(), "a stream is named behind it: http://b:9 sport/hd") {
		t.Error(err)
	}
	// Where no node answers, what was given alone may have been meant for one.
	c := apiClient{base: "http://127.0.0.1:1", hint: "; a hint"}
	if _, err := c.status(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "; a hint") {
		t.Error(err)
	}
}
