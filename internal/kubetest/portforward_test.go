package kubetest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"
)

// testPorts are the ports of the pods of these tests.
func testPorts() map[uint16]func(net.Conn) {
	return map[uint16]func(net.Conn){
		7: func(c net.Conn) { // echoes, and ends when the client does
			_, _ = io.Copy(c, c) // The client's end, or the test's.
		},
		8: func(c net.Conn) { // says something and hangs up
			fmt.Fprint(c, "bye")
		},
		9: func(c net.Conn) { // answers the first byte with a reset
			_, _ = c.Read(make([]byte, 1)) // As above.
			resetConn(c)
		},
		10: func(c net.Conn) { // answers when the client has ended
			data, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%d bytes", len(data))
		},
		80: ServeHTTP(http.HandlerFunc(greetHTTP)),
	}
}

func TestPortForwardByChannels(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Ports: testPorts()})
	for _, protocol := range []string{protocolV4, ""} {
		conn, _, err := c.dial(podPath("pod", "portforward?ports=7,8&ports=81"), nil, nonEmpty(protocol)...)
		c.must(err)
		seen := map[byte]string{}
		read := func() error {
			kind, message, err := conn.ReadMessage()
			if err != nil {
				return err
			}
			if kind != websocket.BinaryMessage {
				t.Errorf("a message of kind %d", kind)
			}
			seen[message[0]] += string(message[1:])
			return nil
		}
		c.must(conn.WriteMessage(websocket.BinaryMessage, []byte("\x00echo this")))
		for len(seen[0]) < 2+len("echo this") || len(seen[2]) < 5 || len(seen[5]) < 10 {
			c.must(read())
		}
		for channel, want := range map[byte]string{0: "\x07\x00echo this", 1: "\x07\x00", 2: "\x08\x00bye", 3: "\x08\x00", 4: "\x51\x00"} {
			if seen[channel] != want {
				t.Errorf("channel %d: %q, want %q", channel, seen[channel], want)
			}
		}
		if got := seen[5]; !strings.HasPrefix(got, "\x51\x00error forwarding port 81 to pod default/pod, uid : ") || !strings.HasSuffix(got, "connection refused") {
			t.Errorf("%q", got)
		}
		conn.Close()
	}
	conn, _, err := c.dial(podPath("pod", "portforward?ports=8"), nil, protocolV4)
	c.must(err)
	messages, err := c.messages(conn)
	if !websocket.IsCloseError(err, 1000) || string(bytes.Join(messages, nil)) != "\x00\x08\x00\x01\x08\x00\x00bye" {
		t.Errorf("%q %v", messages, err)
	}
	for query, text := range map[string]string{"": `query parameter "port" is required`, "ports=x": "invalid syntax", "ports=0": `port "0" must be > 0`} {
		_, resp, err := c.dial(podPath("pod", "portforward?"+query), nil, protocolV4)
		if err == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v", query, resp)
			continue
		}
		if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), text) {
			t.Errorf("%s: %q", query, body)
		}
	}
	c.await(func(n Counts) bool { return n.Streams == 0 })
}

// tunnelClient is the client's end of a tunnel.
type tunnelClient struct {
	*client
	conn   *websocket.Conn
	framer *spdy.Framer
	out    bytes.Buffer
	in     bytes.Buffer
	data   map[spdy.StreamId]string
	fins   map[spdy.StreamId]bool
	resets map[spdy.StreamId]bool
	pings  []uint32
	next   spdy.StreamId
}

func (c *client) tunnel(pod string) *tunnelClient {
	c.Helper()
	conn, resp, err := c.dial(podPath(pod, "portforward"), nil, protocolTunnel)
	if err != nil || conn.Subprotocol() != protocolTunnel {
		c.Fatalf("%v %v", err, resp)
	}
	t := &tunnelClient{client: c, conn: conn, data: map[spdy.StreamId]string{}, fins: map[spdy.StreamId]bool{}, resets: map[spdy.StreamId]bool{}, next: 1}
	t.framer, err = spdy.NewFramer(&t.out, t)
	c.must(err)
	return t
}

