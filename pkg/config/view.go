package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Access says who may see and change what, but for M4F, which the cluster keys
// guard. The zero value: the node's own machine alone.
type Access struct {
	// Open: everybody may see the page, play and read the API. Else who brings a
	// password or a token may; with neither configured, the node's own machine.
	Open  bool
	Users []User // of HTTP basic authentication, each name once
	// TokenSecrets sign the tokens that are accepted: one, or two while one of
	// them is being replaced.
	TokenSecrets []string
	// Origins are those of other sites whose pages may read what this node serves,
	// as a browser names them: scheme://host[:port]. "*": any.
	Origins []string
	// ReadKeys and WriteKeys are accepted from clients of the API: one, or two
	// while one of them is being replaced. A write key may read, too.
	ReadKeys, WriteKeys []string

	off   *Pos // of view_auth off
	first *Pos // of another view_auth
	files []accessFile
}

// User is a viewer who gives a password.
type User struct {
	Name string
	// Password is the password itself, or its hash by bcrypt as htpasswd -B writes
	// it: then Hashed is true.
	Password string
}

// Closed says whether nobody but the node's own machine may see anything.
func (a *Access) Closed() bool { return !a.Open && len(a.Users)+len(a.TokenSecrets) == 0 }

// equal says whether both let in the same.
func (a *Access) equal(b *Access) bool {
	return reflect.DeepEqual(a.placeless(), b.placeless())
}

// placeless is a copy without what does not matter to who is let in.
func (a *Access) placeless() Access {
	return Access{
		Open: a.Open, Users: slices.Clone(a.Users), TokenSecrets: slices.Clone(a.TokenSecrets), Origins: slices.Clone(a.Origins),
		ReadKeys: slices.Clone(a.ReadKeys), WriteKeys: slices.Clone(a.WriteKeys),
	}
}

// accessFile is a file that a statement names, and what takes its text.
type accessFile struct {
	path string
	at   Pos
	what string
	take func(text string) error
}

const (
	// minTokenSecret is the least length of a secret: who has a token can try
	// secrets as fast as he likes.
	minTokenSecret = 16
	minAPIKey      = 16
	// maxUser bounds the name of a user in bytes, maxUsers how many there are.
	maxUser  = 255
	maxUsers = 1000
	// maxCost bounds the work that a bcrypt hash asks for: 2^14 takes about a second.
	maxCost = 14
)

