package serve

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// downloadKinds are the files that hold a span whole.
func (h *Handler) downloadKinds() []playable {
	d := &downloads{Handler: h}
	return []playable{
		fileOf(`archive-(\d{1,10})-(\d{1,10})\.(mp4|ts)`, "archive-FROM-DURATION.mp4, archive-FROM-DURATION.ts", d.download),
		fileOf(`preview-(\d{1,10})\.mp4`, "preview-UTC.mp4", h.preview),
	}
}

// spanOf is the span that a file's name gives: its start in Unix seconds and its
// length in seconds, both of digits.
func spanOf(from, duration string) (m4f.UTC, m4f.UTC, error) {
	f, ferr := strconv.ParseInt(from, 10, 64)
	d, derr := strconv.ParseInt(duration, 10, 64)
	if ferr != nil || derr != nil || f < 1 || d < 1 || f > maxSeconds || d > maxSeconds {
		return 0, 0, m4fhttp.Problemf(http.StatusBadRequest, "the span of %s seconds from %s on makes no sense; FROM is in Unix seconds and DURATION at least a second",
			m4fhttp.Clip(duration), m4fhttp.Clip(from))
	}
	return m4f.UTC(f * m4f.Timescale), m4f.UTC((f + d) * m4f.Timescale), nil
}

// maxSeconds bounds the times of a request: the year 2286.
const maxSeconds = 9_999_999_999

// downloads answers with spans as files.
type downloads struct {
	*Handler
	last downloadStore
}

func (h *downloads) download(q *play) error {
	from, to, err := spanOf(q.parts[1], q.parts[2])
	if err != nil {
		return err
	}
	if err := permitSpan(q.r, from, to); err != nil {
		return err
	}
	format, err := render.ParseFormat(q.parts[3])
	if err != nil {
		return err
	}
	d, err := h.last.find(q, render.Options{From: from, To: to, Format: format}, func() (render.Offer, error) {
		if format == render.TS { // its length follows from all of the segments
			return render.Offer{}, h.fetchThrough(q, from, to, downloadWait)
		}
		return h.offered(q, from, to)
	})
	if errors.Is(err, render.ErrEmpty) {
		return m4fhttp.Problemf(http.StatusNotFound, "nothing is recorded in this span; /api/v1/coverage says what is")
	}
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": fileName(q.name, from, to, q.parts[3])}))
	kind := map[render.Format]string{render.MP4: "video/mp4", render.TS: "video/mp2t"}[format]
	h.serveBody(q, d, kind, `"`+d.Tag()+`"`, "private, no-cache") // it may be healed
	return nil
}

// fileName is what a download is called: the stream, when it begins, and for how
// long it lasts.
func fileName(stream string, from, to m4f.UTC, ext string) string {
	return fmt.Sprintf("%s_%s_%ds.%s", strings.ReplaceAll(stream, "/", "-"), from.Time().Format("2006-01-02T15-04-05Z"), (to-from)/m4f.Timescale, ext)
}

// downloadStore keeps the last downloads for those who ask for more of them: a
// player that seeks asks for range after range, and goes on in the file that it
// began with.
type downloadStore struct {
	mu   sync.Mutex
	last map[downloadKey]*keptDownload
}

type downloadKey struct {
	stream   string
	from, to m4f.UTC
	format   render.Format
}

type keptDownload struct {
	*render.Download
	used time.Time
}

const (
	keepDownloads = 64
	keepDownload  = 2 * time.Minute // after it was asked for
)

// find returns what a request asks for. One for all of a file gets it as the
// archive has it now, with what peers offer.
func (s *downloadStore) find(q *play, opt render.Options, offer func() (render.Offer, error)) (*render.Download, error) {
	key := downloadKey{q.name, opt.From, opt.To, opt.Format}
	if q.r.Header.Get("Range") != "" {
		if d := s.get(key, q.r.Header.Get("If-Range")); d != nil {
			return d, nil
		}
	}
	o, err := offer()
	if err != nil {
		return nil, err
	}
	d, err := render.NewDownloadWith(q.r.Context(), q.archive, opt, o)
	if err == nil {
		s.put(key, d)
	}
	return d, err
}

// get returns a download that is kept, if it is the one of the tag, or any if
// that is empty.
func (s *downloadStore) get(key downloadKey, tag string) *render.Download {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.last[key]
	if k == nil || time.Since(k.used) > keepDownload || tag != "" && tag != `"`+k.Tag()+`"` {
		return nil
	}
	k.used = time.Now()
	return k.Download
}

func (s *downloadStore) put(key downloadKey, d *render.Download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[downloadKey]*keptDownload{}
	}
	s.last[key] = &keptDownload{d, time.Now()}
	for len(s.last) > keepDownloads {
		oldest := key
		for k, v := range s.last {
			if v.used.Before(s.last[oldest].used) {
				oldest = k
			}
		}
		delete(s.last, oldest)
	}
}
