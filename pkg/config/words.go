package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/participle/v2/lexer"
)

// end is the place after the last word of a statement.
func (st *statement) end() lexer.Position { return st.Words[len(st.Words)-1].EndPos }

// fileWords begin the statements of a file.
var fileWords []directive[*Config]

// streamWords begin the statements of a stream block.
var streamWords []directive[*streamBlock]

// sourceWords begin the statements of a source block.
var sourceWords []directive[*sourceBlock]

// The tables are filled here since what they hold refers to them.
func init() {
	fileWords = []directive[*Config]{
		{name: "http", args: "PORT|ADDR:PORT", least: 1, most: 1, once: true, set: setHTTP},
		{name: "cluster_key", args: "KEY [OTHER_KEY]", least: 1, most: maxKeys, once: true, set: setClusterKey},
		{name: "cluster_key_file", args: "PATH", least: 1, most: 1, once: true, set: setClusterKeyFile},
		{name: "tls_cert", args: "FILE", least: 1, most: 1, once: true, set: setTLS},
		{name: "tls_key", args: "FILE", least: 1, most: 1, once: true, set: setTLS},
		{name: "tls_ca", args: "FILE", least: 1, most: 1, once: true, set: setTLS},
		{name: "min_free", args: "SIZE|PERCENT%", least: 1, most: 1, once: true, set: setMinFree},
		{name: "verify", args: "PERIOD [RATE]|off", least: 1, most: 2, once: true, set: setVerify},
		{name: "salvage", args: "SIZE AGE|off", least: 1, most: 2, once: true, set: func(r *reader, c *Config, st *statement) {
			c.salvage = r.salvage(st)
		}},
		{name: "event_sink", args: "log|URL …", least: 1, most: maxSinks, once: true, set: setEventSink},
		{name: "stream", args: "NAME", least: 1, most: 1, block: true, set: setStream},
		{name: "source", args: "HOST[:PORT]", least: 1, most: 1, block: true, set: setSource},
	}
	fileWords = append(fileWords, accessInFile()...)
	streamWords = []directive[*streamBlock]{
		{name: "url", args: "URL [OPTION=VALUE …]", least: 1, most: -1, set: setInput},
		{name: "input", args: "URL [OPTION=VALUE …]", least: 1, most: -1, set: setInput},
		{name: "dvr", args: dvrArgs, least: 2, most: -1, once: true, set: func(r *reader, b *streamBlock, st *statement) {
			b.DVR, b.port = r.dvr(st, b.knows)
		}},
		{name: "segment_duration", args: "DURATION", least: 1, most: 1, once: true, set: func(r *reader, b *streamBlock, st *statement) {
			b.SegmentDuration = r.duration(st.Words[1], "", MinSegmentDuration, MaxSegmentDuration)
		}},
		{name: "source_timeout", args: "DURATION", least: 1, most: 1, once: true, set: setStreamOption},
		{name: "return_after", args: "DURATION", least: 1, most: 1, once: true, set: setStreamOption},
		{name: "max_retry_timeout", args: "DURATION", least: 1, most: 1, once: true, set: setStreamOption},
		{name: "standby", args: "hot|cold", least: 1, most: 1, once: true, set: setStreamOption},
		{name: "program", args: "NUMBER", least: 1, most: 1, once: true, set: setStreamOption},
		{name: "salvage", args: "SIZE AGE|off", least: 1, most: 2, once: true, set: func(r *reader, b *streamBlock, st *statement) {
			b.Salvage, b.salvaged = r.salvage(st), true
		}},
	}
	sourceWords = []directive[*sourceBlock]{
		{name: "only", args: "NAME …", least: 1, most: -1, set: setNames},
		{name: "except", args: "NAME …", least: 1, most: -1, set: setNames},
		{name: "dvr", args: dvrArgs, least: 2, most: -1, once: true, set: func(r *reader, b *sourceBlock, st *statement) {
			b.DVR, _ = r.dvr(st, b.knows)
		}},
		{name: "source_timeout", args: "DURATION", least: 1, most: 1, once: true, set: setSourceOption},
		{name: "return_after", args: "DURATION", least: 1, most: 1, once: true, set: setSourceOption},
		{name: "max_retry_timeout", args: "DURATION", least: 1, most: 1, once: true, set: setSourceOption},
		{name: "salvage", args: "SIZE AGE|off", least: 1, most: 2, once: true, set: func(r *reader, b *sourceBlock, st *statement) {
			b.Salvage, b.salvaged = r.salvage(st), true
		}},
	}
}

