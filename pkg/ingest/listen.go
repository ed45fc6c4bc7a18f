package ingest

import "os"

// Listens says whether a source waits to be called, as an SRT listener does, or
// to be written to, as a FIFO: that nobody has done so yet is no reason to open
// it anew, and who does at that moment would be turned away.
func Listens(url string) bool {
	if path, ok := Path(url); ok {
		st, err := os.Stat(path)
		return err == nil && st.Mode()&os.ModeNamedPipe != 0
	}
	scheme, rest := splitScheme(url)
	if scheme != "srt" {
		return false
	}
	u, err := parseSRT(rest, Options{})
	return err == nil && u.listen
}
