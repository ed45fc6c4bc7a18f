package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestManPage(t *testing.T) {
	root := &cobra.Command{Use: "twindvr"}
	cmd := &cobra.Command{
		Use:   "poem ARCHIVE",
		Short: "Write a poem",
		Long: `poem writes.
'quoted' at a line's beginning,
.dotted, with a \ and a --flag.

  verbatim  <x>
    more

  still it

The end.

Exit status: 0 a poem, 1 no rhyme
found, 2 trouble.`,
		Example: "  twindvr poem\n\n  twindvr poem -x",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	var s string
	cmd.Flags().StringVarP(&s, "form", "f", "sonnet", "write in this `FORM`, as ode")
	cmd.Flags().Bool("loud", false, "write in capitals")
	root.AddCommand(cmd)
	want := `.TH "TWINDVR-POEM" "1" "Nov 2026" "twindvr" "twindvr manual"
.SH NAME
twindvr\-poem \- write a poem
.SH SYNOPSIS
.B twindvr poem
ARCHIVE [options]
.SH DESCRIPTION
poem writes.
\(aqquoted\(aq at a line\(aqs beginning,
\&.dotted, with a \e and a \-\-flag.
.PP
.nf
.RS
verbatim  <x>
  more

still it
.RE
.fi
.PP
The end.
.SH OPTIONS
.TP
\fB\-f\fP, \fB\-\-form\fP \fIFORM\fP
Write in this FORM, as ode. Default: sonnet.
.TP
\fB\-\-loud\fP
Write in capitals.
.SH ENVIRONMENT
Every option can be given in the environment, as TWINDVR_LOG_LEVEL for \-\-log\-level. The command line wins.
.SH EXIT STATUS
.TP
.B 0
A poem.
.TP
.B 1
No rhyme found.
.TP
.B 2
Trouble.
.SH EXAMPLES
.PP
.nf
.RS
twindvr poem

twindvr poem \-x
.RE
.fi
.SH SEE ALSO
.BR twindvr (1),
.BR twindvr.conf (5)
`
	if got := manPage(cmd); got != want {
		t.Errorf("got\n%s", got)
	}
}

// The pages that are kept in the project are those of the commands as they are,
// and man finds nothing to warn of.
func TestManPagesAreFresh(t *testing.T) {
	dir := t.TempDir()
	if err := generateMan(newRootCmd(System()), dir); err != nil {
		t.Fatal(err)
	}
	if err := generateCompletions(newRootCmd(System()), filepath.Join(dir, "completions")); err != nil {
		t.Fatal(err)
	}
	compare := func(made, kept string) {
		want, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(kept); err != nil || string(got) != string(want) {
			t.Errorf("%s is stale; run make generate (%v)", filepath.Base(kept), err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, p := range pages {
		compare(p, filepath.Join("../../man", filepath.Base(p)))
	}
	for _, name := range []string{"twindvr.bash", "_twindvr", "twindvr.fish"} {
		compare(filepath.Join(dir, "completions", name), filepath.Join("../../completions", name))
	}
	kept, err := filepath.Glob("../../man/*.1")
	if err != nil || len(kept) != len(pages) {
		t.Errorf("%d pages are kept, %d made; run make generate (%v)", len(kept), len(pages), err)
	}
	if _, err := exec.LookPath("man"); err != nil {
		t.Logf("without man, %d pages are not looked at for warnings", len(pages))
		return
	}
	for _, p := range append(pages, "../../man/twindvr.conf.5") {
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", p)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANPAGER=cat")
		var warnings strings.Builder
		cmd.Stderr = &warnings
		if err := cmd.Run(); err != nil || warnings.Len() > 0 {
			t.Errorf("%s: %v %s", filepath.Base(p), err, &warnings)
		}
	}
}
