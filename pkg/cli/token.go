package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/serve"
)

// tokenOptions are the flags of token.
type tokenOptions struct {
	secretFile string
	stream     string
	span       spanFlags
	expires    expiry
}

// AddFlags adds the flags of token.
func (o *tokenOptions) AddFlags(fs *pflag.FlagSet, c clock.Clock) {
	fs.StringVar(&o.secretFile, "secret-file", "", "sign with the secret in `FILE`, the node's view_auth token_file")
	fs.StringVar(&o.stream, "stream", "", "what it opens: the `NAME` of a stream, the beginning of names with a * behind it, or * for all")
	o.span.AddFlags(fs, c)
	o.expires = expiry{text: "24h", in: 24 * time.Hour, clock: c}
	fs.Var(&o.expires, "expires", "when it ends: how long it lasts, or a `TIME`")
}

// expiry is a flag of when something ends: a duration, or an instant.
type expiry struct {
	text  string
	in    time.Duration // 0: at says when
	at    time.Time
	clock clock.Clock
}

func (e *expiry) String() string { return e.text }
func (e *expiry) Type() string   { return "TIME" }
func (e *expiry) Set(s string) error {
	if d, err := config.ParseDuration(s); err == nil {
		e.text, e.in = s, d
		return nil
	}
	u, err := config.ParseTime(s, e.clock.Now())
	if err != nil {
		return fmt.Errorf("%w, or as how long it lasts, as 12h", err)
	}
	e.text, e.in, e.at = s, 0, u.Time()
	return nil
}

// time is when that is, counted from now.
func (e *expiry) time() time.Time {
	if e.in > 0 {
		return e.clock.Now().Add(e.in)
	}
	return e.at
}

func newTokenCmd(io IO) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token [URL]",
		Short: "Sign a token that opens a stream to a viewer for some time",
		Long: `token prints a token that a node accepts from viewers (view_auth token and
token_file in twindvr.conf(5)), signed with the secret in --secret-file. Viewers add
it to an address as ?token=...; with URL that is printed instead. A playlist passes
it on to what it names, so players need nothing but the one address.

It opens the stream of --stream; with a * at the end, all whose names begin so: news
and newsroom for news*, what lies below sport for sport/*. With --from and --to it
opens that span alone, give or take a minute. It opens neither the page nor the API,
unless it is for all streams and all times. It cannot be called back: to end all
that were signed with a secret, replace that.

Tokens are JSON Web Tokens (RFC 7519, HS256), so that a web site can sign them, with
any library for them and the secret's text as the key; from and to may be left out:

  {"stream":"sport/hd","exp":1763890000,"from":1763800000,"to":1763803600}

Exit status: 0, 2 trouble.`,
		Example: `  twindvr token --secret-file /etc/twindvr/token.secret --stream sport/hd --expires 12h
  twindvr token --secret-file /etc/twindvr/token.secret --stream 'sport/*' --from -2h --to now \
    https://dvr.example:8081/sport/hd/archive-1763800000-3600.m3u8`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return o.run(io, args)
		},
	}
	o.AddFlags(cmd.Flags(), io.Clock)
	return cmd
}

func (o *tokenOptions) run(io IO, args []string) error {
	switch {
	case o.secretFile == "":
		return errors.New("--secret-file is missing: it holds what the node's view_auth token_file does; openssl rand -hex 32 makes one")
	case o.stream == "":
		return errors.New("--stream is missing: the name of a stream, or the beginning of names with a * behind it")
	}
	if err := o.span.check(); err != nil {
		return err
	}
	t := serve.Token{Stream: o.stream, Expires: o.expires.time()}
	if o.span.From.IsSet {
		t.From = o.span.From.UTC.Time()
	}
	if o.span.To.IsSet {
		t.To = o.span.To.UTC.Time()
	}
	if !t.Expires.After(io.Clock.Now()) {
		return fmt.Errorf("--expires %s has passed already", o.expires.text)
	}
	secret, err := config.LoadTokenSecret(o.secretFile)
	if err != nil {
		return err
	}
	text, err := t.Sign(secret)
	if err != nil {
		return err
	}
	if len(args) > 0 {
		if text, err = withToken(args[0], text); err != nil {
			return err
		}
		if u, _ := url.Parse(args[0]); !namesStream(u.Path, o.stream) {
			fmt.Fprintf(io.Err, "twindvr: the token opens %s, which %s does not name\n", o.stream, args[0])
		}
	}
	_, err = fmt.Fprintln(io.Out, text)
	return err
}

// namesStream says whether a path may be one of a stream that a token opens. Proxies
// put something ahead of it.
func namesStream(path, stream string) bool {
	begin, open := strings.CutSuffix(stream, "*")
	if !open {
		begin += "/"
	}
	return strings.Contains(path, "/"+begin)
}

// withToken is a URL with a token in its query, in place of one that is there.
func withToken(address, token string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is no address of a node; write one as http://HOST:8081/STREAM/index.m3u8", address)
	}
	q := u.Query()
	q.Set("token", token)
	u.RawQuery = q.Encode()
	return u.String(), nil
}
