package ingest

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
)

// hidden stands where a secret stood.
const hidden = "***"

// secretOptions are query options whose value lets somebody in: what servers
// of HTTP, HLS and RTSP, and the networks that deliver for them, call their
// keys, tokens and signatures.
var secretOptions = setOf(`
	passphrase password passwd pass passwort passcode pwd pw psk secret client_secret
	token access_token accesstoken auth_token authtoken id_token refresh_token sessiontoken session_token session
	sessionid session_id sid auth auth_key authkey authorization authsig key keyid apikey api_key api-key x-api-key
	access_key accesskey accesskeyid access_key_id awsaccesskeyid googleaccessid key-pair-id jwt bearer cred
	credential credentials sig signature sign policy hash hmac md5 digest st se sk ticket nonce
	hdnts hdnea hdntl hdnt wmsauthsign wowzatokenhash wowzatokenendtime nva nvb nimblesessionid
	x-amz-signature x-amz-security-token x-amz-credential x-goog-signature x-goog-credential pin user usr
	username login account otp code cookie`)

// plainOptions are the options of schemes that take no others. The value of any
// other name is hidden: it may be a secret with a misspelt name.
var plainOptions = map[string]map[string]bool{
	"udp": setOf("interface source buffer_size program"),
	"rtp": setOf("interface source buffer_size program reorder fec skew"),
	"srt": setOf("interface program mode latency rcvlatency pbkeylen connect_timeout conntimeo transtype pkt_size payload_size"),
}

func setOf(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// Redact returns the URL of a source as logs, events and pages may show it:
// without user name and password, and with *** for the values of passphrase=,
// token= and their like, for those of options that udp, rtp and srt do not have,
// and for what a streamid= holds beyond the name of its resource. What is no URL
// comes back as it is, but for what looks like one that is misspelt. It is
// idempotent.
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
		return redactMisspelt(source)
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
	return scheme + "://" + place + "?" + redactQuery(strings.ToLower(scheme), query)
}

var (
	// slashless is a URL of the network that lacks a slash or two.
	slashless = regexp.MustCompile(`^(?i:https?|hlss?|rtsps?|srt|udp|rtp):/?`)
	// userinfo is what looks like a user and a password where a URL's scheme
	// is missing or misspelt.
	userinfo = regexp.MustCompile(`^((?:[A-Za-z][A-Za-z0-9+.-]*:/)?)[^/:@?]+:[^/@].*@`)
)

// redactMisspelt hides the secrets of a URL that is taken for a path.
func redactMisspelt(path string) string {
	path = userinfo.ReplaceAllString(path, "${1}"+hidden+"@")
	if place, query, ok := strings.Cut(path, "?"); ok && slashless.MatchString(place) {
		scheme, _, _ := strings.Cut(place, ":")
		return place + "?" + redactQuery(strings.ToLower(scheme), query)
	}
	return path
}

// misspelt says that a path which does not exist looks like a URL; else nil.
func misspelt(path string) error {
	if scheme := slashless.FindString(path); scheme != "" {
		scheme = strings.ToLower(strings.TrimRight(scheme, ":/"))
		return &URLError{path, errors.New("no such file; a URL begins with " + scheme + "://")}
	}
	if userinfo.MatchString(path) {
		return &URLError{path, errors.New("no such file; a URL begins with its scheme, as http:// or rtsp://")}
	}
	return nil
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
func redactQuery(scheme, query string) string {
	var b strings.Builder
	for query != "" {
		opt, sep := query, ""
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			opt, sep = query[:i], query[i:i+1]
		}
		query = query[len(opt)+len(sep):]
		b.WriteString(redactOption(scheme, opt))
		b.WriteString(sep)
	}
	return b.String()
}

func redactOption(scheme, opt string) string {
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
	if known := plainOptions[scheme]; known != nil && !known[plain] {
		return name + "=" + hidden
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
