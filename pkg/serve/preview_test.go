package serve

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
)

// TestPreviewOutsideToken: a token opens no picture from before its span, however
// long after that picture nothing was recorded.
func TestPreviewOutsideToken(t *testing.T) {
	x := inTheatre(t)
	x.clock.Advance(time.Hour)
	x.h.access = NewAccess(&config.Access{TokenSecrets: []string{tokenSecret}}, x.clock, quiet())
	for after, want := range map[time.Duration]int{10 * time.Minute: 403, 2 * time.Minute: 403, 80 * time.Second: 200, 0: 200} {
		token := Token{Stream: "example", From: begins.Add(after), To: begins.Add(time.Hour), Expires: begins.Add(2 * time.Hour)}
		text, err := token.Sign(tokenSecret)
		if err != nil {
			t.Fatal(err)
		}
		path := fmt.Sprintf("/example/preview-%d.mp4?token=%s", begins.Add(11*time.Minute).Unix(), text)
		if code, body, head := x.ask(t, http.MethodGet, path); code != want || code != 200 && (len(body) > 1000 || head.Get("Last-Modified") != "") {
			t.Errorf("a token from %s on: %d, %d bytes, want %d", after, code, len(body), want)
		}
	}
}
