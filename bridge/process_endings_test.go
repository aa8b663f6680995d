package bridge

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	upstreamLost     = sluicev1.Reason_REASON_UPSTREAM_LOST
	upstreamProtocol = sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
	upstreamRefused  = sluicev1.Reason_REASON_UPSTREAM_REFUSED
)

// processEnding is a way that a process's upstream ends, and what its channel says.
type processEnding struct {
	name   string
	script func(*processPeer)
	reason sluicev1.Reason // of the outcome; zero with an exit
	exit   int32
	out    string // what of stdout arrived
}

// saying is a script that writes and then waits for the client to go.
func saying(frames ...[]byte) func(*processPeer) {
	return func(p *processPeer) {
		if p.write(frames...) == nil {
			p.drain()
		}
	}
}

// brokenOff is a script that writes and then ends the connection without a close frame.
func brokenOff(end func(*processPeer), frames ...[]byte) func(*processPeer) {
	return func(p *processPeer) {
		if p.write(frames...) == nil {
			end(p)
		}
	}
}

func eof(p *processPeer) { _ = p.nc.Close() }

func processEndings() []processEnding {
	out, bye := wsMessage(1, "out"), wsClose(1000)
	told := func(status string) []byte { return wsMessage(3, status) }
	masked := append([]byte{0x82, 0x84, 0, 0, 0, 0}, "\x01bad"...)
	endings := []processEnding{
		{"exit 0", saying(out, told(exit(0)), bye), 0, 0, "out"},
		{"exit 7", saying(out, told(exit(7)), bye), 0, 7, "out"},
		{"killed", saying(told(exit(137)), bye), 0, 137, ""},
		{"exit, another close code", saying(out, told(exit(7)), wsClose(1011)), 0, 7, "out"},
		{"exit, a close without code", saying(out, told(exit(7)), wsFrame(0x88, nil)), 0, 7, "out"},
		{"bytes after the status", saying(out, told(exit(7)), wsMessage(1, "more"), wsMessage(2, "err"), bye), 0, 7, "outmore"},
		{"the status in parts", saying(told(exit(7)[:20]), out, told(exit(7)[20:30]), told(""), told(exit(7)[30:]), bye), 0, 7, "out"},
		{"empty messages", saying(wsFrame(0x82, nil), wsMessage(0, ""), wsMessage(4, ""), told(""), out, told(exit(7)), bye), 0, 7, "out"},
		{"a code of Windows", saying(told(strings.ReplaceAll(exit(7), `"7"`, `"3221225786"`)), bye), 0, -1073741510, ""},
		{"a message in frames", saying(wsFrame(0x02, nil), wsFrame(0x00, []byte("\x01o")), wsFrame(0x89, nil), wsFrame(0x80, []byte("ut")), told(exit(7)), bye), 0, 7, "out"},

		{"close before the status", saying(out, bye), upstreamLost, 0, "out"},
		{"close before anything", saying(bye), upstreamLost, 0, ""},
		{"end before the status", brokenOff(eof, out), upstreamLost, 0, "out"},
		{"reset before the status", brokenOff((*processPeer).reset, out), upstreamLost, 0, ""},
		{"end within a frame", brokenOff(eof, out, wsMessage(1, strings.Repeat("x", 1000))[:500]), upstreamLost, 0, "out"},
		{"end without a close frame", brokenOff(eof, out, told(exit(0))), upstreamLost, 0, "out"},
		{"close within a message", saying(out, told(exit(0)), wsFrame(0x02, []byte("\x01more")), bye), upstreamLost, 0, "out"},

		{"garbage for a status", saying(out, told("status: Success"), bye), upstreamProtocol, 0, "out"},
		{"half a status", saying(out, told(exit(0)[:10]), bye), upstreamProtocol, 0, "out"},
		{"two statuses", saying(out, told(exit(0)), told(exit(0)), bye), upstreamProtocol, 0, "out"},
		{"a status of neither", saying(told(`{"status":"Maybe"}`), bye), upstreamProtocol, 0, ""},
		{"a status that is no object", saying(told(`["Success"]`), bye), upstreamProtocol, 0, ""},
		{"an exit without a code", saying(told(`{"status":"Failure","reason":"NonZeroExitCode"}`), bye), upstreamProtocol, 0, ""},
		{"an exit with code 0", saying(told(strings.ReplaceAll(exit(7), `"7"`, `"0"`)), bye), upstreamProtocol, 0, ""},
		{"an exit with a word", saying(told(strings.ReplaceAll(exit(7), `"7"`, `"seven"`)), bye), upstreamProtocol, 0, ""},
		{"an exit with a huge code", saying(told(strings.ReplaceAll(exit(7), `"7"`, `"4294967296"`)), bye), upstreamProtocol, 0, ""},
		{"a status too long", saying(out, told(strings.Repeat(" ", maxStatus)), told("{}")), upstreamProtocol, 0, "out"},
		{"a status too long in one", saying(out, told(strings.Repeat(" ", maxStatus+1))), upstreamProtocol, 0, "out"},
		{"a stream 5", saying(out, wsMessage(5, "x")), upstreamProtocol, 0, "out"},
		{"an empty stream 5", saying(out, wsMessage(5, "")), upstreamProtocol, 0, "out"},
		{"a stream 255", saying(out, wsMessage(255, "\x01")), upstreamProtocol, 0, "out"},
		{"bytes on stdin", saying(out, wsMessage(0, "x")), upstreamProtocol, 0, "out"},
		{"bytes on resize", saying(out, wsMessage(4, "{}")), upstreamProtocol, 0, "out"},
		{"a text message", saying(out, wsFrame(0x81, []byte("\x01text"))), upstreamProtocol, 0, "out"},
		{"a masked frame", saying(out, masked), upstreamProtocol, 0, "out"},
		{"reserved bits", saying(out, wsFrame(0xc2, []byte("\x01x"))), upstreamProtocol, 0, "out"},
		{"a frame of 2^63 bytes", saying(out, binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63)), upstreamProtocol, 0, "out"},

		{"no such program", saying(told(`{"status":"Failure","message":"no such file","reason":"InternalError","code":500}`), bye), upstreamRefused, 0, ""},
		{"a failure without a code", saying(told(`{"status":"Failure","message":"gone"}`), bye), upstreamRefused, 0, ""},
	}
	return endings
}

