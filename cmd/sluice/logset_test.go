package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// labelled is a pod with the label app=web, which is not restarted.
func labelled(name string, containers ...kubetest.Container) kubetest.Pod {
	return kubetest.Pod{Name: name, Labels: map[string]string{"app": "web"}, Restart: "Never", Containers: containers}
}

// finishes waits until a pod of the namespace default has finished.
func (k *kube) finishes(t *testing.T, pods ...string) {
	t.Helper()
	for _, name := range pods {
		if err := k.AwaitPod(t.Context(), "default", name, "Succeeded"); err != nil {
			t.Fatal(err)
		}
	}
}

// counted is a program that prints so many lines and ends.
func counted(n int) kubetest.Program {
	return kubetest.Script(fmt.Sprintf(`for i in $(seq %d); do echo "line $i"; done`, n))
}

func TestLogsOfSeveralPodsArePrintedOneAfterTheOther(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("b", kubetest.Container{Run: counted(2)}), labelled("a", kubetest.Container{Run: counted(12)}, kubetest.Container{Name: "side", Run: counted(1)}),
		kubetest.Pod{Name: "other", Containers: []kubetest.Container{{}}})
	k.finishes(t, "a", "b")
	if _, err := k.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "c", "namespace": "default", "labels": map[string]any{"app": "web"}},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "main"}}},
	}); err != nil {
		t.Fatal(err)
	}
	_, env := k.throughGateway(t)
	const ofA = "line 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\nline 10\nline 11\nline 12\n" // the last ten
	for _, tc := range []struct {
		name string
		args []string
		want string
		says []string
		code int
	}{
		{"of a selector, ten lines each", []string{"-l", "app=web"}, ofA + "line 1\nline 2\n", []string{
			"container main of main, side; -c chooses another", "pod c, container main: it has not begun",
		}, exitOK},
		{"fewer lines", []string{"-l", "app in (web)", "--tail", "1"}, "line 12\nline 2\n", nil, exitOK},
		{"all lines", []string{"-l", "app=web", "--tail", "-1", "--prefix"}, "[pod/a/main] line 1\n[pod/a/main] line 2\n", nil, exitOK},
		{
			"all containers",
			[]string{"-l", "app=web", "--tail", "1", "--prefix", "--all-containers"},
			"[pod/a/main] line 12\n[pod/a/side] line 1\n[pod/b/main] line 2\n", nil, exitOK,
		},
		{"a container that not all have", []string{"-l", "app=web", "-c", "side"}, "line 1\n", []string{"pod b has no container side; it has main"}, exitOK},
		{"a pod's containers", []string{"a", "--all-containers", "--tail", "1"}, "line 12\nline 1\n", nil, exitOK},
		{"a pod's log with a prefix", []string{"b", "--prefix"}, "[pod/b/main] line 1\n[pod/b/main] line 2\n", nil, exitOK},
		{"POD CONTAINER", []string{"a", "side"}, "line 1\n", nil, exitOK},
		{"of nobody", []string{"-l", "app=nobody"}, "", []string{"no pod matches in namespace default"}, exitOK},
		{"of no pod", []string{"nobody", "--all-containers"}, "", []string{`error: there is no pod "nobody" in namespace default`}, exitFailed},
		{"of no pod, followed", []string{"-f", "nobody", "--all-containers"}, "", []string{`error: there is no pod "nobody" in namespace default`}, exitFailed},
		{"of no instance", []string{"-l", "app=web", "-p", "--tail", "1"}, "", []string{
			"pod a, container main: its log cannot be printed: ", "pod b, container main: its log cannot be printed: ",
		}, exitFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, code := sluice(t, env, append([]string{"logs"}, tc.args...)...)
			if !strings.HasPrefix(out, tc.want) || tc.want == "" && out != "" || code != tc.code {
				t.Errorf("exit code %d, want %d; printed\n%swant\n%s%s", code, tc.code, out, tc.want, errs)
			}
			for _, want := range tc.says {
				if !strings.Contains(errs, want) {
					t.Errorf("%q is missing in:\n%s", want, errs)
				}
			}
		})
	}
}

