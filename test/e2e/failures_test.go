package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/kube"
)

// scenes say how each failure happens to a scene whose cluster others use too.
var scenes = map[int]func(*scene){
	linkCut: func(s *scene) {
		s.play(func(context.Context) error { s.link.Cut(); return nil }, nil)
	},
	gatewayKilled: func(s *scene) {
		s.apart = true
		s.play(func(context.Context) error { s.process.kill(); return nil }, s.restartGateway)
	},
	podDeleted: func(s *scene) {
		s.play(func(ctx context.Context) error {
			return s.both(func(pod string) error { return s.cluster.DeletePod(ctx, s.namespace, pod) })
		}, nil)
	},
	containerRestarted: func(s *scene) {
		s.play(func(context.Context) error {
			return s.both(func(pod string) error {
				return errors.Join(s.node.KillContainer(s.namespace, pod, echoer), s.node.KillContainer(s.namespace, pod, talker),
					s.node.KillContainer(s.namespace, pod, webServer))
			})
		}, nil)
	},
	upstreamSilent: func(s *scene) {
		v := newValve(s.t, s.upstream)
		s.upstream = v.addr()
		s.play(func(ctx context.Context) error {
			// Silence proves nothing of an upstream that may still wait for the process to take its input: what was typed is known to have been
			// taken with the first pong, and the first ping comes after 15 s.
			if err := pause(ctx, 16*time.Second); err != nil {
				return err
			}
			v.close()
			return nil
		}, func(context.Context) error { v.open(); return nil })
	},
	credentialExpired: func(s *scene) {
		s.tokenUntil(time.Now().Truncate(time.Second).Add(20 * time.Second))
		s.play(s.untilExpiry, nil)
	},
	credentialRenewed: func(s *scene) {
		expiry := time.Now().Truncate(time.Second).Add(20 * time.Second)
		s.tokenUntil(expiry)
		s.play(func(ctx context.Context) error {
			s.tokenUntil(time.Now().Add(time.Hour))
			s.expiry = expiry
			return s.untilExpiry(ctx)
		}, nil)
	},
	detachedHangUp: func(s *scene) { s.detach(sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP) },
	detachedLeave:  func(s *scene) { s.detach(sluicev1.DetachPolicy_DETACH_POLICY_LEAVE) },
}

// breaking are the failures that everybody in a cluster suffers from, in the order in which one cluster suffers them.
var breaking = []int{nodeKilled, serverKilled, serverTerminated}

var breakingScenes = map[int]func(*scene){
	nodeKilled: func(s *scene) {
		s.play(func(context.Context) error { return s.node.Kill() }, s.node.Start)
	},
	serverKilled: func(s *scene) {
		s.play(func(context.Context) error { return s.cluster.KillAPIServer() }, s.cluster.RestartAPIServer)
	},
	serverTerminated: func(s *scene) {
		s.play(func(ctx context.Context) error {
			if err := s.cluster.TerminateAPIServer(); err != nil {
				return err
			}
			return s.each(func(sub *subject) error { // they go on until it has ended
				if sub.kind == watchKind {
					return nil // it would take an API server to change something
				}
				return sub.ping(ctx, 2)
			})
		}, s.cluster.RestartAPIServer)
	},
}

// TestFailures plays every failure with a channel of each kind, of a program and of a person, and holds what they see against the table that
// docs/failures.md shows.
func TestFailures(t *testing.T) {
	c, n := kube.SharedNode(t)
	binary := buildCommand(t)
	turns := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	run := func(name string, f func(t *testing.T)) { // not t.Parallel, which plays no more of them at a time than there are processors: most only wait
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			t.Run(name, f)
		})
	}
	run("a cluster of their own", func(t *testing.T) { breakCluster(t, binary) })
	for e, play := range scenes {
		run(failures[e].name, func(t *testing.T) { play(newScene(t, &failures[e], binary, c, n)) })
	}
	running.Wait()
}

// atOnce is how many failures are played at a time.
const atOnce = 4