const dvrArgs = "PATH DEPTH [SIZE] [PERCENT%] [replicate[=RATE]] [replication_port=PORT] [mounted]"

// The bounds of what a file may ask for.
const (
	minTimeout = 100 * time.Millisecond
	maxTimeout = 24 * time.Hour
	minDepth   = time.Hour // the unit of pruning
	maxDepth   = 100 * 366 * 24 * time.Hour
)

func setHTTP(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	addr, port := "", w.text
	if strings.Contains(w.text, ":") {
		var err error
		if addr, port, err = net.SplitHostPort(w.text); err != nil {
			r.errorf(pos(w.Pos), "%s is no address; expected PORT, ADDR:PORT or [IPV6]:PORT", quoted(w.text))
			return
		}
	}
	if port != "0" { // any free port, which the log then names
		if _, err := ParsePort(port); err != nil {
			r.errorf(pos(w.Pos), "%v; expected PORT, ADDR:PORT or [IPV6]:PORT", err)
			return
		}
	}
	c.HTTP = net.JoinHostPort(addr, port)
}

func setClusterKey(r *reader, c *Config, st *statement) {
	for _, w := range st.args() {
		if err := validKey(w.text); err != nil {
			r.errorf(pos(w.Pos), "%v", err)
			return
		}
		c.ClusterKeys = append(c.ClusterKeys, w.text)
	}
	if c.ClusterKeyFile != "" {
		r.errorf(pos(st.Words[0].Pos), "cluster_key and cluster_key_file exclude each other")
	}
}

func setClusterKeyFile(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	if w.text == "" || strings.ContainsRune(w.text, 0) {
		r.errorf(pos(w.Pos), "expected the path of a file")
		return
	}
	c.ClusterKeyFile, c.keyFilePos = w.text, pos(w.Pos)
	if len(c.ClusterKeys) > 0 {
		r.errorf(pos(st.Words[0].Pos), "cluster_key and cluster_key_file exclude each other")
	}
}

// streamBlock is a stream while its block is read.
type streamBlock struct {
	*Stream
	defaults options // of the block, for inputs without their own
	port     Pos     // of replication_port
	salvaged bool    // the block has a salvage of its own
}

func setStream(r *reader, c *Config, st *statement) {
	w := st.Words[1]
	s := &Stream{Name: w.text, Pos: pos(w.Pos), SegmentDuration: DefaultSegmentDuration}
	if err := ValidName(s.Name); err != nil {
		r.errorf(s.Pos, "%v", err)
		return
	}
	if other := c.Stream(s.Name); other != nil {
		r.errorf(s.Pos, "a second stream %s; the first is in line %d", clip(s.Name), other.Pos.Line)
		return
	}
	c.Streams = append(c.Streams, s)
	owner := "stream " + clip(s.Name)
	errors := len(r.errs)
	b := &streamBlock{Stream: s}
	inside := st.Block.Statements
	for i, sub := range inside {
		// A stream inside a stream is a brace that was left out: what follows
		// is read as if it were there.
		if len(sub.Words) > 0 && sub.Words[0].Raw == "stream" && sub.Block != nil {
			r.errorf(pos(sub.Words[0].Pos), `a stream inside %s; expected "}" before it`, owner)
			interpret(r, fileWords, c, "the file", inside[i:])
			inside = inside[:i]
			break
		}
	}
	interpret(r, streamWords, b, owner, inside)
	if len(r.errs) > errors {
		return
	}
	finishStream(r, b, owner)
}

// finishStream fills in defaults and refuses streams that lack something.
func finishStream(r *reader, b *streamBlock, owner string) {
	s := b.Stream
	s.DVR.Dir = filepath.Join(s.DVR.Root, filepath.FromSlash(s.Name))
	if len(s.Inputs) == 0 {
		r.errorf(s.Pos, "%s has no input; expected url URL;", owner)
		return
	}
	if s.DVR.Root == "" {
		r.errorf(s.Pos, "%s has no dvr; expected dvr PATH DEPTH;", owner)
		return
	}
	if !b.salvaged {
		r.inherit = append(r.inherit, &s.Salvage)
	}
	peerBefore := false
	for i, in := range s.Inputs {
		b.defaults.fill(in, i > 0 && peerBefore)
		peerBefore = peerBefore || in.Peer != nil
		for _, other := range s.Inputs[:i] {
			if other.same(in) {
				r.errorf(in.Pos, "a second input %s; the first is in line %d", clip(r.sources.Redact(in.URL)), other.Pos.Line)
				break
			}
		}
	}
	switch {
	case peerBefore:
	case s.DVR.Replicate:
		r.errorf(s.DVR.Pos, "%s replicates, but no peer is among its inputs; expected url m4f://HOST/%s;", owner, clip(s.Name))
	case s.DVR.ReplicationPort != 0:
		r.errorf(b.port, "replication_port is the peers', but no peer is among the inputs of %s; expected url m4f://HOST/%s;", owner, clip(s.Name))
	}
}