func TestAPodsFollowedLogsEndWithItsContainers(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("a", kubetest.Container{Run: counted(2)}, kubetest.Container{Name: "side", Run: counted(1)}, kubetest.Container{Name: "late", Run: counted(1)}))
	_, env := k.throughGateway(t)
	out, errs, code := sluice(t, env, "logs", "-f", "a", "--all-containers", "--prefix")
	got := byPrefix(t, out)
	if code != exitOK || len(got) != 3 || got["a/main"] != "line 1\nline 2\n" || got["a/side"] != "line 1\n" || got["a/late"] != "line 1\n" {
		t.Errorf("exit code %d, %q:\n%s", code, out, errs)
	}
}

// longLines is a program that prints lines which a log brings in several pieces, and ends.
func longLines(name string, n int) kubetest.Program {
	return kubetest.Script(fmt.Sprintf(`x=$(printf '%%05000d' 0); for i in $(seq %d); do echo "%s $i $x"; done`, n, name))
}

// byPrefix are the lines of each log, without its prefix.
func byPrefix(t *testing.T, text string) map[string]string {
	t.Helper()
	logs := map[string]string{}
	for line := range strings.Lines(text) {
		prefix, rest, found := strings.Cut(line, "] ")
		if !found || !strings.HasPrefix(prefix, "[pod/") {
			t.Fatalf("a line without a prefix: %.80q", line)
		}
		logs[strings.TrimPrefix(prefix, "[pod/")] += rest
	}
	return logs
}

func TestLinesOfFollowedLogsAreNotMixedAndNoneIsLost(t *testing.T) {
	const n = 200
	k := startKube(t)
	want := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		k.runPods(t, labelled(name, kubetest.Container{Run: longLines(name, n)}))
		for i := 1; i <= n; i++ {
			want[name+"/main"] += fmt.Sprintf("%s %d %05000d\n", name, i, 0)
		}
	}
	relay, env := k.throughGateway(t)
	c := begin(t, env, "logs", "-f", "-l", "app=web", "--prefix", "--tail", "-1")
	c.stdout.await(t, "some lines", func(s string) bool { return strings.Count(s, "\n") >= 3 })
	relay.Cut()
	if code := c.end(t); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.stderr)
	}
	got := byPrefix(t, c.stdout.String())
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %d lines, or others, of %d", name, strings.Count(got[name], "\n"), n)
		}
	}
}

func TestPodsThatComeLaterAreFollowedToo(t *testing.T) {
	k := startKube(t)
	_, env := k.throughGateway(t)
	c := begin(t, env, "logs", "-f", "-l", "app=web", "--prefix", "--tail", "1")
	c.stderr.await(t, "that there is none", func(s string) bool { return strings.Contains(s, "no pod matches yet; waiting for one") })

	k.runPods(t, labelled("first", kubetest.Container{}))
	c.stderr.await(t, "the first", func(s string) bool {
		return strings.Contains(s, "pod first, container main: it is new; its log is followed too")
	})
	k.writes(t, "first", "one")
	c.stdout.await(t, "its line", func(s string) bool { return s == "[pod/first/main] one\n" })
	if err := k.Delete("", "pods", "default", "first"); err != nil {
		t.Fatal(err)
	}
	c.stderr.await(t, "its end", func(s string) bool { return strings.Contains(s, "no pod matches any more; waiting for another") })

	k.runPods(t, labelled("second", kubetest.Container{Run: counted(3)}))
	if code := c.end(t); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.stderr)
	}
	want := "[pod/first/main] one\n[pod/second/main] line 1\n[pod/second/main] line 2\n[pod/second/main] line 3\n" // the whole of it
	if got := c.stdout.String(); got != want {
		t.Errorf("printed %q, want %q:\n%s", got, want, c.stderr)
	}
}

