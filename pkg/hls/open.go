package hls

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/twindvr/twindvr/pkg/clock"
)

// Options say how a stream is pulled. All but Choice must be set.
type Options struct {
	Choice string // which variant, see Master.Choose
	Clock  clock.Clock
	Log    *slog.Logger
	Stats  *Stats
}

// Stats are counted while a stream is pulled.
type Stats struct {
	Segments atomic.Uint64 // fetched whole
	Bytes    atomic.Uint64 // of those, as the server sends them
	Lost     atomic.Uint64 // segments that were listed, or numbered, and never had
	Errors   atomic.Uint64 // requests and playlists that failed
	Returns  atomic.Uint64 // times that a playlist could be had again
}

// Stream is an open stream: the followers of its playlists.
type Stream struct {
	// Main follows the variant, or the only media playlist.
	Main *Follower
	// Audio follow the renditions of the variant's audio group that have
	// playlists of their own, in the order of the multivariant playlist, less
	// those whose playlists could not be had.
	Audio []*Follower
	// Others are the types of renditions that nothing follows.
	Others []string
}

// Open loads the playlists of a stream once. The URL is that of a multivariant
// or of a media playlist; the context bounds Open alone.
func Open(ctx context.Context, c *Client, u *url.URL, opt Options) (*Stream, error) {
	if err := CheckChoice(opt.Choice); err != nil {
		return nil, err
	}
	f := newFollower(c, u, opt)
	p, err := f.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if p.Media != nil {
		if opt.Choice != "" {
			return nil, fmt.Errorf("playlist %s lists segments and no variants; leave variant= out", Show(u))
		}
		return &Stream{Main: f}, f.begin(p.Media)
	}
	v, err := p.Master.Choose(opt.Choice)
	if err != nil {
		return nil, &PlaylistError{Show(u), err}
	}
	s := &Stream{Others: v.Others}
	again := func(ctx context.Context) (*Variant, error) { return chooseAgain(ctx, c, u, opt) }
	if s.Main, err = open(ctx, c, v.URL, opt, func(ctx context.Context) (*url.URL, error) {
		v, err := again(ctx)
		if err != nil {
			return nil, err
		}
		return v.URL, nil
	}); err != nil {
		return nil, err
	}
	for k, r := range v.Audio {
		if k == maxRenditions {
			s.Others = append(s.Others, "AUDIO")
			break
		}
		a, err := open(ctx, c, r.URL, opt, func(ctx context.Context) (*url.URL, error) {
			v, err := again(ctx)
			if err != nil {
				return nil, err
			}
			if k >= len(v.Audio) {
				return nil, fmt.Errorf("playlist %s: audio rendition %d is not listed any more", Show(u), k)
			}
			return v.Audio[k].URL, nil
		})
		if err != nil && ctx.Err() != nil {
			return nil, err
		} else if err != nil {
			opt.Log.Warn("an audio rendition cannot be had and is not recorded", "rendition", strings.TrimSpace(r.Name+" "+r.Language), "err", err)
			opt.Stats.Errors.Add(1)
			continue
		}
		a.rendition = &r
		s.Audio = append(s.Audio, a)
	}
	return s, nil
}

// maxRenditions are the audio renditions that are followed.
const maxRenditions = 32

// chooseAgain loads the multivariant playlist anew: addresses of media
// playlists may hold tokens that expire.
func chooseAgain(ctx context.Context, c *Client, u *url.URL, opt Options) (*Variant, error) {
	p, err := newFollower(c, u, opt).fetch(ctx)
	if err != nil {
		return nil, err
	}
	if p.Master == nil {
		return nil, &PlaylistError{Show(u), fmt.Errorf("it lists no variants any more")}
	}
	return p.Master.Choose(opt.Choice)
}

// open loads a media playlist for the first time.
func open(ctx context.Context, c *Client, u *url.URL, opt Options, resolve func(context.Context) (*url.URL, error)) (*Follower, error) {
	f := newFollower(c, u, opt)
	f.resolve = resolve
	p, err := f.fetch(ctx)
	switch {
	case err != nil:
		return nil, err
	case p.Media == nil:
		return nil, &PlaylistError{Show(u), fmt.Errorf("it is listed as one of segments, and lists variants")}
	}
	return f, f.begin(p.Media)
}