// TestT_C13_OutcomesAreThoseThatWereTold: kubernetes#124571, output that ends early with exit code 0. Every way that an upstream can end has its
// row; only a status that came whole, on an upstream that came to its end, tells an exit, and what arrived before is delivered. The rows of a
// hostile API server are T-E9's.
func TestT_C13_OutcomesAreThoseThatWereTold(t *testing.T) {
	for _, c := range processEndings() {
		for _, transport := range processTransports {
			if transport == "pipe" && strings.Contains(c.name, "reset") {
				continue // a pipe has none
			}
			t.Run(c.name+"/"+transport, func(t *testing.T) {
				s := &processServer{script: c.script}
				e := execute(t, s.reach(t, transport), execOf(shellTarget()), Options{})
				o := e.outcome()
				c.check(t, o)
				if got := e.stdout(); got != c.out && c.name != "reset before the status" {
					t.Errorf("heard %q, want %q", got, c.out)
				}
				if asked, _ := s.asked(); len(asked) != 1 {
					t.Errorf("the process was started %d times", len(asked))
				}
			})
		}
	}
}

func (c *processEnding) check(t *testing.T, o Outcome) {
	t.Helper()
	if c.reason == 0 {
		if o.Err != nil || o.Exit == nil || o.Exit.GetCode() != c.exit {
			t.Errorf("the outcome is %+v, want exit %d", o, c.exit)
		}
		return
	}
	e, ok := errors.AsType[*status.Error](o.Err)
	if !ok || e.Reason != c.reason || o.Exit != nil || e.Resumable || o.Whole != (c.reason == upstreamRefused) {
		t.Fatalf("the outcome is %+v, want %v", o, c.reason)
	}
	switch {
	case c.reason == upstreamLost && (e.Code != codes.Unavailable || !strings.Contains(e.Message, "exit status is unknown")):
		t.Errorf("a loss says %v", e)
	case c.reason == upstreamRefused && (e.Code != codes.Internal || e.HTTPCode != 500 || e.Kubernetes.GetStatus() != "Failure" || !strings.Contains(e.Message, e.Kubernetes.GetMessage())):
		t.Errorf("a refusal says %v with %v", e, e.Kubernetes)
	}
}

