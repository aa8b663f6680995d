package kubetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// command is the client's end of an exec or an attach.
type command struct {
	*client
	*websocket.Conn
	seen map[byte][]byte // by channel
	end  error
}

func execQuery(flags string, args ...string) string {
	q := url.Values{}
	for f := range strings.FieldsSeq(flags) {
		name, value, given := strings.Cut(f, "=")
		if !given {
			value = "true"
		}
		q.Set(name, value)
	}
	q["command"] = args
	return q.Encode()
}

// command connects to a pod and checks that the first message is empty.
func (c *client) command(pod, path, protocol string) *command {
	c.Helper()
	conn, resp, err := c.dial(podPath(pod, path), http.Header{}, nonEmpty(protocol)...)
	if err != nil {
		c.Fatalf("%v %v", err, resp)
	}
	if conn.Subprotocol() != protocol {
		c.Fatalf("subprotocol %q, want %q", conn.Subprotocol(), protocol)
	}
	kind, first, err := conn.ReadMessage()
	c.must(err)
	if kind != websocket.BinaryMessage || len(first) != 1 {
		c.Fatalf("the first message is %q of kind %d", first, kind)
	}
	return &command{client: c, Conn: conn, seen: map[byte][]byte{}}
}

func (c *client) exec(pod, flags string, args ...string) *command {
	c.Helper()
	return c.command(pod, "exec?"+execQuery(flags, args...), protocolV5)
}

func (k *command) say(channel byte, text string) {
	k.Helper()
	k.must(k.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, text...)))
}

// closeStdin half-closes.
func (k *command) closeStdin() { k.say(channelClose, "\x00") }

// until reads until a channel has said this, and takes it off.
func (k *command) until(channel byte, want string) {
	k.Helper()
	for !bytes.Contains(k.seen[channel], []byte(want)) {
		if !k.read() {
			k.Fatalf("%v after %q, want %q", k.end, k.seen, want)
		}
	}
	_, rest, _ := bytes.Cut(k.seen[channel], []byte(want))
	k.seen[channel] = rest
}

func (k *command) read() bool {
	_, message, err := k.ReadMessage()
	if err != nil {
		k.end = err
		return false
	}
	k.seen[message[0]] = append(k.seen[message[0]], message[1:]...)
	return true
}

// finish reads to the end, which must be close 1000, and returns what was said and the status.
func (k *command) finish() (out, errs string, status Status) {
	k.Helper()
	for k.read() {
	}
	if !websocket.IsCloseError(k.end, websocket.CloseNormalClosure) {
		k.Errorf("ended by %v", k.end)
	}
	if s := k.seen[channelStatus]; len(s) > 0 {
		k.must(json.Unmarshal(s, &status))
	}
	return string(k.seen[channelStdout]), string(k.seen[channelStderr]), status
}

func (k *command) wantExit(code int) {
	k.Helper()
	_, _, s := k.finish()
	if code == 0 && s.Status == "Success" {
		return
	}
	if s.Status != "Failure" || s.Reason != "NonZeroExitCode" || s.Details.Causes[0] != (StatusCause{Reason: "ExitCode", Message: fmt.Sprint(code)}) {
		k.Errorf("%+v, want exit code %d", s, code)
	}
}

func TestExec(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Containers: []Container{{Env: map[string]string{"COLOUR": "blue"}}}})
	for protocol, words := range map[string]string{protocolV5: "command terminated with exit code", protocolV4: "exit status"} {
		k := c.command("pod", "exec?"+execQuery("stdout stderr", "sh", "-c", "echo out $COLOUR; echo err >&2; exit 7"), protocol)
		out, errs, status := k.finish()
		want := `{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: %s 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`
		got, err := json.Marshal(status)
		c.must(err)
		if out != "out blue\n" || errs != "err\n" || string(got) != fmt.Sprintf(want, words) {
			t.Errorf("%s: %q %q %s", protocol, out, errs, got)
		}
	}
	k := c.exec("pod", "stdout", "true")
	k.finish()
	if got := string(k.seen[channelStatus]); got != `{"metadata":{},"status":"Success"}` {
		t.Errorf("the status of success is %s", got)
	}
	k = c.exec("pod", "stdin stdout", "cat")
	k.say(channelStdin, "some ")
	k.say(channelStdin, "input")
	k.until(channelStdout, "some input")
	k.closeStdin()
	k.wantExit(0)
}

