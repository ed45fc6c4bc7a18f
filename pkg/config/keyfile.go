package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
)

const (
	// maxKeys is how many cluster keys are accepted at once: the one in use,
	// and the one that it replaces or that will replace it.
	maxKeys = 2
	// maxKey bounds a key in bytes, maxKeyFile the file of them.
	maxKey     = 4096
	maxKeyFile = 64 << 10
)

// LoadClusterKeys reads a cluster key file: one key, or two while one of them
// is being replaced, each on a line of its own. Both are accepted; the first is
// the one to present, and the second where the first is refused. Empty lines
// are passed over.
func LoadClusterKeys(path string) ([]string, error) {
	text, err := readText(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cluster key file %w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("cluster key file %s: %w", path, err)
	}
	return keys, nil
}

// parseKeys reads the text of a cluster key file.
func parseKeys(text string) ([]string, error) {
	var keys []string
	n := 0
	for line := range strings.Lines(text) {
		n++
		key := strings.TrimSpace(line)
		if key == "" {
			continue
		}
		if err := validKey(key); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("it holds no key; write one on a line")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("it holds %d keys; one is in use, and a second while it is being replaced", len(keys))
	}
	return keys, nil
}

// validKey refuses what could not be sent or typed as a password.
func validKey(key string) error {
	switch {
	case key == "":
		return errors.New("the cluster key is empty")
	case len(key) > maxKey:
		return fmt.Errorf("the cluster key is longer than %d bytes", maxKey)
	case strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("the cluster key holds a control character; write it on one line of text")
	}
	return nil
}

// readText reads a file of at most so many bytes. The error names the file.
func readText(path string, most int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", fmt.Errorf("%s cannot be read: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", path, err)
	}
	if int64(len(b)) > most {
		return "", fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	return string(b), nil
}