// breakCluster plays what everybody in a cluster suffers from.
func breakCluster(t *testing.T, binary string) {
	t.Helper()
	c := kube.New(t, kube.Options{APIServerArgs: []string{"--request-timeout=20s"}}) // so long it takes to end; 60 s otherwise
	n, err := c.StartNode(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range breaking {
		t.Run(failures[e].name, func(t *testing.T) { breakingScenes[e](newScene(t, &failures[e], binary, c, n)) })
	}
}

// play plays a failure: everything is set up, it happens, what it ends is looked at, what is broken is mended, and the rest is looked at.
func (s *scene) play(happen, mend func(ctx context.Context) error) {
	s.t.Helper()
	limit := within(s.t, 3*time.Minute)
	if s.expiry.IsZero() {
		s.tokenUntil(time.Now().Add(time.Hour))
	}
	if s.apart {
		s.serveApart(limit)
	} else {
		s.serve()
	}
	if err := errors.Join(s.pods(limit), s.open(limit), happen(limit)); err != nil {
		s.t.Fatal(err)
	}
	defer s.checkSessions()
	if mend == nil {
		s.judge(func(*outcome) bool { return true })
		return
	}
	s.judge(func(o *outcome) bool { return o.death != nil && !o.repair })
	s.awaitLoss()
	if err := mend(limit); err != nil {
		s.t.Fatal(err)
	}
	s.judge(func(o *outcome) bool { return o.live != nil || o.repair })
}

func (s *scene) checkSessions() {
	s.t.Helper()
	s.ses.mu.Lock()
	defer s.ses.mu.Unlock()
	if s.ses.begun != s.sessions {
		s.t.Errorf("the program has begun %d sessions, want %d", s.ses.begun, s.sessions)
	}
}

// awaitLoss waits until the channels that are to be told of it have noticed that their upstream is lost.
func (s *scene) awaitLoss() {
	s.t.Helper()
	if err := s.each(func(sub *subject) error {
		c := s.cells[sub.kind]
		if c.outcome.live == nil || len(c.outcome.live.states) == 0 || c.outcome.live.states[0] != reconnecting {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.within)
		defer cancel()
		if sub.words != nil {
			return sub.awaitWords(ctx, c.outcome.live.says[0])
		}
		return sub.until(ctx, "waited for RECONNECTING", func() bool { return len(sub.states) > 0 })
	}); err != nil {
		s.t.Error(err)
	}
}

// both does something with both pods at once.
func (s *scene) both(do func(pod string) error) error {
	var one, other error
	var running sync.WaitGroup
	running.Go(func() { one = do("program") })
	running.Go(func() { other = do("person") })
	running.Wait()
	return errors.Join(one, other)
}

func (s *scene) restartGateway(ctx context.Context) error { return s.process.start(ctx) }

func (s *scene) untilExpiry(ctx context.Context) error { return pause(ctx, time.Until(s.expiry)) }

// detach keeps the clients away from the gateway for longer than it waits for them, and looks at what becomes of the processes.
func (s *scene) detach(policy sluicev1.DetachPolicy) {
	s.policy, s.detachTTL = policy, 2*time.Second
	s.play(func(ctx context.Context) error {
		s.link.Retarget("127.0.0.1:1") // where nobody listens
		s.link.Cut()
		return s.awaitAudit(ctx, "DETACH_EXPIRED", 2*int(kinds))
	}, func(context.Context) error {
		s.link.Retarget(s.rig.Server.GRPCAddr().String())
		return nil
	})
	for _, sub := range s.subjects {
		if sub.kind == execKind || sub.kind == terminalKind {
			if err := s.checkLeft(sub); err != nil {
				s.t.Errorf("%s: %v", sub.name, err)
			}
		}
	}
}

// awaitAudit waits until so many channels were closed for a reason.
func (s *scene) awaitAudit(ctx context.Context, reason string, n int) error {
	for {
		closed := 0
		for line := range strings.Lines(s.rig.Audit.String()) {
			var l struct{ Msg, Reason string }
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				return fmt.Errorf("the audit: %w", err)
			}
			if l.Msg == "channel closed" && l.Reason == reason {
				closed++
			}
		}
		if closed >= n {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil { // the audit is a file, which tells nobody when it is written
			return fmt.Errorf("%d channels were closed for %s, want %d: %w", closed, reason, n, err)
		}
	}
}

// checkLeft checks what a process has noticed of the end of its session: one that was hung up has ended, and one that was left and has a terminal
// goes on. The end of its upstream ends an input that is no terminal in any case.
func (s *scene) checkLeft(sub *subject) error {
	pod, _, _ := strings.Cut(sub.name, ",")
	pod = map[string]string{"SDK": "program", "command": "person"}[pod]
	want := "ended\n"
	if sub.kind == terminalKind {
		want = "interrupted\n"
		if s.policy == sluicev1.DetachPolicy_DETACH_POLICY_LEAVE {
			want = "alive\n"
			var pid int
			if _, err := fmt.Sscanf(sub.lines[0], "ready %d", &pid); err != nil {
				return err
			}
			if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
				return fmt.Errorf("the process that was left: %w", err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		got, err := os.ReadFile(s.left(sub.kind, pod))
		if strings.HasPrefix(string(got), want) {
			return nil
		}
		if late := pause(ctx, 20*time.Millisecond); late != nil {
			return fmt.Errorf("it left %q, %w, want %q", got, err, want)
		}
	}
}

// TestFailuresAreDocumented: docs/failures.md shows the table that TestFailures plays, each of the failures is played, and no outcome is without a cell.
func TestFailuresAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"table": table(), "legend": legend()} {
		if !strings.Contains(string(text), "\n"+want+"\n") {
			t.Errorf("docs/failures.md has another %s than this:\n%s", name, want)
		}
	}
	used := map[*outcome]bool{}
	for e, f := range failures {
		if (scenes[e] == nil) == (breakingScenes[e] == nil) {
			t.Errorf("%q is not played once", f.name)
		}
		for k, c := range f.cells {
			if c.outcome == nil || c.within <= 0 {
				t.Errorf("%q has no cell for %v", f.name, kind(k))
			}
			used[c.outcome] = true
		}
	}
	for _, o := range outcomes {
		if !used[o] {
			t.Errorf("nothing comes to %q", o.name)
		}
		delete(used, o)
	}
	for o := range used {
		t.Errorf("%q is not explained", o.name)
	}
	if len(breaking) != len(breakingScenes) {
		t.Error("not every failure of a cluster has its turn")
	}
}
