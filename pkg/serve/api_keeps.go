package serve

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Keeps are spans that pruning leaves.
type Keeps struct {
	Keeps []Keep `json:"keeps"`
}

// Keep is a span that pruning leaves.
type Keep struct {
	Stream  string  `json:"stream"`
	Name    string  `json:"name"`
	From    Time    `json:"from"`
	To      Time    `json:"to"`
	Created Time    `json:"created"`
	Seconds float64 `json:"seconds"` // recorded in it
	Bytes   int64   `json:"bytes"`   // of the files of its hours
}

// NewKeep is a span to be kept.
type NewKeep struct {
	Stream string `json:"stream"`
	Name   string `json:"name"` // empty: made of its start
	From   *Time  `json:"from"`
	To     *Time  `json:"to"`
}

// keeps answers with the kept spans of one or all streams.
func (h *Handler) keeps(c *call) (any, error) {
	names, err := h.names(c)
	if err != nil {
		return nil, err
	}
	out := &Keeps{Keeps: []Keep{}}
	err = h.reading(c.r.Context(), func() error {
		for _, name := range names {
			a, err := h.archiveOf(name)
			if err != nil {
				return err
			}
			c.stream = name
			kept, err := a.Kept()
			if err != nil {
				return err
			}
			for i := range kept {
				k, err := keepOf(name, a, &kept[i])
				if err != nil {
					return err
				}
				out.Keeps = append(out.Keeps, k)
			}
		}
		return nil
	})
	return out, err
}

func keepOf(stream string, a *archive.Stream, k *archive.Keep) (Keep, error) {
	out := Keep{Stream: stream, Name: k.Name, From: Time(k.From), To: Time(k.To), Created: Time(m4f.UTCOf(k.Created))}
	all, err := a.Stretches(k.From, k.To)
	if err != nil {
		return out, err
	}
	for i := range all {
		if all[i].State != archive.StateMissing {
			out.Seconds += seconds(int64(all[i].To - all[i].From))
		}
	}
	out.Bytes, err = a.KeptSize(k)
	return out, err
}

// keep protects a span from pruning.
func (h *Handler) keep(c *call) (any, error) {
	var n NewKeep
	if err := c.body(&n); err != nil {
		return nil, err
	}
	a, err := h.archiveOf(n.Stream)
	if err != nil {
		return nil, err
	}
	switch {
	case n.From == nil || n.To == nil:
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "from and to are missing: what is to be kept, in RFC 3339, Unix seconds, or as now or -90m")
	case *n.To <= *n.From:
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "to is not after from")
	}
	c.stream = n.Stream
	k := archive.Keep{Name: n.Name, From: m4f.UTC(*n.From), To: m4f.UTC(*n.To), Created: time.Now()}
	if k.Name == "" {
		if k.Name, err = freeName(a, k.From); err != nil {
			return nil, err
		}
	}
	if err := archive.ValidKeepName(k.Name); err != nil {
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "%v", err)
	}
	if err := a.Keep(k); err != nil {
		return nil, err
	}
	h.log.Info("a span is kept", "stream", n.Stream, "name", k.Name, "from", n.From, "to", n.To, "by", c.r.RemoteAddr)
	c.status = http.StatusCreated
	c.w.Header().Set("Location", apiPath+"keeps/"+url.PathEscape(k.Name)+"?stream="+url.QueryEscape(n.Stream))
	return keepOf(n.Stream, a, &k)
}

// freeName makes a name of a span's start.
func freeName(a *archive.Stream, from m4f.UTC) (string, error) {
	kept, err := a.Kept()
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for i := range kept {
		taken[kept[i].Name] = true
	}
	base := from.Time().Format("2006-01-02T150405Z")
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name, nil
}

// release ends the protection of a span.
func (h *Handler) release(c *call) (any, error) {
	stream, name := c.query.Get("stream"), c.r.PathValue("name")
	a, err := h.archiveOf(stream)
	if err != nil {
		return nil, err
	}
	if err := archive.ValidKeepName(name); err != nil {
		return nil, m4fhttp.Problemf(http.StatusBadRequest, "%v", err)
	}
	c.stream = stream
	if err := a.Release(name); err != nil {
		return nil, err
	}
	h.log.Info("a span is no longer kept", "stream", stream, "name", name, "by", c.r.RemoteAddr)
	return nil, nil
}
