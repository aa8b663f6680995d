package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
)

// forwards is how many TCP connections stand at the same time.
const forwards = 200

// conn is a TCP connection into a pod: a client's own, or one to a ForwardListener.
type conn interface {
	net.Conn
	CloseWrite() error
}

// guest is one of those who use ports at the same time, with what it does there.
type guest struct {
	conn conn
	ends *forwardEnds // how a ForwardListener says that conn has ended, if it was one
	key  int64
	size int64 // of what is brought, sent or echoed
}

// guests are what a guest may do. A healthy one ends well whatever happens to the others.
var guests = []struct {
	name    string
	healthy bool
	do      func(ctx context.Context, p *guest) error
}{
	{"gets and posts", true, getsAndPosts},
	{"asks and half-closes", true, asksAndHalfCloses},
	{"echoes and half-closes", true, echoesAndHalfCloses},
	{"resets in the middle", false, resetsInTheMiddle},
	{"is reset", false, isReset},
	{"cancels a request", false, cancelsARequest},
}

// TestTwoHundredForwardsDoNotTouchEachOther: TCP connections to a server of HTTP in a pod, all at the same time. Some end well, with half-closes;
// some are reset by either side, or their request is cancelled, or nobody serves their port. Whatever is received is right, and the ends are told
// as they were.
func TestTwoHundredForwardsDoNotTouchEachOther(t *testing.T) { forwardMany(t, 1) }

func forwardMany(t *testing.T, rounds int) {
	g := newGrounds(t)
	g.serve("exact-web")
	c := g.alice()
	ctx := within(t, time.Duration(rounds)*13*time.Second+3*time.Minute)
	done := progress(t, rounds, "rounds")
	for round := range rounds {
		local, ends := g.listen(c) // anew: an address of an earlier round may come again
		var standing sync.WaitGroup
		standing.Add(forwards)
		if err := crowd(forwards, forwards, func(i int) error {
			random := rand.New(rand.NewPCG(seed+uint64(round), uint64(i)))
			p := &guest{key: random.Int64N(1 << 62), size: 1 + logUniform(random, 1_000_000)}
			var err error
			if i%2 == 0 {
				p.conn, err = c.PortForward(ctx, portOf("exact-web", webPort))
			} else {
				p.ends = ends
				p.conn, err = dialTCP(ctx, local)
			}
			standing.Done()
			if err != nil {
				return err
			}
			standing.Wait() // from here on there are 200
			defer func() { _ = p.conn.Close() }()
			if err := bound(ctx, p.conn); err != nil {
				return err
			}
			what := guests[i/2%len(guests)]
			if err := what.do(ctx, p); err != nil {
				return fmt.Errorf("who %s, of %d bytes, with a %T: %w", what.name, p.size, p.conn, err)
			}
			if what.healthy && p.ends != nil {
				return ends.well(ctx, p.conn.LocalAddr())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := crowd(20, 20, func(int) error { return isRefused(ctx, c) }); err != nil {
			t.Fatal(err)
		}
		done()
	}
	g.awaitSeries("sluice_channels{kind=\"port-forward\"}", "0")
}

// listen joins a local port with the pod's for as long as the test lasts.
func (g *grounds) listen(c *client.Client) (addr string, ends *forwardEnds) {
	g.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	ends = &forwardEnds{of: map[string]error{}, changed: make(chan struct{})}
	go func() { over <- c.ForwardListener(ctx, l, portOf("exact-web", webPort), ends.told) }()
	g.t.Cleanup(func() {
		stop()
		if err := <-over; !errors.Is(err, context.Canceled) {
			g.t.Errorf("listen: %v", err)
		}
	})
	return l.Addr().String(), ends
}

// bound makes reading and writing fail when ctx ends by its deadline.
func bound(ctx context.Context, c net.Conn) error {
	d, _ := ctx.Deadline()
	return c.SetDeadline(d)
}

func dialTCP(ctx context.Context, addr string) (conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// forwardEnds are how a ForwardListener says that its TCP connections have ended.
type forwardEnds struct {
	mu      sync.Mutex // guards everything below
	of      map[string]error
	changed chan struct{}
}

func (e *forwardEnds) told(remote net.Addr, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of[remote.String()] = err
	close(e.changed)
	e.changed = make(chan struct{})
}

// well waits until a TCP connection has ended, and fails unless that was well.
func (e *forwardEnds) well(ctx context.Context, addr net.Addr) error {
	for {
		e.mu.Lock()
		err, known := e.of[addr.String()]
		changed := e.changed
		e.mu.Unlock()
		if known {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("nobody said how it ended: %w", context.Cause(ctx))
		}
	}
}

// isRefused asks for a port where nobody listens, which is told as a reset at once or by the first Read.
func isRefused(ctx context.Context, c *client.Client) error {
	f, err := c.PortForward(ctx, portOf("exact-web", refusedPort))
	if err == nil {
		defer f.Reset()
		_, err = f.Read(make([]byte, 1))
	}
	return isResetError(err)
}

// isResetError fails unless err says that a TCP connection was reset.
func isResetError(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok && e.Reason == sluicev1.Reason_REASON_RESET || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("it has ended with %w, want a reset", notNil(err))
}

// over is a client of HTTP over the guest's TCP connection alone.
func (p *guest) over() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.conn, nil }, MaxConnsPerHost: 1,
	}}
}