// TestOutputThatWasNotAskedForBreaksTheProtocol, and is not delivered.
func TestOutputThatWasNotAskedForBreaksTheProtocol(t *testing.T) {
	s := &processServer{script: saying(wsMessage(1, "out"), wsMessage(2, "err"))}
	target := shellTarget()
	target.Stderr = false
	e := execute(t, s.reach(t, "tcp"), execOf(target), Options{})
	if o := e.outcome(); status.Reason(o.Err) != upstreamProtocol || e.stdout() != "out" || e.stderr() != "" {
		t.Errorf("the outcome is %+v after %q and %q", o, e.stdout(), e.stderr())
	}
}

func TestAttachTellsAnExitOnlyIfTheServerDoes(t *testing.T) {
	target := &sluicev1.AttachTarget{Namespace: "default", Pod: "shell", Stdout: true}
	for told, want := range map[string]string{exit(0): "<nil> <nil>", exit(7): "code:7 <nil>"} {
		s := &processServer{script: func(p *processPeer) { p.finish(told) }}
		o := execute(t, s.reach(t, "tcp"), attachOf(target), Options{}).outcome()
		if got := fmt.Sprint(o.Exit, " ", o.Err); got != want && got != strings.Replace(want, "code:", "code: ", 1) {
			t.Errorf("%s is %q, want %q", told, got, want)
		}
	}
}

// inTime runs a process in a bubble of time.
func inTime(t *testing.T, script func(*processPeer), f func(t *testing.T, up Upstream)) {
	synctest.Test(t, func(t *testing.T) {
		s := &processServer{script: script}
		f(t, s.reach(t, "pipe"))
	})
}

// TestT_E4_SilenceIsNoLife: an upstream that says nothing is asked, and given up when it does not answer.
func TestT_E4_SilenceIsNoLife(t *testing.T) {
	for name, before := range map[string][]byte{"at once": nil, "within a frame": wsMessage(1, "half of it")[:4]} {
		t.Run(name, func(t *testing.T) {
			inTime(t, saying(wsMessage(1, ""), before), func(t *testing.T, up Upstream) {
				begin := time.Now()
				e := execute(t, up, execOf(shellTarget()), Options{})
				if o := e.outcome(); status.Reason(o.Err) != upstreamLost {
					t.Errorf("the outcome is %+v", o)
				}
				if d := time.Since(begin).Round(time.Second); d != 25*time.Second {
					t.Errorf("given up after %v", d)
				}
			})
		})
	}
}

// TestT_E4_SlownessIsLife: an upstream that answers a byte a second is slow and alive, in the middle of its frames too.
func TestT_E4_SlownessIsLife(t *testing.T) {
	script := func(p *processPeer) {
		all := append(wsMessage(1, "as slow as this"), append(wsMessage(3, exit(7)), wsClose(1000)...)...)
		for i := range all {
			<-time.After(time.Second)
			if p.write(all[i:i+1]) != nil {
				return
			}
		}
		p.drain()
	}
	inTime(t, script, func(t *testing.T, up Upstream) {
		e := execute(t, up, execOf(shellTarget()), Options{})
		if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 7 || e.stdout() != "as slow as this" {
			t.Errorf("the outcome is %+v after %q", o, e.stdout())
		}
	})
}

