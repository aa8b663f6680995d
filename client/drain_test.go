package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// replica is a script for every kind of channel. A log is endless, and each line says which replica wrote it.
func replica(name string) script {
	return func(ch *served, o *sluicev1.Open) {
		if o.GetTarget().GetLogs() == nil {
			cat(ch, o)
			return
		}
		var pos int
		_, _ = fmt.Sscan(o.GetCursor(), &pos) // none is 0
		ch.Opened(&sluicev1.Opened{})
		for ; ; pos++ {
			if !ch.send(0, fmt.Sprint(pos+1), fmt.Appendf(nil, "%s %d\n", name, pos)) {
				return
			}
		}
	}
}

// shell is a running Exec that is typed into.
type shell struct {
	in    *io.PipeWriter
	out   *bufio.Reader
	ended chan error
}

func startShell(ctx context.Context, c *client.Client) *shell {
	in, w := io.Pipe()
	r, out := io.Pipe()
	s := &shell{in: w, out: bufio.NewReader(r), ended: make(chan error, 1)}
	go func() {
		err := c.Exec(ctx, client.ExecRequest{Target: command("0"), Streams: client.Streams{Stdin: in, Stdout: out}})
		_ = out.Close()
		s.ended <- err
	}()
	return s
}

// echoes types a line and waits for it to come back.
func (s *shell) echoes(t *testing.T, line string) {
	t.Helper()
	go func() { _, _ = io.WriteString(s.in, line+"\n") }()
	if got, err := s.out.ReadString('\n'); err != nil || got != line+"\n" {
		t.Fatalf("typed %q, got %q, %v", line, got, err)
	}
}

func isConnected(s client.State) bool { return s.Phase == client.Connected }

// While a gateway goes away, what has a cursor moves to another at once, and a shell stays until it has ended. The link of what stays is mended
// like any other.
func TestADrainMovesLogsAndLeavesShells(t *testing.T) {
	p := newPhases()
	a, relay, c := relayed(t, mux.Config{}, replica("a"), func(c *client.Config) { c.OnState = p.tell })
	b := newGateway(t, mux.Config{}, replica("b"))
	ctx := within(t)
	first := p.await(ctx, t, isConnected).Session
	sh, fwd := startShell(ctx, c), mustForward(ctx, t, c)
	sh.echoes(t, "before")
	l := c.Logs(logs())
	defer l.Close()
	next := lines(ctx, t, l)
	next("a")

	relay.Retarget(b.addr())
	a.drain()
	p.await(ctx, t, func(s client.State) bool { return s.Phase == client.Draining && s.Session == first })
	if s := p.await(ctx, t, isConnected); s.Session == first || s.Former {
		t.Errorf("moved to %+v", s)
	}
	next("b")
	sh.echoes(t, "after")
	other := startShell(ctx, c)
	other.echoes(t, "new ones are opened there")
	if b.opens.Load() < 2 {
		t.Error("the new shell is not in the new session")
	}

	relay.Retarget(a.addr()) // where only the former session can go on
	relay.Cut()
	if s := p.await(ctx, t, isConnected); s.Session != first || !s.Resumed || !s.Former {
		t.Errorf("resumed %+v", s)
	}
	sh.echoes(t, "resumed")
	echoesBack(t, fwd, "resumed")
	relay.Retarget(b.addr())
	next("b")
	_ = sh.in.Close()
	if err := <-sh.ended; err != nil {
		t.Errorf("the shell ended with %v", err)
	}
	if err := fwd.CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(fwd); err != nil || len(rest) > 0 {
		t.Errorf("the connection ended with %q, %v", rest, err)
	}
	if err := fwd.Close(); err != nil {
		t.Error(err)
	}
	a.ended(ctx, t, first)
	other.echoes(t, "still there")
}

