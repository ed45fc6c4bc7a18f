package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// The grammar takes every sequence of tokens, so that one misplaced brace does
// not hide the mistakes behind it; what is missing is reported afterwards, with
// what was expected in its place.

// space is white space as editors and web pages have it: any of Unicode's
// separators, and the marks without width that come along with pasted text.
const space = `\s\p{Z}\x{FEFF}\x{200B}`

var rules = lexer.MustSimple([]lexer.SimpleRule{
	{Name: "Space", Pattern: `[` + space + `]+`},
	{Name: "Comment", Pattern: `#[^\n]*`},
	{Name: "Quoted", Pattern: `"(\\[^\n]|[^"\\\n])*"|'(\\[^\n]|[^'\\\n])*'|[“”„](\\[^\n]|[^“”\\\n])*[“”]`},
	{Name: "Unclosed", Pattern: `["'“”„][^\n]*`},
	{Name: "Punct", Pattern: `[;{}]`},
	{Name: "Word", Pattern: `[^` + space + `\p{Cc};{}]+`},
	{Name: "Other", Pattern: `[\x00-\x{10FFFF}]`},
})

type fileNode struct {
	Parts []*partNode `parser:"@@*"`
}

// partNode is a statement, or a "}" that closes nothing.
type partNode struct {
	Statement *statement `parser:"  @@"`
	Stray     *mark      `parser:"| @@"`
}

type statement struct {
	Pos   lexer.Position
	Words []*word `parser:"(  @@+"`
	Semi  *semi   `parser:"   ( @@"`
	Block *block  `parser:"   | @@ )?"`
	Bare  *block  `parser:"| @@"`
	Empty *semi   `parser:"| @@ )"`
}

type block struct {
	Pos        lexer.Position
	Open       string       `parser:"@'{'"`
	Statements []*statement `parser:"@@*"`
	Close      string       `parser:"@'}'?"`
	EndPos     lexer.Position
}

type semi struct {
	Pos  lexer.Position
	Text string `parser:"@';'"`
}

type mark struct {
	Pos  lexer.Position
	Text string `parser:"@'}'"`
}

type word struct {
	Pos    lexer.Position
	EndPos lexer.Position
	Raw    string `parser:"@(Word | Quoted | Unclosed | Other)"`
	Tokens []lexer.Token

	text string // without quotes
}

var parser = participle.MustBuild[fileNode](
	participle.Lexer(rules),
	participle.Elide("Space", "Comment"),
)

var (
	typeQuoted   = rules.Symbols()["Quoted"]
	typeUnclosed = rules.Symbols()["Unclosed"]
	typeOther    = rules.Symbols()["Other"]
	typePunct    = rules.Symbols()["Punct"]
)

// maxNesting is deeper than any statement of the language.
const maxNesting = 8

// syntax reads a file into statements. It reports unreadable text to r and
// returns nil when nothing else can be said about the file.
func syntax(r *reader, src []byte) []*partNode {
	if len(src) > maxFile {
		r.errorf(Pos{1, 1}, "the file is larger than %d bytes", maxFile)
		return nil
	}
	if at, ok := invalidUTF8(src); ok {
		r.errorf(at, "the text is not UTF-8")
		return nil
	}
	tokens, err := parser.Lex(r.file, strings.NewReader(string(src)))
	if err != nil {
		r.syntaxError(err)
		return nil
	}
	depth := 0
	for _, t := range tokens {
		if t.Type != typePunct {
			continue
		}
		switch t.Value {
		case "{":
			depth++
		case "}":
			depth = max(0, depth-1)
		}
		if depth > maxNesting {
			r.errorf(pos(t.Pos), "blocks are nested too deep; is a \"}\" missing?")
			return nil
		}
	}
	f, err := parser.ParseBytes(r.file, src)
	if err != nil {
		r.syntaxError(err)
		return nil
	}
	return f.Parts
}

func (r *reader) syntaxError(err error) {
	at := Pos{1, 1}
	var msg = err.Error()
	if pe, ok := err.(participle.Error); ok {
		at, msg = pos(pe.Position()), pe.Message()
	}
	r.errorf(at, "%s", msg)
}

func pos(p lexer.Position) Pos { return Pos{p.Line, p.Column} }

func invalidUTF8(src []byte) (Pos, bool) {
	if utf8.Valid(src) {
		return Pos{}, false
	}
	at := Pos{1, 1}
	for i := 0; i < len(src); {
		c, n := utf8.DecodeRune(src[i:])
		if c == utf8.RuneError && n == 1 {
			break
		}
		at.Col++
		if c == '\n' {
			at = Pos{at.Line + 1, 1}
		}
		i += n
	}
	return at, true
}

// read sets a word's text; what cannot be one is reported.
func (w *word) read(r *reader) bool {
	switch w.Tokens[len(w.Tokens)-1].Type { // white space may stand before it
	case typeQuoted:
		w.text = unquote(w.Raw)
	case typeUnclosed:
		r.errorf(pos(w.Pos), "the quote is not closed on its line")
		return false
	case typeOther:
		c, _ := utf8.DecodeRuneInString(w.Raw)
		r.errorf(pos(w.Pos), "unexpected character %s", fmt.Sprintf("%U", c))
		return false
	default:
		w.text = w.Raw
	}
	return true
}

func unquote(s string) string {
	_, first := utf8.DecodeRuneInString(s)
	_, last := utf8.DecodeLastRuneInString(s)
	s = s[first : len(s)-last]
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
