package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// forwardConn is the connection that a client makes of a port-forward: what it has not read takes of the window.
type forwardConn struct{ *forwarding }

// Read implements net.Conn.
func (c forwardConn) Read(p []byte) (int, error) {
	err := c.await(context.Background(), func() bool { return c.received.Len() > 0 || c.closed })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.received.Len() == 0 {
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, _ := c.received.Read(p)
	c.used = c.received.Len()
	c.change()
	return n, nil
}

// Close implements net.Conn: the forward is reset, unless it has ended.
func (c forwardConn) Close() error {
	c.stop(errors.New("closed"))
	return nil
}

func (forwardConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (forwardConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (forwardConn) SetDeadline(time.Time) error      { return nil }
func (forwardConn) SetReadDeadline(time.Time) error  { return nil }
func (forwardConn) SetWriteDeadline(time.Time) error { return nil }

// webPod is a web server, some of whose requests end badly.
func webPod(t testing.TB) (port uint32) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/reset": // in the middle of an answer
			nc, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nno more")
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
		case "/slow":
			_, _ = w.Write(make([]byte, 1000))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			n, _ := strconv.Atoi(r.URL.Query().Get("n"))
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
			_, _ = w.Write(generated(uint64(n), []int{n}))
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return uint32(s.Listener.Addr().(*net.TCPAddr).Port)
}

// TestT_C14_SiblingsOfAFailureAreUnharmed: 200 connections at once to a web server in a pod, through the code of a real kubelet, of which some are
// cancelled, some reset by either end, and some half-closed.
func TestT_C14_SiblingsOfAFailureAreUnharmed(t *testing.T) {
	n := newForwardNode(t)
	web, upper := webPod(t), podServing(t, func(nc *net.TCPConn) {
		b, _ := io.ReadAll(nc)
		_, _ = nc.Write(bytes.ToUpper(b))
	})
	up, pods := n.upstream(t), NewPods()
	t.Cleanup(pods.Close)
	dial := func(port uint32) forwardConn {
		f := newForwarding(t, port)
		f.testChannel.held = true
		f.run(up, f.testChannel, Options{Pods: pods})
		return forwardConn{f}
	}
	var all sync.WaitGroup
	var exact, failed atomic.Int32
	for i := range 200 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			var c forwardConn
			if i%5 == 4 {
				c = dial(upper)
			} else {
				c = dial(web)
			}
			defer func() {
				_ = c.Close()
				c.outcome()
			}()
			var err error
			switch i % 5 {
			case 0, 1:
				err = exchange(t, c, r)
			case 2:
				err = cancelled(t, c)
			case 3:
				err = resetByThePod(t, c)
			case 4:
				err = halfClosed(c, r)
			}
			switch {
			case err != nil:
				t.Errorf("connection %d: %v", i, err)
			case i%5 == 2 || i%5 == 3:
				failed.Add(1)
			default:
				exact.Add(1)
			}
		})
	}
	all.Wait()
	if exact.Load() != 120 || failed.Load() != 80 {
		t.Errorf("%d were exact, %d failed as they should", exact.Load(), failed.Load())
	}
}

// transportOver makes requests on one connection.
func transportOver(c forwardConn) *http.Transport {
	return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }, MaxConnsPerHost: 1}
}

// exchange makes some requests and checks each answer.
func exchange(t testing.TB, c forwardConn, r *rand.Rand) error {
	tr := transportOver(c)
	defer tr.CloseIdleConnections()
	for range 3 {
		n := r.IntN(60_000)
		body := generated(r.Uint64(), []int{r.IntN(30_000)})
		req, _ := http.NewRequestWithContext(within(t), http.MethodPost, fmt.Sprintf("http://web/?n=%d", n), bytes.NewReader(body))
		res, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			return err
		}
		if want := slices.Concat(body, generated(uint64(n), []int{n})); !bytes.Equal(got, want) {
			return fmt.Errorf("%d bytes of an answer of %d, or others", len(got), len(want))
		}
	}
	return nil
}

// cancelled gives up in the middle of an answer.
func cancelled(t testing.TB, c forwardConn) error {
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/slow", nil)
	res, err := transportOver(c).RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 1000)); err != nil {
		return err
	}
	cancel()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("a cancelled answer ends with %w", err)
	}
	return nil
}

// resetByThePod is in the middle of an answer.
func resetByThePod(t testing.TB, c forwardConn) error {
	req, _ := http.NewRequestWithContext(within(t), http.MethodGet, "http://web/reset", nil)
	res, err := transportOver(c).RoundTrip(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		return errors.New("a reset answer is whole")
	}
	return nil
}