func (p *guest) url(path string) string {
	return fmt.Sprintf("http://pod%s?key=%d&n=%d", path, p.key, p.size)
}

// getsAndPosts is an ordinary client of HTTP, with three requests over one TCP connection.
func getsAndPosts(ctx context.Context, p *guest) error {
	web := p.over()
	defer web.CloseIdleConnections()
	for range 2 {
		if err := p.get(ctx, web); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("/check"), seeded.NewReader(uint64(p.key), p.size))
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(res.Body)
	if want := fmt.Sprint(p.size); err == nil && string(said) != want {
		err = fmt.Errorf("the server was sent %q bytes, want %s", said, want)
	}
	return errors.Join(err, res.Body.Close())
}

func (p *guest) get(ctx context.Context, web *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("/bytes"), nil)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	body := seeded.NewChecker(uint64(p.key))
	_, err = io.Copy(body, res.Body)
	return errors.Join(err, res.Body.Close(), body.Whole(p.size))
}

// ask writes a request by hand and reads the header of its answer.
func (p *guest) ask(path string, halfClose bool) (*http.Response, error) {
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n", strings.TrimPrefix(p.url(path), "http://pod"))
	if _, err := io.WriteString(p.conn, request); err != nil {
		return nil, err
	}
	if halfClose {
		if err := p.conn.CloseWrite(); err != nil {
			return nil, err
		}
	}
	return http.ReadResponse(bufio.NewReader(p.conn), nil)
}

// asksAndHalfCloses sends its FIN right after the request, and gets the whole answer nevertheless.
func asksAndHalfCloses(_ context.Context, p *guest) error {
	res, err := p.ask("/bytes", true)
	if err != nil {
		return err
	}
	body := seeded.NewChecker(uint64(p.key))
	_, err = io.Copy(body, res.Body)
	if err = errors.Join(err, res.Body.Close(), body.Whole(p.size)); err != nil {
		return err
	}
	if n, err := p.conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the answer came %d bytes and %w, want the server's FIN", n, notNil(err))
	}
	return nil
}

// echoesAndHalfCloses sends and receives at the same time; the server's end comes after its own.
func echoesAndHalfCloses(_ context.Context, p *guest) error {
	back, err := tunnel(p.conn, twistKey)
	if err != nil {
		return err
	}
	var sent error
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, sent = io.Copy(p.conn, seeded.NewReader(uint64(p.key), p.size)); sent == nil {
			sent = p.conn.CloseWrite()
		}
	})
	out := twisted(uint64(p.key), twistKey)
	_, err = io.Copy(out, back)
	sending.Wait()
	return errors.Join(err, sent, out.Whole(p.size))
}

// resetsInTheMiddle leaves by a reset while the server sends.
func resetsInTheMiddle(_ context.Context, p *guest) error {
	wanted := p.size
	p.size = math.MaxInt32
	res, err := p.ask("/bytes", false)
	if err != nil {
		return err
	}
	body := seeded.NewChecker(uint64(p.key))
	if _, err := io.CopyN(body, res.Body, wanted); err != nil {
		return err
	}
	switch c := p.conn.(type) {
	case *client.Forward:
		c.Reset()
	case *net.TCPConn:
		return errors.Join(c.SetLinger(0), c.Close())
	}
	return nil
}

// isReset gets a part of an answer, and then the server's reset.
func isReset(ctx context.Context, p *guest) error {
	res, err := p.ask("/reset", false)
	if err != nil {
		return p.afterFIN(ctx, err) // it may overtake everything
	}
	body := seeded.NewChecker(uint64(p.key))
	_, err = io.Copy(body, res.Body)
	if body.Count() > p.size {
		return fmt.Errorf("%d bytes came of %d", body.Count(), p.size)
	}
	return p.afterFIN(ctx, err)
}

// afterFIN fails unless err is a reset, or a FIN that a reset followed: a kubelet tells a reset by a FIN, and only then by what it says of it. Where
// it takes its time for that, the FIN has been told already.
func (p *guest) afterFIN(ctx context.Context, err error) error {
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return isResetError(err)
	}
	if p.ends != nil {
		return isResetError(p.ends.well(ctx, p.conn.LocalAddr()))
	}
	for {
		if _, err := p.conn.Write([]byte("x")); err != nil {
			return isResetError(err)
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// cancelsARequest gives up on an answer that has no end.
func cancelsARequest(ctx context.Context, p *guest) error {
	web := p.over()
	defer web.CloseIdleConnections()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(asking, http.MethodGet, p.url("/stall"), nil)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	body := seeded.NewChecker(uint64(p.key))
	if _, err := io.CopyN(body, res.Body, p.size); err != nil {
		return err
	}
	cancel()
	if _, err := io.Copy(body, res.Body); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the request has ended with %w, want a cancellation", notNil(err))
	}
	return errors.Join(res.Body.Close(), body.Whole(p.size))
}
