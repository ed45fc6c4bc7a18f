package ingest

import (
	"net/url"
	"strings"
)

// hidden stands where a secret stood.
const hidden = "***"

// secretOptions are query options whose value lets somebody in: SRT's
// passphrase, and what servers of HTTP and HLS call their tokens.
var secretOptions = map[string]bool{
	"passphrase": true, "password": true, "passwd": true, "pass": true, "pwd": true, "secret": true,
	"token": true, "access_token": true, "auth": true, "auth_key": true, "authkey": true, "key": true,
	"apikey": true, "api_key": true, "sig": true, "signature": true, "hdnts": true, "hdnea": true,
	"wmsauthsign": true, "x-amz-signature": true, "x-amz-security-token": true,
}

// Redact returns the URL of a source as logs, events and pages may show it:
// without user name and password, and with *** for the values of passphrase=,
// token= and their like and for what a streamid= holds beyond the name of its
// resource. What is no URL comes back as it is. It is idempotent.
func Redact(source string) string {
	// What a step uncovers may look like a user name again.
	for {
		next := redactOnce(source)
		if next == source {
			return source
		}
		source = next
	}
}

func redactOnce(source string) string {
	scheme, rest, ok := strings.Cut(source, "://")
	if !ok || strings.ContainsAny(scheme, "/?") {
		return source
	}
	place, query, found := strings.Cut(rest, "?")
	if i := strings.LastIndexByte(query, '@'); i >= 0 && !strings.Contains(place, "/") && openUser(place) {
		// A password with a question mark in it.
		place, query, found = strings.Cut(query[i+1:], "?")
	}
	place = withoutUser(place)
	if !found {
		return scheme + "://" + place
	}
	return scheme + "://" + place + "?" + redactQuery(query)
}

// withoutUser takes the user information off what stands before the query. A
// password may hold a slash that should have been written %2F.
func withoutUser(place string) string {
	authority, path, slash := strings.Cut(place, "/")
	if i := strings.LastIndexByte(authority, '@'); i > 0 {
		authority = authority[i+1:]
	} else if i := strings.LastIndexByte(path, '@'); slash && i >= 0 && openUser(authority) {
		return withoutUser(path[i+1:])
	}
	if !slash {
		return authority
	}
	return authority + "/" + path
}

// openUser says whether an authority looks like a user name and the beginning
// of a password: behind its colon is no port.
func openUser(authority string) bool {
	_, port, ok := strings.Cut(authority, ":")
	return ok && !strings.HasPrefix(authority, "[") && !strings.ContainsAny(authority, "@,") && strings.Trim(port, "0123456789") != ""
}

// redactQuery hides the secrets among the options of a query.
func redactQuery(query string) string {
	var b strings.Builder
	for query != "" {
		opt, sep := query, ""
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			opt, sep = query[:i], query[i:i+1]
		}
		query = query[len(opt)+len(sep):]
		b.WriteString(redactOption(opt))
		b.WriteString(sep)
	}
	return b.String()
}

func redactOption(opt string) string {
	name, value, ok := strings.Cut(opt, "=")
	if !ok || value == "" {
		return opt
	}
	plain, err := url.QueryUnescape(name)
	if err != nil {
		plain = name
	}
	switch plain = strings.ToLower(plain); {
	case secretOptions[plain]:
		return name + "=" + hidden
	case plain == "streamid" || plain == "srt_streamid":
		return name + "=" + redactStreamID(value)
	}
	return opt
}

// redactStreamID keeps of a stream identifier what names the stream. Two
// forms may carry a secret: the list of SRT Access Control (#!::r=…,m=…,u=…),
// and action:path:user:password.
func redactStreamID(value string) string {
	id, err := url.QueryUnescape(value)
	if err != nil {
		return hidden
	}
	list, ok := strings.CutPrefix(id, "#!::")
	if !ok {
		if parts := strings.SplitN(id, ":", 3); len(parts) == 3 && parts[2] != hidden {
			return parts[0] + ":" + parts[1] + ":" + hidden
		}
		return value
	}
	var keep []string
	for pair := range strings.SplitSeq(list, ",") {
		key, _, _ := strings.Cut(pair, "=")
		switch key {
		case "r", "m", "t", "h", "u":
			keep = append(keep, pair)
		default:
			keep = append(keep, key+"="+hidden)
		}
	}
	return "#!::" + strings.Join(keep, ",")
}
