package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// logOf is the Open of a pod's log.
func logOf(pod string, change ...func(*sluicev1.LogTarget)) *sluicev1.Open {
	l := &sluicev1.LogTarget{Namespace: "default", Pod: pod, Container: "main"}
	for _, f := range change {
		f(l)
	}
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Logs{Logs: l}}}
}

func following(l *sluicev1.LogTarget) { l.Follow = true }

// write adds to the log of the container main of a pod.
func write(t *testing.T, r *rig.Rig, pod, text string) {
	t.Helper()
	if err := r.Kube.WriteLog("default", pod, "main", text); err != nil {
		t.Fatal(err)
	}
}

// [LOG-1].
func TestSPEC_LogsThatNoAPIServerCouldMeanAreNotDialled(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c, _ := full(t, r)
	less := int64(-1)
	id := uint32(0)
	for name, tc := range map[string]struct {
		change func(*sluicev1.LogTarget)
		field  string
	}{
		"a path for a pod": {func(l *sluicev1.LogTarget) { l.Pod = "a/../b" }, "logs.pod"},
		"no pod":           {func(l *sluicev1.LogTarget) { l.Pod = "" }, "logs.pod"},
		"no namespace":     {func(l *sluicev1.LogTarget) { l.Namespace = "" }, "logs.namespace"},
		"a container":      {func(l *sluicev1.LogTarget) { l.Container = "?" }, "logs.container"},
		"lines below zero": {func(l *sluicev1.LogTarget) { l.TailLines = &less }, "logs.tail_lines"},
	} {
		id++
		e := status.FromProto(c.hold(id, logOf("p", tc.change)).end().GetStatus())
		if e == nil || e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, tc.field) {
			t.Errorf("%s: %v", name, e)
		}
	}
	if n := r.Kube.Counts().Dials; n != 0 {
		t.Errorf("the API server was dialled %d times", n)
	}
}

// [LOG-2], [LOG-7].
func TestSPEC_ALogIsItsBytes(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", kubetest.Script("printf 'one\\n\\n\\tthree ☃\\n'; printf '\\377\\376 not text\\n'; seq 1 20000; printf 'no end'"))
	awaitEnd(t, r, "p")
	var want bytes.Buffer
	want.WriteString("one\n\n\tthree ☃\n\xff\xfe not text\n")
	for i := 1; i <= 20000; i++ {
		fmt.Fprintln(&want, i)
	}
	want.WriteString("no end\n") // the node ends a line that its process did not
	c, _ := full(t, r)
	for id, text := range []bool{false, true} {
		o := logOf("p")
		o.Text = text
		h := c.hold(uint32(id+1), o)
		closed := h.end()
		if h.bytes() != want.String() || len(h.data) != 1 || closed.GetStatus() != nil || closed.GetAborted() || len(h.states) != 0 {
			t.Errorf("text %v: of %d bytes came %d, ending in %q; closed by %v, states %v", text, want.Len(), len(h.bytes()), tail(h.bytes()), closed, h.states)
		}
	}
	h := c.hold(3, logOf("p", func(l *sluicev1.LogTarget) { l.Timestamps = true }))
	h.end()
	for line := range strings.Lines(h.bytes()) {
		if !stamped.MatchString(line) {
			t.Fatalf("a line is %q", line)
		}
	}
	if plain := regexp.MustCompile(`(?m)^\d{4}\S+Z `).ReplaceAllString(h.bytes(), ""); plain != want.String() {
		t.Errorf("without its times a log of %d bytes has %d", want.Len(), len(plain))
	}
}

