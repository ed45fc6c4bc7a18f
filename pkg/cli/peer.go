package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
)

// peerOptions say how m4f:// and m4fs:// locations are opened. Every command
// that takes one has them.
type peerOptions struct {
	keyFile string
	tlsCA   string
}

// AddFlags adds --cluster-key-file and --tls-ca.
func (o *peerOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.keyFile, "cluster-key-file", "", "read the cluster key from `FILE`; a second line is the key that replaces it, or that it replaces")
	fs.StringVar(&o.tlsCA, "tls-ca", "", "trust the certificates in `FILE` too when a peer is m4fs://")
}

// client opens a peer.
func (o *peerOptions) client(peer config.Peer) (*m4fhttp.Client, error) {
	var keys []string
	var roots *x509.CertPool
	var err error
	if o.keyFile != "" {
		if keys, err = config.LoadClusterKeys(o.keyFile); err != nil {
			return nil, err
		}
	}
	if o.tlsCA != "" {
		if roots, err = m4fhttp.LoadRootCAs(o.tlsCA); err != nil {
			return nil, err
		}
	}
	return m4fhttp.NewClient(m4fhttp.ClientOptions{Peer: peer, Keys: keys, RootCAs: roots}), nil
}

// side opens the archive at a location for reading. The returned function
// closes it.
func (o *peerOptions) side(text string) (replicate.Side, func(), error) {
	loc, err := parseLocation(text)
	if err != nil {
		return nil, nil, err
	}
	if loc.Peer == nil {
		s, err := archive.Open(loc.Dir)
		if err != nil {
			return nil, nil, err
		}
		return replicate.Dir{Stream: s}, func() {}, nil
	}
	c, err := o.client(*loc.Peer)
	if err != nil {
		return nil, nil, err
	}
	return replicate.Peer{Client: c}, c.Close, nil
}

// filled opens the archive that is to be filled: a directory, made if there is
// nothing, with the target duration of the archive that it is filled from. With
// dryRun what would be made lies elsewhere and goes with the returned function.
func filled(ctx context.Context, text string, src replicate.Side, dryRun bool) (*archive.Stream, func(), error) {
	loc, err := parseLocation(text)
	if err != nil {
		return nil, nil, err
	}
	if loc.Peer != nil {
		return nil, nil, fmt.Errorf("%s is a peer; an archive is filled where it lies, so run backfill there", text)
	}
	info, err := src.Info(ctx)
	if err != nil {
		return nil, nil, err
	}
	done := func() {}
	s, err := archive.Open(loc.Dir)
	var not *archive.NotStreamError
	if !errors.As(err, &not) && !errors.Is(err, fs.ErrNotExist) {
		return s, done, err
	}
	dir := loc.Dir
	if dryRun && errors.Is(err, fs.ErrNotExist) {
		tmp, err := os.MkdirTemp("", "twindvr-dry-run-")
		if err != nil {
			return nil, nil, err
		}
		done = func() { os.RemoveAll(tmp) }
		dir = tmp
	}
	s, err = archive.Create(dir, "", archive.CreateOptions{TargetDuration: info.TargetDuration})
	if err != nil {
		done()
	}
	return s, done, err
}