func TestExecIsByteExact(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{})
	k := c.exec("pod", "stdin stdout", "cat")
	data := bytes.Repeat([]byte("\x00\xff\r\n\x7f0123456789abc"), 64<<10)
	go func() { // ends with the data; the echo of it is waited for
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 30011):] {
			if k.WriteMessage(websocket.BinaryMessage, append([]byte{channelStdin}, rest[:min(len(rest), 30011)]...)) != nil {
				return
			}
		}
		_ = k.WriteMessage(websocket.BinaryMessage, []byte{channelClose, channelStdin})
	}()
	if out, _, status := k.finish(); !bytes.Equal([]byte(out), data) || status.Status != "Success" {
		t.Errorf("%d bytes of %d, %+v", len(out), len(data), status)
	}
}

func TestExecRefusals(t *testing.T) {
	c := serve(t, Options{Authorizer: func(_ User, a Attributes) bool { return a.Name != "secret" || a.Verb == "get" }})
	c.run(Pod{})
	c.run(Pod{Name: "secret"})
	for _, tc := range []struct {
		path     string
		protocol string
		code     int
		body     string
	}{
		{podPath("none", "exec?stdout=1&command=true"), protocolV5, 404, `pods \"none\" not found`},
		{podPath("pod", "exec?stdout=1&command=true&container=no"), protocolV5, 400, "container no is not valid for pod"},
		{podPath("pod", "exec?stdout=1&command=true"), "unknown.example", 403, ""},
		{podPath("pod", "exec?command=true"), protocolV4, 400, "you must specify at least 1 of stdin, stdout, stderr"},
		{podPath("secret", "exec?stdout=1&command=true"), protocolV5, 403, `pods \"secret\" is forbidden`},
		{podPath("pod", "nosuch"), protocolV5, 404, "could not find the requested resource"},
	} {
		_, resp, err := c.dial(tc.path, nil, tc.protocol)
		if err == nil || resp.StatusCode != tc.code {
			t.Errorf("%+v: %v %v", tc, err, resp)
			continue
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(resp.Body); err != nil || !strings.Contains(body.String(), tc.body) || (tc.body == "") != (body.Len() == 0) {
			t.Errorf("%+v: %q %v", tc, body.String(), err)
		}
	}
	if code, body := c.get(podPath("pod", "exec?stdout=1&command=true")); code != 400 || !strings.Contains(body, "Upgrade request required") {
		t.Errorf("without an upgrade: %d %s", code, body)
	}
	for args, message := range map[string]string{
		"exec?stdout=1&command=nosuch": `Internal error occurred: error executing command in container: exec: "nosuch": executable file not found in $PATH`,
		"exec?stdout=1":                "Internal error occurred: error executing command in container: exec: no command",
		"exec?command=true":            "Internal error occurred: unable to upgrade connection: you must specify at least 1 of stdin, stdout, stderr",
	} {
		_, _, s := c.command("pod", args, protocolV5).finish()
		if s.Status != "Failure" || s.Reason != "InternalError" || s.Code != 500 || s.Message != message {
			t.Errorf("%s: %+v", args, s)
		}
	}
}

// Offered in any order, v5 is chosen; refused, v4; without a subprotocol there
// is no status but a text for a failure.
func TestExecSubprotocols(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{})
	choose := func(want string, offered ...string) {
		t.Helper()
		conn, _, err := c.dial(podPath("pod", "exec?stdout=1&command=true"), nil, offered...)
		c.must(err)
		if conn.Subprotocol() != want {
			t.Errorf("%q of %q, want %q", conn.Subprotocol(), offered, want)
		}
	}
	choose(protocolV5, protocolV4, protocolV5)
	choose(protocolV4, "other", protocolV4)
	remove := c.Faults.Add(Fault{Match: Execs, Action: Refuse(protocolV5)})
	choose(protocolV4, protocolV5, protocolV4)
	if _, resp, err := c.dial(podPath("pod", "exec?stdout=1&command=true"), nil, protocolV5); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v %v", err, resp)
	}
	remove()
	k := c.command("pod", "exec?"+execQuery("stdout", "false"), "")
	for k.read() {
	}
	if got := string(k.seen[channelStatus]); got != "command terminated with non-zero exit code: exit status 1" {
		t.Errorf("%q", got)
	}
	k = c.command("pod", "exec?"+execQuery("stdin stdout", "head", "-c", "3"), protocolV4)
	k.closeStdin() // v4 does not know it
	k.say(channelStdin, "abc")
	k.until(channelStdout, "abc")
	k.wantExit(0)
}

