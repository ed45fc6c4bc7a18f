package cli

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

// completions asks as a shell does what the last of some words can become.
func completions(t *testing.T, env map[string]string, args ...string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	status := Main(append([]string{"__complete"}, args...), IO{
		In: strings.NewReader(""), Out: &out, Err: &errs, Clock: clock.System,
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := len(lines) - 1; status != 0 || !strings.HasPrefix(lines[last], ":") {
		t.Fatalf("%q: status %d\n%s%s", args, status, &out, &errs)
	} else {
		lines = lines[:last]
	}
	slices.Sort(lines)
	return lines
}

// Arguments and flags become what there is: streams of directories, of nodes and of
// peers, words of lists.
func TestCompletions(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"root/sport/hd", "root/sport/sd", "root/news"} {
		if _, err := archive.Create(filepath.FromSlash(name), "", archive.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	news, err := archive.Open("root/news")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"final", "first half", "other"} {
		if err := news.Keep(archive.Keep{Name: name, From: m4f.UTC(i), To: m4f.UTC(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"root/file": "", "key": "0123456789abcdef0123456789abcdef\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("root/.hidden", 0o700); err != nil {
		t.Fatal(err)
	}
	keys, err := config.LoadClusterKeys("key")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	srv := httptest.NewServer(serve.NewHandler(serve.Options{
		Node: serve.NewRoot("root", "n1", "v1"), NodeID: "n1", Auth: m4fhttp.NewAuth(keys, nil, log), Log: log,
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	peer := "m4f://" + host + "/"
	withKey := map[string]string{"TWINDVR_CLUSTER_KEY_FILE": "key"}
	for _, c := range []struct {
		args, want string // words, and what the last of them becomes
		env        map[string]string
	}{
		{"ls |", "root/", nil},
		{"ls |root/", "root/news root/sport/", nil},
		{"export |root/sport/", "root/sport/hd root/sport/sd", nil},
		{"export |root/sport/h", "root/sport/hd", nil},
		{"export |root/news/", "", nil},
		{"export root/news |", "", nil},
		{"record |root/n", "root/news", nil},
		{"prune root/news |root/sp", "root/sport/", nil},
		{"diff-archive root/news |root/n", "root/news", nil},
		{"diff-archive root/news |m4", "m4f:// m4fs://", nil},
		{"diff-archive root/news |" + peer, peer + "news " + peer + "sport/hd " + peer + "sport/sd", withKey},
		{"diff-archive --cluster-key-file key root/news |" + peer + "sp", peer + "sport/hd " + peer + "sport/sd", nil},
		{"diff-archive root/news |" + peer, "", nil},
		{"diff-archive root/news |m4f://127.0.0.1:1/", "", nil},
		{"backfill root/news root/sport/hd |", "-", nil},
		{"backfill --order |", "newest oldest", nil},
		{"backfill root/news --limit-rate |", "", nil},
		{"export --format |t", "ts", nil},
		{"ls --log-level |w", "warn", nil},
		{"keep root/news --release |f", "final first+half", nil},
		{"keep --release |", "", nil},
		{"status " + host + " |", "news sport/hd sport/sd", nil},
		{"status " + srv.URL + " |s", "sport/hd sport/sd", nil},
		{"status " + srv.URL + " --stream |n", "news", nil},
		{"status " + srv.URL + " news |", "", nil},
		{"status :1 |", "", nil},
		{"ingest |r", "rtp:// rtsp://", nil},
		{"ingest |rtp://2", "", nil},
		{"ingest --sync |a", "always", nil},
		{"testsrc --interface |l", "lo", nil},
		{"|verif", "verify\tRead+an+archive+again+and+check+every+byte", nil},
	} {
		before, word, _ := strings.Cut(c.args, "|")
		args := append(strings.Fields(before), word)
		var want []string
		for _, w := range strings.Fields(strings.ReplaceAll(c.want, "\t", "\x00")) {
			want = append(want, strings.NewReplacer("+", " ", "\x00", "\t").Replace(w))
		}
		if got := completions(t, c.env, args...); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", c.args, got, want)
		}
	}
}

// Every argument of every command completes to something that it can be, or to
// nothing: none is forgotten.
func TestCompletionsOfAll(t *testing.T) {
	for _, cmd := range newRootCmd(System()).Commands() {
		if !documented(cmd) || cmd.Name() == "supervise" { // its file is any
			continue
		}
		if argCompleters[cmd.Name()] == nil {
			t.Errorf("nothing is said of how the arguments of %s complete", cmd.Name())
		}
	}
}
