package bridge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/spdystream/spdy"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

func TestPortForwardCarriesHalfClosesBothWays(t *testing.T) {
	n := newForwardNode(t)
	up := n.upstream(t)
	t.Run("the client's first", func(t *testing.T) {
		f := forwardTo(t, up, podServing(t, func(nc *net.TCPConn) {
			b, _ := io.ReadAll(nc)
			_, _ = io.WriteString(nc, strings.ToUpper(string(b)))
		}), Options{})
		if o := f.awaitOpened(t); o.GetSubprotocol() != spdyProtocol || !o.GetCapabilities().GetHalfClose() || o.GetCapabilities().GetResumable() {
			t.Errorf("Opened is %v", o)
		}
		_, _ = io.WriteString(f, "hello")
		f.CloseWrite()
		if o := f.outcome(); o.Err != nil || o.Exit != nil || f.text() != "HELLO" || !f.closed {
			t.Errorf("it ends with %v, %q, closed %v", o, f.text(), f.closed)
		}
	})
	t.Run("the pod's first", func(t *testing.T) {
		heard := make(chan string, 1)
		f := forwardTo(t, up, podServing(t, func(nc *net.TCPConn) {
			_, _ = io.WriteString(nc, "all there is")
			_ = nc.CloseWrite()
			b, _ := io.ReadAll(nc)
			heard <- string(b)
		}), Options{})
		f.awaitClosed(t)
		_, _ = io.WriteString(f, "and ")
		_, _ = io.WriteString(f, "yet")
		f.CloseWrite()
		if o := f.outcome(); o.Err != nil || f.text() != "all there is" {
			t.Errorf("it ends with %v, %q", o, f.text())
		}
		if got := <-heard; got != "and yet" {
			t.Errorf("after its own end the pod hears %q", got)
		}
	})
}

func TestPortForwardToAClosedPortIsReset(t *testing.T) {
	n := newForwardNode(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint32(l.Addr().(*net.TCPAddr).Port)
	_ = l.Close()
	for _, n.old = range []bool{false, true} {
		o := forwardTo(t, n.upstream(t), port, Options{}).outcome()
		e := status.From(o.Err)
		if e == nil || e.Code != codes.Aborted || e.Reason != sluicev1.Reason_REASON_RESET || !strings.Contains(e.Message, "connection refused") {
			t.Errorf("old %v: it ends with %v", n.old, o.Err)
		}
	}
}

func TestPodsResetIsAReset(t *testing.T) {
	n := newForwardNode(t)
	f := forwardTo(t, n.upstream(t), podServing(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "last words")
		_, _ = nc.Read(make([]byte, 1))
		_ = nc.SetLinger(0)
	}), Options{})
	f.awaitBytes(t, 10)
	_, _ = io.WriteString(f, "x")
	o := f.outcome()
	if e := status.From(o.Err); e == nil || e.Code != codes.Aborted || e.Reason != sluicev1.Reason_REASON_RESET || f.text() != "last words" || f.closed {
		t.Errorf("it ends with %v, %q, closed %v", o.Err, f.text(), f.closed)
	}
}

func TestClientsResetReachesThePod(t *testing.T) {
	n := newForwardNode(t)
	gone := make(chan error, 1)
	f := forwardTo(t, n.upstream(t), podServing(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "hello")
		_, err := io.ReadAll(nc)
		gone <- err
	}), Options{})
	f.awaitBytes(t, 5)
	f.stop(errors.New("the client has left"))
	if o := f.outcome(); !errors.Is(o.Err, context.Canceled) {
		t.Errorf("it ends with %v", o.Err)
	}
	if err := <-gone; err != nil {
		t.Logf("the pod hears %v", err)
	}
}

func TestPortForwardFallsBackToChannels(t *testing.T) {
	for _, name := range []string{"old", "clumsy"} {
		t.Run(name, func(t *testing.T) {
			n := newForwardNode(t)
			n.old, n.clumsy = name == "old", name == "clumsy"
			f := forwardTo(t, n.upstream(t), podServing(t, func(nc *net.TCPConn) {
				b := make([]byte, 40_000)
				_, _ = io.ReadFull(nc, b)
				_, _ = nc.Write(b)
			}), Options{Pods: nil})
			if o := f.awaitOpened(t); o.GetSubprotocol() != channelProtocol || o.GetCapabilities().GetHalfClose() {
				t.Errorf("Opened is %v", o)
			}
			want := strings.Repeat("0123456789", 4000)
			_, _ = io.WriteString(f, want)
			f.awaitClosed(t)
			f.CloseWrite()
			if o := f.outcome(); o.Err != nil || f.text() != want || !f.closed {
				t.Errorf("it ends with %v and %d bytes, closed %v", o.Err, len(f.text()), f.closed)
			}
			if refused := n.refused.Load() > 0; refused != n.clumsy {
				t.Errorf("refused once: %v", refused)
			}
		})
	}
}