// writes adds lines to the log of a pod's container main.
func (k *kube) writes(t *testing.T, pod string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if err := k.WriteLog("default", pod, "main", line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPodThatTakesTheNameOfAnotherIsFollowedToo(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("web-0", kubetest.Container{}), labelled("web-1", kubetest.Container{}))
	_, env := k.throughGateway(t)
	c := begin(t, env, "logs", "-f", "-l", "app=web", "--prefix")
	k.writes(t, "web-0", "old")
	c.stdout.await(t, "the old one's line", func(s string) bool { return s == "[pod/web-0/main] old\n" })
	if err := k.Delete("", "pods", "default", "web-0"); err != nil {
		t.Fatal(err)
	}
	k.runPods(t, labelled("web-0", kubetest.Container{}))
	k.writes(t, "web-0", "new")
	c.stdout.await(t, "the new one's line", func(s string) bool { return s == "[pod/web-0/main] old\n[pod/web-0/main] new\n" })
	k.writes(t, "web-0", "more") // whatever brought a line twice would have brought it before this one
	c.stdout.await(t, "each line once", func(s string) bool {
		return s == "[pod/web-0/main] old\n[pod/web-0/main] new\n[pod/web-0/main] more\n"
	})
	c.stop()
	if code := c.end(t); code != 130 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, c.stderr)
	}
}

func TestItIsSaidWhichContainerWasStartedAnew(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("a", kubetest.Container{}), labelled("b", kubetest.Container{}))
	_, env := k.throughGateway(t)
	c := begin(t, env, "logs", "-f", "-l", "app=web", "--prefix")
	k.writes(t, "a", "one")
	c.stdout.await(t, "its line", func(s string) bool { return s == "[pod/a/main] one\n" })
	if err := k.RestartContainer("default", "a", "main"); err != nil {
		t.Fatal(err)
	}
	c.stderr.await(t, "the restart", func(s string) bool {
		return strings.Contains(s, "sluice: pod a, container main, was started anew; what follows is its new log")
	})
	k.writes(t, "a", "two")
	c.stdout.await(t, "the new log", func(s string) bool { return s == "[pod/a/main] one\n[pod/a/main] two\n" })
}

func TestMoreLogsThanAreAllowedAreRefusedOrWait(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("a", kubetest.Container{}), labelled("b", kubetest.Container{}))
	_, env := k.throughGateway(t)
	args := []string{"logs", "-f", "-l", "app=web", "--prefix", "--max-log-requests"}
	out, errs, code := sluice(t, env, append(args, "1")...)
	if code != exitFailed || out != "" || !strings.Contains(errs, "2 logs are to be followed at once, and --max-log-requests is 1") {
		t.Errorf("exit code %d, %q:\n%s", code, out, errs)
	}

	c := begin(t, env, append(args, "2")...)
	k.writes(t, "a", "one")
	c.stdout.await(t, "a line", func(s string) bool { return s == "[pod/a/main] one\n" })
	k.runPods(t, labelled("c", kubetest.Container{Run: counted(1)}))
	c.stderr.await(t, "the notice", func(s string) bool {
		return strings.Contains(s, "pod c, container main: it is new; its log waits for another to end, since --max-log-requests is 2")
	})
	if err := k.Delete("", "pods", "default", "b"); err != nil {
		t.Fatal(err)
	}
	c.stdout.await(t, "what has waited", func(s string) bool { return s == "[pod/a/main] one\n[pod/c/main] line 1\n" })
}

func TestALogWaitsWhileAsManyAsAreAllowedAreFollowed(t *testing.T) {
	f := &logsFlags{podFlags: &podFlags{}, maxRequests: 1}
	s := f.newLogSet(&podTarget{n: newNotices(newOutput())}, &sluicev1.WatchTarget{}, &sluicev1.LogTarget{})
	s.listed, s.running = true, 1
	s.await(containerLog{pod: "a", container: "main", later: true})
	s.proceed(t.Context()) // without a client: what it began would panic
	if len(s.waiting) != 1 || s.running != 1 {
		t.Errorf("%d logs wait, %d are followed", len(s.waiting), s.running)
	}
}

