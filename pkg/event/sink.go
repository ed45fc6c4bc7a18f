package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

// Dropped is the kind of the line that takes the place of events that a sink has
// lost: its Attrs have their number as "events".
const Dropped = "dropped"

const (
	// sinkQueue is how many events wait for a receiver; with it full, new ones are
	// dropped: the first ones tell what began it.
	sinkQueue = 1000
	// sinkBatch is how many go in one request, at most.
	sinkBatch = 100
	// giveUp is for how long one batch is tried.
	giveUp = time.Hour
	// lastTry is how long a sink that ends tries to send what waits.
	lastTry = 2 * time.Second
	// tellAgain is how often it is told that events are dropped, or cannot be sent.
	tellAgain = 5 * time.Minute
	// maxReply bounds what is read of a receiver's answer.
	maxReply = 64 << 10
)

// SinkOptions are what a Sink is made with.
type SinkOptions struct {
	// URL is where to send to, http or https. User and password in it are sent as
	// Basic authentication; of the rest only scheme and host are ever shown.
	URL string
	// Host is the name of this machine, Source that of this process: with a number
	// behind it, it makes the ids of lines.
	Host, Source string
	Agent        string            // User-Agent
	Transport    http.RoundTripper // nil: http.DefaultTransport
	Log          *slog.Logger      // nil: slog.Default()
	// LeastPause and MostPause are between two attempts; 0: 1 s and 1 min.
	LeastPause, MostPause time.Duration
	// Timeout is how long a receiver may take to answer; 0: 10 s.
	Timeout time.Duration
}

// Sink sends events to a receiver over HTTP: each request is a POST of JSON lines
// (application/x-ndjson), one event a line, as twindvr.conf(5) describes them. What
// fails is tried again, in order, after growing pauses; what is refused (status 4xx
// but for 408, 425 and 429) or has failed for an hour is dropped and counted. Whoever
// puts events in never waits.
type Sink struct {
	opt    SinkOptions
	log    *slog.Logger
	client *retryablehttp.Client
	wake   chan struct{} // there is something in the queue

	pausing atomic.Bool // between two attempts
	ending  atomic.Bool // the last tries

	mu      sync.Mutex
	target  *url.URL
	queue   [][]byte           // lines
	number  uint64             // of the last line
	lost    int64              // events that the receiver has not been told of as dropped
	sending int                // lines of the batch under way
	told    time.Time          // when it was last told that events are dropped
	abort   context.CancelFunc // of the request under way; nil: none is
	moved   bool               // the request under way goes to another receiver
	failing bool               // it has been told that the receiver does not answer
	back    time.Time          // when it was last said that events are sent again
	stats   SinkStats
}

// SinkStats is what has become of the events of a Sink.
type SinkStats struct {
	Target  string // scheme and host
	Waiting int
	Sent    int64
	Dropped int64
	Failed  int64 // attempts
	// Error is why the last attempt has failed; nil: it has not.
	Error error
}

// NewSink returns a sink that sends nothing yet. An error says what is wrong with
// the URL.
func NewSink(o SinkOptions) (*Sink, error) {
	u, err := ParseTarget(o.URL)
	if err != nil {
		return nil, err
	}
	s := &Sink{opt: o, log: o.Log, wake: make(chan struct{}, 1), target: u}
	if s.log == nil {
		s.log = slog.Default()
	}
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.HTTPClient = &http.Client{
		Transport: o.Transport, Timeout: orDefault(o.Timeout, 10*time.Second),
		// What follows a redirect may be a GET without the events.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.RetryWaitMin, c.RetryWaitMax = orDefault(o.LeastPause, time.Second), orDefault(o.MostPause, time.Minute)
	c.RetryMax = 1 << 20 // giveUp ends it
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.CheckRetry, c.Backoff = s.again, s.pause
	c.RequestLogHook = func(retryablehttp.Logger, *http.Request, int) { s.pausing.Store(false) }
	s.client = c
	return s, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// ParseTarget reads the URL of a receiver. Its errors show nothing of it that may
// be secret.
func ParseTarget(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("this is no URL; expected http://HOST/PATH or https://HOST/PATH")
	case u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "":
		return nil, errors.New("expected http://HOST/PATH or https://HOST/PATH")
	case u.Hostname() == "":
		return nil, errors.New("the URL names no host; expected http://HOST/PATH or https://HOST/PATH")
	}
	u.Fragment = ""
	return u, nil
}

// shown is what of a target may be shown: paths and queries of webhooks are
// secrets.
func shown(u *url.URL) string { return u.Scheme + "://" + u.Host }

// Retarget sends what waits, and what comes, to another URL.
func (s *Sink) Retarget(text string) error {
	u, err := ParseTarget(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.String() == s.target.String() {
		return nil
	}
	s.target, s.failing, s.stats.Error = u, false, nil
	s.back = time.Time{}
	if s.abort != nil {
		s.moved = true
		s.abort()
	}
	return nil
}

// Stats says what has become of the events so far.
func (s *Sink) Stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Target, st.Waiting = shown(s.target), s.sending+len(s.queue)
	return st
}

// Put has an event sent. It returns at once.
func (s *Sink) Put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= sinkQueue {
		s.drop(1)
		return
	}
	if !s.enqueue(e) {
		s.drop(1)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// enqueue adds an event's line. Callers hold mu.
func (s *Sink) enqueue(e Event) bool {
	line, err := e.AppendLine(nil)
	if err != nil {
		return false
	}
	s.number++
	head, err := json.Marshal(struct {
		ID   string `json:"id"`
		Host string `json:"host,omitempty"`
	}{fmt.Sprintf("%s-%d", s.opt.Source, s.number), s.opt.Host})
	if err != nil {
		return false
	}
	head[len(head)-1] = ','
	s.queue = append(s.queue, append(head, line[1:]...))
	return true
}

// drop counts lost events. Callers hold mu.
func (s *Sink) drop(n int64) {
	if now := time.Now(); s.told.IsZero() || now.Sub(s.told) > tellAgain {
		s.told = now
		s.log.Warn("events are dropped: their receiver does not take them", "receiver", shown(s.target), "waiting", len(s.queue))
	}
	s.lost += n
	s.stats.Dropped += n
}

// take removes the first lines of the queue and returns them as the body of a
// request. Where events were lost, a line that says so comes behind what was in the
// queue then.
func (s *Sink) take(most int) (lines [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), most)
	lines = append(lines, s.queue[:n]...)
	s.queue = append([][]byte(nil), s.queue[n:]...)
	if s.lost > 0 {
		lost := s.lost
		s.lost = 0
		s.enqueue(Event{Time: time.Now(), Kind: Dropped, Msg: fmt.Sprintf("%d event(s) were dropped: the receiver did not take them", lost), Attrs: map[string]any{"events": lost}})
	}
	return lines
}

// Run sends events until the context ends, and then for two seconds at most what
// waits.
func (s *Sink) Run(ctx context.Context) {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(lastTry, end)
		s.ending.Store(true)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.abort != nil && s.pausing.Load() {
			s.abort() // it is tried once more at once
		}
	})
	defer stop()
	most := sinkBatch
	for {
		lines := s.take(most)
		if len(lines) == 0 {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
			}
			if lines = s.take(most); len(lines) == 0 {
				return
			}
		}
		for len(lines) > 0 {
			sent, err := s.send(work, lines[:min(len(lines), most)])
			lines = lines[sent:]
			switch {
			case errors.Is(err, errTooLarge):
				most = max(most/2, 1)
			case work.Err() != nil:
				s.leave(len(lines))
				return
			}
		}
	}
}