// Read reads the bytes in the messages.
func (t *tunnelClient) Read(b []byte) (int, error) {
	for t.in.Len() == 0 {
		_, message, err := t.conn.ReadMessage()
		if err != nil {
			return 0, err
		}
		t.in.Write(message)
	}
	return t.in.Read(b)
}

func (t *tunnelClient) write(f spdy.Frame) {
	t.Helper()
	t.out.Reset()
	t.must(t.framer.WriteFrame(f))
	t.must(t.conn.WriteMessage(websocket.BinaryMessage, t.out.Bytes()))
}

// open opens the two streams of a connection, the error stream half-closed.
func (t *tunnelClient) open(port int) (data, errs spdy.StreamId) {
	t.Helper()
	request := fmt.Sprint(t.next)
	stream := func(kind string, flags spdy.ControlFlags) spdy.StreamId {
		id := t.next
		t.next += 2
		f := &spdy.SynStreamFrame{StreamId: id, Headers: http.Header{"Streamtype": {kind}, "Port": {fmt.Sprint(port)}, "Requestid": {request}}}
		f.CFHeader.Flags = flags
		t.write(f)
		return id
	}
	errs = stream("error", spdy.ControlFlagFin)
	return stream("data", 0), errs
}

func (t *tunnelClient) send(id spdy.StreamId, text string, flags spdy.DataFlags) {
	t.Helper()
	t.write(&spdy.DataFrame{StreamId: id, Flags: flags, Data: []byte(text)})
}

// until reads frames until ok.
func (t *tunnelClient) until(ok func() bool) {
	t.Helper()
	for !ok() {
		frame, err := t.framer.ReadFrame()
		if err != nil {
			t.Fatalf("%v with %v, ends %v, resets %v", err, t.data, t.fins, t.resets)
		}
		switch frame := frame.(type) {
		case *spdy.DataFrame:
			t.data[frame.StreamId] += string(frame.Data)
			t.fins[frame.StreamId] = t.fins[frame.StreamId] || frame.Flags&spdy.DataFlagFin != 0
		case *spdy.RstStreamFrame:
			t.resets[frame.StreamId] = true
		case *spdy.PingFrame:
			t.pings = append(t.pings, frame.Id)
		case *spdy.SynReplyFrame:
		default:
			t.Errorf("%T", frame)
		}
	}
}

func TestPortForwardByTunnel(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Ports: testPorts()})
	k := c.tunnel("pod")

	echo, echoErr := k.open(7)
	k.send(echo, "hello", 0)
	k.until(func() bool { return k.data[echo] == "hello" })
	counted, _ := k.open(10) // beside the first
	k.send(counted, "12345", 0)
	k.send(counted, "6789", spdy.DataFlagFin)
	k.until(func() bool { return k.data[counted] == "9 bytes" && k.fins[counted] })
	k.send(echo, " again", spdy.DataFlagFin)
	k.until(func() bool { return k.data[echo] == "hello again" && k.fins[echo] && k.fins[echoErr] })

	bye, byeErr := k.open(8)
	k.until(func() bool { return k.data[bye] == "bye" && k.fins[bye] && k.fins[byeErr] })

	closed, closedErr := k.open(81)
	k.until(func() bool { return k.resets[closed] && k.resets[closedErr] })
	if got := k.data[closedErr]; !strings.HasSuffix(got, "connection refused") {
		t.Errorf("%q", got)
	}
	reset, resetErr := k.open(9)
	k.send(reset, "x", 0)
	k.until(func() bool { return k.resets[reset] })
	if got := k.data[resetErr]; !strings.HasSuffix(got, "connection reset by peer") {
		t.Errorf("%q", got)
	}
	k.write(&spdy.PingFrame{Id: 77})
	k.until(func() bool { return len(k.pings) == 1 && k.pings[0] == 77 })

	k.write(&spdy.SynStreamFrame{StreamId: k.next, Headers: http.Header{"Streamtype": {"other"}, "Port": {"7"}}})
	k.until(func() bool { return k.resets[k.next] })
	k.write(&spdy.GoAwayFrame{})
	if _, err := c.messages(k.conn); !websocket.IsCloseError(err, 1000) {
		t.Errorf("%v", err)
	}
	c.await(func(n Counts) bool { return n.Streams == 0 })
}

