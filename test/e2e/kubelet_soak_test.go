//go:build soak && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	kubeletNamespace = "default" // where the sample pods are
	kubeletPatience  = time.Minute
)

// contained is a gateway in front of an API server whose node is a real kubelet.
type contained struct {
	*testing.T
	kubelet *kube.Kubelet
	cluster *kube.Cluster
	rig     *rig.Rig
	alice   *client.Client
}

// TestSoakRealKubelet carries every kind that streams through the gateway from containers that are real ones.
func TestSoakRealKubelet(t *testing.T) {
	c := kube.New(t, kube.Options{})
	s := &contained{T: t, cluster: c, kubelet: kube.NewKubelet(t, c)}
	if err := s.kubelet.RunSamplePods(within(t, kubeletPatience)); err != nil {
		t.Fatal(err)
	}
	s.rig = rig.New(t, rig.Options{
		Issuers: []auth.IssuerConfig{{URL: c.Issuer().URL(), CA: c.CA(), Audiences: []string{kube.Audience}}},
		Clusters: []cluster.Config{{
			Name: upstream, Server: c.URL(), CA: c.CA(),
			Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{kube.Audience},
		}},
	})
	s.alice = s.rig.Client("alice", func(cfg *client.Config) { cfg.Token = client.StaticToken(c.Token("alice", kube.Streamers)) })
	for _, part := range []struct {
		name string
		test func(*contained)
	}{
		{"exec is byte-exact both ways", (*contained).execs},
		{"no output is lost before an exit", (*contained).pours},
		{"a process that cannot be started is told", (*contained).startsNothing},
		{"attach reaches the container", (*contained).attaches},
		{"a deleted pod ends its processes", (*contained).deletes},
		{"a log goes on over rotations", (*contained).rotates},
		{"a log goes on when a container restarts", (*contained).restarts},
		{"port-forward is byte-exact both ways", (*contained).forwards},
		{"a refused port is a reset", (*contained).refuses},
	} {
		t.Run(part.name, func(t *testing.T) {
			own := *s
			own.T = t
			part.test(&own)
		})
	}
}

// exec runs a command in the shell pod.
func (s *contained) exec(ctx context.Context, streams client.Streams, command ...string) error {
	return s.alice.Exec(ctx, client.ExecRequest{
		Cluster: upstream, Streams: streams,
		Target: &sluicev1.ExecTarget{Namespace: kubeletNamespace, Pod: kube.ShellPod, Command: command},
	})
}

// wantExit checks the end of an exec.
func wantExit(err error, want int) error {
	var exit *client.ExitError
	switch {
	case want == 0 && err == nil, errors.As(err, &exit) && exit.Code == want:
		return nil
	default:
		return fmt.Errorf("ended with %w, want exit code %d", err, want)
	}
}

// seededBytes is n bytes that seed decides.
func seededBytes(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	text := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(text) // never fails
	return text
}

// anySize is log-uniform from nothing to 20 MB.
func anySize(r *rand.Rand) int { return int(math.Exp(r.Float64()*math.Log(20e6))) - 1 }

func same(what string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(text []byte) []byte { return text[max(0, min(at, len(text))-100):min(len(text), at+100)] }
	return fmt.Errorf("%s: %d bytes, want %d; from byte %d on they differ: %q, want %q", what, len(got), len(want), at, around(got), around(want))
}

// each prepares runs one after another and does at most so many of them at once.
func (s *contained) each(runs, atOnce int, prepare func(run int) (do func() error)) {
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, atOnce)
	for run := range runs {
		do := prepare(run)
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if err := do(); err != nil {
				s.Error(err)
			}
		})
	}
}

