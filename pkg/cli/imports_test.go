package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/twindvr/twindvr/"

// layers are the packages from the top to the bottom. A package may import
// those of the lines below its own and nothing else of the module.
var layers = [][]string{
	{"cmd/twindvr", "scripts/bench", "scripts/chaos"},
	{"pkg/cli"},
	{"pkg/node"},
	{"pkg/serve"},
	{"pkg/replicate"},
	{"pkg/m4fhttp"},
	{"pkg/render"},
	{"pkg/archive"},
	{"pkg/testkit"},
	{"pkg/ingest", "pkg/testsrc"},
	{"pkg/segment", "pkg/hls"},
	{"pkg/salvage"},
	{"pkg/mpegts"},
	{"pkg/config"},
	{"pkg/m4f"},
	{"pkg/event", "pkg/clock", "pkg/fsx"},
}

// tools are programs of the project beside twindvr: they may import whatever
// they need, and nothing imports them.
const tools = module + "scripts/"

// forTests is imported by tests alone.
const forTests = module + "pkg/testkit"

type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	TestGoFiles, XTestGoFiles,
	Imports []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportDirections(t *testing.T) {
	layer := map[string]int{}
	for i, names := range layers {
		for _, name := range names {
			layer[module+name] = i
		}
	}
	for _, v := range checkImports(layer, listPackages(t)) {
		t.Error(v)
	}
}

func checkImports(layer map[string]int, packages []listed) (violations []string) {
	for _, p := range packages {
		if strings.HasPrefix(p.ImportPath, tools) {
			continue
		}
		from, ok := layer[p.ImportPath]
		if !ok {
			violations = append(violations, p.ImportPath+" has no place in the layers")
			continue
		}
		for _, i := range p.Imports {
			to, known := layer[i]
			switch {
			case i == "testing", strings.HasPrefix(i, "testing/"), i == forTests:
				violations = append(violations, p.ImportPath+" imports "+i+" outside its tests")
			case strings.HasPrefix(i, module) && !known:
				violations = append(violations, p.ImportPath+" imports "+i+", which has no place in the layers")
			case known && to <= from:
				violations = append(violations, p.ImportPath+" imports "+i+", which is not below it")
			}
		}
	}
	return violations
}

// The check itself finds what it is there for.
func TestImportDirectionsFinds(t *testing.T) {
	layer := map[string]int{module + "a": 0, module + "b": 1, module + "c": 1}
	for _, v := range []struct {
		from, to string
		bad      bool
	}{
		{"a", module + "b", false}, {"b", module + "a", true}, {"b", module + "c", true},
		{"a", "fmt", false}, {"a", "testing", true}, {"a", "testing/iotest", true}, {"a", forTests, true},
		{"a", module + "x", true}, {"x", "fmt", true}, {"scripts/x", module + "a", false},
		{"a", module + "scripts/x", true},
	} {
		got := checkImports(layer, []listed{{ImportPath: module + v.from, Imports: []string{v.to}}})
		if (len(got) > 0) != v.bad {
			t.Errorf("%s → %s: %q", v.from, v.to, got)
		}
	}
}

// Packages that start goroutines check in their tests that none is left.
func TestLeakChecks(t *testing.T) {
	for _, p := range listPackages(t) {
		if strings.HasPrefix(p.ImportPath, tools) || !startsGoroutines(t, p) {
			continue
		}
		checked := false
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				checked = checked || i.Path.Value == `"go.uber.org/goleak"`
			}
		}
		if !checked {
			t.Errorf("%s starts goroutines, and its tests do not use goleak", p.ImportPath)
		}
	}
}

func startsGoroutines(t *testing.T, p listed) (starts bool) {
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				starts = true
			}
			return !starts
		})
	}
	return starts
}