var stamped = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z `)

func tail(s string) string { return s[max(0, len(s)-40):] }

// awaitEnd waits until the containers of a pod have ended.
func awaitEnd(t *testing.T, r *rig.Rig, pod string) {
	t.Helper()
	c, _ := full(t, r)
	defer c.cancel()
	h := c.hold(1, logOf(pod, following))
	h.end()
}

// [LOG-3].
func TestSPEC_ALogGoesOnAtEveryCursor(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	first := c.hold(1, logOf("p", following))
	first.stands()
	at := map[string]int{} // cursor: bytes before it
	for i := range 30 {
		write(t, r, "p", fmt.Sprintf("line %d of a log\n", i))
		write(t, r, "p", "the same\nthe same\n")
		before := len(first.bytes())
		first.until(func() bool { return len(first.bytes()) > before })
		at[first.cursor] = len(first.bytes())
	}
	first.until(func() bool { return strings.HasSuffix(first.bytes(), "line 29 of a log\nthe same\nthe same\n") })
	whole := first.bytes()
	id := uint32(1)
	for cursor, begun := range at {
		id++
		o := logOf("p", func(l *sluicev1.LogTarget) { l.TailLines = new(int64) }) // says where a log begins, and means nothing with a cursor
		o.Cursor = cursor
		h := c.hold(id, o)
		h.end()
		if h.bytes() != whole[begun:] || len(h.states) != 0 {
			t.Fatalf("after %d bytes a cursor goes on with %q, want %q; states %v", begun, h.bytes(), whole[begun:], h.states)
		}
	}
	for name, change := range map[string]func(*sluicev1.LogTarget){
		"another pod": func(l *sluicev1.LogTarget) { l.Pod = "q" }, "another container": func(l *sluicev1.LogTarget) { l.Container = "side" },
		"previous": func(l *sluicev1.LogTarget) { l.Previous = true },
	} {
		id++
		o := logOf("p", change)
		o.Cursor = first.cursor
		if e := status.FromProto(c.hold(id, o).end().GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_INVALID_CURSOR { // [CUR-2]
			t.Errorf("%s: %v", name, e)
		}
	}
}

// [LOG-4].
func TestSPEC_ALostLogIsOpenedAgain(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, logOf("p", following))
	h.stands()
	want := ""
	for i := range 10 {
		line := fmt.Sprintf("line %d\n", i)
		write(t, r, "p", line)
		want += line
		h.until(func() bool { return h.bytes() == want })
		r.Kube.ResetStreams()
		line = fmt.Sprintf("meanwhile %d\n", i)
		write(t, r, "p", line)
		want += line
		h.until(func() bool { return h.bytes() == want })
	}
	if h.has(sluicev1.ChannelState_KIND_GAP) || h.has(sluicev1.ChannelState_KIND_RESTARTED) {
		t.Errorf("nothing is missing, and it was told %v", h.states)
	}
}

// [LOG-5].
func TestSPEC_WhatIsMissingOfALogIsSaid(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, logOf("p", following))
	h.stands()
	write(t, r, "p", "seen\n")
	h.until(func() bool { return h.bytes() == "seen\n" })
	h.say(&sluicev1.Close{})
	h.end()
	write(t, r, "p", "rotated away\n")
	if err := r.Kube.RotateLog("default", "p", "main"); err != nil {
		t.Fatal(err)
	}
	write(t, r, "p", "after\n")
	o := logOf("p")
	o.Cursor = h.cursor
	next := c.hold(2, o)
	next.end()
	if next.bytes() != "after\n" || !next.has(sluicev1.ChannelState_KIND_GAP) || next.states[0].GetStatus().GetMessage() == "" {
		t.Errorf("came %q, with %v", next.bytes(), next.states)
	}
}

// [LOG-6].
func TestSPEC_ARestartIsSaidBetweenTheLogs(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil, func(p *kubetest.Pod) { p.Restart = "Always" })
	c, _ := full(t, r)
	h := c.hold(1, logOf("p", following))
	h.stands()
	write(t, r, "p", "old\n")
	h.until(func() bool { return h.bytes() == "old\n" })
	write(t, r, "p", "the last of it\n")
	if err := r.Kube.RestartContainer("default", "p", "main"); err != nil {
		t.Fatal(err)
	}
	write(t, r, "p", "new\n")
	h.until(func() bool { return h.has(sluicev1.ChannelState_KIND_RESTARTED) })
	if h.bytes() != "old\nthe last of it\n" {
		t.Errorf("before the restart came %q", h.bytes())
	}
	h.until(func() bool { return h.bytes() == "old\nthe last of it\nnew\n" })
	if h.has(sluicev1.ChannelState_KIND_GAP) {
		t.Errorf("nothing is missing, and it was told %v", h.states)
	}
}

// [LOG-7].
func TestSPEC_TheLogOfAPodThatIsGoneEndsSo(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, logOf("p", following))
	h.stands()
	write(t, r, "p", "the last\n")
	h.until(func() bool { return h.bytes() == "the last\n" })
	if err := r.Kube.Delete("", "pods", "default", "p"); err != nil {
		t.Fatal(err)
	}
	closed := h.end()
	if e := status.FromProto(closed.GetStatus()); e == nil || e.Code != codes.NotFound || e.Reason != sluicev1.Reason_REASON_TARGET_GONE || !closed.GetAborted() {
		t.Errorf("closed by %v", closed)
	}
}

// [LOG-8].
func TestSPEC_ALogTakesNothingFromItsClient(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, logOf("p", following))
	h.stands()
	h.say(stdin("x"), &sluicev1.Resize{Width: 1}, &sluicev1.CloseSend{})
	write(t, r, "p", "line\n")
	h.until(func() bool { return h.bytes() == "line\n" })
	if h.acked > 1 { // Open
		t.Errorf("consumed up to %d", h.acked)
	}
}

// connected takes the first response of a call Logs: the log is open, whether it says anything or not.
func connected(t *testing.T, stream grpc.ServerStreamingClient[sluicev1.LogsResponse]) {
	t.Helper()
	if res, err := stream.Recv(); err != nil || res.GetState().GetKind() != sluicev1.ChannelState_KIND_CONNECTED || res.GetText() != "" || res.GetBinary() != nil {
		t.Fatalf("the first response is %v, %v", res, err)
	}
}

// [LOG-9], [LOG-10].
func TestSPEC_TheCallLogsTellsTheLog(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", kubetest.Script("printf 'one\\n'; printf '\\377\\n'; printf 'no end'"))
	runPod(t, r, "q", nil)
	awaitEnd(t, r, "p")
	gateway := sluicev1.NewGatewayServiceClient(r.Conn())
	ctx := r.As(within(t), "alice")
	stream, err := gateway.Logs(ctx, &sluicev1.LogsRequest{Logs: logOf("p").GetTarget().GetLogs()})
	if err != nil {
		t.Fatal(err)
	}
	connected(t, stream)
	var got []byte
	cursor := ""
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if said := res.GetText() != ""; said == (len(res.GetBinary()) > 0) || res.GetState() != nil {
			t.Errorf("a response is %v", res)
		}
		got = append(append(got, res.GetText()...), res.GetBinary()...)
		if res.GetCursor() != "" {
			cursor = res.GetCursor()
		}
	}
	if string(got) != "one\n\xff\nno end\n" || cursor == "" {
		t.Errorf("came %q, and the cursor %q", got, cursor)
	}
	rest, err := gateway.Logs(ctx, &sluicev1.LogsRequest{Logs: logOf("p").GetTarget().GetLogs(), Cursor: cursor})
	if err != nil {
		t.Fatal(err)
	}
	connected(t, rest)
	if res, err := rest.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last cursor came %v, %v", res, err)
	}
	for name, tc := range map[string]struct {
		req    *sluicev1.LogsRequest
		reason sluicev1.Reason
		code   codes.Code
	}{
		"a pod that is not there": {&sluicev1.LogsRequest{Logs: logOf("nobody").GetTarget().GetLogs()}, sluicev1.Reason_REASON_UPSTREAM_REFUSED, codes.NotFound},
		"nothing":                 {&sluicev1.LogsRequest{}, sluicev1.Reason_REASON_INVALID_TARGET, codes.InvalidArgument},
		"a cursor":                {&sluicev1.LogsRequest{Logs: logOf("p").GetTarget().GetLogs(), Cursor: "?"}, sluicev1.Reason_REASON_INVALID_CURSOR, codes.InvalidArgument},
	} {
		s, err := gateway.Logs(ctx, tc.req)
		if err == nil {
			_, err = s.Recv()
		}
		if e := status.From(err); e == nil || e.Code != tc.code || e.Reason != tc.reason || !e.FromPeer {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone, err := gateway.Logs(ctx, &sluicev1.LogsRequest{Logs: logOf("q", following).GetTarget().GetLogs()})
	if err != nil {
		t.Fatal(err)
	}
	connected(t, gone)
	write(t, r, "q", "line\n")
	if res, err := gone.Recv(); err != nil || res.GetText() != "line\n" {
		t.Fatalf("came %v, %v", res, err)
	}
	if err := r.Kube.Delete("", "pods", "default", "q"); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = gone.Recv()
	}
	if e := status.From(err); e == nil || e.Reason != sluicev1.Reason_REASON_TARGET_GONE {
		t.Errorf("the log of a pod that is gone ends with %v", err)
	}
}