func TestExecTerminal(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Name: "box"})
	k := c.exec("box", "stdin stdout tty", "sh")
	k.say(channelResize, `{"Width":133,"Height":44}`)
	k.until(channelStdout, "/ # ")
	k.say(channelStdin, "stty size\r")
	k.until(channelStdout, "stty size\r\n44 133\r\n/ # ")
	k.say(channelResize, `{"Width":90,`)
	k.say(channelResize, `"Height":30}`)
	k.say(channelStdin, "echo $TERM $(hostname); sleep 1000\r")
	k.until(channelStdout, "xterm box\r\n")
	k.say(channelStdin, "\x03")
	k.until(channelStdout, "^C\r\n/ # ")
	k.say(channelStdin, "stty size\r")
	k.until(channelStdout, "30 90\r\n/ # ")
	k.say(channelStdin, "exit 5\r")
	k.wantExit(5)

	k = c.exec("box", "stdin stdout tty", "sleep", "1000")
	k.say(channelStdin, "\x03")
	k.wantExit(130)
	k = c.exec("box", "stdin stdout tty", "sh")
	k.until(channelStdout, "# ")
	k.closeStdin()
	k.wantExit(0)
}

// Nothing runs on when who started it is gone, or what it ran in.
func TestExecEndsWithItsReaderAndItsPod(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{})
	k := c.exec("pod", "stdout", "yes")
	k.until(channelStdout, "y\n")
	k.Close()
	c.await(func(n Counts) bool { return n.Streams == 0 })

	k = c.exec("pod", "stdout", "sh", "-c", "echo begun; sleep 1000")
	k.until(channelStdout, "begun\n")
	c.must(c.KillContainer("default", "pod", "main"))
	k.wantExit(137)
	c.must(c.RestartContainer("default", "pod", "main"))
	k = c.exec("pod", "stdout", "sh", "-c", "echo begun; sleep 1000")
	k.until(channelStdout, "begun\n")
	attached := c.command("pod", "attach?stdout=1", protocolV5)
	c.must(c.Delete("", "pods", "default", "pod"))
	k.wantExit(137)
	if _, _, s := attached.finish(); s.Status != "Success" {
		t.Errorf("an attach to a deleted pod ends with %+v", s)
	}
}

func TestAttach(t *testing.T) {
	c := serve(t, Options{})
	c.must(RunPods(c.Server))
	one := c.command("shell", "attach?stdin=1&stdout=1&stderr=1", protocolV5)
	two := c.command("shell", "attach?stdin=1&stdout=1", protocolV4)
	for _, k := range []*command{one, two} { // each is seen by both
		k.say(channelStdin, "hello\n")
		one.until(channelStdout, "> hello\n")
		two.until(channelStdout, "> hello\n")
	}
	three := c.command("shell", "attach?stdin=1&stdout=1", protocolV5)
	three.closeStdin() // ends this attachment, and not the program's input
	if _, _, s := three.finish(); s.Status != "Success" {
		t.Errorf("%+v", s)
	}
	two.say(channelStdin, "still here\n")
	one.until(channelStdout, "> still here\n")
	two.Close()
	c.await(func(n Counts) bool { return n.Streams == 1 })
	if got := c.log("shell", ""); got != "> hello\n> hello\n> still here\n" {
		t.Errorf("the log says %q", got)
	}
	c.must(c.KillContainer("default", "shell", "main"))
	if _, _, s := one.finish(); s.Status != "Success" {
		t.Errorf("%+v", s)
	}

	term := c.command("term", "attach?stdin=1&stdout=1&tty=1", protocolV5)
	term.say(channelStdin, "typed\r")
	term.until(channelStdout, "typed\r\n> typed\r\n")
	term.say(channelStdin, "\x04")
	if _, _, s := term.finish(); s.Status != "Success" {
		t.Errorf("%+v", s)
	}
	quiet := c.command("talker", "attach?stdout=1&container=main", protocolV5)
	quiet.until(channelStdout, "line ")
}

