package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// A process whose client has lost its link goes on, and is the same one when the client is back: what it said meanwhile is there, once, and so is
// what was typed.
func TestAProcessOutlivesItsLink(t *testing.T) {
	r := rig.New(t, rig.Options{Change: func(c *server.Config) { c.DrainTimeout = time.Second }})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	w := c.hello(nil)
	p := c.run(executing("p", "n=0; while read line; do n=$((n+1)); echo $n $line; done; exit 5"))
	want := ""
	for i := 1; i <= 10; i++ {
		p.say(fmt.Sprintf("line %d\n", i))
		if i%2 == 0 { // before its answer has come
			p.cancel()
			w = p.resume(r, w)
			if at := w.GetChannels()[0].GetReceived(); at < p.seq { // it was still on its way
				p.seq--
				p.say(fmt.Sprintf("line %d\n", i))
			}
		}
		want += fmt.Sprintf("%d line %d\n", i, i)
		p.says(want)
	}
	p.say(&sluicev1.CloseSend{})
	if closed, err := p.ended(); err != nil || closed.GetExit().GetCode() != 5 || closed.GetBytesOut() != uint64(len(want)) {
		t.Errorf("closed by %v", closed)
	}
	if got := metric(t, r, `sluice_channels_opened_total{kind="exec"}`); got != "1" {
		t.Errorf("%s processes were started", got)
	}
}

// A session that stays detached for too long hangs its process up; the audit says why it ended, and nothing says that it did well.
func TestADetachedProcessEndsWithItsSession(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{DetachTTL: time.Second}})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	c.hello(nil)
	p := c.run(executing("p", "printf ready; cat"))
	p.says("ready")
	c.cancel()
	streams(t, r, 0)
	auditSays(t, r, "DETACH_EXPIRED")
}

// auditSays waits until the last line of the audit is the end of a process, for a reason.
func auditSays(t *testing.T, r *rig.Rig, reason string) {
	t.Helper()
	var l line
	if !eventually(t, func() bool { l = last(audit(t, r)["channel closed"]); return l.Kind == "exec" && l.Reason == reason }) {
		t.Fatalf("the audit says %+v, want the reason %s", l, reason)
	}
	if l.Code == codes.OK.String() || l.Exit != nil {
		t.Errorf("the audit says %+v", l)
	}
}

// A principal that has too many sessions loses its oldest detached one, and the process in it.
func TestADetachedProcessMakesRoom(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{PrincipalSessions: 1}})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	c.hello(nil)
	p := c.run(executing("p", "printf ready; cat"))
	p.says("ready")
	attached := connect(t, r, "alice") // while there is a link it is nobody's to take
	attached.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
	if err := attached.end(); err == nil || err.Limit != "limits.principal_sessions" {
		t.Errorf("a second session: %v", err)
	}
	c.cancel()
	for { // the server notices a little later than we do that the link is gone
		next := connect(t, r, "alice")
		next.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
		f, err := next.next()
		if err == nil && f.GetWelcome() != nil {
			break
		}
		if e := status.From(err); e == nil || e.Limit != "limits.principal_sessions" {
			t.Fatal(f, err)
		}
	}
	streams(t, r, 0)
	auditSays(t, r, "LIMIT")
}

// A session ends with its credential, and with it what runs in it.
func TestAProcessEndsWithItsCredential(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	expiry := soon()
	token := r.Token("alice", func(c *issuer.Claims) { c.Expiry = expiry })
	c := connectWith(t, r, "Bearer "+token)
	c.hello(nil)
	p := c.run(executing("p", "printf ready; cat"))
	p.says("ready")
	p.until(func() bool { return p.goodbye != nil })
	if e := status.FromProto(p.goodbye.GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_EXPIRED || p.closed != nil {
		t.Errorf("Goodbye says %v, after %v", p.goodbye, p.closed)
	}
	if early := time.Until(expiry); early > 0 {
		t.Errorf("the session ended %v before the credential", early)
	}
	streams(t, r, 0)
	auditSays(t, r, "EXPIRED")
}

// A replica that is going away leaves what runs alone until its deadline: new sessions are refused, the link may come again, the shell answers. Then
// the session ends, and nobody is told that the process did.
func TestAShellLivesUntilTheDrainsDeadline(t *testing.T) {
	r := rig.New(t, rig.Options{Change: func(c *server.Config) { c.DrainTimeout = 10 * time.Second }})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	w := c.hello(nil)
	p := c.run(executing("p", "while read line; do echo \"> $line\"; done"))
	p.say("before\n")
	p.says("> before\n")
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	drain := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetDrain() != nil }).GetDrain()
	late := connect(t, r, "bob")
	late.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
	if err := late.end(); err == nil || err.Reason != sluicev1.Reason_REASON_DRAINING {
		t.Errorf("a new session: %v", err)
	}
	p.say("while draining\n")
	p.says("> before\n> while draining\n")
	c.cancel()
	if next := p.resume(r, w); next.GetDraining() == nil {
		t.Errorf("Welcome is %v", next)
	}
	p.say("over another link\n")
	p.says("> before\n> while draining\n> over another link\n")
	p.until(func() bool { return p.goodbye != nil })
	if e := status.FromProto(p.goodbye.GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_DRAINING || e.Code != codes.Unavailable || !e.Resumable || p.closed != nil {
		t.Errorf("Goodbye says %v, after %v", p.goodbye, p.closed)
	}
	if early := time.Until(drain.GetDeadline().AsTime()); early > 0 {
		t.Errorf("it ended %v before the deadline", early)
	}
	<-stopped
	auditSays(t, r, "DRAINING")
	streams(t, r, 0)
}

