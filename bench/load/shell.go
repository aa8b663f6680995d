//go:build unix

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/bench/event"
	"github.com/sluice-gateway/sluice/bench/process"
	"github.com/sluice-gateway/sluice/bench/upstream"
	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// keystrokes is how many bytes an echo is asked to return: a key that a person has pressed.
const keystrokes = 1

// shell is one process in a container: of upstream.Echo, which is asked again as soon as it has answered, or of upstream.Pour.
type shell struct {
	config Config
	group  *group

	latency histogram
	echoes  atomic.Uint64
	bytes   atomic.Uint64 // of stdout, in order
	wrong   atomic.Uint64 // messages of stdout that are not what was poured
	opened  chan struct{} // closed by the first bytes of stdout

	returned chan struct{} // an echo has come back
	began    counts
}

// newShell makes a client of one shell, for process.Serve.
func newShell(ctx context.Context, c Config) process.Commands {
	s := &shell{config: c, group: newGroup(ctx, newMeter(nil)), opened: make(chan struct{}), returned: make(chan struct{}, 1)}
	return process.Commands{Open: s.open, Begin: s.begin, End: s.end, Settle: process.With(s.settle), Close: s.close}
}

func (s *shell) open(json.RawMessage) (any, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.group.ctx, openTimeout)
	defer cancel()
	start := map[Way]func(context.Context) error{Direct: s.direct, Sluice: s.sluice}[s.config.Way]
	if start == nil {
		return nil, fmt.Errorf("no shell goes the way %q", s.config.Way)
	}
	if err := start(ctx); err != nil {
		return nil, err
	}
	select {
	case <-s.opened:
		return time.Since(began), nil
	case <-s.group.meter.failed:
		return nil, s.group.meter.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the shell says nothing: %w", context.Cause(ctx))
	}
}

func (s *shell) count() counts {
	return counts{at: time.Now(), measured: s.echoes.Load(), heavy: s.bytes.Load()}
}

func (s *shell) begin(json.RawMessage) (any, error) {
	s.latency.reset()
	s.began = s.count()
	return nil, s.group.meter.failure()
}

func (s *shell) end(json.RawMessage) (any, error) {
	now := s.count()
	q := s.latency.quantiles(0.5, 0.99, 1)
	m := Measured{Seconds: now.at.Sub(s.began.at).Seconds(), P50: q[0], P99: q[1], Max: q[2]}
	if s.config.Shell.Kind == upstream.Pour {
		m.Bytes = now.heavy - s.began.heavy
	} else {
		m.Events = now.measured - s.began.measured
	}
	return m, s.group.meter.failure()
}

// settle waits until all that was poured is there.
func (s *shell) settle(sent map[string]uint64) (any, error) {
	f := Faults{Unmarked: s.wrong.Load()}
	if s.config.Shell.Kind != upstream.Pour {
		return f, s.group.meter.failure()
	}
	look := time.NewTicker(10 * time.Millisecond) // bytes have no time to tell anybody
	defer look.Stop()
	late := time.NewTimer(settleWithin)
	defer late.Stop()
	for had := s.bytes.Load(); had < sent[upstream.Shell]; {
		select {
		case <-look.C:
		case <-late.C:
			f.Missing, f.Unmarked = sent[upstream.Shell]-had, s.wrong.Load()
			return f, s.group.meter.failure()
		}
		if now := s.bytes.Load(); now != had { // as long as some come, all may: there is more on the way than of events
			had = now
			late.Reset(settleWithin)
		}
	}
	f.Unmarked = s.wrong.Load()
	return f, s.group.meter.failure()
}

func (s *shell) close(json.RawMessage) (any, error) {
	s.group.close()
	return nil, nil
}

// Write takes stdout. One goroutine calls it.
func (s *shell) Write(b []byte) (int, error) {
	at := s.bytes.Load()
	if at == 0 && len(b) > 0 {
		close(s.opened)
	}
	if s.config.Shell.Kind == upstream.Pour {
		for rest := b; len(rest) > 0; {
			n := min(len(rest), event.MaxBytes)
			if !bytes.Equal(rest[:n], event.Bytes(at, n)) {
				s.wrong.Add(1)
			}
			at, rest = at+uint64(n), rest[n:]
		}
		s.bytes.Store(at)
		return len(b), nil
	}
	s.bytes.Add(uint64(len(b)))
	for range len(b) / keystrokes {
		s.returned <- struct{}{}
	}
	return len(b), nil
}