func TestStdinOnce(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Restart: "Never", Containers: []Container{{Stdin: true, StdinOnce: true, Run: Script("cat; echo ended")}}})
	k := c.command("pod", "attach?stdin=1&stdout=1", protocolV5)
	k.say(channelStdin, "x")
	k.closeStdin()
	if out, _, s := k.finish(); out != "xended\n" || s.Status != "Success" {
		t.Errorf("%q %+v", out, s)
	}
}

func TestCommandFaults(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{})
	exec := func(a Action) (*command, string, string) {
		t.Helper()
		defer c.Faults.Add(Fault{Match: Execs, Action: a})()
		k := c.exec("pod", "stdout", "sh", "-c", "echo some output; exit 3")
		var order []byte
		for {
			_, message, err := k.ReadMessage()
			if err != nil {
				k.end = err
				return k, string(order), string(k.seen[channelStdout])
			}
			if len(order) == 0 || order[len(order)-1] != message[0] {
				order = append(order, message[0])
			}
			k.seen[message[0]] = append(k.seen[message[0]], message[1:]...)
		}
	}
	whole := "some output\n"
	for name, tc := range map[string]struct {
		action     Action
		order, out string
		ended      func(error) bool
	}{
		"none":           {Pings(), "\x01\x03", whole, closedWith(1000)},
		"no status":      {WithoutStatus(), "\x01", whole, closedWith(1000)},
		"early status":   {EarlyStatus(), "\x03\x01", whole, closedWith(1000)},
		"ended":          {EndAfter(2), "\x01", whole, closedWith(1000)},
		"cut in a frame": {CutAfterBytes(6), "", "", broken},
		"garbage":        {GarbageChannel(2), "\x01\x7f\x03", whole, closedWith(1000)},
		"reset":          {ResetAfter(2), "\x01", whole, broken},
		"fragments":      {Fragment(3), "\x01\x03", whole, closedWith(1000)},
	} {
		if k, order, out := exec(tc.action); order != tc.order || out != tc.out || !tc.ended(k.end) {
			t.Errorf("%s: %q %q %v", name, order, out, k.end)
		}
	}
	c.Faults.Add(Fault{Match: Execs, Action: DoAfter(2, func() { go c.ResetStreams() })}) // ends at once; the stream waits for it
	k := c.exec("pod", "stdout", "sh", "-c", "echo begun; sleep 1000")
	for k.read() {
	}
	if !broken(k.end) {
		t.Errorf("reset: %v", k.end)
	}
	c.await(func(n Counts) bool { return n.Streams == 0 })
}

func TestClosingTheServerEndsStreams(t *testing.T) {
	c := serve(t, Options{})
	c.must(RunPods(c.Server))
	exec := c.exec("shell", "stdin stdout", "cat")
	attach := c.command("term", "attach?stdout=1", protocolV5)
	log, _, err := c.dial(podPath("talker", "log?follow=1&container=quiet"), nil)
	c.must(err)
	tunnel, _, err := c.dial(podPath("web", "portforward"), nil, protocolTunnel)
	c.must(err)
	closed := make(chan error)
	go func() { closed <- c.Close() }() // waited for below
	exec.wantExit(137)
	if _, _, s := attach.finish(); s.Status != "Success" {
		t.Errorf("%+v", s)
	}
	c.wantMessage(log, "")
	c.wantClose(log, 1000)
	if _, _, err := tunnel.ReadMessage(); !websocket.IsCloseError(err, 1000) {
		t.Error(err)
	}
	c.must(<-closed)
	if err := c.RunPod(Pod{Name: "late", Containers: []Container{{}}}); err == nil {
		t.Error("a closed server runs a pod")
	}
}

// What exec started dies when the main program ends by itself, and when the
// pod is deleted over the API.
func TestExecDiesWithTheMainProgram(t *testing.T) {
	c := serve(t, Options{})
	text := make(chan string)
	c.run(Pod{Restart: "Never", Containers: []Container{{Run: prompted(text)}}})
	k := c.exec("pod", "stdout", "sh", "-c", "echo begun; sleep 1000")
	k.until(channelStdout, "begun\n")
	close(text)
	k.wantExit(137)
	c.run(Pod{Name: "other"})
	k = c.exec("other", "stdout", "sh", "-c", "echo begun; sleep 1000")
	k.until(channelStdout, "begun\n")
	if code, _, body := c.do(http.MethodDelete, "/api/v1/namespaces/default/pods/other", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	k.wantExit(137)
}
