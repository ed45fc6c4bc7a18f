package config

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

// maxKeys is how many cluster keys are accepted at once: the one in use, and
// the one that it replaces or that will replace it.
const maxKeys = 2

// readKeyFile reads a cluster key file: one key, or two while one of them is
// being replaced, each on a line of its own. The first is the one to present.
// Empty lines are passed over.
func readKeyFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 64 << 10
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		return nil, fmt.Errorf("cluster key file %s: too large for a file of keys, one a line", path)
	}
	var keys []string
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, most+1)
	for n := 1; lines.Scan(); n++ {
		key := strings.TrimSpace(lines.Text())
		if key == "" {
			continue
		}
		if err := validKey(key); err != nil {
			return nil, fmt.Errorf("cluster key file %s, line %d: %w", path, n, err)
		}
		keys = append(keys, key)
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("cluster key file %s: %w", path, lines.Err())
	case len(keys) == 0:
		return nil, fmt.Errorf("cluster key file %s holds no key", path)
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("cluster key file %s holds %d keys; at most two are accepted at once", path, len(keys))
	}
	return keys, nil
}

// validKey refuses what could not be sent or typed as a password.
func validKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("the cluster key is empty")
	case len(key) > 1024:
		return fmt.Errorf("the cluster key is longer than 1024 bytes")
	case strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("the cluster key holds a control character")
	}
	return nil
}