func TestLogsThatMayNotBeSeenSayWhichPermissionIsMissing(t *testing.T) {
	k := startKube(t)
	k.runPods(t, labelled("a", kubetest.Container{}), labelled("b", kubetest.Container{}))
	_, env := k.throughGateway(t)
	for _, tc := range []struct{ forbid, want string }{
		{"pods/log", "ask for the permission to get pods/log in namespace default"},
		{"pods", "ask for the permission to list and watch pods in namespace default"},
	} {
		k.forbid.Store(&tc.forbid)
		for _, args := range [][]string{{"-l", "app=web"}, {"-f", "-l", "app=web"}, {"a", "--all-containers"}} {
			out, errs, code := sluice(t, env, append([]string{"logs"}, args...)...)
			if code != exitFailed || out != "" || strings.Count(errs, "error: ") != 1 || !strings.Contains(errs, tc.want) {
				t.Errorf("without %s, %v: exit code %d, %q:\n%s", tc.forbid, args, code, out, errs)
			}
		}
	}
}

func TestLogsOfADeploymentAreThoseOfAllItsPods(t *testing.T) {
	_, _, env := devInProcess(t)
	c := begin(t, env, "logs", "-n", "kube-system", "deploy/coredns", "--all-pods", "-f")
	c.stdout.await(t, "two pods", func(s string) bool {
		pods := map[string]bool{}
		for line := range strings.Lines(s) {
			pods[line[:strings.Index(line+"] ", "] ")]] = true
		}
		return len(pods) == 2
	})
	if got := c.stdout.String(); !strings.HasPrefix(got, "[pod/coredns-") {
		t.Errorf("printed %q", got)
	}
	c.stop()
	if code := c.end(t); code != 130 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, c.stderr)
	}
}

// event is a watch event of a pod with one container main, in a phase.
func podEvent(kind, name, phase, more string) client.Event {
	return client.Event{Type: kind, Object: []byte(fmt.Sprintf(
		`{"metadata":{"name":%q,"uid":%q%s},"spec":{"containers":[{"name":"main"}]},"status":{"phase":%q}}`, name, "uid-"+name, more, phase))}
}