// leave counts what could not be sent any more.
func (s *Sink) leave(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n += len(s.queue)
	s.queue = nil
	if n == 0 {
		return
	}
	s.stats.Dropped += int64(n)
	s.log.Warn("events were not sent: their receiver did not take them in time", "receiver", shown(s.target), "events", n)
}

// errTooLarge is of a receiver that wants smaller requests.
var errTooLarge = errors.New("the request is too large")

// send tries to send lines until they are, or there is no hope. It returns how many
// are done with.
func (s *Sink) send(work context.Context, lines [][]byte) (done int, err error) {
	s.mu.Lock()
	target := *s.target
	ctx, abort := context.WithTimeout(work, giveUp)
	s.abort, s.moved, s.sending = abort, false, len(lines)
	s.mu.Unlock()
	res, err := s.post(ctx, &target, bytes.Join(lines, nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := errors.Is(ctx.Err(), context.DeadlineExceeded)
	abort()
	s.abort, s.sending = nil, 0
	n := len(lines)
	switch {
	case err == nil && res/100 == 2:
		if s.failing {
			s.log.Info("events are sent again", "receiver", shown(s.target), "waiting", len(s.queue))
			s.back = time.Now()
		}
		s.failing, s.stats.Error = false, nil
		s.stats.Sent += int64(n)
		return n, nil
	case err == nil && res == http.StatusRequestEntityTooLarge && n > 1:
		return 0, errTooLarge
	case s.moved || work.Err() != nil || err != nil && ctx.Err() != nil && !expired:
		return 0, err // to another receiver, the last try, or the end
	case err == nil:
		s.stats.Failed++
		s.stats.Error = answered(res)
	case !expired:
		s.stats.Error = plain(err)
	}
	s.log.Error("events are dropped: their receiver does not take them", "receiver", shown(&target), "events", n, "err", s.stats.Error)
	s.lost += int64(n)
	s.stats.Dropped += int64(n)
	return n, nil
}

// post makes one request, with its attempts, and returns the status.
func (s *Sink) post(ctx context.Context, target *url.URL, body []byte) (int, error) {
	user := target.User
	target.User = nil
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, target.String(), body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if s.opt.Agent != "" {
		req.Header.Set("User-Agent", s.opt.Agent)
	}
	if user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxReply)) // so that the connection can be used again
	return res.StatusCode, nil
}

// again decides whether an attempt is followed by another one.
func (s *Sink) again(ctx context.Context, res *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	retry := err != nil || res.StatusCode >= 500 && res.StatusCode != http.StatusNotImplemented
	if err == nil {
		switch res.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			retry = true
		}
	}
	if !retry {
		return false, nil
	}
	why := plain(err)
	if err == nil {
		why = answered(res.StatusCode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// One that answers now so and now so is told of once in a while.
	if !s.failing && (s.back.IsZero() || time.Since(s.back) >= tellAgain) {
		s.log.Warn("events cannot be sent; trying again", "receiver", shown(s.target), "err", why)
		s.failing = true
	}
	s.stats.Failed++
	s.stats.Error = why
	return true, nil
}

// answered is the error of a status that is no success.
func answered(status int) error {
	if status/100 == 3 {
		return fmt.Errorf("the receiver answers %d %s; name the URL that it redirects to", status, http.StatusText(status))
	}
	return fmt.Errorf("the receiver answers %d %s", status, http.StatusText(status))
}

// plain takes the URL out of an error of the HTTP client.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimSpace(err.Error()))
}

// pause is how long to wait before the next attempt; a receiver may ask for more,
// but not for more than ten of the longest.
func (s *Sink) pause(least, most time.Duration, n int, res *http.Response) time.Duration {
	s.pausing.Store(true)
	if s.ending.Load() {
		return min(least, lastTry/10)
	}
	return min(retryablehttp.DefaultBackoff(least, most, n, res), 10*most)
}