// TestUpstreamsEndAfterTheirStatus, or are ended; what they say in that time is delivered.
func TestUpstreamsEndAfterTheirStatus(t *testing.T) {
	for name, after := range map[string]func(p *processPeer){
		"silent": func(*processPeer) {},
		"chatty": func(p *processPeer) {
			for p.say(1, "x") == nil {
				<-time.After(900 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			script := func(p *processPeer) {
				_ = p.say(3, exit(7))
				after(p)
				p.drain()
			}
			inTime(t, script, func(t *testing.T, up Upstream) {
				begin := time.Now()
				e := execute(t, up, execOf(shellTarget()), Options{})
				if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 7 {
					t.Errorf("the outcome is %+v", o)
				}
				if d := time.Since(begin).Round(time.Second); d < lingerTime || d > lingerTime+time.Second { // for a close frame to be taken
					t.Errorf("ended after %v", d)
				}
				if want := map[string]string{"silent": "", "chatty": "xxxxxx"}[name]; e.stdout() != want {
					t.Errorf("heard %q", e.stdout())
				}
			})
		})
	}
}

// TestTheClientsTimeIsNotTheUpstreams: an upstream that has told the status waits for a client that takes nothing, as before.
func TestTheClientsTimeIsNotTheUpstreams(t *testing.T) {
	script := func(p *processPeer) {
		_ = p.write(wsMessage(1, strings.Repeat("a", 60<<10)), wsMessage(3, exit(7)))
		_ = p.write(wsMessage(1, strings.Repeat("b", 60<<10)), wsClose(1000))
		p.drain()
	}
	inTime(t, script, func(t *testing.T, up Upstream) {
		ch := newTestChannel(t, "")
		ch.held = true
		e := executeOn(t, ch, up, execOf(shellTarget()), Options{})
		<-time.After(time.Hour)
		if n := len(e.stdout()); n == 0 || n > 64<<10 {
			t.Errorf("a client that takes nothing has %d bytes", n)
		}
		e.hold(false)
		if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 7 || len(e.stdout()) != 120<<10 {
			t.Errorf("the outcome is %+v after %d bytes", o, len(e.stdout()))
		}
	})
}

// errHungUp is why a channel ends whose session was detached for too long.
var errHungUp = status.New(codes.Unavailable, sluicev1.Reason_REASON_DETACH_EXPIRED, "detached for too long")

// TestWhatADetachedProcessHears when its session ends: the hang-up is for sessions that stayed detached, unless the channel says otherwise.
func TestWhatADetachedProcessHears(t *testing.T) {
	const keys, end = "\x00\x03\x04", "\xff\x00"
	const hangUp = sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP
	for _, c := range []struct {
		name       string
		policy     sluicev1.DetachPolicy
		cause      error
		tty, stdin bool
		v4         bool
		want       string // of a process
		attached   string // of one that was there before
	}{
		{"terminal", 0, errHungUp, true, true, false, keys, ""},
		{"terminal, asked for", hangUp, errHungUp, true, true, false, keys, keys},
		{"terminal, left", sluicev1.DetachPolicy_DETACH_POLICY_LEAVE, errHungUp, true, true, false, "", ""},
		{"terminal without stdin", 0, errHungUp, true, false, false, "", ""},
		{"terminal, another cause", hangUp, context.Canceled, true, true, false, "", ""},
		{"input", 0, errHungUp, false, true, false, end, ""},
		{"input, asked for", hangUp, errHungUp, false, true, false, end, end},
		{"input of v4", hangUp, errHungUp, false, true, true, "", ""},
		{"input, left", sluicev1.DetachPolicy_DETACH_POLICY_LEAVE, errHungUp, false, true, false, "", ""},
		{"input, another cause", hangUp, status.Violation("x"), false, true, false, "", ""},
		{"nothing", hangUp, errHungUp, false, false, false, "", ""},
	} {
		for _, kind := range []string{"exec", "attach"} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				heard := make(chan string, 10)
				s := &processServer{script: func(p *processPeer) {
					defer close(heard)
					for {
						opcode, b, err := p.next()
						if err != nil {
							return
						}
						heard <- fmt.Sprintf("%d %s", opcode, b)
					}
				}}
				if c.v4 {
					s.choose = func([]string) (string, int, string) { return v4, 0, "" }
				}
				target := shellTarget()
				target.Tty, target.Stderr, target.Stdin = c.tty, !c.tty, c.stdin
				open, said := execOf(target), c.want
				if kind == "attach" {
					open, said = attachOf(&sluicev1.AttachTarget{
						Namespace: target.GetNamespace(), Pod: target.GetPod(), Tty: c.tty, Stdin: c.stdin, Stdout: true, Stderr: !c.tty,
					}), c.attached
				}
				open.OnDetachExpiry = c.policy
				e := execute(t, s.reach(t, "tls"), open, Options{})
				e.awaitOpened(t)
				e.stop(c.cause)
				if o := e.outcome(); !errors.Is(o.Err, context.Canceled) || o.Exit != nil {
					t.Errorf("the outcome is %+v", o)
				}
				var got strings.Builder
				for h := range heard {
					got.WriteString(h + "|")
				}
				want := "8 \x03\xe9|" // 1001
				if said != "" {
					want = "2 " + said + "|" + want
				}
				if got.String() != want {
					t.Errorf("the process heard %q, want %q", got.String(), want)
				}
			})
		}
	}
}

