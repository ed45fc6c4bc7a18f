package config

import (
	"fmt"
	"slices"
	"strings"
)

// Parse reads the text of a configuration file; name stands in its errors,
// which are an Errors with every mistake found. It opens no file: the keys of
// a cluster_key_file are read by Load.
func Parse(name string, src []byte, sources Sources) (*Config, error) {
	r := &reader{file: name, sources: sources}
	c := &Config{
		File: name, HTTP: DefaultHTTP, MinFree: Free{Bytes: DefaultMinFree},
		Verify:  Verify{Every: DefaultVerifyEvery, Rate: DefaultVerifyRate},
		salvage: Salvage{Bytes: DefaultSalvageBytes, Age: DefaultSalvageAge},
	}
	interpret(r, fileWords, c, "the file", r.top(src))
	for _, s := range r.inherit {
		*s = c.salvage
	}
	if len(r.errs) == 0 {
		checkFile(r, c)
	}
	if len(r.errs) > 0 {
		r.errs.sort()
		return nil, r.errs
	}
	return c, nil
}

// top reads the statements of a file.
func (r *reader) top(src []byte) []*statement {
	var top []*statement
	for _, p := range syntax(r, src) {
		if p.Stray != nil {
			r.errorf(pos(p.Stray.Pos), `"}" closes nothing`)
			continue
		}
		top = append(top, p.Statement)
	}
	return top
}

// reader collects the mistakes of one file.
type reader struct {
	file    string
	sources Sources
	errs    Errors
	inherit []*Salvage // take the file's, which may stand further down
}

func (r *reader) errorf(at Pos, format string, args ...any) {
	r.errs = append(r.errs, &Error{File: r.file, Pos: at, Msg: fmt.Sprintf(format, args...)})
}

// directive is a word that begins a statement inside some T, and what it does.
type directive[T any] struct {
	name string
	// args is what follows the word, as the manual shows it.
	args string
	// least and most are the number of words that follow; most -1 is any.
	least, most int
	// block says whether the statement ends with a block.
	block bool
	// once refuses a second statement with the same word.
	once bool
	// later marks what this version does not support yet.
	later bool
	set   func(r *reader, to T, st *statement)
}

func (d *directive[T]) usage() string {
	end := ";"
	if d.block {
		end = " { … }"
	}
	return strings.TrimRight(d.name+" "+d.args, " ") + end
}

// interpret applies statements to a T that operators know as owner.
func interpret[T any](r *reader, known []directive[T], to T, owner string, statements []*statement) {
	seen := map[string]Pos{}
	for len(statements) > 0 {
		st := statements[0]
		statements = statements[1:]
		if !complete(r, st) {
			continue
		}
		if rest := splitAtLine(r, known, st); rest != nil {
			statements = slices.Insert(slices.Clone(statements), 0, rest)
		}
		first := st.Words[0]
		d := find(known, first.text)
		if d == nil {
			r.unknown(first, owner, names(known))
			continue
		}
		if before, ok := seen[first.text]; d.once && ok {
			r.errorf(pos(first.Pos), "a second %s in %s; the first is in line %d", first.text, owner, before.Line)
			continue
		}
		seen[first.text] = pos(first.Pos)
		switch n := len(st.Words) - 1; {
		case d.later:
			r.errorf(pos(first.Pos), "%s is not supported by this version", first.text)
		case n < d.least:
			r.errorf(pos(st.end()), "%s is incomplete; expected %s", first.text, d.usage())
		case d.most >= 0 && n > d.most:
			r.errorf(pos(st.Words[d.most+1].Pos), "unexpected %s; expected %s", quoted(st.Words[d.most+1].text), d.usage())
		case d.block && st.Block == nil:
			r.errorf(pos(st.end()), "expected a block in braces: %s", d.usage())
		case !d.block && st.Block != nil:
			r.errorf(pos(st.Block.Pos), `%s takes no block; expected ";"`, first.text)
		default:
			d.set(r, to, st)
		}
	}
}

// complete reads the words of a statement and says whether there are any. What
// ends the statement may still be wrong.
func complete(r *reader, st *statement) bool {
	switch {
	case st.Empty != nil:
		r.errorf(pos(st.Empty.Pos), `unexpected ";"`)
		return false
	case st.Bare != nil:
		r.errorf(pos(st.Bare.Pos), `unexpected "{"; expected a word before it`)
		return false
	}
	ok := true
	for _, w := range st.Words {
		ok = w.read(r) && ok
	}
	if st.Block != nil && st.Block.Close == "" {
		r.errorf(pos(st.Block.Pos), `the block of %s is not closed; expected "}"`, quoted(st.Words[0].Raw))
	}
	if ok && st.Semi == nil && st.Block == nil {
		r.errorf(pos(st.end()), `expected ";" after %s`, quoted(st.Words[len(st.Words)-1].Raw))
	}
	return ok
}

// splitAtLine cuts a statement whose semicolon is missing: where a further line
// begins with a word that begins a statement here. It returns what follows.
func splitAtLine[T any](r *reader, known []directive[T], st *statement) *statement {
	for i := 1; i < len(st.Words); i++ {
		w, before := st.Words[i], st.Words[i-1]
		if w.Pos.Line == before.Pos.Line || find(known, w.text) == nil {
			continue
		}
		r.errorf(pos(before.EndPos), `expected ";" after %s`, quoted(before.Raw))
		rest := &statement{Pos: w.Pos, Words: st.Words[i:], Semi: st.Semi, Block: st.Block}
		if rest.Semi == nil && rest.Block == nil {
			rest.Semi = &semi{Pos: rest.end()} // reported already
		}
		st.Words, st.Block, st.Semi = st.Words[:i], nil, &semi{Pos: before.EndPos}
		return rest
	}
	return nil
}

func find[T any](known []directive[T], name string) *directive[T] {
	for i := range known {
		if known[i].name == name {
			return &known[i]
		}
	}
	return nil
}

// names lists the words that this version supports.
func names[T any](known []directive[T]) []string {
	var list []string
	for _, d := range known {
		if !d.later {
			list = append(list, d.name)
		}
	}
	return list
}

// unknown reports a word, with the one that was probably meant, or where the
// word belongs.
func (r *reader) unknown(w *word, owner string, words []string) {
	place := ""
	switch {
	case find(fileWords, w.text) != nil:
		place = "outside of blocks"
	case find(streamWords, w.text) != nil:
		place = "in a stream"
	case find(sourceWords, w.text) != nil:
		place = "in a source"
	}
	if place != "" {
		r.errorf(pos(w.Pos), "%s belongs %s, not in %s; expected %s", quoted(w.text), place, owner, oneOf(words))
		return
	}
	r.errorf(pos(w.Pos), "unknown word %s in %s%s; expected %s",
		quoted(w.text), owner, didYouMean(w.text, words), oneOf(words))
}

func didYouMean(got string, words []string) string {
	if near := nearest(got, words); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

func quoted(s string) string { return `"` + clip(s) + `"` }

// args are the words after the first.
func (st *statement) args() []*word { return st.Words[1:] }