// T-D1 for processes: one that pours out more than its client takes holds up no other, and no more is held for it than its window.
func TestT_D1_AProcessThatIsNotReadHoldsUpNoOther(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	c.hello(nil)
	c.send(openFrame(2, 1, executing("p", "yes"))) // nothing of it is acknowledged
	poured := 0
	c.until(func(f *sluicev1.ServerFrame) bool {
		if f.GetChannel() == 2 {
			poured += len(f.GetData().GetBinary())
		}
		return poured >= 32<<10
	})
	busy := connect(t, r, "alice") // and in a session of its own
	busy.hello(nil)
	p := busy.run(executing("p", "while read line; do echo $line; done"))
	want := ""
	for i := range 200 {
		p.say(fmt.Sprintf("%d\n", i))
		want += fmt.Sprintf("%d\n", i)
		p.says(want)
	}
	if poured > 64<<10 {
		t.Errorf("%d bytes came within a window of 64 KiB", poured)
	}
	if held := metric(t, r, "sluice_held_bytes"); len(strings.SplitN(held, ".", 2)[0]) > len("999999") {
		t.Errorf("%s bytes are held", held)
	}
}

// What does not fit a channel ends it and leaves its neighbours alone: [sluicev1.Close] of one, a process that ends, one that cannot begin.
func TestProcessesOfASessionEndEachForItself(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	c := connect(t, r, "alice")
	c.hello(nil)
	p := c.run(executing("p", "while read line; do echo $line; done"))
	p.say("first\n")
	p.says("first\n")
	c.send(openFrame(2, 1, executing("p", "exit 1")), openFrame(3, 1, executing("nobody", "true")), openFrame(4, 1, executing("p", "cat")))
	c.send(&sluicev1.ClientFrame{Channel: 4, Seq: 2, Frame: &sluicev1.ClientFrame_Close{Close: &sluicev1.Close{}}})
	ends := map[uint32]*sluicev1.Closed{}
	for len(ends) < 3 {
		f := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetChannel() > 1 && f.GetClosed() != nil })
		ends[f.GetChannel()] = f.GetClosed()
	}
	if ends[2].GetExit().GetCode() != 1 || ends[3].GetStatus().GetHttpCode() != 404 || ends[4].GetStatus().GetReason() != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("they ended with %v", ends)
	}
	p.say("second\n")
	p.says("first\nsecond\n")
	streams(t, r, 1)
}

// T-E6: the API server is killed and starts anew. A log goes on with the byte where it was; a process and a connection cannot, and nobody is told that
// they ended well.
func TestT_E6_AnAPIServerThatIsKilled(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	kinds := map[string]*running{}
	for _, kind := range []string{"logs", "exec", "port-forward"} {
		c := connect(t, r, "alice")
		c.hello(nil)
		p := c.run(targets("p")[kind])
		p.until(func() bool { return p.opened != nil })
		kinds[kind] = p
	}
	write := func(text string) {
		t.Helper()
		if err := r.Kube.WriteLog("default", "p", "main", text); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n")
	kinds["logs"].says("before\n")
	for _, kind := range []string{"exec", "port-forward"} {
		kinds[kind].say("before\n")
		kinds[kind].says("before\n")
	}
	addr := r.Kube.Addr()
	r.Kube.Sever()
	write("while it was down\n")
	for _, kind := range []string{"exec", "port-forward"} {
		closed, err := kinds[kind].ended()
		if err == nil || err.Code != codes.Unavailable || err.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || err.Resumable || closed.GetExit() != nil || !closed.GetAborted() {
			t.Errorf("%s: closed by %v", kind, closed)
		}
	}
	p := kinds["logs"]
	p.until(func() bool { return len(p.states) > 0 })
	if kind := p.states[0].GetKind(); kind != sluicev1.ChannelState_KIND_RECONNECTING {
		t.Errorf("of its log it was told %v", p.states)
	}
	if err := r.Kube.Listen(within(t), addr); err != nil {
		t.Fatal(err)
	}
	p.says("before\nwhile it was down\n")
	write("after\n")
	p.says("before\nwhile it was down\nafter\n")
	if kind := p.states[len(p.states)-1].GetKind(); kind != sluicev1.ChannelState_KIND_CONNECTED {
		t.Errorf("of its log it was told %v", p.states)
	}
}
