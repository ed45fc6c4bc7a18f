// Package testkit is what the tests of several packages have in common. Only tests
// import it.
package testkit

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// T is what it needs of a testing.TB.
type T interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
	Fatalf(string, ...any)
	Skipf(string, ...any)
}

// Stream returns a transport stream of a Duration.
func Stream(t T, opt testsrc.Options) []byte {
	t.Helper()
	g, err := testsrc.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := g.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shared are the streams of SharedStream.
var shared sync.Map

// SharedStream is Stream, made once for all tests of a package: none of them writes to it.
func SharedStream(t T, opt testsrc.Options) []byte {
	t.Helper()
	if b, ok := shared.Load(opt); ok {
		return b.([]byte)
	}
	b := Stream(t, opt)
	shared.Store(opt, b)
	return b
}

// FewerChecks makes rapid check a test less often.
func FewerChecks(t T, by int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	was := f.Value.String()
	n, err := strconv.Atoi(was)
	if err == nil {
		err = f.Value.Set(strconv.Itoa(max(n/by, 1)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(was) })
}

// Await waits until something holds, which it looks for every few milliseconds.
func Await(t T, what string, holds func() bool) {
	t.Helper()
	const limit = 2 * time.Minute // of a machine that is busy
	for end := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// Need skips a test where one of the programs that it needs is not installed.
func Need(t T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("1 test needs %s", p)
		}
	}
}

// Run runs a program that has to succeed, and returns what it writes to its standard
// output and what it says on its standard error.
func Run(t T, program string, args ...string) (out, says string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, e.String())
	}
	return o.String(), e.String()
}

// Ask sends a request without a body, with some headers, each a name and a value, and
// returns the answer whatever its status.
func Ask(t T, method, url string, header ...string) (status int, body string, head http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}