// execs sends random bytes through processes that give them back on both outputs and exit with a random code.
func (s *contained) execs() {
	const runs, atOnce = 40, 4
	ctx := within(s.T, kubeletPatience)
	sizes := rand.New(rand.NewPCG(1, 2))
	s.each(runs, atOnce, func(run int) func() error {
		text, code := seededBytes(uint64(run), anySize(sizes)), sizes.IntN(256)
		return func() error {
			var stdout, stderr bytes.Buffer
			err := s.exec(ctx, client.Streams{Stdin: bytes.NewReader(text), Stdout: &stdout, Stderr: &stderr},
				"sh", "-c", fmt.Sprintf("tee /dev/stderr; exit %d", code))
			err = errors.Join(wantExit(err, code), same("stdout", stdout.Bytes(), text), same("stderr", stderr.Bytes(), text))
			if err != nil {
				return fmt.Errorf("run %d, %d bytes: %w", run, len(text), err)
			}
			return nil
		}
	})
}

// pours has processes that exit with much of their output still on its way.
func (s *contained) pours() {
	ctx := within(s.T, kubeletPatience)
	var want bytes.Buffer
	for n := range 200_000 {
		fmt.Fprintln(&want, n+1)
	}
	for run := range 20 {
		var stdout bytes.Buffer
		err := s.exec(ctx, client.Streams{Stdout: &stdout}, "sh", "-c", "seq 200000; exit 3")
		if err := errors.Join(wantExit(err, 3), same("stdout", stdout.Bytes(), want.Bytes())); err != nil {
			s.Errorf("run %d: %v", run, err)
		}
	}
}

// startsNothing has the refusals that a kubelet and its runtime make.
func (s *contained) startsNothing() {
	ctx := within(s.T, kubeletPatience)
	for _, row := range []struct{ pod, command, about string }{
		{kube.ShellPod, "/no/such/command", "/no/such/command"},
		{kube.DonePod, "true", "container not found"},
	} {
		err := s.alice.Exec(ctx, client.ExecRequest{
			Cluster: upstream, Streams: client.Streams{Stdout: io.Discard},
			Target: &sluicev1.ExecTarget{Namespace: kubeletNamespace, Pod: row.pod, Command: []string{row.command}},
		})
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED || !strings.Contains(refusal.Message, row.about) {
			s.Errorf("%s in %s: %v", row.command, row.pod, err)
		}
	}
}

// joined is a process that somebody has joined: its stdout a piece at a time, and how it ended.
type joined struct {
	out   chan string
	ended chan error
}

// join runs what joins a process, in a goroutine that ends with ctx.
func join(run func(stdout io.Writer) error) *joined {
	j := &joined{out: make(chan string), ended: make(chan error, 1)}
	go func() { j.ended <- run(j) }()
	return j
}

// Write implements io.Writer.
func (j *joined) Write(p []byte) (int, error) {
	select {
	case j.out <- string(p):
		return len(p), nil
	case <-time.After(kubeletPatience):
		return 0, errors.New("nobody reads any more")
	}
}

// until reads until the text has a suffix.
func (j *joined) until(suffix string) error {
	var got string
	for !strings.HasSuffix(got, suffix) {
		select {
		case text := <-j.out:
			got += text
		case err := <-j.ended:
			return fmt.Errorf("ended with %w, without %q after %q", err, suffix, got)
		}
	}
	return nil
}

// attaches talks to the containers and lets go of them: of one by the end of its input, of a terminal, whose input has none, by hanging up.
func (s *contained) attaches() {
	for pod, end := range map[string]string{kube.ShellPod: "\n", kube.TermPod: "\r\n"} {
		s.Run(pod, func(t *testing.T) {
			ctx, hangUp := context.WithCancel(within(t, kubeletPatience))
			defer hangUp()
			in, keys := io.Pipe()
			defer keys.Close()
			j := join(func(stdout io.Writer) error {
				return s.alice.Attach(ctx, client.AttachRequest{
					Cluster: upstream, Streams: client.Streams{Stdin: in, Stdout: stdout},
					Target: &sluicev1.AttachTarget{Namespace: kubeletNamespace, Pod: pod, Tty: pod == kube.TermPod},
				})
			})
			for n := range 100 {
				_, err := fmt.Fprintf(keys, "line %d\n", n)
				if err = errors.Join(err, j.until(fmt.Sprintf("> line %d%s", n, end))); err != nil {
					t.Fatal(err)
				}
			}
			var want error
			if pod == kube.TermPod {
				want = context.Canceled
				hangUp()
			}
			keys.Close()
			if err := <-j.ended; !errors.Is(err, want) {
				t.Errorf("it ended with %v, want %v", err, want)
			}
		})
	}
}

