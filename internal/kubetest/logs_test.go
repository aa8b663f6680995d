package kubetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// run starts a pod of the default namespace; its name is "pod" unless it has one.
func (c *client) run(p Pod) {
	c.Helper()
	if p.Name == "" {
		p.Name = "pod"
	}
	if len(p.Containers) == 0 {
		p.Containers = []Container{{}}
	}
	c.must(c.RunPod(p))
}

// awaitOver waits until a container runs no more.
func (c *client) awaitOver(pod, name string) {
	c.Helper()
	k, err := c.runningContainer("default", pod, name)
	c.must(err)
	for {
		k.mu.Lock()
		over, changed := k.state.over, k.changed
		k.mu.Unlock()
		if over {
			return
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			c.Fatal(c.ctx.Err())
		}
	}
}

func podPath(pod, sub string) string { return "/api/v1/namespaces/default/pods/" + pod + "/" + sub }

// messages reads a WebSocket to its end.
func (c *client) messages(conn *websocket.Conn) (out [][]byte, err error) {
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return out, err
		}
		out = append(out, message)
	}
}

// log reads a log by WebSocket to its end, which must be close 1000.
func (c *client) log(pod, query string, protocols ...string) string {
	c.Helper()
	conn, resp, err := c.dial(podPath(pod, "log?"+query), http.Header{}, protocols...)
	if err != nil {
		c.Fatalf("%v %v", err, resp)
	}
	kind, first, err := conn.ReadMessage()
	c.must(err)
	if len(first) != 0 || (kind == websocket.TextMessage) != (conn.Subprotocol() == "base64.binary.k8s.io") {
		c.Errorf("the first message is %q of kind %d", first, kind)
	}
	rest, err := c.messages(conn)
	if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		c.Fatal(err)
	}
	return string(bytes.Join(rest, nil))
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func TestLogs(t *testing.T) {
	c := serve(t, Options{})
	for _, p := range FixturePods() {
		if p.Name == "done" || p.Name == "talker" {
			c.must(c.RunPod(p))
		}
	}
	c.must(c.AwaitPod(c.ctx, "default", "done", "Succeeded"))
	if err := c.AwaitPod(c.ctx, "default", "none", "Running"); asStatus(t, err).Reason != "NotFound" {
		t.Error(err)
	}
	all := numbered(1, 100)
	for query, want := range map[string]string{
		"":                               all,
		"follow=true":                    all,
		"container=main":                 all,
		"tailLines=3":                    numbered(98, 100),
		"tailLines=0":                    "",
		"limitBytes=10":                  all[:10],
		"limitBytes=10&follow=1":         all[:10],
		"tailLines=2&limitBytes=9":       numbered(99, 100)[:9],
		"sinceSeconds=3600":              all,
		"sinceTime=2000-01-01T00:00:00Z": all,
		"sinceTime=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): "",
	} {
		for _, protocol := range []string{"", "binary.k8s.io"} {
			if got := c.log("done", query, nonEmpty(protocol)...); got != want {
				t.Errorf("%s by %q: %q, want %q", query, protocol, got, want)
			}
		}
		code, header, body := c.do(http.MethodGet, podPath("done", "log?"+query), "")
		if code != 200 || body != want || header.Get("Content-Type") != "text/plain" {
			t.Errorf("%s: %d %q %v, want %q", query, code, body, header, want)
		}
	}
	var decoded strings.Builder
	conn, _, err := c.dial(podPath("done", "log"), nil, "base64.binary.k8s.io")
	c.must(err)
	chunks, _ := c.messages(conn)
	for _, chunk := range chunks {
		data, err := base64.StdEncoding.DecodeString(string(chunk))
		c.must(err)
		decoded.Write(data)
	}
	if decoded.String() != all {
		t.Errorf("base64: %q", decoded.String())
	}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func TestLogTimestamps(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Restart: "Never", Containers: []Container{{Run: Script("echo one; echo two >&2; printf three")}}})
	c.awaitOver("pod", "main")
	var texts []string
	last := time.Time{}
	for line := range strings.Lines(c.log("pod", "timestamps=true")) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := time.Parse(logTime, stamp)
		if err != nil || len(stamp) != len("2026-01-01T00:00:00.000000000Z") || at.Before(last) {
			t.Errorf("%q after %v: %v", line, last, err)
		}
		last = at
		texts = append(texts, text)
	}
	if len(texts) != 3 || texts[2] != "three\n" {
		t.Errorf("%q", texts)
	}
	if got := c.log("pod", "timestamps=true&limitBytes=40"); len(got) != 40 {
		t.Errorf("the limit counts the times too: %q", got)
	}
}

