package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manDate is the date on the man pages. It is fixed, so that making them again
// changes nothing.
const manDate = "Nov 2026"

// manPage writes a command's help as a man page, in the macros of man(7).
// Lines of the help that begin with white space are kept as they are, the
// others are filled; the paragraph that begins with "Exit status:" becomes a
// section.
func manPage(cmd *cobra.Command) string {
	var m manual
	dashed := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	m.line(`.TH "%s" "1" "%s" "twindvr" "twindvr manual"`, strings.ToUpper(dashed), manDate)
	m.section("NAME")
	m.line(`%s \- %s`, escape(dashed), escape(lowerFirst(cmd.Short)))
	m.section("SYNOPSIS")
	m.synopsis(cmd)
	m.section("DESCRIPTION")
	text, exit := cutExitStatus(cmd.Long)
	m.text(text)
	if cmd.HasAvailableSubCommands() {
		m.section("COMMANDS")
		for _, sub := range cmd.Commands() {
			if documented(sub) {
				m.line(".TP\n.BR %s (1)\n%s.", escape(dashed+"-"+sub.Name()), escape(sub.Short))
			}
		}
	}
	m.section("OPTIONS")
	m.options(cmd.NonInheritedFlags())
	if cmd.HasParent() {
		m.options(cmd.InheritedFlags())
	}
	m.section("ENVIRONMENT")
	m.text("Every option can be given in the environment, as TWINDVR_LOG_LEVEL for --log-level. The command line wins.")
	if exit != "" {
		m.section("EXIT STATUS")
		m.statuses(exit)
	}
	if cmd.Example != "" {
		m.section("EXAMPLES")
		m.verbatim(strings.Split(cmd.Example, "\n"))
	}
	m.section("SEE ALSO")
	m.seeAlso(cmd, dashed)
	return m.String()
}

// documented says whether a command has a man page.
func documented(cmd *cobra.Command) bool {
	return cmd.IsAvailableCommand() && cmd.Name() != "completion"
}

// manual is a man page that is being written.
type manual struct{ strings.Builder }

func (m *manual) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }
func (m *manual) section(name string)             { m.line(".SH %s", name) }

func (m *manual) synopsis(cmd *cobra.Command) {
	if cmd.HasAvailableSubCommands() {
		m.line(".B %s\n.I COMMAND\n[options]", escape(cmd.CommandPath()))
		return
	}
	_, args, _ := strings.Cut(cmd.Use, " ")
	m.line(`.B %s`, escape(cmd.CommandPath()))
	m.line(`%s [options]`, escape(args))
}

// text writes paragraphs and what is indented between them.
func (m *manual) text(s string) {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	for i := 0; i < len(lines); {
		j := i
		switch {
		case lines[i] == "":
			j++
			if j < len(lines) && !indented(lines[j]) {
				m.line(".PP")
			}
		case indented(lines[i]):
			for j < len(lines) && (indented(lines[j]) || lines[j] == "" && j+1 < len(lines) && indented(lines[j+1])) {
				j++
			}
			m.verbatim(lines[i:j])
		default:
			for j < len(lines) && lines[j] != "" && !indented(lines[j]) {
				m.line("%s", escape(lines[j]))
				j++
			}
		}
		i = j
	}
}

func indented(line string) bool { return strings.HasPrefix(line, " ") }

// verbatim writes lines as they are, without the indentation they share.
func (m *manual) verbatim(lines []string) {
	m.line(".PP\n.nf\n.RS")
	shared := len(lines[0])
	for _, l := range lines {
		if l != "" {
			shared = min(shared, len(l)-len(strings.TrimLeft(l, " ")))
		}
	}
	for _, l := range lines {
		m.line("%s", escape(l[min(shared, len(l)):]))
	}
	m.line(".RE\n.fi")
}

// options writes the flags of a set with their values and defaults.
func (m *manual) options(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB\-\-` + escape(f.Name) + `\fP`
		if f.Shorthand != "" {
			name = `\fB\-` + f.Shorthand + `\fP, ` + name
		}
		if value != "" {
			name += ` \fI` + escape(value) + `\fP`
		}
		m.line(".TP\n%s", name)
		if f.Name == "help" {
			usage = "print a help text"
		}
		if f.Name == "version" {
			usage = "print the version"
		}
		usage = upperFirst(usage) + "."
		if !slices.Contains([]string{"", "0", "false", "[]"}, f.DefValue) {
			usage += " Default: " + f.DefValue + "."
		}
		m.line("%s", escape(usage))
	})
}

// statuses writes the paragraph "Exit status: 0 …, 1 …, 2 …." as it is, one
// status a line where it has the usual form.
func (m *manual) statuses(s string) {
	s = strings.Join(strings.Fields(strings.TrimPrefix(s, "Exit status:")), " ")
	zero, two, ok := cutLast(s, ", 2 ")
	zero, isZero := strings.CutPrefix(zero, "0")
	if !ok || !isZero {
		m.line("%s", escape(s))
		return
	}
	zero, one, hasOne := strings.Cut(zero, ", 1 ")
	if zero = strings.Trim(zero, " "); zero == "" {
		zero = "done"
	}
	m.line(".TP\n.B 0\n%s.", escape(upperFirst(zero)))
	if hasOne {
		m.line(".TP\n.B 1\n%s.", escape(upperFirst(one)))
	}
	m.line(".TP\n.B 2\n%s", escape(upperFirst(two)))
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (m *manual) seeAlso(cmd *cobra.Command, dashed string) {
	var pages []string
	if cmd.HasParent() {
		pages = append(pages, ".BR twindvr (1)")
	} else {
		for _, sub := range cmd.Commands() {
			if documented(sub) {
				pages = append(pages, fmt.Sprintf(".BR %s (1)", escape(dashed+"-"+sub.Name())))
			}
		}
	}
	pages = append(pages, ".BR twindvr.conf (5)")
	m.line("%s", strings.Join(pages, ",\n"))
}

// cutExitStatus takes the paragraph about the exit status out of a help text.
func cutExitStatus(s string) (text, exit string) {
	var rest []string
	for p := range strings.SplitSeq(s, "\n\n") {
		if strings.HasPrefix(p, "Exit status:") {
			exit = p
			continue
		}
		rest = append(rest, p)
	}
	return strings.Join(rest, "\n\n"), exit
}

// lowerFirst is for the NAME section, which indexers read.
func lowerFirst(s string) string {
	if s == "" || strings.ToUpper(s) == s {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var roff = strings.NewReplacer(`\`, `\e`, `-`, `\-`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, `…`, `...`, `'`, `\(aq`, `"`, `\(dq`)

// escape makes text of what roff would take for a request or an escape.
func escape(s string) string {
	s = roff.Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}
