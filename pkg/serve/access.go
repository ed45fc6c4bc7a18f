package serve

import (
	"net"
	"net/http"
	"strings"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// viewers guards what shows something of the archive or the node: it refuses
// requests that do not come from this machine: also those
// that a proxy on it passes on, and those of a browser on it that was sent here
// by another site's name for this address.
func viewers(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r.RemoteAddr) || !localName(r.Host) || passedOn(r.Header) {
			m4fhttp.WriteProblem(w, http.StatusForbidden, "the API answers requests from the node's own machine only")
			return
		}
		next(w, r)
	})
}

func fromLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// localName says whether a Host header names an address, or this machine.
func localName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return host == "" || strings.EqualFold(host, "localhost") || net.ParseIP(host) != nil
}

// passedOn says whether a request came through a proxy.
func passedOn(h http.Header) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if h.Get(name) != "" {
			return true
		}
	}
	return false
}