func TestLogRefusals(t *testing.T) {
	c := serve(t, Options{})
	c.must(RunPods(c.Server))
	c.apply(Object{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "unbound", "namespace": "default"},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "main"}}},
	})
	for _, tc := range []struct {
		pod, query, reason, message string
		code                        int
	}{
		{"none", "", "NotFound", `pods "none" not found`, 404},
		{"talker", "", "BadRequest", "a container name must be specified for pod talker, choose one of: [main quiet]", 400},
		{"talker", "container=no", "BadRequest", "container no is not valid for pod talker", 400},
		{"shell", "previous=true", "BadRequest", `previous terminated container "main" in pod "shell" not found`, 400},
		{"shell", "tailLines=-1", "Invalid", `PodLogOptions "shell" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`, 422},
		{"shell", "limitBytes=0", "Invalid", `PodLogOptions "shell" is invalid: limitBytes: Invalid value: 0: must be greater than 0`, 422},
		{"shell", "sinceSeconds=0", "Invalid", `PodLogOptions "shell" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0`, 422},
		{"shell", "sinceSeconds=1&sinceTime=2000-01-01T00:00:00Z", "Invalid", "", 422},
		{"shell", "tailLines=x", "BadRequest", "", 400},
		{"shell", "sinceTime=x", "BadRequest", "", 400},
	} {
		_, resp, err := c.dial(podPath(tc.pod, "log?"+tc.query), nil)
		if err == nil {
			t.Errorf("%+v: upgraded", tc)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		c.must(err)
		status, err := decodeObject(body)
		if err != nil || resp.StatusCode != tc.code || status.String("reason") != tc.reason || tc.message != "" && status.String("message") != tc.message {
			t.Errorf("%+v: %d %s", tc, resp.StatusCode, body)
		}
	}
	if _, resp, err := c.dial(podPath("shell", "log"), nil, "v5.channel.k8s.io"); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("an unknown subprotocol: %v", resp)
	}
	if code, body := c.get(podPath("unbound", "log")); code != 204 || body != "" {
		t.Errorf("a pod without a node: %d %q", code, body)
	}
}

// prompted is a program that writes what it is told to, one write each.
func prompted(text <-chan string) Program {
	return func(ctx context.Context, p *shell.Process) int {
		for {
			select {
			case t, ok := <-text:
				if !ok {
					return 3
				}
				fmt.Fprint(p.Stdout, t)
			case <-ctx.Done():
				return 0
			}
		}
	}
}

func (c *client) wantMessage(conn *websocket.Conn, want string) {
	c.Helper()
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != want {
		c.Fatalf("%q %v, want %q", got, err, want)
	}
}

// A follower sees lines when they are whole, goes on through a rotation, and
// ends with the run; who comes later sees the file as it is.
func TestLogsAreFollowed(t *testing.T) {
	c := serve(t, Options{})
	text := make(chan string)
	c.run(Pod{Containers: []Container{{Run: prompted(text)}}})
	limited, _, err := c.dial(podPath("pod", "log?follow=true&limitBytes=3"), nil)
	c.must(err)
	c.wantMessage(limited, "")
	conn, _, err := c.dial(podPath("pod", "log?follow=true"), nil)
	c.must(err)
	c.wantMessage(conn, "")
	text <- "first\nsec"
	c.wantMessage(limited, "fir")
	c.wantClose(limited, 1000)
	c.wantMessage(conn, "first\n")
	c.must(c.RotateLog("default", "pod", "main"))
	text <- "ond\n"
	c.wantMessage(conn, "second\n")
	if got := c.log("pod", ""); got != "second\n" {
		t.Errorf("after the rotation %q", got)
	}
	c.must(c.WriteLog("default", "pod", "main", "written\n"))
	c.wantMessage(conn, "written\n")
	text <- "unfinished"
	c.must(c.RestartContainer("default", "pod", "main"))
	c.wantMessage(conn, "unfinished\n")
	c.wantClose(conn, 1000)
	text <- "anew\n"
	conn, _, err = c.dial(podPath("pod", "log?follow=true"), nil)
	c.must(err)
	c.wantMessage(conn, "")
	c.wantMessage(conn, "anew\n")
	if got := c.log("pod", "previous=true"); got != "second\nwritten\nunfinished\n" {
		t.Errorf("the previous log is %q", got)
	}
	o, err := c.Get("", "pods", "default", "pod")
	c.must(err)
	statuses := o.at([]string{"status", "containerStatuses"}).([]any)
	if s := Object(statuses[0].(map[string]any)); s.at([]string{"restartCount"}).(interface{ String() string }).String() != "1" || s.String("lastState", "terminated", "reason") != "Error" {
		t.Errorf("%v", s)
	}
	c.must(c.Delete("", "pods", "default", "pod"))
	c.wantClose(conn, 1000)
	c.await(func(n Counts) bool { return n.Streams == 0 })
}

