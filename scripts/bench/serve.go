package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
)

// measureServe has serve-m4f and nginx give the same bytes to the same client,
// which asks for one segment after the other on each of its connections and
// throws away what comes.
func (b *bench) measureServe(ctx context.Context, t *table) error {
	dir := filepath.Join(b.dir, "serve")
	root, err := b.recordFile(dir, b.fileSize)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	paths, err := mediaPaths(filepath.Join(root, "s"))
	if err != nil {
		return err
	}
	if err := b.copyMedia(ctx, root, filepath.Join(dir, "static"), paths); err != nil {
		return fmt.Errorf("files for nginx: %w", err)
	}
	cert, err := newCertificate(dir)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		conns int
		cert  *certificate
	}{{1, nil}, {64, nil}, {1, cert}, {64, cert}} {
		name := many(c.conns, "connection")
		if c.cert != nil {
			name += ", TLS"
		}
		found, err := b.compare(ctx, t, name, float64(c.conns), []contender{
			{name: "twindvr", run: func(ctx context.Context) (sample, error) {
				s, err := b.serveM4F(ctx, root, c.cert.flags()...)
				if err != nil {
					return nil, err
				}
				return s.load(ctx, paths, c.conns, c.cert)
			}},
			b.peer("nginx", "nginx", func(ctx context.Context, path string) (sample, error) {
				s, err := b.nginx(ctx, path, filepath.Join(dir, "static"), c.cert)
				if err != nil {
					return nil, err
				}
				return s.load(ctx, paths, c.conns, c.cert)
			}),
		})
		if err != nil {
			return err
		}
		t.atLeast("speed over nginx's, "+name, found.ratio("twindvr", "nginx", perSecond), 0.8, "")
		t.atMost("CPU over nginx's, "+name, found.ratio("twindvr", "nginx", cpuPerGB), 1/0.8, "")
	}
	t.note("%d segments of the page cache, each asked for once; the CPU time is that of the server.", len(paths))
	return nil
}

// many is a number of things in words.
func many(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

// recordFile makes an archive s of the test stream, of about so many bytes, and
// returns the directory above it.
func (b *bench) recordFile(dir string, size int64) (root string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	input := filepath.Join(dir, "input.ts")
	if err := b.makeInput(input, (size*8+b.bitrate-1)/b.bitrate); err != nil {
		return "", fmt.Errorf("making the input file: %w", err)
	}
	procs, err := b.ingestRecord(dir, input)
	if err != nil {
		return "", err
	}
	if _, err := stopAll(procs); err != nil {
		return "", err
	}
	return filepath.Join(dir, "archive"), os.Remove(input)
}

// mediaPaths are where a server has the segments of an archive.
func mediaPaths(dir string) ([]string, error) {
	s, err := archive.Open(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	err = s.Each(0, 0, func(e *archive.Element) error {
		paths = append(paths, "/s/m4f/media/"+e.ID.String())
		return nil
	})
	return paths, err
}

// copyMedia writes what serve-m4f answers for each path to a file of that name.
func (b *bench) copyMedia(ctx context.Context, root, dir string, paths []string) error {
	s, err := b.serveM4F(ctx, root)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if err := download("http://"+s.addr+p, filepath.Join(dir, p)); err != nil {
			return errors.Join(err, s.stop())
		}
	}
	return s.stop()
}

func download(url, path string) error {
	b, err := get(url)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// load loads a server with requests for all paths, over so many connections, and
// stops it.
func (s *server) load(ctx context.Context, paths []string, conns int, cert *certificate) (sample, error) {
	before := cpuOf(s.Process.Pid)
	began := time.Now()
	n, err := load(ctx, s.addr, cert, paths, conns)
	took := time.Since(began)
	used := cpuOf(s.Process.Pid) - before
	if err := errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	return sample{perSecond: float64(n) / 1e6 / took.Seconds(), cpuPerGB: used.Seconds() / (float64(n) / 1e9)}, nil
}

// nginx serves the files below a directory.
func (b *bench) nginx(ctx context.Context, path, static string, cert *certificate) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, "nginx-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(nginxConf(dir, addr, static, cert)), 0o600); err != nil {
		return nil, err
	}
	return startServer(ctx, addr, path, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", conf)
}

// nginxConf is a configuration without logs, with sendfile, and with all that is
// written below dir.
func nginxConf(dir, addr, static string, cert *certificate) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // whoever may read the files
	}
	listen, secret := addr, ""
	if cert != nil {
		listen += " ssl"
		secret = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;", cert.certFile, cert.keyFile)
	}
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "  %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	return fmt.Sprintf(`%sdaemon off;
worker_processes auto;
pid %s;
events { worker_connections 1024; }
http {
%s  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  default_type video/mp4;
  server { listen %s; root %s; %s }
}
`, user, filepath.Join(dir, "nginx.pid"), temp.String(), listen, static, secret)
}