func setInput(r *reader, b *streamBlock, st *statement) {
	w := st.Words[1]
	in := &Input{Pos: pos(w.Pos), URL: w.text}
	if !r.inputURL(in) {
		return
	}
	var own options
	for _, w := range st.Words[2:] {
		name, value, ok := strings.Cut(w.text, "=")
		switch {
		case !ok && b.knows(name):
			r.errorf(pos(w.Pos), `expected %s=… or ";" before it`, name)
		case !ok:
			r.errorf(pos(w.Pos), `unexpected %s after the URL; expected ";" or OPTION=VALUE, OPTION %s`, quoted(w.text), oneOf(optionNames))
		case own.has[name]:
			r.errorf(pos(w.Pos), "a second %s for this input", name)
		default:
			own.set(r, w, name, value, "the options of an input")
		}
	}
	own.apply(r, in)
	if in.Peer != nil && own.has["program"] {
		r.errorf(in.Pos, "program chooses from a transport stream; a peer sends one program only")
	}
	if in.Peer != nil && own.has["standby"] && own.Standby == Hot {
		r.errorf(in.Pos, "a peer is not a hot standby: what it records arrives by replication")
	}
	b.Inputs = append(b.Inputs, in)
}

// same says whether two inputs are one: programs of one multiplex are two.
func (in *Input) same(other *Input) bool {
	if in.Peer != nil && other.Peer != nil {
		return *in.Peer == *other.Peer
	}
	return in.URL == other.URL && in.Program == other.Program
}

func (b *streamBlock) knows(name string) bool { return find(streamWords, name) != nil }

// dvr reads a dvr statement, without the directory of a stream, and where its
// replication_port stands. knows says which words begin a statement beside it.
func (r *reader) dvr(st *statement, knows func(string) bool) (d DVR, port Pos) {
	path, depth := st.Words[1], st.Words[2]
	d.Pos = pos(st.Words[0].Pos)
	switch {
	case !filepath.IsAbs(path.text) || strings.ContainsRune(path.text, 0):
		r.errorf(pos(path.Pos), "%s is no absolute path; expected one as /storage", quoted(path.text))
	case strings.Contains(path.text+"/", "/../"):
		r.errorf(pos(path.Pos), `%s holds ".."; expected a path without`, quoted(path.text))
	default:
		d.Root = filepath.Clean(path.text)
	}
	if isSize(depth.text) || isPercent(depth.text) {
		r.errorf(pos(depth.Pos), "%s is a size; expected the depth first, as 3d", quoted(depth.text))
	} else {
		d.Depth = r.duration(depth, "", minDepth, maxDepth)
	}
	seen := map[string]bool{}
	for _, w := range st.Words[3:] {
		name, value, hasValue := strings.Cut(w.text, "=")
		switch {
		case isSize(w.text):
			name = "size"
		case isPercent(w.text):
			name = "percentage"
		}
		if seen[name] {
			r.errorf(pos(w.Pos), "a second %s in dvr", clip(name))
			continue
		}
		seen[name] = true
		if name == "replication_port" {
			port = pos(w.Pos)
		}
		if err := d.option(w.text, name, value, hasValue, knows); err != nil {
			r.errorf(pos(w.Pos), "%v", err)
		}
	}
	return d, port
}

var dvrOptions = []string{"SIZE", "PERCENT%", "replicate", "replicate=RATE", "replication_port=PORT", "mounted"}