// halfClosed sends all, ends its direction, and reads the answer.
func halfClosed(c forwardConn, r *rand.Rand) error {
	sent := generated(r.Uint64(), []int{r.IntN(150_000)})
	_, _ = c.Write(sent)
	c.CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, bytes.ToUpper(sent)) {
		return fmt.Errorf("%d bytes of an answer of %d, or others", len(got), len(sent))
	}
	return nil
}

// countedConn counts what is read of it.
type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// TestASlowReaderCostsNoMoreThanItsWindow: 256 MiB go through, and at no time does the bridge hold more than there was credit for, and one read.
func TestASlowReaderCostsNoMoreThanItsWindow(t *testing.T) {
	const total = 256 << 20
	n := newForwardNode(t)
	port := podServing(t, func(nc *net.TCPConn) {
		b := make([]byte, 64<<10)
		for range total / len(b) {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	})
	var read atomic.Int64
	up := n.upstream(t)
	dial := up.dial
	up.dial = func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		return countedConn{nc, &read}, err
	}
	f := newForwarding(t, port)
	f.testChannel.held = true
	f.run(up, f.testChannel, Options{Pods: refusedPods(t)})
	c := forwardConn{f}
	buf := make([]byte, 32<<10)
	delivered, most := int64(0), int64(0)
	for {
		m, err := c.Read(buf)
		delivered += int64(m)
		most = max(most, read.Load()-delivered)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f.CloseWrite()
	if o := f.outcome(); o.Err != nil || delivered != total {
		t.Errorf("it ends with %v after %d bytes", o.Err, delivered)
	}
	if overhead := delivered / 1000; most > int64(f.window)+64<<10+overhead {
		t.Errorf("%d bytes were held, the window is %d", most, f.window)
	}
}

// refusedPods watch nothing.
func refusedPods(t testing.TB) *Pods {
	p := NewPods()
	p.Close()
	return p
}

// TestForwardsLeaveNothingBehind opens and ends 2,000 of them on every path there is.
func TestForwardsLeaveNothingBehind(t *testing.T) {
	endings := len(forwardEndings())
	up := scripted(t, func(s *scriptedTunnel) {
		port, _ := strconv.Atoi(s.port)
		forwardEndings()[port-1].script(s) // a frame is one framer's at a time
	})
	n := newForwardNode(t)
	kubelet, echo := n.upstream(t), podServing(t, echoing)
	pods := NewPods()
	t.Cleanup(pods.Close)
	one := func(i int) {
		kinds := endings + 4
		switch k := i % kinds; k {
		default:
			f := newForwarding(t, uint32(k+1))
			f.run(up, f.testChannel, Options{Pods: pods})
			switch {
			case i%3 > 0:
				f.CloseWrite()
			case forwardEndings()[k].code == codes.OK: // which waits for the client
				f.awaitClosed(t)
				f.stop(nil)
			}
			f.outcome()
		case endings: // the client leaves at once
			f := newForwarding(t, 1) // spdystream has goroutines wait for ever for what it could not say
			f.run(up, f.testChannel, Options{Pods: pods})
			f.stop(nil)
			f.outcome()
		case endings + 1: // or later
			f := newForwarding(t, echo)
			f.run(kubelet, f.testChannel, Options{})
			f.send(data.Input{Bytes: []byte("hello")})
			f.awaitBytes(t, 5) // cri-streaming, too, waits long for what was begun and not finished
			f.stop(nil)
			f.outcome()
		case endings + 2: // or all goes well
			f := newForwarding(t, echo)
			f.run(kubelet, f.testChannel, Options{Pods: pods})
			f.send(data.Input{Bytes: []byte("hello")})
			f.CloseWrite()
			if o := f.outcome(); o.Err != nil || f.text() != "hello" {
				t.Errorf("it ends with %v", o.Err)
			}
		case endings + 3: // the API server cannot be reached
			f := newForwarding(t, echo)
			f.run(newTestUpstream(t, "http", func(context.Context) (net.Conn, error) { return nil, errors.New("no") }), f.testChannel, Options{Pods: pods})
			if status.Code(f.outcome().Err) == 0 {
				t.Error("it ends well")
			}
		}
	}
	batch := func(n int) {
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for i := w; i < n; i += 8 {
					one(i)
				}
			})
		}
		all.Wait()
	}
	batch(100)
	goroutines, files := settled(t, 1<<30, 1<<30)
	batch(2000)
	settled(t, goroutines, files)
}

// settled waits until there are no more goroutines and files than that, and returns how many there are.
func settled(t *testing.T, goroutines, files int) (int, int) {
	t.Helper()
	ctx := within(t)
	for {
		runtime.GC()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g <= goroutines+8 && f <= files+8 { // what the test's servers are about to end
			return g, f
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines and %d files are left, there were %d and %d\n%s", g, f, goroutines, files, buf[:runtime.Stack(buf, true)])
		}
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil && !strings.HasPrefix(runtime.GOOS, "linux") {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
