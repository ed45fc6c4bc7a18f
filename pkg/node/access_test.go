package node_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/node"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// A node lets in whom its configuration names, others from a reload on, and says
// no password, token or key in its log or status.
func TestAccessOfANode(t *testing.T) {
	t.Parallel()
	const first, second, writeKey = "the password of ann", "the other password of ann", "the key of what changes something"
	port, dir, group := freePort(t), t.TempDir(), multicast()
	text := func(access string) string {
		return fmt.Sprintf("http 127.0.0.1:%d; %s\nstream x { url %s; dvr %s 1d; }", port, access, group, dir)
	}
	n, log, _ := inProcessOn(t, text(fmt.Sprintf("view_auth basic ann %q; api_write_key %q;", first, writeKey)), node.Options{})
	ask := func(method, path, password string, header ...string) (int, string) {
		u := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port), Path: path}
		if password != "" {
			u.User = url.UserPassword("ann", password)
		}
		code, body, _ := testkit.Ask(t, method, u.String(), header...)
		return code, body
	}
	pages := func(want ...int) {
		t.Helper()
		for i, password := range []string{"", first, second} {
			if code, _ := ask("GET", "/", password); code != want[i] {
				t.Errorf("the page with the password %q: %d, want %d", password, code, want[i])
			}
		}
	}
	pages(401, 200, 401)
	if code, text := ask("GET", "/api/v1/streams", ""); code != http.StatusOK || strings.Contains(text, first) || strings.Contains(text, writeKey) {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := ask("POST", "/api/v1/reload", first); code != http.StatusUnauthorized {
		t.Errorf("a change without the key: %d", code)
	}
	reload := func(access string) {
		t.Helper()
		if err := n.Reload(t.Context(), configOf(t, text(access))); err != nil {
			t.Fatal(err)
		}
	}
	reload(fmt.Sprintf("view_auth basic ann %q;", second))
	pages(401, 401, 200)
	reload("view_auth off; cors *;")
	pages(200, 200, 200)
	reload("")
	pages(200, 200, 200) // the machine itself
	if code, _ := ask("GET", "/", "", "X-Forwarded-For", "192.0.2.7"); code != http.StatusForbidden {
		t.Errorf("whom a proxy passes on: %d", code)
	}
	status, err := json.Marshal(n.Status())
	if err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the reloads in the log", func() bool { return strings.Count(log.String(), "access=true") == 3 })
	for _, secret := range []string{first, second, writeKey} {
		if strings.Contains(log.String()+string(status), secret) {
			t.Errorf("%q is told:\n%s\n%s", secret, log, status)
		}
	}
}
