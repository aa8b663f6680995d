package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// onNode gives a test the node of the shared cluster and what asks it questions
// about pods in namespace default.
func onNode(t *testing.T) (*asker, *Cluster, *Node) {
	t.Helper()
	c, n := SharedNode(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.CertPool()}}
	t.Cleanup(transport.CloseIdleConnections)
	target := AnswersTarget{
		URL: c.URL(), Roots: c.CertPool(), Namespace: "default",
		Tokens: AnswersTokens{Permitted: c.Token("alice", Streamers)},
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return &asker{T: t, AnswersTarget: target, ctx: ctx, transport: transport}, c, n
}

// runPod runs a pod in namespace default until the end of the test.
func (a *asker) runPod(c *Cluster, p Pod) {
	a.Helper()
	p.Namespace = a.Namespace
	a.must(c.RunPod(a.ctx, p))
	a.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		if err := c.DeletePod(ctx, p.Namespace, p.Name); err != nil {
			a.Error(err)
		}
	})
}

// runShell runs a pod with a container, main, that runs a script.
func (a *asker) runShell(c *Cluster, name, script string) {
	a.Helper()
	a.runPod(c, Pod{Name: name, Containers: []Container{{Name: "main", Command: shell(script)}}})
}

// mainStatus returns the status of a pod's container once it is as wanted.
func (a *asker) mainStatus(c *Cluster, pod string, wanted func(corev1.ContainerStatus) bool) corev1.ContainerStatus {
	a.Helper()
	var status corev1.ContainerStatus
	a.must(c.AwaitPod(a.ctx, a.Namespace, pod, func(p *corev1.Pod) bool {
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		status = p.Status.ContainerStatuses[0]
		return wanted(status)
	}))
	return status
}

func restarted(times int32) func(corev1.ContainerStatus) bool {
	return func(s corev1.ContainerStatus) bool { return s.RestartCount == times && s.State.Running != nil }
}

// awaitFile waits for a file that only looking tells of, and returns what it holds.
func (a *asker) awaitFile(name string) string {
	a.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		text, err := os.ReadFile(name)
		if err == nil && len(text) > 0 {
			return string(text)
		}
		select {
		case <-again.C:
		case <-a.ctx.Done():
			a.Fatalf("%s does not appear", name)
		}
	}
}

// randomFile writes n bytes that nobody expects and returns the file and them.
func (a *asker) randomFile(random *rand.ChaCha8, n int) (name string, text []byte) {
	a.Helper()
	text = make([]byte, n)
	_, err := random.Read(text)
	a.must(err)
	name = filepath.Join(a.TempDir(), "random")
	a.must(os.WriteFile(name, text, 0o600))
	return name, text
}

func TestExecsAreByteExact(t *testing.T) {
	a, c, _ := onNode(t)
	a.runPod(c, Pod{Name: "exact", Containers: []Container{{Name: "main"}}})
	seed := [32]byte{byte(rand.Uint32())}
	t.Logf("seed %d", seed[0])
	random := rand.NewChaCha8(seed)
	dice := rand.New(random)
	for n := range 30 {
		out, wantOut := a.randomFile(random, dice.IntN(1<<20)>>dice.IntN(20))
		errout, wantErr := a.randomFile(random, dice.IntN(1<<20)>>dice.IntN(20))
		code := dice.IntN(256)
		script := fmt.Sprintf("cat %s & cat %s >&2; wait; exit %d", out, errout, code)
		p := a.open(channelsV5, "exact", "exec", allOutput, shell(script)...)
		p.wantEmpty(stdoutChannel)
		got := p.end()
		if !bytes.Equal(got.stdout, wantOut) || !bytes.Equal(got.stderr, wantErr) {
			t.Errorf("exec %d: %d and %d bytes, want %d and %d", n, len(got.stdout), len(got.stderr), len(wantOut), len(wantErr))
		}
		got.wantExit(a, code)
	}
}