// TestAHangUpThatNobodyTakesIsGivenUp: an upstream that takes nothing has two seconds in all.
func TestAHangUpThatNobodyTakesIsGivenUp(t *testing.T) {
	for name, typed := range map[string]string{"alone": "", "behind input": strings.Repeat("x", 100)} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			inTime(t, func(*processPeer) { <-over }, func(t *testing.T, up Upstream) {
				over = make(chan struct{}) // of the bubble
				defer close(over)
				e := execute(t, up, execOf(shellTarget()), Options{})
				e.awaitOpened(t)
				if typed != "" {
					e.input(typed)
				}
				synctest.Wait()
				begin := time.Now()
				e.stop(errHungUp)
				e.outcome()
				if d := time.Since(begin); d > 2*time.Second+time.Millisecond {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// TestTheEndOfAChannelEndsItsProcess, when that is told by the channel alone.
func TestTheEndOfAChannelEndsItsProcess(t *testing.T) {
	gone := errors.New("the session has ended")
	for _, held := range []bool{false, true} {
		s := &processServer{script: func(p *processPeer) {
			for held && p.say(1, strings.Repeat("x", 10<<10)) == nil {
			}
			p.drain()
		}}
		ch := newTestChannel(t, "")
		ch.held = held
		e := executeOn(t, ch, s.reach(t, "tcp"), execOf(shellTarget()), Options{})
		e.awaitOpened(t)
		e.end(gone)
		if o := e.outcome(); !errors.Is(o.Err, gone) {
			t.Errorf("held=%v: the outcome is %+v", held, o)
		}
	}
}

// TestAPanicEndsOneProcess, wherever it is.
func TestAPanicEndsOneProcess(t *testing.T) {
	for name, ch := range map[string]func(*testChannel) Channel{
		"reading": func(c *testChannel) Channel { return panicsOnOffer{c} },
		"writing": func(c *testChannel) Channel { return panicsOnUsed{c} },
		"opening": func(c *testChannel) Channel { return panicsOnOpened{c} },
	} {
		s := &processServer{script: saying(wsMessage(1, "x"))}
		c := newTestChannel(t, "")
		c.send(data.Input{Kind: data.InputData, Bytes: []byte("x")})
		c.bytes = func(data.Piece) {}
		o := Run(t.Context(), s.reach(t, "tcp"), execOf(shellTarget()), ch(c), WithDefaults(Options{}))
		if _, ok := errors.AsType[*PanicError](o.Err); !ok {
			t.Errorf("%s: the outcome is %+v", name, o)
		}
	}
}

type panicsOnOffer struct{ *testChannel }

func (panicsOnOffer) Offer([]data.Piece) int { panic("a bug") }

type panicsOnOpened struct{ *testChannel }

func (panicsOnOpened) Opened(*sluicev1.Opened) { panic("a bug") }

type panicsOnUsed struct{ *testChannel }

func (panicsOnUsed) Used() { panic("a bug") }