func (s *contained) deletes() {
	ctx := within(s.T, kubeletPatience)
	pod := kube.Pod{Namespace: kubeletNamespace, Name: "short", Containers: []kube.Container{{Name: "main"}}}
	if err := s.kubelet.RunPod(ctx, pod); err != nil {
		s.Fatal(err)
	}
	j := join(func(stdout io.Writer) error {
		return s.alice.Exec(ctx, client.ExecRequest{
			Cluster: upstream, Streams: client.Streams{Stdout: stdout},
			Target: &sluicev1.ExecTarget{Namespace: kubeletNamespace, Pod: pod.Name, Command: []string{"sh", "-c", "echo here; sleep 1000"}},
		})
	})
	if err := errors.Join(j.until("here\n"), s.cluster.DeletePod(ctx, kubeletNamespace, pod.Name)); err != nil {
		s.Fatal(err)
	}
	if err := wantExit(<-j.ended, 137); err != nil {
		s.Error(err)
	}
}

// follow reads a container's log until enough, and returns all of its bytes and how often each state was told.
func (s *contained) follow(pod string, enough func(text []byte) bool) (text []byte, states map[sluicev1.ChannelState_Kind]int) {
	s.Helper()
	log := s.alice.Logs(client.LogsRequest{
		Cluster: upstream, Target: &sluicev1.LogTarget{Namespace: kubeletNamespace, Pod: pod, Container: "main", Follow: true},
	})
	defer log.Close()
	states = map[sluicev1.ChannelState_Kind]int{}
	ctx := within(s.T, kubeletPatience)
	for !enough(text) {
		chunk, err := log.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return text, states
		case err != nil:
			s.Fatalf("after %d bytes: %v", len(text), err)
		case chunk.State != nil:
			s.Logf("after %d bytes: %v", len(text), chunk.State)
			states[chunk.State.GetKind()]++
		default:
			text = append(text, chunk.Data...)
		}
	}
	return text, states
}

// rotates follows a log that its kubelet rotates, at 1 MiB, while it grows.
func (s *contained) rotates() {
	const bursts, lines = 60, 4000
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do seq $((i*%d+1)) $(((i+1)*%d)) | sed 's/.*/line & of many that are printed/'; i=$((i+1)); sleep 0.25; done", bursts, lines, lines)
	pod := kube.Pod{Namespace: kubeletNamespace, Name: "rotating", Restart: "Never", Containers: []kube.Container{{Name: "main", Command: []string{"sh", "-c", script}}}}
	if err := s.kubelet.RunPod(within(s.T, kubeletPatience), pod); err != nil {
		s.Fatal(err)
	}
	direct := s.followsDirectly(pod.Name)
	got, states := s.follow(pod.Name, func([]byte) bool { return false })
	var want bytes.Buffer
	for n := range bursts * lines {
		fmt.Fprintf(&want, "line %d of many that are printed\n", n+1)
	}
	s.Logf("%d bytes, %v", len(got), states)
	for n, text := range direct() {
		if err := same("log", text, want.Bytes()); err != nil {
			s.Logf("without the gateway, follower %d: %v", n, err)
		}
	}
	if err := same("log", got, want.Bytes()); err != nil {
		s.Errorf("%v; states %v", err, states)
	}
}

// followsDirectly follows a log at the API server itself, several times: a kubelet that rotates a log may leave out lines of the old file, which its runtime
// writes after the new one is there, and each follower may miss others. The result waits for the log's end.
func (s *contained) followsDirectly(pod string) (texts func() [][]byte) {
	const followers = 4
	ctx := within(s.T, kubeletPatience)
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.cluster.CertPool()}}
	s.Cleanup(transport.CloseIdleConnections)
	token, all := s.cluster.Token("alice", kube.Streamers), make([][]byte, followers)
	var reading sync.WaitGroup
	for n := range followers {
		reading.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet,
				s.cluster.URL()+"/api/v1/namespaces/"+kubeletNamespace+"/pods/"+pod+"/log?follow=true", http.NoBody)
			if err != nil {
				s.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := transport.RoundTrip(req)
			if err != nil {
				s.Error(err)
				return
			}
			defer res.Body.Close()
			if all[n], err = io.ReadAll(res.Body); err != nil {
				s.Error(err)
			}
		})
	}
	return func() [][]byte {
		reading.Wait()
		return all
	}
}