// The end of a terminal reads as an error, and what it still holds by then comes
// before that.
func TestTerminalLosesNothingAtItsEnd(t *testing.T) {
	a, c, _ := onNode(t)
	a.runPod(c, Pod{Name: "terminal", Containers: []Container{{Name: "main"}}})
	for range 10 {
		p := a.open(channelsV5, "terminal", "exec", "stdout=true&tty=true", shell("seq 50000; exit 9")...)
		p.wantEmpty(stdoutChannel)
		var want bytes.Buffer
		for n := range 50000 {
			fmt.Fprintf(&want, "%d\r\n", n+1)
		}
		got := p.end()
		if !bytes.Equal(got.stdout, want.Bytes()) {
			t.Errorf("%d bytes, want %d", len(got.stdout), want.Len())
		}
		got.wantExit(a, 9)
	}
}

func TestWhatACommandLeavesRunningEndsWithIt(t *testing.T) {
	a, c, _ := onNode(t)
	a.runPod(c, Pod{Name: "leaver", Containers: []Container{{Name: "main"}}})
	// One that stays, one whose parent is gone, one in a session of its own.
	script := "sleep 300 & echo $!; (sleep 300 & echo $!); setsid sleep 300 & echo $!; exit 2"
	p := a.open(channelsV5, "leaver", "exec", allOutput, shell(script)...)
	p.wantEmpty(stdoutChannel)
	got := p.end()
	got.wantExit(a, 2)
	pids := strings.Fields(string(got.stdout))
	if len(pids) != 3 {
		t.Fatalf("pids %q", got.stdout)
	}
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		a.must(err)
		if birth(pid) != "" {
			t.Errorf("process %d still runs", pid)
		}
	}
}

func TestExecGoesOnWithoutItsConnection(t *testing.T) {
	a, c, _ := onNode(t)
	a.runPod(c, Pod{Name: "abandoned", Containers: []Container{{Name: "main"}}})
	dir := t.TempDir()
	script := fmt.Sprintf("cd %s; echo begun; until [ -e go ]; do sleep 0.02; done; echo ended > end", dir)
	p := a.open(channelsV5, "abandoned", "exec", allOutput, shell(script)...)
	p.wantEmpty(stdoutChannel)
	p.until("begun\n")
	a.must(p.NetConn().Close())
	a.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	if got := a.awaitFile(filepath.Join(dir, "end")); got != "ended\n" {
		t.Errorf("it left %q", got)
	}
}

