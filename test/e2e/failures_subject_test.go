package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// subject is one channel as somebody sees it: a program that has the SDK, or a person at the command. Whatever the kind is, what comes are lines,
// and a number can be sent on its way that then comes as a line.
type subject struct {
	// Immutable once it is open.
	kind  kind
	name  string
	send  func(n int) error // nil where lines come by themselves
	words func() string     // what the command tells on its standard error; nil for the SDK

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	// Guarded by mu.
	partial []byte
	lines   []string
	states  []sluicev1.ChannelState_Kind
	over    bool
	err     error // why it has ended, if it is over
	refused error // the reset of its connection, if sending was told of it
	at      time.Time
	command *int // the exit code of the command, once it has ended
}

func newSubject(k kind, name string) *subject {
	return &subject{kind: k, name: name, changed: make(chan struct{})}
}

// update changes what is known and wakes who waits for that.
func (s *subject) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Write implements io.Writer: of what the channel brings.
func (s *subject) Write(b []byte) (int, error) {
	s.update(func() {
		s.partial = append(s.partial, b...)
		for {
			line, rest, whole := bytes.Cut(s.partial, []byte("\n"))
			if !whole {
				return
			}
			s.lines = append(s.lines, strings.TrimSuffix(string(line), "\r"))
			s.partial = rest
		}
	})
	return len(b), nil
}

func (s *subject) line(text string) { s.update(func() { s.lines = append(s.lines, text) }) }

func (s *subject) state(st *sluicev1.ChannelState) {
	s.update(func() { s.states = append(s.states, st.GetKind()) })
}

func (s *subject) end(err error) {
	s.update(func() { s.over, s.err, s.at = true, err, time.Now() })
}

// until waits until what is known satisfies enough, which is called with mu held.
func (s *subject) until(ctx context.Context, what string, enough func() bool) error {
	for {
		s.mu.Lock()
		done, changed := enough(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s in vain: %w; %s", what, context.Cause(ctx), s.known())
		}
	}
}

// known is what is known, for errors.
func (s *subject) known() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("it has told %q at last, and %v; over is %v, %v", s.lines[max(0, len(s.lines)-5):], s.states, s.over, s.err)
}

// ping has something come that was not there before, and waits for it. n is the number of the ping, from 1.
func (s *subject) ping(ctx context.Context, n int) error {
	if s.send == nil {
		s.mu.Lock()
		before := len(s.lines)
		s.mu.Unlock()
		return s.until(ctx, "waited for lines", func() bool { return len(s.lines) > before+2 })
	}
	if err := s.send(n); err != nil {
		return fmt.Errorf("send %d: %w", n, err)
	}
	suffix := fmt.Sprint(" ", n)
	return s.until(ctx, fmt.Sprintf("waited for %d", n), func() bool {
		return slices.ContainsFunc(s.lines, func(line string) bool { return strings.HasSuffix(line, suffix) })
	})
}

// exact checks everything that has come: nothing is missing, doubled or invented. runs is how often the container was started.
func (s *subject) exact(runs int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, run := 1, 1
	for i, line := range s.lines {
		var n int
		switch s.kind {
		case watchKind:
			if err := s.follows(i); err != nil {
				return err
			}
			continue
		case logsKind:
			if line == "line 1" && next > 1 && run < runs {
				next, run = 1, run+1
			}
			_, err := fmt.Sscanf(line, "line %d", &n)
			if err != nil || line != fmt.Sprint("line ", next) {
				return fmt.Errorf("%q came, want line %d of run %d", line, next, run)
			}
		default:
			if strings.HasPrefix(line, "ready") && i == 0 {
				continue
			}
			if line != fmt.Sprint("> ", next) {
				return fmt.Errorf("%q came, want > %d", line, next)
			}
		}
		next++
	}
	if s.kind == logsKind && run != runs {
		return fmt.Errorf("it brought the logs of %d runs, want %d", run, runs)
	}
	return nil
}

// follows checks that the event at i follows those before it: the numbers that the pod was given rise by one. mu is held.
func (s *subject) follows(i int) error {
	if i == 0 {
		return nil
	}
	var before, now int
	var how, was string
	_, _ = fmt.Sscan(s.lines[i-1], &was, &before)
	_, _ = fmt.Sscan(s.lines[i], &how, &now)
	if now < before || now > before+1 {
		return fmt.Errorf("event %q came after %q", s.lines[i], s.lines[i-1])
	}
	return nil
}

// converse talks HTTP over a TCP connection, whoever has made it: a request's answer is a line. What it returns reads until the connection ends.
func (s *subject) converse(conn io.ReadWriter) (read func()) {
	s.send = func(n int) error {
		body := fmt.Sprint("> ", n)
		_, err := fmt.Fprintf(conn, "POST /echo HTTP/1.1\r\nHost: pod\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err
	}
	return func() {
		r := bufio.NewReader(conn)
		for {
			body, err := answer(r)
			if err != nil {
				s.end(err)
				return
			}
			s.line(body)
		}
	}
}

// answer reads the next answer. The end of the connection between two is io.EOF.
func answer(r *bufio.Reader) (string, error) {
	if _, err := r.Peek(1); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	return string(body), errors.Join(err, res.Body.Close())
}
