// Package hls pulls HTTP live streams (RFC 8216, and what of its second
// edition, draft-pantos-hls-rfc8216bis, is in common use): it follows a media
// playlist and hands out its segments whole, decrypted and in order, and reads
// the access units of segments that are fragmented MP4.
//
// Everything that follows from the stream (segment bytes, access units and
// their times) follows from it alone, so that two nodes that pull one stream
// get the same, whenever each began. When something was published is a matter
// of the clock, and only dates depend on it.
package hls

import (
	"fmt"
	"net/url"
)

// What is taken from a server at most.
const (
	maxPlaylist   = 8 << 20  // bytes of a playlist
	maxSegments   = 100_000  // media segments that a playlist lists
	maxVariants   = 1000     // variants and renditions that one lists
	maxSegment    = maxNow   // bytes of a media segment
	maxAudio      = 32 << 20 // bytes of one of an audio rendition
	maxInit       = 1 << 20  // bytes of a media initialization section
	keySize       = 16       // bytes of an AES-128 key
	maxTarget     = 3600     // seconds of a target duration
	maxAttributes = 64       // attributes of a tag
)

// Show returns a URL as a log may show it: without user, password and query,
// which often holds a token.
func Show(u *url.URL) string {
	v := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return v.String()
}

// PlaylistError says what is wrong with a playlist.
type PlaylistError struct {
	URL string // as Show gives it
	Err error
}

func (e *PlaylistError) Error() string { return fmt.Sprintf("playlist %s: %v", e.URL, e.Err) }

// Unwrap returns the cause.
func (e *PlaylistError) Unwrap() error { return e.Err }