func TestWhenFollowedLogsEnd(t *testing.T) {
	begins, ends := sluicev1.ChannelState_KIND_RESYNC_BEGIN, sluicev1.ChannelState_KIND_RESYNC_END
	const deleted = `,"deletionTimestamp":"2026-01-02T15:04:05Z"`
	for _, tc := range []struct {
		name  string
		named string
		tell  []any // of pods and lists
		over  bool
		says  string
	}{
		{"before the list is whole", "", []any{podEvent("ADDED", "a", "Succeeded", "")}, false, ""},
		{"all have finished", "", []any{podEvent("ADDED", "a", "Succeeded", ""), podEvent("ADDED", "b", "Failed", ""), ends}, true, ""},
		{"one has not", "", []any{podEvent("ADDED", "a", "Succeeded", ""), podEvent("ADDED", "b", "Pending", ""), ends}, false, ""},
		{"one has not yet", "", []any{podEvent("ADDED", "a", "Running", ""), ends, podEvent("MODIFIED", "a", "Succeeded", "")}, true, ""},
		{"one is being replaced", "", []any{podEvent("ADDED", "a", "Succeeded", deleted), ends}, false, ""},
		{"it was", "", []any{podEvent("ADDED", "a", "Running", ""), ends, podEvent("DELETED", "a", "Succeeded", deleted)}, false, "no pod matches any more"},
		{"one is left", "", []any{podEvent("ADDED", "a", "Running", ""), podEvent("ADDED", "b", "Succeeded", ""), ends, podEvent("DELETED", "a", "", "")}, true, ""},
		{"gone unseen", "", []any{podEvent("ADDED", "a", "Running", ""), podEvent("ADDED", "b", "Succeeded", ""), ends, begins, podEvent("ADDED", "b", "Succeeded", ""), ends}, true, ""},
		{"in the middle of a list", "", []any{podEvent("ADDED", "a", "Running", ""), podEvent("ADDED", "b", "Succeeded", ""), ends, begins, podEvent("ADDED", "b", "Succeeded", "")}, false, ""},
		{"a named one is gone", "a", []any{podEvent("ADDED", "a", "Running", ""), ends, podEvent("DELETED", "a", "Running", "")}, true, ""},
		{"a named one goes", "a", []any{podEvent("ADDED", "a", "Running", ""), ends, podEvent("MODIFIED", "a", "Running", deleted)}, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said := newOutput()
			f := &logsFlags{podFlags: &podFlags{}, maxRequests: 1}
			s := f.newLogSet(&podTarget{n: newNotices(said)}, &sluicev1.WatchTarget{Name: tc.named}, &sluicev1.LogTarget{})
			var cause error
			s.end = func(err error) { cause = err }
			for _, one := range tc.tell {
				var err error
				switch one := one.(type) {
				case client.Event:
					err = s.change(t.Context(), one)
				case sluicev1.ChannelState_Kind:
					err = s.list(t.Context(), &sluicev1.ChannelState{Kind: one}, &upstreamNotices{n: s.p.n})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := errors.Is(cause, errAllEnded); got != tc.over {
				t.Errorf("over: %v, want %v (%v)", got, tc.over, cause)
			}
			if got := said.String(); !strings.Contains(got, tc.says) || tc.says == "" && got != "" {
				t.Errorf("said %q, want %q", got, tc.says)
			}
		})
	}
}

// Whatever the pieces in which logs come, what is printed is their lines, each whole and in order, and the last one ended.
func TestLinesAreWholeHoweverTheyCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var got bytes.Buffer
		out := newLineOutput(&got)
		texts := rapid.SliceOfN(rapid.StringMatching(`(a?b?\n?){0,20}`), 1, 4).Draw(t, "texts")
		var all sync.WaitGroup
		for i, text := range texts {
			cuts := rapid.SliceOfN(rapid.IntRange(0, len(text)), 0, 8).Draw(t, "cuts")
			all.Go(func() {
				w := &lineWriter{out: out, prefix: fmt.Sprintf("[%d] ", i)}
				at := 0
				for _, cut := range append(cuts, len(text)) {
					if cut > at {
						_, _ = w.Write([]byte(text[at:cut])) // a bytes.Buffer takes all
						at = cut
					}
				}
				_ = w.flush()
			})
		}
		all.Wait()
		printed := make([]string, len(texts))
		for line := range strings.Lines(got.String()) {
			var i int
			if _, err := fmt.Sscanf(line, "[%d] ", &i); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			printed[i] += strings.TrimPrefix(line, fmt.Sprintf("[%d] ", i))
		}
		for i, text := range texts {
			if text != "" && !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			if printed[i] != text {
				t.Errorf("%d: printed %q of %q", i, printed[i], text)
			}
		}
	})
}

func TestALineThatIsTooLongIsCutAndThatIsSaid(t *testing.T) {
	var got bytes.Buffer
	cuts := 0
	w := &lineWriter{out: newLineOutput(&got), prefix: "> ", onLong: func() { cuts++ }}
	piece := bytes.Repeat([]byte("x"), longestLine/4)
	for range 6 {
		if n, err := w.Write(piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := w.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(got.String(), "\n")
	if cuts != 1 || len(lines) != 3 || len(lines[0]) != len("> \n")+5*len(piece) || len(lines[1]) != len("> \n")+len(piece) {
		t.Errorf("cut %d times: %d lines, the first of %d bytes", cuts, len(lines), len(lines[0]))
	}
}

// broken is an output that nobody reads.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

var errBroken = errors.New("broken")

func TestAnOutputThatNobodyReadsEndsFollowedLogs(t *testing.T) {
	out := newLineOutput(broken{})
	for range 2 {
		if _, err := (&lineWriter{out: out}).Write([]byte("line\n")); !errors.Is(err, errBroken) || !errors.Is(out.failed(), errBroken) {
			t.Errorf("%v, %v", err, out.failed())
		}
	}
}
