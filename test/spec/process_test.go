package spec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	gateway "github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// [PRC-1].
func TestSPEC_ProcessesThatNoAPIServerCouldMeanAreNotDialled(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c, _ := full(t, r)
	id := uint32(0)
	for name, tc := range map[string]struct {
		target *sluicev1.Target
		field  string
	}{
		"no command":       {executing("p", "", func(e *sluicev1.ExecTarget) { e.Command = nil }).GetTarget(), "exec.command"},
		"a path for a pod": {executing("../p", "").GetTarget(), "exec.pod"},
		"no namespace":     {executing("p", "", func(e *sluicev1.ExecTarget) { e.Namespace = "" }).GetTarget(), "exec.namespace"},
		"a container":      {executing("p", "", func(e *sluicev1.ExecTarget) { e.Container = "a b" }).GetTarget(), "exec.container"},
		"no stream": {
			executing("p", "", func(e *sluicev1.ExecTarget) { e.Stdin, e.Stdout, e.Stderr = false, false, false }).GetTarget(), "exec",
		},
		"stderr of a terminal": {executing("p", "", func(e *sluicev1.ExecTarget) { e.Tty = true }).GetTarget(), "exec.stderr"},
		"attach, no stream": {
			&sluicev1.Target{Target: &sluicev1.Target_Attach{Attach: &sluicev1.AttachTarget{Namespace: "default", Pod: "p"}}}, "attach",
		},
	} {
		id++
		e := status.FromProto(c.hold(id, &sluicev1.Open{Target: tc.target}).end().GetStatus())
		if e == nil || e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, tc.field) {
			t.Errorf("%s: %v", name, e)
		}
	}
	if n := r.Kube.Counts().Dials; n != 0 {
		t.Errorf("the API server was dialled %d times", n)
	}
}

// [PRC-2].
func TestSPEC_StreamsOfAProcessAreToldApart(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, executing("p", "printf out1; printf err1 >&2; read line; printf \"out2 $line\"; printf err2 >&2"))
	h.stands()
	h.say(stdin("he"), stdin("llo\n"))
	closed := h.end()
	if h.stdout() != "out1out2 hello" || h.stderr() != "err1err2" || len(h.data) != 2 || closed.GetStatus() != nil {
		t.Errorf("came %q, closed by %v", h.data, closed)
	}
	h = c.hold(2, executing("p", "printf out; printf err >&2", onTerminal))
	h.end()
	if len(h.data) != 1 || !strings.Contains(h.stdout(), "out") || !strings.Contains(h.stdout(), "err") {
		t.Errorf("on a terminal came %q", h.data)
	}
}

// [PRC-3], [CH-6].
func TestSPEC_OpenedSaysWhatTheUpstreamCanDo(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, executing("p", "cat; printf ' and the rest'"))
	if can := h.stands(); !can.GetHalfClose() || can.GetResize() || can.GetResumable() || h.opened.GetSubprotocol() != "v5.channel.k8s.io" {
		t.Errorf("opened by %v", h.opened)
	}
	h.say(stdin("all"), &sluicev1.CloseSend{})
	if closed := h.end(); h.stdout() != "all and the rest" || closed.GetExit() == nil || closed.GetExit().GetCode() != 0 || closed.GetStatus() != nil {
		t.Errorf("after CloseSend came %q, closed by %v", h.stdout(), closed)
	}
	h = c.hold(2, executing("p", "true", onTerminal))
	if can := h.stands(); !can.GetResize() {
		t.Errorf("a terminal is opened by %v", h.opened)
	}
	h.end()
}

// [PRC-4].
func TestSPEC_InputIsWrittenOnce(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, w := full(t, r)
	h := c.hold(1, executing("p", "cat"))
	h.stands()
	random := rand.New(rand.NewPCG(1, 2))
	var all strings.Builder
	var sent []proto.Message // by number, from 2
	for i := range 60 {
		line := strings.Repeat(strconv.Itoa(i)+" ", 1+random.IntN(200)) + "\n"
		all.WriteString(line)
		sent = append(sent, stdin(line))
		h.say(stdin(line))
		if i%20 != 19 {
			continue
		}
		h.until(func() bool { return strings.Contains(all.String(), h.stdout()) && len(h.stdout()) > all.Len()/2 })
		h.cancel()
		w = again(t, r, w, h)
		known := w.GetChannels()[0].GetReceived()
		for seq := known + 1; seq <= h.seq; seq++ { // [RES-9]
			h.send(clientFrame(h.id, seq, sent[seq-2]))
		}
		h.send(clientFrame(h.id, 2, sent[0])) // once too often
	}
	h.say(&sluicev1.CloseSend{})
	closed := h.end()
	if h.stdout() != all.String() || closed.GetBytesIn() != uint64(all.Len()) || closed.GetBytesOut() != uint64(all.Len()) {
		t.Errorf("of %d bytes came %d, equal: %v; closed by %v", all.Len(), len(h.stdout()), h.stdout() == all.String(), closed)
	}
}

