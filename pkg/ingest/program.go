package ingest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// programSchemes are the sources whose options twindvr alone reads, so that
// program= may stand among them. In an http URL it would be the server's.
var programSchemes = map[string]bool{"udp": true, "rtp": true, "srt": true}

// SplitProgram takes the option program=N (1 to 65535), which says what to
// record of a multiplex, out of a udp, rtp or srt URL. It returns the URL
// without it, as Open and Check want it, and the program's number; 0 where the
// URL names none. Any other URL comes back as it is. The error is a *URLError.
//
// URLs that differ in their program alone are equal after it: they name one
// source, which a Hub opens once.
func SplitProgram(url string) (rest string, program uint16, err error) {
	scheme, _ := splitScheme(url)
	base, query, found := strings.Cut(url, "?")
	if !programSchemes[scheme] || !found {
		return url, 0, nil
	}
	var keep []string
	for opt := range strings.SplitSeq(query, "&") {
		value, is := strings.CutPrefix(opt, "program=")
		if !is {
			if opt != "" {
				keep = append(keep, opt)
			}
			continue
		}
		n, err := strconv.ParseUint(value, 10, 16)
		switch {
		case err != nil || n == 0:
			return "", 0, &URLError{url, fmt.Errorf("program=%s is not a number from 1 to 65535", value)}
		case program != 0 && program != uint16(n):
			return "", 0, &URLError{url, errors.New("program= stands there twice; one stream is one program")}
		}
		program = uint16(n)
	}
	if len(keep) == 0 {
		return base, program, nil
	}
	return base + "?" + strings.Join(keep, "&"), program, nil
}
