package cli

import (
	"bufio"
	"encoding/json"
	"io"
)

// jsonLines writes compact JSON objects, one a line, for --json.
type jsonLines struct {
	buf *bufio.Writer
	enc *json.Encoder
}

func newJSONLines(w io.Writer) *jsonLines {
	buf := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return &jsonLines{buf: buf, enc: enc}
}

// Write adds one object. It reaches the reader at the latest with Flush.
func (j *jsonLines) Write(v any) error { return j.enc.Encode(v) }

// Flush must be called at the end, and its error looked at.
func (j *jsonLines) Flush() error { return j.buf.Flush() }