// lines reads lines of a log until one is by the replica, checking that none is missing or doubled.
func lines(ctx context.Context, t *testing.T, l *client.Log) (until func(replica string)) {
	t.Helper()
	r, w := io.Pipe()
	go func() { _, err := l.WriteTo(w); _ = w.CloseWithError(err) }()
	t.Cleanup(func() { _ = r.Close() })
	s, want := bufio.NewScanner(r), 0
	stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(ctx.Err()) })
	t.Cleanup(func() { stop() })
	return func(replica string) {
		t.Helper()
		for s.Scan() {
			var by string
			var n int
			if _, err := fmt.Sscan(s.Text(), &by, &n); err != nil || n != want {
				t.Fatalf("line %q, want number %d: %v", s.Text(), want, err)
			}
			want++
			if by == replica {
				return
			}
		}
		t.Fatal(s.Err())
	}
}

// What is still there at the drain's deadline is ended by the gateway, and says so. The client goes on in the other session.
func TestADrainEndsShellsAtItsDeadline(t *testing.T) {
	p := newPhases()
	a, relay, c := relayed(t, mux.Config{}, replica("a"), func(c *client.Config) { c.OnState = p.tell })
	b := newGateway(t, mux.Config{}, replica("b"))
	ctx := within(t)
	p.await(ctx, t, isConnected)
	sh := startShell(ctx, c)
	sh.echoes(t, "before")
	relay.Retarget(b.addr())
	a.drain()
	p.await(ctx, t, isConnected)
	for _, ses := range a.all() {
		ses.End(status.New(14, sluicev1.Reason_REASON_DRAINING, "the replica is gone").WithResumable(true))
	}
	e, ok := errors.AsType[*client.Error](<-sh.ended)
	if !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable {
		t.Errorf("the shell ended with %v", e)
	}
	other := startShell(ctx, c)
	other.echoes(t, "elsewhere")
}

// A gateway that is killed while it drains takes its shells along, and nothing else.
func TestAKilledFormerGatewayLosesItsShells(t *testing.T) {
	p := newPhases()
	a, relay, c := relayed(t, mux.Config{}, replica("a"), func(c *client.Config) { c.OnState = p.tell })
	b := newGateway(t, mux.Config{}, replica("b"))
	ctx := within(t)
	p.await(ctx, t, isConnected)
	sh := startShell(ctx, c)
	sh.echoes(t, "before")
	relay.Retarget(b.addr())
	a.drain()
	p.await(ctx, t, isConnected)
	other := startShell(ctx, c)
	other.echoes(t, "elsewhere")
	a.kill()
	e, ok := errors.AsType[*client.Error](<-sh.ended)
	if !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable {
		t.Errorf("the shell ended with %v", e)
	}
	other.echoes(t, "unharmed")
}

// Closing a client ends what is in all its sessions, and waits for it.
func TestCloseEndsFormerSessions(t *testing.T) {
	p := newPhases()
	a, relay, c := relayed(t, mux.Config{}, replica("a"), func(c *client.Config) { c.OnState = p.tell })
	b := newGateway(t, mux.Config{}, replica("b"))
	ctx := within(t)
	first := p.await(ctx, t, isConnected).Session
	sh := startShell(ctx, c)
	sh.echoes(t, "before")
	relay.Retarget(b.addr())
	a.drain()
	second := p.await(ctx, t, isConnected).Session
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if e, ok := errors.AsType[*client.Error](<-sh.ended); !ok || e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("the shell ended with %v", e)
	}
	a.ended(ctx, t, first)
	b.ended(ctx, t, second)
}

func mustForward(ctx context.Context, t *testing.T, c *client.Client) *client.Forward {
	t.Helper()
	f, err := c.PortForward(ctx, client.PortForwardRequest{Target: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: 80}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Reset)
	return f
}

func echoesBack(t *testing.T, conn net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(conn, s); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(s))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != s {
		t.Fatalf("sent %q, got %q, %v", s, got, err)
	}
}
