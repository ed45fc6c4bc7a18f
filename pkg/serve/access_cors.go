package serve

import (
	"net/http"
	"slices"
)

// corsFor is how long a browser may remember what it was told of a request.
const corsFor = "600"

// cors lets pages of other sites read answers where the configuration says so (the
// CORS protocol of the Fetch standard), and answers what browsers ask beforehand:
// then it returns true. Answers carry what they may read.
func (a *Access) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	origins := a.rules.Load().Origins
	if len(origins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	switch {
	case origin == "":
		return false
	case origins[0] == "*":
		h.Set("Access-Control-Allow-Origin", "*")
	case slices.Contains(origins, origin):
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true") // the viewer's password
	default:
		return false
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Range, If-None-Match, If-Modified-Since")
		h.Set("Access-Control-Max-Age", corsFor)
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	h.Set("Access-Control-Expose-Headers", "Content-Disposition, Content-Length, Content-Range, Date, ETag")
	return false
}