// The reset of a client's stream is a reset in the pod.
func TestPortForwardReset(t *testing.T) {
	c := serve(t, Options{})
	ended := make(chan error, 1)
	c.run(Pod{Ports: map[uint16]func(net.Conn){7: func(conn net.Conn) {
		fmt.Fprint(conn, "ready")
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}}})
	k := c.tunnel("pod")
	data, _ := k.open(7)
	k.until(func() bool { return k.data[data] == "ready" })
	k.write(&spdy.RstStreamFrame{StreamId: data, Status: spdy.Cancel})
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the pod saw %v", err)
	}
	other, _ := k.open(7)
	k.until(func() bool { return k.data[other] == "ready" })
	k.conn.Close()
	select { // by an end or a reset, as it comes
	case err := <-ended:
		t.Logf("the pod saw %v", err)
	case <-c.ctx.Done():
		t.Error("the pod's end of the connection stays when the client has gone")
	}
}

// A tunnel outlives its pod; what goes through it does not.
func TestTunnelOutlivesItsPod(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Ports: testPorts()})
	k := c.tunnel("pod")
	data, _ := k.open(7)
	k.send(data, "x", 0)
	k.until(func() bool { return k.data[data] == "x" })
	c.must(c.Delete("", "pods", "default", "pod"))
	k.until(func() bool { return k.resets[data] || k.fins[data] })
	late, lateErr := k.open(7)
	k.until(func() bool { return k.resets[late] && k.resets[lateErr] })
	if got := k.data[lateErr]; !strings.Contains(got, "not running") {
		t.Errorf("%q", got)
	}
	k.write(&spdy.PingFrame{Id: 1})
	k.until(func() bool { return len(k.pings) == 1 })
}

func TestPortForwardHTTP(t *testing.T) {
	c := serve(t, Options{})
	c.must(RunPods(c.Server))
	k := c.tunnel("web")
	data, _ := k.open(80)
	for i := range 2 {
		k.send(data, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: web\r\n\r\n", i), 0)
		k.until(func() bool { return strings.Contains(k.data[data], fmt.Sprintf("GET \"/%d\" from a pod\n", i)) })
	}
	k.send(data, "GET /last HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", 0)
	k.until(func() bool { return strings.HasSuffix(k.data[data], "GET \"/last\" from a pod\n") && k.fins[data] })
}

func TestPortForwardRefusals(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Ports: testPorts()})
	if _, resp, err := c.dial(podPath("none", "portforward"), nil, protocolTunnel); err == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("%v", resp)
	}
	c.Faults.Add(Fault{Match: PortForwards, Action: Refuse(protocolTunnel)})
	if _, resp, err := c.dial(podPath("pod", "portforward?ports=7"), nil, protocolTunnel); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v", resp)
	}
	conn, _, err := c.dial(podPath("pod", "portforward?ports=7"), nil, protocolTunnel, protocolV4)
	c.must(err)
	if conn.Subprotocol() != protocolV4 {
		t.Errorf("%q", conn.Subprotocol())
	}
	conn.Close()
	c.await(func(n Counts) bool { return n.Streams == 0 })
}

func TestPortForwardFaults(t *testing.T) {
	const nonsense = "no frame of SPDY"
	for name, tc := range map[string]struct {
		action Action
		ended  func(error) bool
	}{
		"cut":     {CutAfterBytes(60), broken},
		"reset":   {ResetAfter(3), broken},
		"ended":   {EndAfter(2), closedWith(1000)},
		"garbage": {InsertAfter(3, []byte(nonsense)), func(err error) bool { return err == nil }},
	} {
		c := serve(t, Options{})
		c.run(Pod{Ports: testPorts()})
		c.Faults.Add(Fault{Match: PortForwards, Action: tc.action})
		k := c.tunnel("pod")
		k.open(8)
		err, last := error(nil), ""
		for err == nil && last != nonsense {
			var message []byte
			_, message, err = k.conn.ReadMessage()
			last = string(message)
		}
		if !tc.ended(err) {
			t.Errorf("%s: %v", name, err)
		}
		k.conn.Close()
		c.await(func(n Counts) bool { return n.Streams == 0 })
	}
}
