package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/serve"
)

// apiClient asks the API of a node.
type apiClient struct {
	base string // URL up to the host
	key  string // empty: none is presented
	hint string // where no node answers
}

// newAPIClient reads a node's address and the file of a key of its API; both may
// be empty.
func newAPIClient(addr, keyFile string) (*apiClient, error) {
	base, err := nodeURL(addr)
	if err != nil {
		return nil, err
	}
	c := &apiClient{base: base}
	if keyFile != "" {
		c.key, err = config.LoadAPIKey(keyFile)
	}
	return c, err
}

// nodeURL reads a node's address: a URL, HOST:PORT or :PORT.
func nodeURL(s string) (string, error) {
	if s == "" {
		return fmt.Sprintf("http://127.0.0.1:%d", config.DefaultPort), nil
	}
	if !strings.Contains(s, "://") {
		if strings.HasPrefix(s, ":") {
			s = "127.0.0.1" + s
		}
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is no address of a node; write http://HOST:PORT, or https://HOST:PORT where it speaks TLS", s)
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		return "", fmt.Errorf("%q is more than the address of a node; a stream is named behind it: %s://%s %s", s, u.Scheme, u.Host, path)
	}
	return u.Scheme + "://" + u.Host, nil
}

// maxStatus bounds a node's answer in bytes.
const maxStatus = 64 << 20

// askAPI is how long a node may take to answer.
const askAPI = 20 * time.Second

// get asks for a path below /api/v1/ and decodes the answer.
func (c *apiClient) get(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askAPI)
	defer cancel()
	u := c.base + "/api/v1/" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("no node answers at %s: %w%s", c.base, err, c.hint)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return fmt.Errorf("node at %s: %w", c.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p struct{ Detail string }
		if json.Unmarshal(body, &p) == nil && p.Detail != "" {
			return fmt.Errorf("node at %s: %s", c.base, printable(p.Detail))
		}
		return fmt.Errorf("node at %s answers %s; is it a twindvr supervise?", c.base, resp.Status)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("what answers at %s is no node: %w", c.base, err)
	}
	return nil
}

// status asks for the node and its streams.
func (c *apiClient) status(ctx context.Context) (*serve.NodeStatus, error) {
	var st serve.NodeStatus
	return &st, c.get(ctx, "streams", nil, &st)
}

// gaps asks for the newest gaps of a stream.
func (c *apiClient) gaps(ctx context.Context, stream string, limit int) (*serve.Gaps, error) {
	var g serve.Gaps
	return &g, c.get(ctx, "gaps", url.Values{"stream": {stream}, "limit": {fmt.Sprint(limit)}}, &g)
}

// printable takes out what would move the cursor of a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
			return '?'
		}
		return r
	}, s)
}