// followToLine follows a log and waits for the first line of it.
func (a *asker) followToLine(pod string) *websocket.Conn {
	a.Helper()
	socket := a.log(pod, "follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	a.lines(socket)()
	return socket
}

func TestContainersAreRestarted(t *testing.T) {
	a, c, n := onNode(t)
	a.runShell(c, "restarting", `echo "run of $CONTAINER"; while :; do sleep 60; done`)
	first := a.mainStatus(c, "restarting", restarted(0))
	followed := a.followToLine("restarting")
	for times := range int32(3) {
		a.followToLine("restarting")
		a.must(n.KillContainer(a.Namespace, "restarting", "main"))
		status := a.mainStatus(c, "restarting", restarted(times+1))
		last := status.LastTerminationState.Terminated
		if last == nil || last.ContainerID != first.ContainerID || last.ExitCode != 137 || last.Reason != "Error" {
			t.Errorf("after restart %d the last state is %+v", times+1, last)
		}
		if status.ContainerID == first.ContainerID || !strings.HasPrefix(status.ContainerID, "host://") {
			t.Errorf("container %s was restarted as %s", first.ContainerID, status.ContainerID)
		}
		a.wantLog("restarting", "previous=true", []byte("run of main\n"))
		first = status
	}
	if rest := a.messages(followed, websocket.BinaryMessage); len(rest) > 0 {
		t.Errorf("the log of the first run went on with %q", rest)
	}
}

func TestContainersEndForGood(t *testing.T) {
	a, c, _ := onNode(t)
	for _, row := range []struct {
		name, restart, script string
		phase                 corev1.PodPhase
		code                  int32
	}{
		{"ends-well", "Never", "exit 0", corev1.PodSucceeded, 0},
		{"ends-badly", "Never", "exit 3", corev1.PodFailed, 3},
		{"ends-by-signal", "Never", "kill -15 $$", corev1.PodFailed, 143},
		{"needs-no-more", "OnFailure", "exit 0", corev1.PodSucceeded, 0},
	} {
		a.runPod(c, Pod{Name: row.name, Restart: row.restart, Containers: []Container{{Name: "main", Command: shell(row.script)}}})
		a.must(c.AwaitPod(a.ctx, a.Namespace, row.name, func(p *corev1.Pod) bool { return p.Status.Phase == row.phase }))
		status := a.mainStatus(c, row.name, func(s corev1.ContainerStatus) bool { return s.State.Terminated != nil })
		if status.State.Terminated.ExitCode != row.code || status.RestartCount != 0 {
			t.Errorf("%s: %+v", row.name, status)
		}
	}
}

// logFiles lists what is in the folder of a container's logs.
func (a *asker) logFiles(n *Node, pod string) []string {
	a.Helper()
	names, err := filepath.Glob(filepath.Join(n.dir(), "logs", a.Namespace+"_"+pod+"_*", "main", "*"))
	a.must(err)
	return names
}

func TestLogsAreRotated(t *testing.T) {
	a, c, n := onNode(t)
	dir := t.TempDir()
	a.runShell(c, "rotating", fmt.Sprintf(`i=0; until [ -e %s/stop ]; do i=$((i+1)); echo "line $i"; done; sleep 300`, dir))
	socket := a.log("rotating", "follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	next := a.lines(socket)
	for range 20 {
		a.wantConsecutive(next)
		a.must(n.Rotate(a.Namespace, "rotating", "main"))
	}
	a.wantConsecutive(next)
	first, _, _ := strings.Cut(a.wholeLog("rotating", "limitBytes=100"), "\n")
	if first == "line 1" {
		t.Error("after rotations the log begins as it did")
	}
	a.must(os.WriteFile(filepath.Join(dir, "stop"), nil, 0o600))
	var rotated int
	for _, name := range a.logFiles(n, "rotating") {
		if strings.HasPrefix(filepath.Base(name), "0.log.") {
			rotated++
		}
	}
	if rotated == 0 {
		t.Errorf("no rotated file among %v", a.logFiles(n, "rotating"))
	}
}

// A follower sees every line of a log that is rotated under it: the lines count
// on from the first to the last.
func TestFollowersMissNothingOfARotatedLog(t *testing.T) {
	a, c, n := onNode(t)
	a.runPod(c, Pod{Name: "counting", Restart: "Never", Containers: []Container{{
		Name: "main", Command: shell(`read -r go; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo "line $i"; done`), Stdin: true,
	}}})
	socket := a.log("counting", "follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	a.attach("counting", "stdin=true&"+allOutput).send(stdinChannel, "go\n")
	rotating := make(chan int)
	go func() {
		var turns int
		for n.Rotate(a.Namespace, "counting", "main") == nil { // until the container has ended
			turns++
			select {
			case <-time.After(20 * time.Millisecond):
			case <-a.ctx.Done():
			}
		}
		rotating <- turns
	}()
	got := bytes.Join(a.messages(socket, websocket.BinaryMessage), nil)
	if turns := <-rotating; turns == 0 {
		t.Error("it was never rotated")
	}
	if !bytes.Equal(got, numbered(1, 20000)) {
		t.Errorf("%d bytes, want %d", len(got), len(numbered(1, 20000)))
	}
}

func TestLongLinesAreCutInTheFileAlone(t *testing.T) {
	a, c, n := onNode(t)
	file := filepath.Join(t.TempDir(), "text")
	lengths := []int{0, 1, 16383, 16384, 16385, 32768, 50000}
	var want []byte
	for i, length := range lengths {
		want = append(append(want, bytes.Repeat([]byte{'a' + byte(i)}, length)...), '\n')
	}
	want = append(want, "no end"...)
	a.must(os.WriteFile(file, want, 0o600))
	a.runPod(c, Pod{Name: "long", Restart: "Never", Containers: []Container{{Name: "main", Command: []string{"cat", file}}}})
	a.mainStatus(c, "long", func(s corev1.ContainerStatus) bool { return s.State.Terminated != nil })
	a.wantLog("long", "", want)

	stamped := a.wholeLog("long", "timestamps=true")
	if got := strings.Count(stamped, "Z "); got != len(lengths)+1 {
		t.Errorf("%d timestamps, want one for each of %d lines", got, len(lengths)+1)
	}
	text, err := os.ReadFile(a.logFiles(n, "long")[0])
	a.must(err)
	var tags []string
	for line := range strings.Lines(string(text)) {
		tags = append(tags, strings.Fields(line)[2])
	}
	if got, want := strings.Join(tags, ""), "FFFFPFPFPPPFP"; got != want {
		t.Errorf("tags %s, want %s", got, want)
	}
}

func TestDeletionEndsWhatStreams(t *testing.T) {
	a, c, _ := onNode(t)
	a.runShell(c, "doomed", `echo here; while :; do sleep 60; done`)
	execed := a.open(channelsV5, "doomed", "exec", allOutput, shell("echo ready; sleep 300")...)
	execed.wantEmpty(stdoutChannel)
	execed.until("ready\n")
	attached := a.attach("doomed", allOutput)
	followed := a.log("doomed", "follow=true", logBinary)
	a.wantFirstEmpty(followed, websocket.BinaryMessage)
	a.must(c.DeletePod(a.ctx, a.Namespace, "doomed"))
	execed.end().want(a, 137, "", "")
	attached.end().want(a, 0, "", "")
	if got := bytes.Join(a.messages(followed, websocket.BinaryMessage), nil); string(got) != "here\n" {
		t.Errorf("the log ended with %q", got)
	}
	if _, err := c.Admin().CoreV1().Pods(a.Namespace).Get(a.ctx, "doomed", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod: %v", err)
	}
}

func TestKilledNodeComesBackAsItWas(t *testing.T) {
	a, c, n := onNode(t)
	a.runShell(c, "surviving", `echo $$; (sleep 300 & echo $!); sleep 300`)
	a.runPod(c, Pod{Name: "finished", Restart: "Never", Containers: []Container{{Name: "main", Command: shell("echo done; exit 4")}}})
	a.runPod(c, Pod{Name: "interrupted", Restart: "Never", Containers: []Container{{Name: "main", Command: shell("sleep 300")}}})
	a.mainStatus(c, "finished", func(s corev1.ContainerStatus) bool { return s.State.Terminated != nil })
	first := a.mainStatus(c, "surviving", restarted(0))
	socket := a.log("surviving", "follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	next := a.lines(socket)
	printed := next() + next()
	execed := a.open(channelsV5, "surviving", "exec", allOutput, shell("echo $$; sleep 300")...)
	execed.wantEmpty(stdoutChannel)
	pids := strings.Fields(printed + execed.until("\n"))

	a.must(n.Kill())
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		a.must(err)
		if birth(pid) != "" {
			t.Errorf("process %d still runs", pid)
		}
	}
	a.must(n.Start(a.ctx))

	status := a.mainStatus(c, "surviving", restarted(1))
	if last := status.LastTerminationState.Terminated; last == nil || last.ContainerID != first.ContainerID || last.ExitCode != 137 {
		t.Errorf("the last state is %+v, the first container was %s", last, first.ContainerID)
	}
	a.wantLog("finished", "", []byte("done\n"))
	if got := a.mainStatus(c, "finished", func(corev1.ContainerStatus) bool { return true }); got.State.Terminated == nil ||
		got.State.Terminated.ExitCode != 4 || got.RestartCount != 0 {
		t.Errorf("what had finished: %+v", got)
	}
	a.must(c.AwaitPod(a.ctx, a.Namespace, "interrupted", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }))
	again := a.open(channelsV5, "surviving", "exec", allOutput, "echo", "again")
	again.wantEmpty(stdoutChannel)
	again.end().want(a, 0, "again\n", "")
	a.must(n.KillContainer(a.Namespace, "surviving", "main"))
	a.mainStatus(c, "surviving", restarted(2))
}

// With v5 the API server, which speaks SPDY to the node, makes a success of a
// connection that ends without a status; with v4, which it only relays, the
// client sees that none has come.
func TestExecOfAKilledNodeLooksLikeASuccess(t *testing.T) {
	a, c, n := onNode(t)
	a.runPod(c, Pod{Name: "cut-off", Containers: []Container{{Name: "main"}}})
	var execs []processSocket
	for _, protocol := range []string{channelsV5, channelsV4} {
		p := a.open(protocol, "cut-off", "exec", allOutput, shell("echo begun; sleep 300")...)
		p.wantEmpty(stdoutChannel)
		p.until("begun\n")
		execs = append(execs, p)
	}
	a.must(n.Kill())
	execs[0].end().want(a, 0, "", "")
	if _, text, err := execs[1].ReadMessage(); err == nil || websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("v4 ends with %q, %v", text, err)
	}
	a.must(n.Start(a.ctx))
}

// Who may get pods/exec and not create it was let in over WebSocket before
// Kubernetes 1.35.
func TestExecNeedsCreateToo(t *testing.T) {
	a, c, _ := onNode(t)
	path := "/api/v1/namespaces/" + Namespace + "/pods/any/exec?command=true&stdout=true"
	_, answer := a.dial(handshake{token: c.Token("bob", Viewers), protocols: []string{channelsV5}}, path)
	if status := a.status(answer); answer.code != forbidden || !strings.HasPrefix(status.Message, `pods "any" is forbidden`) {
		t.Errorf("%d %s", answer.code, answer.body)
	}
}

func TestNodeOutlivesTheAPIServer(t *testing.T) {
	a, c, n := onNode(t)
	a.runShell(c, "patient", "sleep 300")
	before := a.mainStatus(c, "patient", restarted(0))
	a.must(c.KillAPIServer())
	a.must(n.KillContainer(a.Namespace, "patient", "main")) // what nobody can be told yet
	a.must(c.RestartAPIServer(a.ctx))
	after := a.mainStatus(c, "patient", restarted(1))
	if last := after.LastTerminationState.Terminated; last == nil || last.ContainerID != before.ContainerID {
		t.Errorf("the last state is %+v, the first container was %s", last, before.ContainerID)
	}
	p := a.open(channelsV5, "patient", "exec", allOutput, "echo", "again")
	p.wantEmpty(stdoutChannel)
	p.end().want(a, 0, "again\n", "")
}

func TestStdinThatIsUsedOnce(t *testing.T) {
	a, c, _ := onNode(t)
	a.runPod(c, Pod{Name: "once", Restart: "Never", Containers: []Container{{
		Name: "main", Command: shell("cat; echo end; exit 6"), Stdin: true, StdinOnce: true,
	}}})
	p := a.attach("once", "stdin=true&"+allOutput)
	p.send(stdinChannel, "hello\n")
	p.until("hello\n")
	p.closeStdin()
	p.end().want(a, 0, "end\n", "") // an attachment is told nothing of the exit code
	status := a.mainStatus(c, "once", func(s corev1.ContainerStatus) bool { return s.State.Terminated != nil })
	if status.State.Terminated.ExitCode != 6 {
		t.Errorf("%+v", status)
	}
}

// serveOnce accepts one TCP connection, for whoever forwards to it.
func (a *asker) serveOnce(serve func(*net.TCPConn)) (addr string) {
	a.Helper()
	listener, err := net.Listen("tcp", loopback(0))
	a.must(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn.(*net.TCPConn))
	}()
	a.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return listener.Addr().String()
}

