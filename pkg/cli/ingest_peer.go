package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// runPeer passes on the live stream of a peer, again and again with --retry.
func (o *ingestOptions) runPeer(ctx context.Context, out *output) error {
	peer, err := config.ParsePeer(o.url)
	if err != nil {
		return err
	}
	client, err := o.peer.client(peer)
	if err != nil {
		return err
	}
	defer client.Close()
	var last m4f.Identity // written last
	lost := false
	for wait := time.Second; ; wait = min(2*wait, retryAtMost) {
		heard := false
		err := client.Live(ctx, last, func(s *m4f.Segment) error {
			if s.Header.ID != last {
				out.write(s)
			}
			last, heard = s.Header.ID, true
			return nil
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if m4fhttp.StatusOf(err) == http.StatusNotFound && !last.IsZero() {
			last = m4f.Identity{} // the peer no longer has it: begin with the newest
		} else if !o.retry {
			in, _ := client.Traffic()
			return peerLost(err, in > 0, !last.IsZero())
		}
		if heard {
			wait, lost = time.Second, false
		}
		if !lost {
			slog.Warn("source lost, waiting for it", "source", o.url, "reason", err)
		}
		lost = true
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// peerLost tells a peer that went away from one that never gave anything: one
// that was not reached, a refusal and an answer that makes no sense are trouble.
func peerLost(err error, reached, begun bool) error {
	var refused *m4fhttp.Problem
	var bad *m4fhttp.BadAnswerError
	var stranger *tls.CertificateVerificationError
	if !reached || !begun && (errors.As(err, &refused) || errors.As(err, &stranger)) || errors.As(err, &bad) {
		return err
	}
	return statusf("the source is lost: %v", err)
}
