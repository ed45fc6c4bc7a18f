package cli

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/serve"
)

// The help of status names every field of its JSON and every column.
func TestStatusHelp(t *testing.T) {
	words := strings.FieldsFunc(newStatusCmd(System()).Long, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	seen := 0
	for _, of := range []any{serve.StreamStatus{}, serve.InputStatus{}, serve.PeerStatus{}, serve.ArchiveStatus{}} {
		for f := range reflect.TypeOf(of).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if seen++; !slices.Contains(words, name) {
				t.Errorf("%T: %q is not in the help", of, name)
			}
		}
	}
	var table strings.Builder
	if err := printStatus(&table, &serve.NodeStatus{}); err != nil {
		t.Fatal(err)
	}
	for _, column := range strings.Fields(table.String()) {
		if seen++; !slices.Contains(words, column) {
			t.Errorf("column %s is not in the help", column)
		}
	}
	if seen < 60 {
		t.Errorf("%d fields and columns were looked at", seen)
	}
}

// Two streams of one multiplex are told apart.
func TestStatusShowsProgram(t *testing.T) {
	st := serve.StreamStatus{Inputs: []serve.InputStatus{{URL: "udp://h:1"}, {URL: "udp://h:1", Program: 3, Active: true}}}
	if got := inputOf(&st); got != "udp://h:1 program 3" {
		t.Errorf("the input is shown as %q", got)
	}
}
