package serve

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// webFiles are the page: what web/ builds into dist/, where it was built, and a
// small page without scripts for a program that was built without it.
//
//go:embed web
var webFiles embed.FS

// assetPath is where the files of the page lie. No part of a stream's name begins
// with a dot.
const assetPath = "/.web/"

// pagePolicy lets the page load what this node serves and nothing else. Media
// Source Extensions play from blob: addresses.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageFile is one file of the page.
type pageFile struct {
	kind   string // Content-Type
	zipped []byte // with gzip
	etag   string // of what is behind the compression, without quotes
}

// pageFiles are the files by name. Without the built page it is empty.
var pageFiles = sync.OnceValues(func() (map[string]pageFile, error) {
	return loadPage(webFiles)
})

var fallbackPage = sync.OnceValues(func() (*template.Template, error) {
	return template.New("fallback.html").Funcs(template.FuncMap{
		"path": streamPath,
		"ago":  func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(-d).Unix(), 10) },
	}).ParseFS(webFiles, "web/fallback.html")
})

// loadPage reads what was built: NAME.gz for each NAME. Without dist/ there is
// nothing.
func loadPage(files fs.FS) (map[string]pageFile, error) {
	entries, err := fs.ReadDir(files, "web/dist")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]pageFile{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".gz")
		if !ok {
			continue
		}
		zipped, err := fs.ReadFile(files, path.Join("web/dist", e.Name()))
		if err != nil {
			return nil, err
		}
		plain, err := gunzip(zipped)
		if err != nil {
			return nil, fmt.Errorf("%s of the page: %w; build it again with make web", e.Name(), err)
		}
		sum := sha256.Sum256(plain)
		out[name] = pageFile{kind: contentType(name), zipped: zipped, etag: hex.EncodeToString(sum[:12])}
	}
	return out, nil
}

// contentType does not depend on what the machine's tables say.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json", ".webmanifest":
		return "application/json"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// gzipped is b compressed, quickly rather than well.
func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is one that exists
	_, _ = z.Write(b)                                 // into memory
	_ = z.Close()
	return out.Bytes()
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// routePage adds the page and its files.
func (h *Handler) routePage() {
	h.mux.Handle("GET /{$}", h.viewers(h.page))
	asset := h.viewers(h.pageAsset)
	h.mux.HandleFunc("GET "+assetPath+"{file}", func(w http.ResponseWriter, r *http.Request) {
		// The files tell nothing of the node, and their addresses carry no token.
		if len(h.access.rules.Load().TokenSecrets) > 0 {
			h.pageAsset(w, r)
			return
		}
		asset.ServeHTTP(w, r)
	})
}

func (h *Handler) page(w http.ResponseWriter, r *http.Request) {
	files, err := pageFiles()
	if err != nil {
		m4fhttp.WriteProblem(w, http.StatusInternalServerError, "%v", err)
		return
	}
	if f, ok := files["index.html"]; ok {
		// The page names its files by their content: only it changes.
		servePageFile(w, r, f, "no-cache")
		return
	}
	h.fallback(w, r)
}

// fallbackData is what the page without scripts is made of.
type fallbackData struct {
	NodeStatus
	r *http.Request
}

// Link is an address that a viewer of the page may follow.
func (d fallbackData) Link(parts ...string) string { return passToken(d.r, strings.Join(parts, "")) }

// fallback is the page of a program that was built without the real one: which
// streams there are, and how to play them.
func (h *Handler) fallback(w http.ResponseWriter, r *http.Request) {
	t, err := fallbackPage()
	var body bytes.Buffer
	if err == nil {
		err = t.Execute(&body, fallbackData{h.node.Status(), r})
	}
	if err != nil {
		m4fhttp.WriteProblem(w, http.StatusInternalServerError, "the page: %v", err)
		return
	}
	pageHeader(w.Header())
	w.Header().Set("Content-Type", contentType(".html"))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body.Bytes()) // an error of writing is the client's going
}

func (h *Handler) pageAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	if name == "fallback.css" {
		serveFallbackStyle(w, r)
		return
	}
	files, err := pageFiles()
	f, ok := files[name]
	if err != nil || !ok || name == "index.html" {
		m4fhttp.WriteProblem(w, http.StatusNotFound, "the page has no file of this name; load the page again, it may be of another version")
		return
	}
	servePageFile(w, r, f, "private, max-age=31536000, immutable")
}

func serveFallbackStyle(w http.ResponseWriter, r *http.Request) {
	pageHeader(w.Header())
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, webFiles, "web/fallback.css")
}

// servePageFile answers with one file, compressed where that is accepted.
func servePageFile(w http.ResponseWriter, r *http.Request, f pageFile, cache string) {
	body, etag := f.zipped, f.etag+"-gz"
	header := w.Header()
	if m4fhttp.TakesGzip(r) {
		header.Set("Content-Encoding", "gzip")
	} else {
		plain, err := gunzip(f.zipped)
		if err != nil {
			m4fhttp.WriteProblem(w, http.StatusInternalServerError, "the page: %v", err)
			return
		}
		body, etag = plain, f.etag
	}
	pageHeader(header)
	header.Set("Content-Type", f.kind)
	header.Set("Cache-Control", cache)
	header.Set("Vary", "Accept-Encoding")
	header.Set("ETag", `"`+etag+`"`)
	r.Header.Del("Range") // a part of a page is of no use to anybody
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func pageHeader(h http.Header) {
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// streamPath is a stream's name as the beginning of a path.
func streamPath(name string) string { return (&url.URL{Path: "/" + name}).EscapedPath() }
