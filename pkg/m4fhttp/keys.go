package m4fhttp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	maxKeyFile = 64 << 10
	maxKey     = 4096
)

// LoadClusterKeys reads a cluster key file: the key on one line, and while it
// is being replaced the other one on a second line. A node accepts both; it
// uses the first towards its peers, and the second where the first is refused.
func LoadClusterKeys(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cluster key file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("cluster key file: %w", err)
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("cluster key file %s: longer than %d bytes; it holds one key on a line", path, maxKeyFile)
	}
	keys, err := ParseClusterKeys(string(b))
	if err != nil {
		return nil, fmt.Errorf("cluster key file %s: %w", path, err)
	}
	return keys, nil
}

// ParseClusterKeys reads the text of a cluster key file.
func ParseClusterKeys(text string) ([]string, error) {
	var keys []string
	for line := range strings.Lines(text) {
		key := strings.TrimSpace(line)
		switch {
		case key == "":
			continue
		case len(key) > maxKey:
			return nil, fmt.Errorf("a key is longer than %d bytes", maxKey)
		case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return nil, errors.New("a key holds a control character; write it on one line of text")
		}
		keys = append(keys, key)
	}
	switch len(keys) {
	case 0:
		return nil, errors.New("it holds no key; write one on a line")
	case 1, 2:
		return keys, nil
	}
	return nil, fmt.Errorf("it holds %d keys; one is in use, and a second while it is being replaced", len(keys))
}