func TestLongLinesAreCutInPieces(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{Restart: "Never", Containers: []Container{{Run: Script("head -c 40000 /dev/zero; echo; echo end")}}})
	c.awaitOver("pod", "main")
	if got, want := c.log("pod", ""), strings.Repeat("\x00", 40000)+"\nend\n"; got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if got := c.log("pod", "timestamps=true"); strings.Count(got, "Z ") != 4 {
		t.Errorf("%d pieces", strings.Count(got, "Z "))
	}
}

func TestLogsAreBounded(t *testing.T) {
	c := serve(t, Options{LogBytes: 1000})
	c.run(Pod{})
	for i := range 1000 {
		c.must(c.WriteLog("default", "pod", "main", fmt.Sprintf("line %d\n", i)))
	}
	got := c.log("pod", "")
	if len(got) > 1000 || len(got) < 400 || !strings.HasSuffix(got, "line 999\n") || !strings.HasPrefix(got, "line ") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// A container is restarted after a second, as its policy says.
func TestRestartPolicies(t *testing.T) {
	for policy, runs := range map[string]string{"Always": "AAA", "OnFailure": "A", "Never": "A"} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(Options{})
			if err != nil {
				t.Fatal(err)
			}
			began := make(chan string, 10)
			err = s.RunPod(Pod{Name: "p", Restart: policy, Containers: []Container{{Run: func(context.Context, *shell.Process) int { began <- "A"; return 0 }}}})
			if err != nil {
				t.Fatal(err)
			}
			<-time.After(2*restartDelay + restartDelay/2)
			synctest.Wait()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			close(began)
			var got strings.Builder
			for r := range began {
				got.WriteString(r)
			}
			if got.String() != runs {
				t.Errorf("%s: %q, want %q", policy, got.String(), runs)
			}
		})
	}
}

func TestLogFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		action Action
		want   string
		ended  func(error) bool
	}{
		"ended early":       {EndAfter(2), numbered(1, 1), closedWith(1000)},
		"ended at once":     {EndAfter(0), "", closedWith(1000)},
		"with another code": {CloseAfter(2, 1011), numbered(1, 1), closedWith(1011)},
		"cut after bytes":   {CutAfterBytes(9), numbered(1, 1), broken},
		"reset":             {ResetAfter(3), numbered(1, 2), broken},
		"cut":               {CutAfter(2), numbered(1, 1), broken},
		"inserted":          {InsertAfter(2, []byte("never written\n")), "line 1\nnever written\nline 2\nline 3\n", closedWith(1000)},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, Options{})
			text := make(chan string)
			c.run(Pod{Restart: "Never", Containers: []Container{{Run: prompted(text)}}})
			c.Faults.Add(Fault{Match: Logs, Action: tc.action})
			conn, _, err := c.dial(podPath("pod", "log?follow=true"), nil)
			c.must(err)
			number, got := 0, new(strings.Builder)
			say := func() { // the next line, once the one before was seen: each is a message
				number++
				if number <= 3 {
					text <- fmt.Sprintf("line %d\n", number)
				} else {
					close(text)
				}
			}
			for say(); err == nil; {
				var message []byte
				_, message, err = conn.ReadMessage()
				if err == nil {
					got.Write(message)
				}
				if err == nil && bytes.HasPrefix(message, []byte("line")) {
					say()
				}
			}
			if number <= 3 {
				close(text)
			}
			if got.String() != tc.want || !tc.ended(err) {
				t.Errorf("%q and %v, want %q", got.String(), err, tc.want)
			}
			conn.Close()
			c.await(func(n Counts) bool { return n.Streams == 0 })
			c.awaitOver("pod", "main")
		})
	}
}

func closedWith(code int) func(error) bool {
	return func(err error) bool { return websocket.IsCloseError(err, code) }
}

func broken(err error) bool {
	return err != nil && !isTimeout(err) && !websocket.IsCloseError(err, 1000)
}

func TestLogCutOverHTTP(t *testing.T) {
	c := serve(t, Options{})
	c.run(Pod{})
	c.must(c.WriteLog("default", "pod", "main", numbered(1, 3)))
	c.Faults.Add(Fault{Match: Logs, Action: ResetAfter(1)})
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.URL()+podPath("pod", "log?follow=1"), nil)
	c.must(err)
	resp, err := c.http.Do(r)
	c.must(err)
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != numbered(1, 3) {
		t.Errorf("%q %v", body, err)
	}
	c.await(func(n Counts) bool { return n.Streams == 0 })
}