func TestChannelsLeadToThePortThatWasAskedFor(t *testing.T) {
	for _, sent := range []string{"\x00\x51\x00", "\x01\x50\x01", "\x02\x50\x00"} {
		_, _, err := hostile(t, channelProtocol, []byte(sent), len(sent), len(sent))
		if e := status.From(err); e == nil || e.Reason != sluicev1.Reason_REASON_UPSTREAM_PROTOCOL {
			t.Errorf("%q ends it with %v", sent, err)
		}
	}
}

func TestARefusalOfAPortForwardIsTheAPIServers(t *testing.T) {
	n := newForwardNode(t)
	calls := 0
	n.api.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods \"web\" is forbidden","reason":"Forbidden","code":403}`)
	})
	o := forwardTo(t, n.upstream(t), 80, Options{}).outcome()
	e := status.From(o.Err)
	if e == nil || e.Code != codes.PermissionDenied || e.HTTPCode != 403 || e.Kubernetes.GetReason() != "Forbidden" || calls != 1 {
		t.Errorf("it ends with %v after %d requests", o.Err, calls)
	}
}

func TestPortForwardTargets(t *testing.T) {
	for _, c := range []struct {
		target *sluicev1.PortForwardTarget
		field  string
	}{
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: 1}, ""},
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "web.0", Port: 65535}, ""},
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "web"}, "port_forward.port"},
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: 65536}, "port_forward.port"},
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: 1 << 31}, "port_forward.port"},
		{&sluicev1.PortForwardTarget{Namespace: "default", Port: 1}, "port_forward.pod"},
		{&sluicev1.PortForwardTarget{Namespace: "default", Pod: "../web", Port: 1}, "port_forward.pod"},
		{&sluicev1.PortForwardTarget{Pod: "web", Port: 1}, "port_forward.namespace"},
	} {
		err := Validate(&sluicev1.Target{Target: &sluicev1.Target_PortForward{PortForward: c.target}})
		if c.field == "" {
			if err != nil {
				t.Errorf("%v: %v", c.target, err)
			}
			continue
		}
		e := status.From(err)
		if e == nil || e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, c.field+": ") {
			t.Errorf("%v: %v, want one of %s", c.target, err, c.field)
		}
	}
}

// forwardEnding is what a node says, and what the client hears of it.
type forwardEnding struct {
	name    string
	script  func(*scriptedTunnel)
	code    codes.Code
	reason  sluicev1.Reason
	message string // part of it
	text    string // what was delivered
	closed  bool
}

func saysAll(frames ...spdy.Frame) func(*scriptedTunnel) {
	return func(s *scriptedTunnel) {
		if s.say(append(accepts(), frames...)...) == nil {
			s.drain()
		}
	}
}

func saysRaw(after []spdy.Frame, raw string) func(*scriptedTunnel) {
	return func(s *scriptedTunnel) {
		_ = s.say(append(accepts(), after...)...)
		_, _ = s.Write([]byte(raw))
		s.drain()
	}
}

// endings are all ways in which a node can end a forward.
func forwardEndings() []forwardEnding {
	const reset, lost, protocol = sluicev1.Reason_REASON_RESET, sluicev1.Reason_REASON_UPSTREAM_LOST, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
	return []forwardEnding{
		{"well", saysAll(says("hello"), ends(errorStream), ends(dataStream)), codes.OK, 0, "", "hello", true},
		{"well, in the other order", saysAll(says("hello"), ends(dataStream), ends(errorStream)), codes.OK, 0, "", "hello", true},
		{"well, with data after the end", saysAll(says("hello"), ends(dataStream), says("late"), ends(errorStream)), codes.OK, 0, "", "hello", true},
		{
			"an error", saysAll(says("hello"), complains("connection "), complains("refused\n"), resets(dataStream), resets(errorStream)),
			codes.Aborted, reset, "connection refused", "hello", false,
		},
		{
			"an error whose stream ends", saysAll(says("hello"), complains("broken pipe"), ends(errorStream)),
			codes.Aborted, reset, "broken pipe", "hello", false,
		},
		{
			"an error after the pod's end", saysAll(says("hello"), ends(dataStream), complains("broken pipe"), resets(errorStream)),
			codes.Aborted, reset, "broken pipe", "hello", false, // a FIN that was none, as containerd tells a port that refuses
		},
		{
			"an error and the tunnel's end", func(s *scriptedTunnel) { _ = s.say(append(accepts(), says("hello"), complains("no pod"))...) },
			codes.Aborted, reset, "no pod", "hello", false,
		},
		{
			"an error that is no text", saysAll(complains("a\x00b\x1b[31m\xffc"), ends(errorStream)),
			codes.Aborted, reset, "a b [31m c", "", false,
		},
		{
			"an error without an end to it", saysAll(complains(strings.Repeat("long ", 10_000)), ends(errorStream)),
			codes.Aborted, reset, strings.Repeat("long ", 20), "", false,
		},
		{"a reset", saysAll(says("hello"), resets(dataStream)), codes.Aborted, reset, "was reset", "hello", false},
		{"a refused stream", func(s *scriptedTunnel) {
			_ = s.say(resets(errorStream), resets(dataStream))
			s.drain()
		}, codes.Aborted, reset, "was reset", "", false},
		{"a reset and data after it", saysAll(says("hello"), resets(dataStream), says("late")), codes.Aborted, reset, "was reset", "hello", false},
		{
			"the tunnel is lost", func(s *scriptedTunnel) { _ = s.say(append(accepts(), says("hello"))...) },
			codes.Unavailable, lost, "tunnel", "hello", false,
		},
		{
			"the tunnel is lost after the pod's end", func(s *scriptedTunnel) { _ = s.say(append(accepts(), says("hello"), ends(dataStream))...) },
			codes.Unavailable, lost, "tunnel", "hello", true,
		},
		{
			"the node goes away", func(s *scriptedTunnel) {
				_ = s.say(append(accepts(), says("hello"), &spdy.GoAwayFrame{LastGoodStreamId: 3})...)
			},
			codes.Unavailable, lost, "tunnel", "hello", false,
		},
		{"no SPDY", saysRaw([]spdy.Frame{says("hello")}, "HTTP/1.1 400 Bad Request\r\n\r\n"), codes.Unavailable, protocol, "", "hello", false},
		{"a version of the future", saysRaw([]spdy.Frame{says("hello")}, "\x80\x04\x00\x06\x00\x00\x00\x04\x00\x00\x00\x02"), codes.Unavailable, protocol, "", "hello", false},
		{"a stream that nobody opened", saysAll(says("hello"), &spdy.DataFrame{StreamId: 5, Data: []byte("x")}), codes.Unavailable, protocol, "stream 5", "hello", false},
		{"data before the reply", func(s *scriptedTunnel) {
			_ = s.say(says("early"))
			s.drain()
		}, codes.Unavailable, protocol, "not accepted", "", false},
		{"text", func(s *scriptedTunnel) {
			_ = s.say(append(accepts(), says("hello"))...)
			_ = s.ws.WriteMessage(1, []byte("hello"))
			s.drain()
		}, codes.Unavailable, protocol, "text message", "hello", false},
	}
}

func TestEachEndOfAPortForwardIsToldApart(t *testing.T) {
	for _, c := range forwardEndings() {
		t.Run(c.name, func(t *testing.T) {
			f := forwardTo(t, scripted(t, c.script), 80, Options{})
			if c.code == codes.OK {
				f.awaitClosed(t)
				f.CloseWrite()
			}
			o := f.outcome()
			e := status.From(o.Err)
			switch {
			case c.code == codes.OK:
				if o.Err != nil {
					t.Errorf("it ends with %v", o.Err)
				}
			case e == nil || e.Code != c.code || e.Reason != c.reason || !strings.Contains(e.Error(), c.message) || e.Resumable:
				t.Errorf("it ends with %v", o.Err)
			case len(e.Message) > maxErrorText:
				t.Errorf("%d bytes of message", len(e.Message))
			}
			if f.text() != c.text || f.closed != c.closed {
				t.Errorf("%q is delivered, closed %v", f.text(), f.closed)
			}
		})
	}
}

func TestAForwardStandsWhenBothStreamsDo(t *testing.T) {
	f := forwardTo(t, scripted(t, func(s *scriptedTunnel) {
		_ = s.say(&spdy.SynReplyFrame{StreamId: dataStream}, resets(dataStream))
		s.drain()
	}), 80, Options{})
	if e := status.From(f.outcome().Err); e == nil || e.Reason != sluicev1.Reason_REASON_RESET || f.opened != nil {
		t.Errorf("it ends with %v, opened %v", e, f.opened)
	}
}

// TestANodeMayBeginBeforeItHasAcceptedAll: it has data as soon as that stream is accepted.
func TestANodeMayBeginBeforeItHasAcceptedAll(t *testing.T) {
	f := forwardTo(t, scripted(t, func(s *scriptedTunnel) {
		_ = s.say(&spdy.SynReplyFrame{StreamId: dataStream}, says("hel"))
		<-s.heard // what the client sends, which waits until the forward stands
		_ = s.say(&spdy.SynReplyFrame{StreamId: errorStream}, says("lo"), ends(errorStream), ends(dataStream))
		s.drain()
	}), 80, Options{})
	_, _ = io.WriteString(f, "x")
	f.awaitClosed(t)
	f.CloseWrite()
	if o := f.outcome(); o.Err != nil || f.text() != "hello" {
		t.Errorf("it ends with %v, %q", o.Err, f.text())
	}
}

// TestWhatANodeDoesNotTakeIsNoSuccess: one that ends the connection well hears nothing any more, as containerd a second after the pod's FIN. What is sent
// to it is lost, and said to be.
func TestWhatANodeDoesNotTakeIsNoSuccess(t *testing.T) {
	ended := make(chan struct{}, 1)
	well := scripted(t, func(s *scriptedTunnel) {
		_ = s.say(append(accepts(), says("hello"), ends(errorStream), ends(dataStream))...)
		s.drain()
		ended <- struct{}{} // the tunnel has been closed
	})
	n := newForwardNode(t)
	n.old = true // whose WebSocket ends with either direction
	port := podServing(t, func(nc *net.TCPConn) { _, _ = io.WriteString(nc, "hello") })
	for name, up := range map[string]*testUpstream{"tunnel": well, "channels": n.upstream(t)} {
		for what, say := range map[string]func(*forwarding){
			"data":             func(f *forwarding) { _, _ = io.WriteString(f, "too late") },
			"data and its end": func(f *forwarding) { _, _ = io.WriteString(f, "too late"); f.CloseWrite() },
			"its end":          (*forwarding).CloseWrite,
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				f := forwardTo(t, up, port, Options{Pods: refusedPods(t)})
				f.awaitClosed(t)
				if name == "tunnel" {
					<-ended
				}
				select {
				case o := <-f.over:
					t.Fatalf("it ends with %v while the client has not", o.Err)
				default:
				}
				say(f)
				e := status.From(f.outcome().Err)
				lost := e != nil && e.Code == codes.Aborted && e.Reason == sluicev1.Reason_REASON_RESET && !e.Resumable
				if lost == (what == "its end") || !lost && e != nil || f.text() != "hello" {
					t.Errorf("it ends with %v, %q", e, f.text())
				}
			})
		}
	}
}

func TestPingsOfTheNodeAreAnswered(t *testing.T) {
	answered := make(chan uint32, 8)
	f := forwardTo(t, scripted(t, func(s *scriptedTunnel) {
		for id := uint32(2); id < 8; id += 2 {
			_ = s.say(append(accepts(), &spdy.PingFrame{Id: id})...)
			p, ok := (<-s.heard).(*spdy.PingFrame)
			if !ok {
				break
			}
			answered <- p.Id
		}
		close(answered)
		_ = s.say(ends(dataStream), ends(errorStream))
		s.drain()
	}), 80, Options{})
	for id := uint32(2); id < 8; id += 2 {
		if got := <-answered; got != id {
			t.Errorf("%d is answered by %d", id, got)
		}
	}
	f.CloseWrite()
	if o := f.outcome(); o.Err != nil {
		t.Error(o.Err)
	}
}

func TestAPortForwardEndsWithItsChannel(t *testing.T) {
	ended := errors.New("the channel has ended")
	f := forwardTo(t, scripted(t, saysAll(says("hello"))), 80, Options{})
	f.awaitBytes(t, 5)
	f.end(ended)
	if o := f.outcome(); !errors.Is(o.Err, ended) {
		t.Errorf("it ends with %v", o.Err)
	}
}

func TestAClosedForwardResetsItsStream(t *testing.T) {
	last := make(chan spdy.Frame, 1)
	f := forwardTo(t, scripted(t, func(s *scriptedTunnel) {
		_ = s.say(append(accepts(), says("hello"))...)
		var x spdy.Frame
		for y := range s.heard {
			x = y
		}
		last <- x
	}), 80, Options{})
	f.awaitBytes(t, 5)
	f.stop(status.New(codes.Unavailable, sluicev1.Reason_REASON_DETACH_EXPIRED, "nobody came back")) // which ends a port-forward as any end
	f.outcome()
	if r, ok := (<-last).(*spdy.RstStreamFrame); !ok || r.StreamId != dataStream {
		t.Errorf("the last that the node hears is %#v", r)
	}
}

// panickingChannel has a bug.
type panickingChannel struct {
	*testChannel
	in bool
}

func (c panickingChannel) Offer(p []data.Piece) int {
	if !c.in {
		panic("a bug")
	}
	return c.testChannel.Offer(p)
}

func (c panickingChannel) Used() {
	panic("a bug")
}

func TestAPanicEndsOneForward(t *testing.T) {
	for _, in := range []bool{false, true} {
		f := newForwarding(t, 80)
		f.run(scripted(t, saysAll(says("hello"))), panickingChannel{f.testChannel, in}, Options{})
		_, _ = io.WriteString(f, "hello")
		if _, ok := errors.AsType[*PanicError](f.outcome().Err); !ok {
			t.Errorf("it ends with %v", f.outcome().Err)
		}
	}
}