// restarts follows the log of a container that ends and is started anew.
func (s *contained) restarts() {
	script := "seq 1000; echo the end"
	pod := kube.Pod{Namespace: kubeletNamespace, Name: "restarting", Containers: []kube.Container{{Name: "main", Command: []string{"sh", "-c", script}}}}
	if err := s.kubelet.RunPod(within(s.T, kubeletPatience), pod); err != nil {
		s.Fatal(err)
	}
	var run bytes.Buffer
	for n := range 1000 {
		fmt.Fprintln(&run, n+1)
	}
	run.WriteString("the end\n")
	const runs = 3
	got, states := s.follow(pod.Name, func(text []byte) bool { return bytes.Count(text, []byte("the end\n")) == runs })
	if err := same("log", got, bytes.Repeat(run.Bytes(), runs)); err != nil || states[sluicev1.ChannelState_KIND_RESTARTED] != runs-1 || states[sluicev1.ChannelState_KIND_GAP] > 0 {
		s.Errorf("%v; states %v", err, states)
	}
}

func port(pod string, n uint32) client.PortForwardRequest {
	return client.PortForwardRequest{
		Cluster: upstream, Target: &sluicev1.PortForwardTarget{Namespace: kubeletNamespace, Pod: pod, Port: n},
	}
}

// forwards has a server in a pod give back random bytes while they still come, on connections beside each other.
func (s *contained) forwards() {
	const runs, atOnce, echo = 40, 8, 7
	ctx := within(s.T, kubeletPatience)
	pod := kube.Pod{
		Namespace: kubeletNamespace, Name: "echo",
		Containers: []kube.Container{{Name: "main", Command: []string{"nc", "-ll", "-p", fmt.Sprint(echo), "-e", "cat"}}},
	}
	if err := s.kubelet.RunPod(ctx, pod); err != nil {
		s.Fatal(err)
	}
	for { // until it listens
		if _, err := s.echoed(ctx, port(pod.Name, echo), []byte("anybody?")); err == nil {
			break
		} else if ctx.Err() != nil {
			s.Fatal(err)
		}
	}
	sizes := rand.New(rand.NewPCG(3, 4))
	s.each(runs, atOnce, func(run int) func() error {
		text := seededBytes(uint64(run), anySize(sizes))
		return func() error {
			got, err := s.echoed(ctx, port(pod.Name, echo), text)
			if err = errors.Join(err, same("echo", got, text)); err != nil {
				return fmt.Errorf("run %d, %d bytes: %w", run, len(text), err)
			}
			return nil
		}
	})
}

// echoed is what comes back of a text.
func (s *contained) echoed(ctx context.Context, req client.PortForwardRequest, text []byte) ([]byte, error) {
	forward, err := s.alice.PortForward(ctx, req)
	if err != nil {
		return nil, err
	}
	defer forward.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := forward.Write(text)
		sent <- err
	}()
	got := make([]byte, len(text))
	n, err := io.ReadFull(forward, got)
	if err != nil {
		forward.Reset()
	}
	return got[:n], errors.Join(err, <-sent)
}

// refuses wants a reset where nobody listens, at once or by the first Read.
func (s *contained) refuses() {
	forward, err := s.alice.PortForward(within(s.T, kubeletPatience), port(kube.WebPod, 81))
	if err == nil {
		defer forward.Close()
		_, err = forward.Read(make([]byte, 1))
	}
	var reset *client.Error
	if !errors.As(err, &reset) || reset.Reason != sluicev1.Reason_REASON_RESET {
		s.Errorf("a refused port: %v", err)
	}
}