// forwardTo runs a pod whose port 7 is served, and opens a connection to it.
func (a *asker) forwardTo(c *Cluster, name string, linger time.Duration, serve func(*net.TCPConn)) (t *tunnel, errors, data uint32) {
	a.Helper()
	a.runPod(c, Pod{
		Name: name, Containers: []Container{{Name: "main"}}, Ports: map[int]string{7: a.serveOnce(serve)}, ForwardLinger: linger,
	})
	t = a.tunnelTo(name)
	errors, data = t.connect("0", 7)
	return t, errors, data
}

func TestForwardedConnectionEndsOneDirectionAtATime(t *testing.T) {
	a, c, _ := onNode(t)
	tunnel, errors, data := a.forwardTo(c, "half", 0, func(conn *net.TCPConn) {
		text, err := io.ReadAll(conn) // to the client's FIN
		fmt.Fprintf(conn, "%s %v", text, err)
	})
	tunnel.send(data, "hello")
	tunnel.finish(data)
	tunnel.until(func() bool { return tunnel.got[data].ended && tunnel.got[errors].ended })
	if got := string(tunnel.got[data].text); got != "hello <nil>" {
		t.Errorf("answered %q", got)
	}
}

func TestForwardedConnectionLingersAsContainerdHasIt(t *testing.T) {
	a, c, _ := onNode(t)
	heard := make(chan string, 1)
	tunnel, errors, data := a.forwardTo(c, "lingering", 100*time.Millisecond, func(conn *net.TCPConn) {
		text, err := io.ReadAll(conn)
		heard <- fmt.Sprint(string(text), err)
	})
	tunnel.send(data, "hello")
	tunnel.finish(data)
	tunnel.until(func() bool { return tunnel.got[data].ended && tunnel.got[errors].ended })
	if got := <-heard; got != "hello<nil>" || len(tunnel.got[errors].text) > 0 {
		t.Errorf("the pod heard %q, the client %q", got, tunnel.got[errors].text)
	}
}