// option reads one word after the depth.
func (d *DVR) option(text, name, value string, hasValue bool, knows func(string) bool) (err error) {
	switch {
	case name == "size":
		d.Size, err = parseLimit(text)
	case name == "percentage":
		d.Percent, err = parsePercent(text)
	case name == "replicate":
		d.Replicate = true
		if hasValue {
			d.ReplicateRate, err = ParseRate(value)
		}
	case name == "replication_port" && hasValue:
		d.ReplicationPort, err = ParsePort(value)
	case name == "replication_port":
		err = fmt.Errorf("expected replication_port=PORT")
	case name == "mounted" && !hasValue:
		d.Mounted = true
	case name == "mounted":
		err = fmt.Errorf("mounted takes no value")
	case isNumber(text):
		err = fmt.Errorf("%s has no unit; expected a size, as %sG, or a percentage, as %s%%", clip(text), clip(text), clip(text))
	case !hasValue && knows(name):
		err = fmt.Errorf(`expected ";" before %s`, name)
	default:
		err = fmt.Errorf("unknown word %s in dvr%s; expected %s", quoted(text), didYouMean(name, []string{"replicate", "replication_port", "mounted"}), oneOf(dvrOptions))
	}
	return err
}

// isSize says whether s looks like a number of bytes with a unit.
func isSize(s string) bool {
	number, unit := cutNumber(s)
	return number != "" && unit != "" && strings.Trim(strings.ToUpper(unit[:1]), "KGT") == "" ||
		number != "" && strings.HasPrefix(unit, "M")
}

// options are what can be said of a stream's inputs together or of each.
type options struct {
	SourceTimeout, ReturnAfter, MaxRetryTimeout time.Duration
	Standby                                     Standby
	Program                                     uint16
	has                                         map[string]bool
}

var optionNames = []string{"source_timeout", "return_after", "max_retry_timeout", "standby", "program"}

func setStreamOption(r *reader, b *streamBlock, st *statement) {
	b.defaults.set(r, st.Words[1], st.Words[0].text, st.Words[1].text, "")
}

// set reads one option. w is the word that holds its value; owner is where it
// stands, for errors.
func (o *options) set(r *reader, w *word, name, value, owner string) {
	if o.has == nil {
		o.has = map[string]bool{}
	}
	at := *w
	at.text = value
	switch name {
	case "source_timeout":
		o.SourceTimeout = r.timeout(&at, name, minTimeout)
	case "return_after":
		o.ReturnAfter = r.timeout(&at, name, 0)
	case "max_retry_timeout":
		o.MaxRetryTimeout = r.timeout(&at, name, minTimeout)
	case "standby":
		switch value {
		case "hot":
			o.Standby = Hot
		case "cold":
			o.Standby = Cold
		default:
			r.errorf(pos(w.Pos), "%s is no kind of standby; expected hot or cold", quoted(value))
		}
	case "program":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			r.errorf(pos(w.Pos), "%s is no program; expected a number from 1 to 65535", quoted(value))
		}
		o.Program = uint16(n)
	case "segment_duration":
		r.errorf(pos(w.Pos), "segment_duration is the stream's, since all inputs share one archive; expected it as a statement of its own")
		return
	case "salvage":
		r.errorf(pos(w.Pos), "salvage is the stream's; expected it as a statement of its own")
		return
	default:
		at.text = name
		r.unknown(&at, owner, optionNames)
		return
	}
	o.has[name] = true
}

// apply sets what the options say of an input.
func (o *options) apply(r *reader, in *Input) {
	in.SourceTimeout, in.ReturnAfter, in.MaxRetryTimeout = o.SourceTimeout, o.ReturnAfter, o.MaxRetryTimeout
	in.Standby, in.has = o.Standby, o.has
	switch {
	case in.Program == 0:
		in.Program = o.Program
	case o.has["program"] && o.Program != in.Program:
		r.errorf(in.Pos, "the URL says program %d and the option program=%d; expected one of them", in.Program, o.Program)
	}
}

// fill completes an input from the options of its stream and the defaults.
func (o *options) fill(in *Input, behindPeer bool) {
	choose := func(p *time.Duration, name string, ofStream, def time.Duration) {
		switch {
		case in.has[name]:
		case o.has[name]:
			*p = ofStream
		default:
			*p = def
		}
	}
	choose(&in.SourceTimeout, "source_timeout", o.SourceTimeout, DefaultSourceTimeout)
	choose(&in.ReturnAfter, "return_after", o.ReturnAfter, DefaultReturnAfter)
	choose(&in.MaxRetryTimeout, "max_retry_timeout", o.MaxRetryTimeout, DefaultMaxRetryTimeout)
	switch {
	case in.Peer != nil:
		in.Standby = Cold
	case in.has["standby"]:
	case o.has["standby"]:
		in.Standby = o.Standby
	case behindPeer && in.shared:
		in.Standby = Hot
	}
	if in.Peer == nil && in.Program == 0 {
		in.Program = o.Program
	}
}

