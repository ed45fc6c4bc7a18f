package serve

import (
	"encoding/json"
	"net/http"
)

// routeAPI adds what is below /api/v1/.
func (h *Handler) routeAPI() {
	h.mux.Handle("GET /api/v1/streams", h.readers(h.streams))
	h.mux.Handle("GET /api/v1/openapi.json", h.readers(h.openAPI))
}

func (h *Handler) streams(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// The status has been sent; an error of writing is the client's going.
	_ = json.NewEncoder(w).Encode(h.node.Status())
}
