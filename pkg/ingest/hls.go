package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/twindvr/twindvr/pkg/hls"
)

// openHLS returns how to open hls: and hlss: URLs, which stand for http: and
// https: ones of playlists.
func openHLS(scheme string) func(context.Context, string, Options) (Source, error) {
	return func(ctx context.Context, rest string, opt Options) (Source, error) {
		return openHLSURL(ctx, scheme+":"+rest, opt)
	}
}

// checkHLS returns how to check them.
func checkHLS(scheme string) func(string) error {
	return func(rest string) error { return checkHLSURL(scheme + ":" + rest) }
}

// isHLSURL says whether the path of an http or https URL names a playlist.
func isHLSURL(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	switch strings.ToLower(path.Ext(u.Path)) {
	case ".m3u8", ".m3u":
		return true
	}
	return false
}

// checkHLSURL says what is wrong with the URL of a playlist.
func checkHLSURL(raw string) error {
	_, _, err := parseHLS(raw)
	return err
}

// parseHLS reads the URL of a playlist: hls and hlss stand for http and https.
// The option variant= is taken out of the query; the rest of it is the
// server's and stays as it is.
func parseHLS(raw string) (u *url.URL, choice string, err error) {
	if u, err = url.Parse(raw); err != nil {
		return nil, "", &URLError{raw, unreadable(u, err)}
	}
	switch u.Scheme {
	case "hls":
		u.Scheme = "http"
	case "hlss":
		u.Scheme = "https"
	}
	if u.Hostname() == "" {
		return nil, "", &URLError{raw, errors.New("no host; write hls://HOST/PATH.m3u8, or hlss:// for https")}
	}
	u.Fragment, u.RawFragment = "", ""
	var keep []string
	for _, p := range strings.Split(u.RawQuery, "&") {
		name, value, _ := strings.Cut(p, "=")
		if name != "variant" {
			keep = append(keep, p)
			continue
		}
		if choice, err = url.QueryUnescape(value); err == nil && choice == "" {
			err = errors.New("variant= is empty; leave it out for the variant of the highest bandwidth")
		}
		if err == nil {
			err = hls.CheckChoice(choice)
		}
		if err != nil {
			return nil, "", &URLError{raw, err}
		}
	}
	u.RawQuery = strings.Join(keep, "&")
	return u, choice, nil
}

// openHLSURL opens the stream of a playlist, which it loads once to see that it
// is one.
func openHLSURL(ctx context.Context, raw string, opt Options) (Source, error) {
	u, choice, err := parseHLS(raw)
	if err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	s := &hlsSource{opt: opt, client: newHLSClient(u)}
	u.User = nil // the client's
	s.stream, err = hls.Open(ctx, s.client, u, hls.Options{Choice: choice, Clock: opt.Clock, Log: opt.Log, Stats: &s.stats})
	if err != nil {
		s.client.Close()
		return nil, nameHLS(hls.Show(u), err)
	}
	s.start()
	return s, nil
}

// nameHLS adds which source it is to an error that does not tell.
func nameHLS(name string, err error) error {
	switch text := err.Error(); {
	case strings.HasPrefix(text, name+": "):
		return fmt.Errorf("source %w", err)
	case strings.Contains(text, name):
		return err
	}
	return fmt.Errorf("source %s: %w", name, err)
}
