package node

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"unicode"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

var _ serve.Supervised = (*Node)(nil)

// Feed implements serve.Supervised.
func (n *Node) Feed() *serve.Feed { return n.news }

// Peers implements serve.Supervised.
func (n *Node) Peers(stream string) []serve.Peer {
	s := n.find(stream)
	if s == nil {
		return nil
	}
	var out []serve.Peer
	for _, l := range s.allLinks() {
		l.mu.Lock()
		if l.client != nil {
			out = append(out, serve.Peer{URL: l.url(), Client: l.client})
		}
		l.mu.Unlock()
	}
	return out
}

// allLinks are the stream's connections to peers, in the order of the
// configuration, those for replication alone behind them.
func (s *stream) allLinks() []*link {
	var out []*link
	for _, l := range append(append([]*link{}, s.links...), s.mirrors...) {
		if l != nil {
			out = append(out, l)
		}
	}
	return out
}

// Reread implements serve.Supervised: it reads the configuration again and
// applies it, as Reload does.
func (n *Node) Reread(ctx context.Context) (*serve.Reload, error) {
	if n.opt.Load == nil {
		return nil, m4fhttp.Problemf(http.StatusNotImplemented, "this node has no configuration file to read again")
	}
	type outcome struct {
		res *serve.Reload
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := n.reread()
		done <- outcome{res, err}
	}()
	select {
	case o := <-done:
		return o.res, o.err
	case <-ctx.Done(): // where the node listens elsewhere from now on, that ends who asked
		return &serve.Reload{File: n.opt.Config.File, Added: []string{}, Removed: []string{}, Changed: []string{}, Other: []string{}}, nil
	}
}

// reread reads the configuration and applies it. What it finds wrong is told in
// the log, too: nobody may wait for the answer.
func (n *Node) reread() (*serve.Reload, error) {
	if n.opt.Reloading != nil {
		defer n.opt.Reloading()()
	}
	c, err := n.opt.Load()
	var changes config.Changes
	if err == nil {
		changes, err = n.apply(c)
	}
	if err != nil {
		n.log.Error("configuration is not applied; the one before stays in force", "file", n.opt.Config.File, "err", err)
		return nil, reloadProblem(err)
	}
	return &serve.Reload{
		Applied: true, File: c.File, Added: some(changes.Added), Removed: some(changes.Removed), Changed: some(changes.Changed), Other: wordsOf(&changes),
	}, nil
}

// apply is Reload, with the context that the node runs in.
func (n *Node) apply(c *config.Config) (config.Changes, error) {
	n.mu.Lock()
	ctx := n.life
	n.mu.Unlock()
	if ctx == nil {
		return config.Changes{}, errors.New("the node is starting; try again in a moment")
	}
	return n.change(ctx, c)
}

// reloadProblem is what is wrong with a configuration, for whoever asked to have
// it read.
func reloadProblem(err error) error {
	p := m4fhttp.Problemf(http.StatusUnprocessableEntity, "the configuration is not applied, and the one before stays in force: %v", err)
	var all config.Errors
	var one *config.Error
	switch {
	case errors.As(err, &all):
		for _, e := range all[:min(len(all), mostMistakes)] {
			p.Errors = append(p.Errors, mistakeOf(e))
		}
	case errors.As(err, &one):
		p.Errors = append(p.Errors, mistakeOf(one))
	}
	return p
}

// mostMistakes is how many mistakes are answered.
const mostMistakes = 10

func mistakeOf(e *config.Error) m4fhttp.Mistake {
	return m4fhttp.Mistake{File: e.File, Line: e.Line, Column: e.Col, Detail: e.Msg}
}

func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// wordsOf names what has changed outside of streams, by the words of the
// configuration.
func wordsOf(c *config.Changes) []string {
	words := map[string]string{"HTTP": "http", "Keys": "cluster_key", "TLS": "tls", "Sources": "source"}
	out := []string{}
	v := reflect.ValueOf(*c)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).Kind() == reflect.Bool && v.Field(i).Bool() {
			word := words[name]
			if word == "" {
				word = snake(name)
			}
			out = append(out, word)
		}
	}
	return out
}

// snake writes MinFree as min_free.
func snake(name string) string {
	var out strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}
