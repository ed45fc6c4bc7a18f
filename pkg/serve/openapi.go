package serve

import (
	_ "embed"
	"net/http"
	"strconv"
)

// openAPI is the API's own description, OpenAPI 3.1. A test holds it and what
// answers to each other.
//
//go:embed openapi.json
var openAPI []byte

func (h *Handler) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(openAPI)))
	_, _ = w.Write(openAPI) // the client has gone if this fails
}
