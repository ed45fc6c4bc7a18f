package config

import (
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a file: line and column from 1, the column in characters.
type Pos struct{ Line, Col int }

func (p Pos) before(q Pos) int {
	if p.Line != q.Line {
		return p.Line - q.Line
	}
	return p.Col - q.Col
}

// Error is one mistake in a configuration file.
type Error struct {
	File string
	Pos
	Msg string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg) }

// Errors are the mistakes of a configuration file in the order of their
// positions; there is at least one.
type Errors []*Error

// mostErrors is how many mistakes are reported at once.
const mostErrors = 10

// Error returns one line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, 0, mostErrors+1)
	for i, one := range e {
		if i == mostErrors {
			lines = append(lines, fmt.Sprintf("%s: and %d more", one.File, len(e)-i))
			break
		}
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns each mistake as an *Error.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int { return a.Pos.before(b.Pos) })
}

// nearest returns the word that was probably meant, or "".
func nearest(got string, words []string) string {
	best, least := "", 3 // two slips are the most that still look like one
	if len(got) < 4 {
		least = 2
	}
	for _, w := range words {
		if d := distance(got, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of letters inserted, left out, replaced or swapped
// with their neighbour between a and b.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	above2, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := above[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, above[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], above2[j-2]+1)
			}
		}
		above2, above, row = above, row, above2
	}
	return above[len(b)]
}

// oneOf lists words for an operator.
func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}
