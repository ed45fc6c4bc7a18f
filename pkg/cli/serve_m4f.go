package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

type serveM4FOptions struct {
	listen  string
	keyFile string
	tlsCert string
	tlsKey  string
	// accessFile holds the statements of a configuration that say who may see what.
	accessFile string
}

// AddFlags adds the flags of serve-m4f.
func (o *serveM4FOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.listen, "listen", ":"+strconv.Itoa(config.DefaultPort), "listen on `[HOST]:PORT`")
	fs.StringVar(&o.keyFile, "cluster-key-file", "", "ask for the cluster key in `FILE`; a second line is another one that is accepted while the key is being replaced")
	fs.StringVar(&o.tlsCert, "tls-cert", "", "speak TLS (m4fs://) with the certificate in `FILE`; the machine itself may speak plain HTTP, too")
	fs.StringVar(&o.accessFile, "access-file", "", "let in whom the statements in `FILE` name: view_auth, cors, api_read_key and api_write_key of twindvr.conf(5)")
	fs.StringVar(&o.tlsKey, "tls-key", "", "the key of the certificate, in `FILE`")
}

func newServeM4FCmd(io IO) *cobra.Command {
	var o serveM4FOptions
	cmd := &cobra.Command{
		Use:   "serve-m4f ROOT",
		Short: "Serve the streams below a directory to peers and players",
		Long: `serve-m4f answers M4F over HTTP for every stream below ROOT, and for ROOT itself
where that is a stream. Streams are found as they are asked for.

  GET /m4f/streams                which streams there are, one JSON object a line
  GET /STREAM/m4f/info            what there is of the stream, as JSON
  GET /STREAM/m4f/changes         segments as they are added, one JSON object a line
  GET /STREAM/m4f/hours           what each UTC hour holds
  GET /STREAM/m4f/minutes         digests of the minutes of each hour
  GET /STREAM/m4f/outline         as much of the segments of a span as a comparison
                                  needs
  GET /STREAM/m4f/segments        the segments of a span (?from= &to=)
  GET /STREAM/m4f/coverage        how much of a span is there, and in which state
                                  (?from= &to= &step=)
  GET /STREAM/m4f/media/IDENTITY  one segment, as MP4
  GET /STREAM/m4f/media           the segments of a span (?from= &to=), as MP4
  GET /STREAM/m4f/live            the stream as it is recorded, as MP4
  GET /STREAM/m4f/salvage         packets kept of damaged segments (?from= &to=),
                                  for other nodes to heal theirs with

With --cluster-key-file all of this is answered only to those who have the key,
as HTTP Digest authentication with SHA-256, user m4f:

  curl -s --digest -u m4f:KEY http://host:8081/example/m4f/live | ffplay -

Players, the page and the API (GET /api/v1/) are served on the same port as
supervise serves them, to this machine only, or to whom --access-file lets in. The
API tells what archives alone can tell: streams, coverage, gaps, events, and spans
to be kept. What only a node that records has, it answers with 501.

  GET /                           the page
  GET /STREAM/index.m3u8          HLS, live
  GET /STREAM/archive-FROM-DURATION.m3u8, archive-FROM-now.m3u8
                                  HLS of a span; of one that grows
  GET /STREAM/timeshift_abs-UTC.m3u8, timeshift_rel-SECONDS.m3u8
                                  HLS of what was live then, or so long ago
  GET /STREAM/rewind-SECONDS.m3u8 HLS, live, back so far
  GET /STREAM/index.mpd           MPEG-DASH; and of all the above, with .mpd
  GET /STREAM/archive-FROM-DURATION.mp4, archive-FROM-DURATION.ts
                                  a span as one file
  GET /STREAM/preview-UTC.mp4     the keyframe of a time
  GET /api/v1/openapi.json        what the API has

FROM and UTC are Unix seconds, DURATION is in seconds. With ?format=ts playlists
have segments of transport stream.

SIGHUP reads the cluster key file and the access file again. The certificate is
read again when its files change.

M4F is a protocol of its own. It is not wire-compatible with another of that
name.

Exit status: 0 when ended by a signal, 2 trouble.`,
		Args: wantArgs("ROOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runServeM4F(cmd.Context(), &o, args[0])
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func runServeM4F(ctx context.Context, o *serveM4FOptions, root string) error {
	st, err := os.Stat(root)
	switch {
	case err != nil:
		return fmt.Errorf("%w; ROOT is the directory that holds the streams", err)
	case !st.IsDir():
		return fmt.Errorf("%s is a file; ROOT is the directory that holds the streams", root)
	}
	var keys []string
	if o.keyFile != "" {
		if keys, err = config.LoadClusterKeys(o.keyFile); err != nil {
			return err
		}
	}
	granted := &config.Access{}
	if o.accessFile != "" {
		if granted, err = config.LoadAccess(o.accessFile); err != nil {
			return err
		}
	}
	var cert *m4fhttp.Certificate
	opt := m4fhttp.ServeOptions{Log: slog.Default(), PlainLocal: true}
	if o.tlsCert != "" || o.tlsKey != "" {
		if cert, err = m4fhttp.NewCertificate(o.tlsCert, o.tlsKey, nil); err != nil {
			return err
		}
		opt.TLS = cert.Config()
	}
	ln, err := net.Listen("tcp", o.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: another program does already; stop it, or give another address with --listen", o.listen)
	}
	var addr *net.AddrError
	if errors.As(err, &addr) {
		return fmt.Errorf("--listen %s: %s; write it as HOST:PORT or :PORT", o.listen, addr.Err)
	}
	if err != nil {
		return fmt.Errorf("--listen %s: %w", o.listen, err)
	}
	log := slog.Default()
	auth := m4fhttp.NewAuth(keys, nil, log)
	access := serve.NewAccess(granted, nil, log)
	id := m4fhttp.NewNodeID()
	h := serve.NewHandler(serve.Options{Node: serve.NewRoot(root, id, version()), Auth: auth, Access: access, NodeID: id, Log: log})
	log.Info("serving M4F", "addr", ln.Addr().String(), "root", root, "tls", cert != nil)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	watching.Go(func() { o.again(ctx, hup, auth, access) })
	if cert != nil {
		watching.Go(func() { cert.Watch(ctx) })
	}
	return m4fhttp.Serve(ctx, ln, h, opt)
}

// again reads the cluster key file and the access file anew on SIGHUP. The
// certificate is watched.
func (o *serveM4FOptions) again(ctx context.Context, hup <-chan os.Signal, auth *m4fhttp.Auth, access *serve.Access) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		o.readKeys(auth)
		o.readAccess(access)
	}
}

func (o *serveM4FOptions) readKeys(auth *m4fhttp.Auth) {
	if o.keyFile == "" {
		return
	}
	keys, err := config.LoadClusterKeys(o.keyFile)
	if err != nil {
		slog.Error("the cluster keys are not read again; those before stay in force", "err", err)
		return
	}
	auth.SetKeys(keys)
	slog.Info("cluster keys read again", "file", o.keyFile, "keys", len(keys))
}

func (o *serveM4FOptions) readAccess(access *serve.Access) {
	if o.accessFile == "" {
		return
	}
	granted, err := config.LoadAccess(o.accessFile)
	if err != nil {
		slog.Error("who may see what is not read again; what was before stays in force", "err", err)
		return
	}
	access.Set(granted)
	slog.Info("who may see what was read again", "file", o.accessFile)
}