// keys presses one key after the other, each when the one before has come back.
func (s *shell) keys(ctx context.Context, press func([]byte) error) error {
	key := bytes.Repeat([]byte{'k'}, keystrokes)
	for {
		pressed := event.Now()
		if err := press(key); err != nil {
			return err
		}
		select {
		case <-s.returned:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.latency.add(event.Now() - pressed)
		s.echoes.Add(1)
	}
}

// direct opens a WebSocket to the upstream.
func (s *shell) direct(ctx context.Context) error {
	u, err := url.Parse(s.config.Upstream)
	if err != nil {
		return fmt.Errorf("the upstream's URL: %w", err)
	}
	d := &direct{c: s.config, upstream: u, tls: process.Trust(s.config.UpstreamCA)}
	sh := s.config.Shell
	u.Path = "/api/v1/namespaces/" + sh.Namespace + "/pods/" + sh.Pod + "/exec"
	q := url.Values{"command": sh.Command, "stdout": {"true"}}
	if sh.Kind == upstream.Echo {
		q.Set("stdin", "true")
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	conn, err := d.shake(ctx, r, sh.Offer...)
	if err != nil {
		return err
	}
	s.group.watch(func() error { return s.readDirect(s.group.ctx, conn) })
	if s.config.Shell.Kind == upstream.Echo {
		s.group.watch(func() error {
			return s.keys(s.group.ctx, func(key []byte) error {
				return conn.WriteMessage(websocket.Binary, append([]byte{0}, key...))
			})
		})
	}
	return nil
}

// readDirect reads the WebSocket's messages, the first byte of each of which names its channel.
func (s *shell) readDirect(ctx context.Context, conn *websocket.Conn) error {
	defer conn.Close(websocket.CodeGoingAway)
	stop := context.AfterFunc(ctx, func() { conn.Close(websocket.CodeGoingAway) })
	defer stop()
	begun := false
	for {
		b, err := conn.Read(2*websocket.MaxRead, websocket.MaxRead)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		for _, f := range b.Fragments {
			payload := f.Bytes
			if !begun && len(payload) > 0 {
				payload = payload[1:]
			}
			begun = !f.Last
			_, _ = s.Write(payload) // it never fails
		}
		b.Release()
	}
}

// sluice opens the shell with the SDK.
func (s *shell) sluice(context.Context) error {
	cl, err := client.Dial(client.Config{
		Address: s.config.Address, TLS: process.Trust(s.config.CA), Token: client.StaticToken(s.config.Token), Name: "bench",
	})
	if err != nil {
		return fmt.Errorf("dial the gateway: %w", err)
	}
	s.group.later(func() { _ = cl.Close() })
	req := client.ExecRequest{
		Target: &sluicev1.ExecTarget{
			Namespace: s.config.Shell.Namespace, Pod: s.config.Shell.Pod, Command: s.config.Shell.Command,
		},
		Streams: client.Streams{Stdout: s},
	}
	if s.config.Shell.Kind == upstream.Echo {
		pressed := keyboard{s: s, keys: make(chan []byte)}
		req.Stdin = pressed
		s.group.watch(func() error { return s.keys(s.group.ctx, pressed.press) })
	}
	s.group.watch(func() error { return cl.Exec(s.group.ctx, req) })
	return nil
}

// keyboard is the standard input of a shell through Sluice.
type keyboard struct {
	s    *shell
	keys chan []byte
}

var errNoKeys = errors.New("the keyboard is gone")

func (k keyboard) press(key []byte) error {
	select {
	case k.keys <- key:
		return nil
	case <-k.s.group.ctx.Done():
		return errNoKeys
	}
}

// Read implements io.Reader.
func (k keyboard) Read(b []byte) (int, error) {
	select {
	case key := <-k.keys:
		return copy(b, key), nil
	case <-k.s.group.ctx.Done():
		return 0, io.EOF
	}
}