// bcryptHash is a hash as htpasswd -B writes it; the first group is its cost.
var bcryptHash = regexp.MustCompile(`^\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)

const viewAuthArgs = "off|basic USER PASSWORD …|basic_file FILE|token SECRET [OTHER_SECRET]|token_file FILE"

// accessWords begin the statements of Access: in a configuration, or in a file of
// their own.
var accessWords = []directive[*Access]{
	{name: "view_auth", args: viewAuthArgs, least: 1, most: -1, set: setViewAuth},
	{name: "cors", args: "ORIGIN …|*|off", least: 1, most: -1, once: true, set: setCORS},
	{name: "api_read_key", args: "KEY [OTHER_KEY]", least: 1, most: maxKeys, once: true, set: setAPIKey},
	{name: "api_read_key_file", args: "FILE", least: 1, most: 1, once: true, set: setAPIKey},
	{name: "api_write_key", args: "KEY [OTHER_KEY]", least: 1, most: maxKeys, once: true, set: setAPIKey},
	{name: "api_write_key_file", args: "FILE", least: 1, most: 1, once: true, set: setAPIKey},
}

// accessInFile are the same words as those of a configuration.
func accessInFile() []directive[*Config] {
	var out []directive[*Config]
	for _, d := range accessWords {
		out = append(out, directive[*Config]{
			name: d.name, args: d.args, least: d.least, most: d.most, once: d.once,
			set: func(r *reader, c *Config, st *statement) { d.set(r, &c.Access, st) },
		})
	}
	return out
}

// LoadAccess reads a file of nothing but statements of Access, and the files that
// it names, which are looked for beside it. The error is an Errors where the file
// could be read but not understood.
func LoadAccess(path string) (*Access, error) {
	src, err := readText(path, maxFile)
	if err != nil {
		return nil, err
	}
	r := &reader{file: path}
	a := &Access{}
	interpret(r, accessWords, a, "a file of who may see what", r.top([]byte(src)))
	if len(r.errs) > 0 {
		r.errs.sort()
		return nil, r.errs
	}
	if at, err := a.readFiles(filepath.Dir(path)); err != nil {
		return nil, Errors{{File: path, Pos: at, Msg: err.Error()}}
	}
	return a, nil
}

func setViewAuth(r *reader, a *Access, st *statement) {
	here, kind, args := pos(st.Words[0].Pos), st.Words[1], st.Words[2:]
	if kind.text == "off" {
		r.nothingMore(st, 2, "view_auth off;")
		a.off, a.Open = &here, true
	} else if a.first == nil {
		a.first = &here
	}
	switch kind.text {
	case "off":
	case "basic":
		if len(args) == 0 || len(args)%2 != 0 {
			r.errorf(pos(st.end()), "view_auth basic wants a password for each user; expected view_auth basic USER PASSWORD …;")
			return
		}
		for i := 0; i < len(args); i += 2 {
			if err := a.addUser(User{args[i].text, args[i+1].text}); err != nil {
				r.errorf(pos(args[i].Pos), "%v", err)
			}
		}
	case "token":
		if len(args) == 0 || len(args) > maxKeys {
			r.errorf(pos(st.end()), "expected view_auth token SECRET [OTHER_SECRET];")
			return
		}
		for _, w := range args {
			if err := addSecret(&a.TokenSecrets, "secret of tokens", w.text, minTokenSecret); err != nil {
				r.errorf(pos(w.Pos), "%v", err)
			}
		}
	case "basic_file":
		a.file(r, st, 2, "file of users", a.takeUsers)
	case "token_file":
		a.file(r, st, 2, "file of the secret of tokens", func(text string) error {
			return takeSecrets(&a.TokenSecrets, "secret of tokens", text, minTokenSecret)
		})
	default:
		// It may be a secret: it is not shown.
		r.errorf(pos(kind.Pos), "unknown kind of access%s; expected view_auth %s;",
			didYouMean(kind.text, []string{"off", "basic", "basic_file", "token", "token_file"}), viewAuthArgs)
	}
	if a.off != nil && a.first != nil {
		r.errorf(here, "view_auth off lets everybody in; it excludes passwords and tokens")
	}
}

// addUser adds a user; the error does not show the password.
func (a *Access) addUser(u User) error {
	switch {
	case u.Name == "" || len(u.Name) > maxUser || strings.ContainsFunc(u.Name, unicode.IsControl):
		return fmt.Errorf("no name of a user; expected 1 to %d bytes of text", maxUser)
	case strings.Contains(u.Name, ":"):
		return errors.New("the name of a user holds a colon, which it cannot (RFC 7617)")
	case u.Password == "" || strings.ContainsFunc(u.Password, unicode.IsControl):
		return fmt.Errorf("the password of %s is empty or holds a control character", u.Name)
	case len(u.Password) > maxKey:
		return fmt.Errorf("the password of %s is longer than %d bytes", u.Name, maxKey)
	case slices.ContainsFunc(a.Users, func(v User) bool { return v.Name == u.Name }):
		return fmt.Errorf("a second password for the user %s", u.Name)
	case badHash(u.Password) != nil:
		return fmt.Errorf("the password of %s %w", u.Name, badHash(u.Password))
	case len(a.Users) >= maxUsers:
		return fmt.Errorf("more than %d users", maxUsers)
	}
	a.Users = append(a.Users, u)
	return nil
}

// takeUsers reads USER:PASSWORD, one a line, as htpasswd writes them. Empty lines
// and those that begin with # are passed over.
func (a *Access) takeUsers(text string) error {
	n, before := 0, len(a.Users)
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("line %d: expected USER:PASSWORD", n)
		}
		if err := a.addUser(User{name, password}); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(a.Users) == before {
		return errors.New("it holds no user; write USER:PASSWORD on a line")
	}
	return nil
}

// badHash says what is wrong with a password that looks like a hash: nothing where
// it is bcrypt's, or no hash.
func badHash(password string) error {
	if m := bcryptHash.FindStringSubmatch(password); m != nil {
		if cost, _ := strconv.Atoi(m[1]); cost > maxCost {
			return fmt.Errorf("is hashed at a cost of %d; the most is %d", cost, maxCost)
		}
		return nil
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2x$", "$2y$", "$apr1$", "$1$", "{SHA}", "$5$", "$6$", "$y$"} {
		if strings.HasPrefix(password, prefix) {
			return errors.New("is a hash that is cut, or not bcrypt; htpasswd -B writes one that is understood")
		}
	}
	return nil
}

// Hashed says whether the password is known by its hash only.
func (u *User) Hashed() bool { return bcryptHash.MatchString(u.Password) }

func setCORS(r *reader, a *Access, st *statement) {
	if len(st.Words) == 2 && st.Words[1].text == "off" {
		return
	}
	for _, w := range st.args() {
		switch origin, err := parseOrigin(w.text); {
		case err != nil:
			r.errorf(pos(w.Pos), "%v", err)
		case origin == "*" && len(st.Words) > 2:
			r.errorf(pos(w.Pos), "* is any origin; it stands alone")
		default:
			a.Origins = append(a.Origins, origin)
		}
	}
}

// parseOrigin reads an origin as a browser serialises it (RFC 6454 6.2), or *.
func parseOrigin(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.TrimPrefix(s, u.Scheme+"://") != u.Host {
		return "", fmt.Errorf("%s is no origin; expected http://HOST[:PORT] or https://HOST[:PORT], without a path, or *", quoted(s))
	}
	host := strings.ToLower(u.Host)
	if port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]; strings.HasSuffix(host, port) {
		host = strings.TrimSuffix(host, port) // browsers leave it out
	}
	return u.Scheme + "://" + host, nil
}

func setAPIKey(r *reader, a *Access, st *statement) {
	word := st.Words[0].text
	keys, what := &a.ReadKeys, "read key"
	if strings.HasPrefix(word, "api_write") {
		keys, what = &a.WriteKeys, "write key"
	}
	if strings.HasSuffix(word, "_file") {
		a.file(r, st, 1, "file of the API's "+what, func(text string) error { return takeSecrets(keys, what, text, minAPIKey) })
		return
	}
	for _, w := range st.args() {
		if err := addSecret(keys, what, w.text, minAPIKey); err != nil {
			r.errorf(pos(w.Pos), "%v", err)
		}
	}
}

// addSecret adds a secret to those of its kind.
func addSecret(to *[]string, what, secret string, least int) error {
	switch {
	case strings.ContainsFunc(secret, unicode.IsControl):
		return fmt.Errorf("the %s holds a control character; write it on one line of text", what)
	case len(secret) < least:
		return fmt.Errorf("the %s is shorter than %d bytes, so it could be guessed; openssl rand -hex 32 makes one", what, least)
	case len(secret) > maxKey:
		return fmt.Errorf("the %s is longer than %d bytes", what, maxKey)
	case len(*to) >= maxKeys:
		return fmt.Errorf("more than %d of them: one %s is in use, and a second while it is being replaced", maxKeys, what)
	}
	*to = append(*to, secret)
	return nil
}

// takeSecrets reads one secret, or two, each on a line of its own.
func takeSecrets(to *[]string, what, text string, least int) error {
	n, before := 0, len(*to)
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := addSecret(to, what, line, least); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(*to) == before {
		return fmt.Errorf("it holds no %s; write one on a line", what)
	}
	return nil
}

// LoadTokenSecret reads the file of a view_auth token_file, and returns its first
// secret: the one to sign with.
func LoadTokenSecret(path string) (string, error) {
	return firstSecret(path, "secret of tokens", minTokenSecret)
}

// LoadAPIKey reads the file of an api_read_key_file or api_write_key_file, and
// returns its first key: the one to present.
func LoadAPIKey(path string) (string, error) { return firstSecret(path, "key of the API", minAPIKey) }

func firstSecret(path, what string, least int) (string, error) {
	text, err := readText(path, maxKeyFile)
	if err != nil {
		return "", err
	}
	var secrets []string
	if err := takeSecrets(&secrets, what, text, least); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return secrets[0], nil
}

// file notes the file that a statement names by its i-th word.
func (a *Access) file(r *reader, st *statement, i int, what string, take func(string) error) {
	if len(st.Words) != i+1 || st.Words[i].text == "" || strings.ContainsRune(st.Words[i].text, 0) {
		r.errorf(pos(st.end()), "expected the path of a file, and nothing else")
		return
	}
	a.files = append(a.files, accessFile{filepath.Clean(st.Words[i].text), pos(st.Words[i].Pos), what, take})
}

// readFiles reads the files that were named; relative paths lie in dir. With the
// error it returns where the file is named.
func (a *Access) readFiles(dir string) (Pos, error) {
	for _, f := range a.files {
		path := f.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		text, err := readText(path, maxKeyFile)
		if err != nil {
			return f.at, fmt.Errorf("%s %w", f.what, err)
		}
		if err := f.take(text); err != nil {
			return f.at, fmt.Errorf("%s %s: %w", f.what, path, err)
		}
	}
	return Pos{}, nil
}
