package serve

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
)

var (
	dashAddress = regexp.MustCompile(`(?:initialization|media)="([^"]+)"`)
	dashTime    = regexp.MustCompile(`<S t="(\d+)"`)
)

// named are the addresses that an answer names, as a player would ask for them.
func named(at, text string) []string {
	var out []string
	switch file, _, _ := strings.Cut(at, "?"); path.Ext(file) {
	case ".m3u8":
		out = uris(text)
	case ".mpd":
		first := ""
		if m := dashTime.FindStringSubmatch(text); m != nil {
			first = m[1]
		}
		for _, m := range dashAddress.FindAllStringSubmatch(text, -1) {
			out = append(out, strings.ReplaceAll(html.UnescapeString(m[1]), "$Time$", first))
		}
	}
	base, err := url.Parse(at)
	if err != nil {
		panic(err)
	}
	for i := range out {
		u, err := base.Parse(out[i])
		if err != nil {
			panic(err)
		}
		out[i] = u.RequestURI()
	}
	return out
}

// TestTokensOpenWhatTheyCover: a player that has an address with a token plays all
// that is named from there, by each kind of file, and no other token opens any of it.
func TestTokensOpenWhatTheyCover(t *testing.T) {
	x := newTheatre(t, recorded(t, 40*time.Second, 4*time.Second)...)
	x.clock.Advance(41 * time.Second)
	x.h.access = NewAccess(&config.Access{TokenSecrets: []string{tokenSecret}}, x.clock, quiet())
	sign := func(token Token) string {
		token.Expires = begins.Add(time.Hour)
		text, err := token.Sign(tokenSecret)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	span := Token{Stream: "exam*", From: begins, To: begins.Add(41 * time.Second)}
	good, bounded := sign(Token{Stream: "example"}), sign(span)
	bad := map[string]string{
		"none": "", "of another stream": sign(Token{Stream: "exam"}),
		"of before": sign(Token{Stream: "example", To: begins.Add(-2 * time.Minute)}),
		"of after":  sign(Token{Stream: "*", From: begins.Add(3 * time.Minute)}),
	}
	unix := begins.Unix()
	todo := []string{"index.m3u8", "index.mpd", "index.m3u8?format=ts", fmt.Sprintf("timeshift_abs-%d.m3u8", unix+20), "timeshift_rel-10.m3u8", "rewind-30.m3u8",
		spanName(0, 40, ".m3u8"), spanName(0, 40, ".mpd"), spanName(0, 40, ".mp4"), spanName(0, 40, ".ts"), fmt.Sprintf("archive-%d-now.m3u8", unix),
		spanName(0, 40, ".m3u8") + "?format=ts", fmt.Sprintf("preview-%d.mp4", unix+7)}
	for i, file := range todo {
		sep := "?"
		if strings.Contains(file, "?") {
			sep = "&"
		}
		todo[i] = "/example/" + file + sep + "token=" + good
	}
	seen, kinds := map[string]bool{}, map[string]bool{}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		file, _, _ := strings.Cut(at, "?")
		if seen[at] {
			continue
		}
		seen[at] = true
		for i := range x.h.playables {
			if p := x.h.playables[i].pattern.String(); x.h.playables[i].pattern.MatchString(strings.TrimPrefix(file, "/example/")) {
				kinds[p] = true
			}
		}
		code, text, head := x.ask(t, http.MethodGet, at)
		if code != http.StatusOK || !strings.HasPrefix(head.Get("Cache-Control"), "private") {
			t.Errorf("%s: %d, %s", file, code, head.Get("Cache-Control"))
		}
		todo = append(todo, named(at, text)...)
		if code, _, _ := x.ask(t, http.MethodGet, strings.Replace(at, good, bounded, 1)); code != http.StatusOK {
			t.Errorf("%s with a token of its span: %d", file, code)
		}
		for what, token := range bad {
			if code, text, _ := x.ask(t, http.MethodGet, strings.Replace(at, good, token, 1)); code != http.StatusForbidden || len(text) > 1000 {
				t.Errorf("%s with a token %s: %d", file, what, code)
			}
		}
	}
	for i := range x.h.playables {
		if p := x.h.playables[i].pattern.String(); !kinds[p] {
			t.Errorf("nothing that matches %s was played", p)
		}
	}
	if len(seen) < 40 {
		t.Errorf("%d files were played", len(seen))
	}
}