// timeout reads a word as the duration of an option, which may be a number of
// seconds too, as other servers have it.
func (r *reader) timeout(w *word, name string, least time.Duration) time.Duration {
	at := *w
	if number, rest := cutNumber(w.text); number != "" && rest == "" {
		at.text += "s"
	}
	return r.duration(&at, name, least, maxTimeout)
}

// duration reads a word as a duration within bounds; name is the option that
// it belongs to where the word holds both.
func (r *reader) duration(w *word, name string, least, most time.Duration) time.Duration {
	if name != "" {
		name += ": "
	}
	d, err := ParseDuration(w.text)
	switch {
	case err != nil:
		r.errorf(pos(w.Pos), "%s%v", name, err)
	case d < least:
		r.errorf(pos(w.Pos), "%s%s is too short; the shortest is %s", name, clip(w.text), FormatDuration(least))
	case d > most:
		r.errorf(pos(w.Pos), "%s%s is too long; the longest is %s", name, clip(w.text), FormatDuration(most))
	}
	return d
}

// checkFile refuses what no single statement shows: streams that share a
// directory, or are to be fetched from this node itself.
func checkFile(r *reader, c *Config) {
	if len(c.Streams)+len(c.Sources) == 0 {
		r.errorf(Pos{1, 1}, "the file has no stream; expected stream NAME { … }")
	}
	switch {
	case c.TLS.Cert != "" && c.TLS.Key == "":
		r.errorf(c.TLS.certPos, "tls_cert without tls_key; expected tls_key FILE; with the certificate's key")
	case c.TLS.Key != "" && c.TLS.Cert == "":
		r.errorf(c.TLS.keyPos, "tls_key without tls_cert; expected tls_cert FILE; with the key's certificate")
	}
	for _, s := range c.Sources {
		list := s.ListPeer()
		switch {
		case c.itself(&s.Peer):
			r.errorf(s.Pos, "%s is this node itself; expected the address of its peer", clip(s.Peer.Addr()))
		case c.itself(&list):
			r.errorf(s.DVR.Pos, "replication_port=%d makes this node itself of %s; expected the port of its peer", list.Port, clip(s.Peer.Addr()))
		}
	}
	for _, s := range c.Streams {
		for _, in := range s.Inputs {
			if in.Peer == nil || in.Peer.Stream != s.Name {
				continue
			}
			archive := *in.Peer
			archive.Port = s.DVR.ReplicationPort
			switch {
			case c.itself(in.Peer):
				r.errorf(in.Pos, "%s is this stream of this node itself; expected the address of its peer", clip(in.URL))
			case c.itself(&archive):
				r.errorf(s.DVR.Pos, "replication_port=%d makes this stream of this node itself of %s; expected the port of its peer", archive.Port, clip(in.URL))
			}
		}
	}
	at := make(map[string]*Stream, len(c.Streams))
	for _, s := range c.Streams {
		if other := at[s.DVR.Dir]; other != nil {
			r.errorf(s.DVR.Pos, "streams %s and %s would both be kept in %s", clip(other.Name), clip(s.Name), clip(s.DVR.Dir))
			continue
		}
		at[s.DVR.Dir] = s
	}
	for _, s := range c.Streams {
		for dir := filepath.Dir(s.DVR.Dir); dir != "/"; dir = filepath.Dir(dir) {
			if other := at[dir]; other != nil {
				r.errorf(s.DVR.Pos, "stream %s in %s would lie inside stream %s in %s; give one of them another directory",
					clip(s.Name), clip(s.DVR.Dir), clip(other.Name), clip(dir))
				break
			}
		}
	}
}

// itself says whether a peer's address is plainly the one that the node listens
// on.
func (c *Config) itself(p *Peer) bool {
	listen, port, err := net.SplitHostPort(c.HTTP)
	if err != nil || p.Port == 0 || port != strconv.Itoa(p.Port) {
		return false
	}
	host := address(p.Host)
	if on := address(listen); listen != "" && !on.IsUnspecified() {
		return on.IsValid() && on == host || strings.EqualFold(listen, p.Host)
	}
	return host.IsLoopback() || host.IsUnspecified()
}

// address reads an IP address, or localhost; the zero one is another name.
func address(host string) netip.Addr {
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}
