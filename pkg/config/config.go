// Package config is the configuration language of supervise.
//
// A file is a list of statements. A statement is a word and what follows it,
// ended by a semicolon or by a block in braces:
//
//	file      = { statement }
//	statement = word { word } ( ";" | "{" { statement } "}" )
//
// Words are separated by white space; quotes ("…", '…', “…”) keep spaces and
// punctuation in a word, a backslash in them takes the next character as it is.
// A # at the beginning of a word begins a comment that goes to the end of the
// line. Files are UTF-8, with either kind of line end.
//
// twindvr.conf(5) describes every statement. Whatever is not understood is
// refused with its file, line and column; nothing is silently passed over.
package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The values of what a file does not set.
const (
	DefaultHTTP            = ":8081"
	DefaultSourceTimeout   = 10 * time.Second
	DefaultReturnAfter     = 10 * time.Second
	DefaultMaxRetryTimeout = 10 * time.Second
	DefaultSegmentDuration = 4 * time.Second
	DefaultSalvageBytes    = 1 << 30
	DefaultSalvageAge      = time.Hour
	DefaultMinFree         = 1 << 30
	DefaultVerifyEvery     = 7 * 24 * time.Hour
	DefaultVerifyRate      = 20 << 20
)

// The bounds of a segment's target duration.
const (
	MinSegmentDuration = 200 * time.Millisecond
	MaxSegmentDuration = time.Minute
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// Config is a configuration file that has been understood whole.
type Config struct {
	File string
	// HTTP is the address to listen on, ADDR:PORT or :PORT.
	HTTP string
	// ClusterKeys guard M4F. The first is the one that this node presents to
	// its peers, every one of them is accepted. Empty: M4F is open.
	ClusterKeys []string
	// ClusterKeyFile is where Load read ClusterKeys, or empty.
	ClusterKeyFile string
	TLS            TLS
	// MinFree is what recording leaves free on every volume.
	MinFree Free
	Verify  Verify
	Access  Access
	// EventSinks are where events go: EventLog, or the URL of a receiver, which
	// may hold secrets.
	EventSinks []string
	Streams    []*Stream // in the order of the file
	Sources    []*Source // in the order of the file

	keyFilePos Pos
	salvage    Salvage // of streams without their own
}

// EventLog is the event sink that is the node's log.
const EventLog = "log"

// TLS names the files of the node's own certificate, and of the authorities
// that vouch for its peers'. Cert and Key are both empty, for a node that
// serves plain HTTP, or neither is. CA empty: the system's authorities alone.
type TLS struct {
	Cert, Key, CA          string
	certPos, keyPos, caPos Pos
}

// Free is how much of a volume stays free: a number of bytes, or a percentage
// of its size. At most one of them is set; neither: nothing is kept free.
type Free struct {
	Bytes   int64
	Percent int // 1 to 99, or 0
}

// Verify is how often everything that is kept is read again and checked, and
// how fast.
type Verify struct {
	Every time.Duration
	Rate  int64 // bytes a second
	Off   bool  // then the others are zero
}

// Salvage is how much of the transport packets of damaged segments a stream
// keeps until they are healed, and for how long.
type Salvage struct {
	Bytes int64
	Age   time.Duration
	Off   bool // then the others are zero
}

// Stream is a stream block.
type Stream struct {
	Name   string
	Pos    Pos
	Inputs []*Input // in order of preference, at least one
	DVR    DVR
	// SegmentDuration is D, the target duration of a segment.
	SegmentDuration time.Duration
	Salvage         Salvage
}

// Input is one of the ways to get a stream.
type Input struct {
	Pos  Pos
	URL  string // as written, for a source without program=
	Peer *Peer  // for m4f:// and m4fs://, else nil
	// SourceTimeout is how long an input may deliver nothing before it counts
	// as not working.
	SourceTimeout time.Duration
	// ReturnAfter is how long an input must have been good before it is taken
	// back from one behind it.
	ReturnAfter time.Duration
	// MaxRetryTimeout caps the time between two attempts to open the input.
	MaxRetryTimeout time.Duration
	// Standby says what happens while an input before this one works. It has
	// no meaning for the first.
	Standby Standby
	// Program is the program number of the transport stream; 0 stands for the
	// lowest. Always 0 for a peer.
	Program uint16

	has    map[string]bool // options written for this input itself
	shared bool            // hearing it costs its sender nothing
}

// Standby is what an input does while one before it works.
type Standby uint8

const (
	// Cold opens the input when those before it have failed.
	Cold Standby = iota
	// Hot hears the input all the time.
	Hot
)

func (s Standby) String() string {
	if s == Hot {
		return "hot"
	}
	return "cold"
}

// DVR is where and how long a stream is kept.
type DVR struct {
	Pos   Pos
	Root  string // the path of the dvr statement, absolute and clean
	Dir   string // the stream's directory: Root and the stream's name
	Depth time.Duration
	// Size limits what the stream keeps, in bytes; 0 is no limit.
	Size int64
	// Percent limits how much of its volume is in use, 1 to 99; 0 is no limit.
	Percent int
	// Replicate says whether the archive is kept equal to those of the peers.
	Replicate bool
	// ReplicateRate limits replication, in bytes a second; 0 is no limit.
	ReplicateRate int64
	// ReplicationPort is the peers' port for everything but live; 0 stands for
	// the port of the peer's own address.
	ReplicationPort int
	// Mounted refuses to record unless Root lies on a volume of its own that
	// is mounted.
	Mounted bool
}

// Peers returns the peers among the stream's inputs, in their order. They are
// the addresses for live; ReplicationPeers gives those for everything else.
func (s *Stream) Peers() []Peer {
	var peers []Peer
	for _, in := range s.Inputs {
		if in.Peer != nil {
			peers = append(peers, *in.Peer)
		}
	}
	return peers
}

// ReplicationPeers returns the peers that the archive is replicated with, none
// unless the dvr statement says replicate.
func (s *Stream) ReplicationPeers() []Peer {
	if !s.DVR.Replicate {
		return nil
	}
	peers := s.Peers()
	for i := range peers {
		if s.DVR.ReplicationPort != 0 {
			peers[i].Port = s.DVR.ReplicationPort
		}
	}
	return peers
}

// Stream returns the stream of a name, or nil.
func (c *Config) Stream(name string) *Stream {
	for _, s := range c.Streams {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Errorf returns an error at a position of the file, for what only the user of
// the configuration can judge.
func (c *Config) Errorf(at Pos, format string, args ...any) *Error {
	return &Error{File: c.File, Pos: at, Msg: fmt.Sprintf(format, args...)}
}

// Load reads a configuration file, and the files that it names: the cluster
// keys, the certificate and its key, the authorities. Relative paths are looked
// for beside the configuration. The error is an Errors where the file could be
// read but not understood.
func Load(path string, sources Sources) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, src, sources)
	if err != nil {
		return nil, err
	}
	if err := c.readFiles(filepath.Dir(path)); err != nil {
		return nil, Errors{err}
	}
	return c, nil
}

// readFiles reads what the configuration names; relative paths lie in dir.
func (c *Config) readFiles(dir string) *Error {
	var err error
	for _, path := range []*string{&c.ClusterKeyFile, &c.TLS.Cert, &c.TLS.Key, &c.TLS.CA} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if c.ClusterKeyFile != "" {
		if c.ClusterKeys, err = LoadClusterKeys(c.ClusterKeyFile); err != nil {
			return c.Errorf(c.keyFilePos, "%v", err)
		}
	}
	if c.TLS.Cert != "" {
		if _, err := c.TLS.LoadCertificate(); err != nil {
			return c.Errorf(c.TLS.certPos, "%v", err)
		}
	}
	if c.TLS.CA != "" {
		if _, err := c.TLS.LoadAuthorities(); err != nil {
			return c.Errorf(c.TLS.caPos, "%v", err)
		}
	}
	if at, err := c.Access.readFiles(dir); err != nil {
		return c.Errorf(at, "%v", err)
	}
	return nil
}