func TestResetOfAForwardedConnectionIsTold(t *testing.T) {
	a, c, _ := onNode(t)
	tunnel, errors, data := a.forwardTo(c, "resetting", 0, func(conn *net.TCPConn) {
		_, _ = io.ReadFull(conn, make([]byte, 5))
		_ = conn.SetLinger(0)
	})
	tunnel.send(data, "hello")
	tunnel.until(func() bool { return tunnel.got[errors].resets || tunnel.got[errors].ended })
	if text := string(tunnel.got[errors].text); !strings.Contains(text, "connection reset by peer") {
		t.Errorf("the error stream: %q", text)
	}
	// It looks like an end first: that is what containerd does.
	if got := tunnel.got[data]; !got.ended {
		t.Errorf("the data stream: %+v", got)
	}
}

func TestDeletionEndsForwardedConnections(t *testing.T) {
	a, c, _ := onNode(t)
	held := make(chan error, 1)
	tunnel, _, data := a.forwardTo(c, "forwarding", 0, func(conn *net.TCPConn) {
		_, err := io.ReadAll(conn)
		held <- err
	})
	tunnel.until(func() bool { return tunnel.got[data].replied })
	a.must(c.DeletePod(a.ctx, a.Namespace, "forwarding"))
	tunnel.until(func() bool { return tunnel.got[data].ended })
	if err := <-held; err != nil {
		t.Errorf("the pod's end: %v", err)
	}
}