// [PRC-5].
func TestSPEC_TheExitIsTheUpstreamsOwnWord(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	for i, code := range []int{0, 1, 7, 126, 255} {
		h := c.hold(uint32(i+1), executing("p", fmt.Sprintf("seq 1 2000; exit %d", code)))
		closed := h.end()
		if closed.GetExit() == nil || int(closed.GetExit().GetCode()) != code || closed.GetStatus() != nil || closed.GetAborted() {
			t.Errorf("exit %d: closed by %v", code, closed)
		}
		if !strings.HasSuffix(h.stdout(), "\n1999\n2000\n") || closed.GetBytesOut() != uint64(len(h.stdout())) {
			t.Errorf("exit %d: output is missing: %d bytes, %d are said to be", code, len(h.stdout()), closed.GetBytesOut())
		}
	}
	h := c.hold(9, executing("p", "printf begun; sleep 1000"))
	h.until(func() bool { return h.stdout() == "begun" })
	r.Kube.ResetStreams()
	closed := h.end()
	if e := status.FromProto(closed.GetStatus()); e == nil || e.Code != codes.Unavailable || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable ||
		closed.GetExit() != nil || !closed.GetAborted() {
		t.Errorf("an upstream that is lost is closed by %v", closed)
	}
}

// [PRC-6].
func TestSPEC_AProcessThatCannotStartIsRefused(t *testing.T) {
	r := rig.New(t, rig.Options{Kube: kubetest.Options{Authorizer: func(_ kubetest.User, a kubetest.Attributes) bool { return a.Namespace != "vault" }}})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	for i, tc := range []struct {
		open     *sluicev1.Open
		code     codes.Code
		upstream bool // there was one, and it was read to its end
	}{
		{executing("nobody", "true"), codes.NotFound, false},
		{executing("p", "", func(e *sluicev1.ExecTarget) { e.Container = "other" }), codes.InvalidArgument, false},
		{executing("p", "", func(e *sluicev1.ExecTarget) { e.Namespace = "vault" }), codes.PermissionDenied, false},
		{executing("p", "", func(e *sluicev1.ExecTarget) { e.Command = []string{"/no/such/program"} }), codes.Internal, true},
	} {
		closed := c.hold(uint32(i+1), tc.open).end()
		if e := status.FromProto(closed.GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED || e.Code != tc.code || e.Kubernetes == nil ||
			closed.GetExit() != nil || closed.GetAborted() == tc.upstream {
			t.Errorf("%v is closed by %v", tc.open.GetTarget(), closed)
		}
	}
}

// [PRC-7].
func TestSPEC_ResizeComesInTheOrderOfTheInput(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, executing("p", "while read line; do stty size; done", onTerminal))
	h.stands()
	for _, size := range [][2]uint32{{80, 24}, {120, 50}, {1, 1}, {300, 100}} {
		h.say(&sluicev1.Resize{Width: size[0], Height: size[1]}, stdin("x\n"))
		want := fmt.Sprintf("\n%d %d\r\n", size[1], size[0])
		h.until(func() bool { return strings.HasSuffix(h.stdout(), want) })
	}
	h.say(&sluicev1.Close{})
	if e := status.FromProto(h.end().GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER { // [CH-7]
		t.Errorf("Close was answered with %v", h.closed)
	}
	h = c.hold(2, executing("p", "cat"))
	h.stands()
	h.say(&sluicev1.Resize{Width: 80, Height: 24}, stdin("in"), &sluicev1.CloseSend{})
	if closed := h.end(); h.stdout() != "in" || closed.GetStatus() != nil {
		t.Errorf("Resize without a terminal: came %q, closed by %v", h.stdout(), closed)
	}
}

// [PRC-8].
func TestSPEC_AProcessThatIsNotReadWaits(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, w := full(t, r)
	h := c.hold(1, executing("p", "read go; seq 1 100000; cat"))
	h.stands()
	h.say(stdin("go\nlater\n"), &sluicev1.CloseSend{})
	h.until(func() bool { return h.stdout() != "" })
	h.cancel() // in the middle of its output
	again(t, r, w, h)
	var want bytes.Buffer
	for i := 1; i <= 100000; i++ {
		want.WriteString(strconv.Itoa(i) + "\n")
	}
	want.WriteString("later\n")
	if closed := h.end(); h.stdout() != want.String() || closed.GetStatus() != nil || closed.GetExit() == nil {
		t.Errorf("of %d bytes came %d, equal: %v; closed by %v", want.Len(), len(h.stdout()), h.stdout() == want.String(), closed)
	}
}

// [PRC-10].
func TestSPEC_DataForAProcessWithoutInputClosesItsChannel(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c, _ := full(t, r)
	h := c.hold(1, executing("p", "sleep 1000", func(e *sluicev1.ExecTarget) { e.Stdin = false }))
	h.stands()
	h.say(stdin("x"))
	if e := status.FromProto(h.end().GetStatus()); e == nil || e.Reason != violation || !h.closed.GetAborted() {
		t.Errorf("closed by %v", h.closed)
	}
	other := c.hold(2, executing("p", "printf fine")) // [CH-10]
	other.end()
	if other.stdout() != "fine" {
		t.Errorf("another channel: %q, %v", other.stdout(), other.closed)
	}
}

// Attach is to the main process what exec is to one of its own: [PRC-2], [PRC-5].
func TestSPEC_AttachJoinsTheMainProcess(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", kubetest.Script("while read line; do echo \"> $line\"; echo \"! $line\" >&2; done; echo over"))
	c, _ := full(t, r)
	h := c.hold(1, attaching("p", false))
	h.stands()
	h.say(stdin("one\n"))
	h.until(func() bool { return h.stdout() == "> one\n" && h.stderr() == "! one\n" })
	o := attaching("p", false)
	o.GetTarget().GetAttach().Stdin, o.GetTarget().GetAttach().Stderr = false, false
	watcher := c.hold(2, o)
	watcher.stands()
	for lines := 2; watcher.stdout() == ""; lines++ { // it stands a little before it is shown anything
		h.say(stdin("more\n"))
		h.until(func() bool {
			return strings.Count(h.stdout(), "\n") == lines && strings.Count(h.stderr(), "\n") == lines
		})
	}
	watcher.until(func() bool { return strings.HasPrefix(watcher.stdout(), "> more\n") })
	h.say(&sluicev1.Close{})
	h.end()
	watcher.say(&sluicev1.Close{})
	watcher.end()
}

