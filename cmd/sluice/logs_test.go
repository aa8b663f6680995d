package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// number is a number in a line.
var number = regexp.MustCompile(`\d+`)

// consecutive reports the first place where the whole lines of a log do not count on by one.
func consecutive(text string) error {
	last := -1
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		n, err := strconv.Atoi(number.FindString(line))
		if err != nil {
			return fmt.Errorf("no number in %q: %w", line, err)
		}
		if last >= 0 && n != last+1 {
			return fmt.Errorf("%d follows %d", n, last)
		}
		last = n
	}
	return nil
}

// lines waits until there are so many more lines.
func lines(t *testing.T, o *output, more int) {
	t.Helper()
	had := strings.Count(o.String(), "\n")
	o.await(t, fmt.Sprintf("%d lines more", more), func(s string) bool { return strings.Count(s, "\n") >= had+more })
}

func TestALogIsPrintedWhole(t *testing.T) {
	_, _, env := devInProcess(t)
	all, errs, code := sluice(t, env, "logs", "done")
	if code != exitOK || errs != "" || strings.Count(all, "\n") != 100 || consecutive(all) != nil {
		t.Fatalf("exit code %d, %v, %s:\n%s", code, consecutive(all), errs, all)
	}
	if again, _, code := sluice(t, env, "logs", "-f", "pod/done"); code != exitOK || again != all {
		t.Errorf("followed to its end: exit code %d, %d bytes, want %d", code, len(again), len(all))
	}
	last := strings.SplitAfter(all, "\n")[97:]
	if out, _, code := sluice(t, env, "logs", "done", "--tail", "3"); code != exitOK || out != strings.Join(last, "") {
		t.Errorf("exit code %d, %q, want the last three lines", code, out)
	}
	if out, _, code := sluice(t, env, "logs", "done", "--tail", "0"); code != exitOK || out != "" {
		t.Errorf("exit code %d, %q, want nothing", code, out)
	}
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) `)
	if out, _, code := sluice(t, env, "logs", "done", "--timestamps", "--tail", "1"); code != exitOK || !stamp.MatchString(out) {
		t.Errorf("exit code %d, %q, want a time before it", code, out)
	}
	if out, _, code := sluice(t, env, "logs", "done", "--since-time", "2040-01-01T00:00:00Z"); code != exitOK || out != "" {
		t.Errorf("exit code %d, %q, want nothing of the future", code, out)
	}
}

func TestALogOfSeveralContainersIsTheDefaultOnes(t *testing.T) {
	_, _, env := devInProcess(t)
	c := begin(t, env, "logs", "-f", "talker")
	lines(t, c.stdout, 5)
	if !strings.Contains(c.stderr.String(), "container main of main, quiet; -c chooses another") {
		t.Errorf("it was not told: %s", c.stderr)
	}
	c.stop()
	if code := c.end(t); code != 130 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, c.stderr)
	}
	if err := consecutive(c.stdout.String()); err != nil {
		t.Error(err)
	}
}

func TestALogOfADeploymentIsOneOfItsPods(t *testing.T) {
	_, _, env := devInProcess(t)
	c := begin(t, env, "logs", "-n", "shop", "deploy/web", "--tail", "1")
	c.stderr.await(t, "the pod", func(s string) bool {
		return strings.Contains(s, "sluice: pod web-") && strings.Contains(s, "of deploy/web")
	})
}

// counting is a pod that prints a number every few milliseconds for ever.
const counting = `i=0; while true; do i=$((i+1)); echo "line $i"; sleep 0.02; done`

// served is a gateway in front of k by `sluice serve`, until the test or the command ends.
func gatewayOf(t *testing.T, file, dir, name string) (*command, ready) {
	t.Helper()
	readyFile := filepath.Join(dir, name+".json")
	c := begin(t, isolated(t), "serve", "--config", file, "--ready-file", readyFile)
	return c, awaitReady(t, c, readyFile)
}

// throughGateway is the environment of commands that reach k through a gateway, and the relay before that.
func (k *kube) throughGateway(t *testing.T) (*rig.Relay, environment) {
	t.Helper()
	file, dir := k.configuration(t)
	_, r := gatewayOf(t, file, dir, "only")
	relay := rig.NewRelay(t, r.GRPCAddr)
	return relay, isolated(t).with("SLUICE_SERVER", relay.Addr(), "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_CLUSTER", "own",
		"SLUICE_TOKEN", k.token(t, "alice", "sluice", "kubernetes"))
}

// runPods runs pods until the test ends.
func (k *kube) runPods(t *testing.T, pods ...kubetest.Pod) {
	t.Helper()
	for _, p := range pods {
		if err := k.RunPod(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFollowedLogGoesOnThroughARestartOfTheGateway(t *testing.T) {
	k := startKube(t)
	if err := k.RunPod(kubetest.Pod{Name: "counter", Containers: []kubetest.Container{{Run: kubetest.Script(counting)}}}); err != nil {
		t.Fatal(err)
	}
	file, dir := k.configuration(t)
	gateway, r := gatewayOf(t, file, dir, "first")
	relay := rig.NewRelay(t, r.GRPCAddr)
	env := isolated(t).with("SLUICE_SERVER", relay.Addr(), "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_CLUSTER", "own",
		"SLUICE_TOKEN", k.token(t, "alice", "sluice", "kubernetes"))
	c := begin(t, env, "logs", "-f", "counter")
	lines(t, c.stdout, 10)
	relay.Cut()
	lines(t, c.stdout, 10)

	next, r := gatewayOf(t, file, dir, "second")
	relay.Retarget(r.GRPCAddr)
	gateway.stop()
	if code := gateway.end(t); code != exitOK {
		t.Errorf("the first gateway's exit code is %d:\n%s", code, gateway.stderr)
	}
	lines(t, c.stdout, 20)
	c.stop()
	if code := c.end(t); code != 130 {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, c.stderr)
	}
	if err := consecutive(c.stdout.String()); err != nil {
		t.Errorf("%v:\n%s", err, c.stderr)
	}
	next.stop()
	next.end(t)
}

// written is a pod whose log holds what a test writes to it.
func written(t *testing.T, k *kube) (write func(lines ...string)) {
	t.Helper()
	if err := k.RunPod(kubetest.Pod{Name: "written", Restart: "Never", Containers: []kubetest.Container{{}}}); err != nil {
		t.Fatal(err)
	}
	return func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if err := k.WriteLog("default", "written", "main", line+"\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWhatALogMissesIsToldAndItsExitCodeIsAnother(t *testing.T) {
	k := startKube(t)
	write := written(t, k)
	file, dir := k.configuration(t)
	gateway, r := gatewayOf(t, file, dir, "first")
	relay := rig.NewRelay(t, r.GRPCAddr)
	env := isolated(t).with("SLUICE_SERVER", relay.Addr(), "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_CLUSTER", "own",
		"SLUICE_TOKEN", k.token(t, "alice", "sluice", "kubernetes"))
	write("one", "two")
	c := begin(t, env, "logs", "-f", "written")
	c.stdout.await(t, "what there is", func(s string) bool { return s == "one\ntwo\n" })
	relay.Retarget(nowhere(t))
	gateway.stop()
	gateway.end(t)
	write("never seen")
	if err := k.RotateLog("default", "written", "main"); err != nil {
		t.Fatal(err)
	}
	write("three")
	_, r = gatewayOf(t, file, dir, "second")
	relay.Retarget(r.GRPCAddr)
	c.stderr.await(t, "what is missing", func(s string) bool { return strings.Contains(s, "sluice: lines of the log were missed: ") })
	c.stdout.await(t, "what there is still", func(s string) bool { return s == "one\ntwo\nthree\n" })
	if err := k.KillContainer("default", "written", "main"); err != nil {
		t.Fatal(err)
	}
	if code := c.end(t); code != exitMissed {
		t.Errorf("exit code %d, want %d:\n%s", code, exitMissed, c.stderr)
	}
}

func TestALogSaysThatItsContainerWasStartedAnew(t *testing.T) {
	k := startKube(t)
	write := written(t, k)
	_, env := k.throughGateway(t)
	write("one")
	c := begin(t, env, "logs", "-f", "written")
	c.stdout.await(t, "what there is", func(s string) bool { return s == "one\n" })
	if err := k.RestartContainer("default", "written", "main"); err != nil {
		t.Fatal(err)
	}
	c.stderr.await(t, "the restart", func(s string) bool { return strings.Contains(s, "the container was started anew") })
	write("two")
	c.stdout.await(t, "the new log", func(s string) bool { return s == "one\ntwo\n" })
}

func TestALogThatWaitsForItsContainerSaysSo(t *testing.T) {
	k := startKube(t)
	if err := k.RunPod(kubetest.Pod{Name: "written", Containers: []kubetest.Container{{}}}); err != nil {
		t.Fatal(err)
	}
	_, env := k.throughGateway(t)
	k.writes(t, "written", "one")
	c := begin(t, env, "logs", "-f", "written")
	c.stdout.await(t, "what there is", func(s string) bool { return s == "one\n" })
	if err := k.KillContainer("default", "written", "main"); err != nil { // it runs again a second later
		t.Fatal(err)
	}
	c.stderr.await(t, "the new container", func(s string) bool { return strings.Contains(s, "the container was started anew") })
	if errs := c.stderr.String(); strings.Contains(errs, "API server") {
		t.Errorf("the API server was there all the time:\n%s", errs)
	}
}