// [PRC-9].
func TestSPEC_WhatBecomesOfAProcessWhoseClientStaysAway(t *testing.T) {
	for _, tty := range []bool{false, true} {
		for policy, hangsUp := range map[sluicev1.DetachPolicy]bool{
			sluicev1.DetachPolicy_DETACH_POLICY_UNSPECIFIED: false, // the process was there before
			sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP:     true, sluicev1.DetachPolicy_DETACH_POLICY_LEAVE: false,
		} {
			t.Run(fmt.Sprint(policy, ", terminal ", tty), func(t *testing.T) {
				r := rig.New(t, rig.Options{Limits: gateway.Limits{DetachTTL: time.Second}})
				runPod(t, r, "p", kubetest.Script("while read line; do echo \"> $line\"; done; echo ended"), func(p *kubetest.Pod) {
					p.Containers[0].StdinOnce, p.Containers[0].TTY = true, tty
				})
				c, _ := full(t, r)
				o := attaching("p", tty)
				o.OnDetachExpiry = policy
				h := c.hold(1, o)
				h.stands()
				h.say(stdin("here\n"))
				h.until(func() bool { return strings.Contains(h.stdout(), "> here") })
				h.cancel()
				if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Streams == 0 }); err != nil {
					t.Fatal("the upstream lives on: ", err)
				}
				next, _ := full(t, r)
				if hangsUp { // it ends by itself
					if closed := next.hold(1, logOf("p", following)).end(); closed.GetStatus() != nil {
						t.Errorf("its log is closed by %v", closed)
					}
					return
				}
				still := next.hold(1, attaching("p", tty))
				still.stands()
				still.say(stdin("again\n"))
				still.until(func() bool { return strings.Contains(still.stdout(), "> again") })
			})
		}
	}
}
