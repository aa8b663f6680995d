package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// The channels of an exec or an attach: the first byte of every message.
const (
	channelStdin  = 0
	channelStdout = 1
	channelStderr = 2
	channelStatus = 3
	channelResize = 4
	channels      = 5

	// channelClose is followed by the channel that the client ends, in
	// v5.channel.k8s.io alone (KEP-4006).
	channelClose = 255
)

// The subprotocols of exec and attach. Their base64 variants are not offered.
const (
	protocolV5 = "v5.channel.k8s.io"
	protocolV4 = "v4.channel.k8s.io"
	protocolV1 = "channel.k8s.io"
)

// commandOptions are PodExecOptions, or PodAttachOptions without a command.
type commandOptions struct {
	container                  string
	command                    []string
	stdin, stdout, stderr, tty bool
}

func parseCommandOptions(q url.Values) commandOptions {
	return commandOptions{
		container: q.Get("container"), command: q["command"],
		stdin: truthy(q, "stdin"), stdout: truthy(q, "stdout"), stderr: truthy(q, "stderr"), tty: truthy(q, "tty"),
	}
}

// serveExec serves pods/exec.
func (s *Server) serveExec(c *call, k *Kind) error {
	return s.serveCommand(c, k, func(r *remote) (*Status, error) { return r.exec() })
}

// serveAttach serves pods/attach.
func (s *Server) serveAttach(c *call, k *Kind) error {
	return s.serveCommand(c, k, func(r *remote) (*Status, error) { return r.attach() })
}

// serveCommand serves what is common to exec and attach: everything but what
// runs. The Status is what the client is told in the end.
func (s *Server) serveCommand(c *call, k *Kind, run func(*remote) (*Status, error)) error {
	if err := s.mayCreate(c); err != nil {
		return err
	}
	o := parseCommandOptions(c.r.URL.Query())
	pod, err := s.podFor(c, k)
	if err != nil {
		return err
	}
	if o.container, err = containerOf(pod, o.container); err != nil {
		return err
	}
	if pod.object.String("spec", "nodeName") == "" {
		return badRequest("pod %s does not have a host assigned", pod.name)
	}
	if !wantsWebSocket(c.r) {
		return badRequest("Upgrade request required")
	}
	protocol, ok := commandProtocol(c)
	if !ok {
		return hangUp(c)
	}
	r := &remote{options: o, pod: pod, protocol: protocol, stream: s.newStream(c)}
	if code, text := r.refuse(); code != 0 {
		http.Error(c.w, text, code)
		return nil
	}
	r.stdin = shell.NewPipe(shell.PipeSize)
	h := handshake{lenient: true, protocol: protocol, binary: true, receive: r.receive}
	if opened, err := r.open(r.upgradeTo(c, h)); !opened {
		return err
	}
	defer r.finish()
	status, err := run(r)
	if err != nil {
		_ = r.greet() // If it fails, so does what follows.
		status = internalError(err)
	}
	if r.ctx.Err() == nil && !r.plan.noStatus {
		r.tell(status)
	}
	return nil
}

// commandProtocol chooses the subprotocol: v5 wherever it is among those on
// offer, for the API server serves that one itself and leaves the others to
// the kubelet.
func commandProtocol(c *call) (protocol string, ok bool) {
	if protocol, ok = c.plan.protocol(c.r, func(p string) bool { return p == protocolV5 }); ok {
		return protocol, true
	}
	return c.plan.protocol(c.r, func(p string) bool { return p == protocolV4 || p == protocolV1 || p == "" })
}

// remote is one exec or attach.
type remote struct {
	*stream

	// Immutable.
	options  commandOptions
	pod      *revision
	protocol string

	stdin   *shell.Pipe // what the client has sent
	greeted bool        // Owned by the handler.

	mu       sync.Mutex
	terminal *shell.Terminal // once there is one; Guarded by mu.
	sizes    []byte          // what the client has sent of sizes, not yet decoded; Guarded by mu.
	size     terminalSize    // the last one; Guarded by mu.
}

// terminalSize is what a client sends on the resize channel.
type terminalSize struct {
	Width, Height uint16
}

// refuse is what the kubelet answers in place of an upgrade; 0 if it does not.
// To v5 the API server answers itself, and tells in the stream what the kubelet
// answered.
func (r *remote) refuse() (code int, text string) {
	o := r.options
	switch {
	case r.protocol == protocolV5:
	case !o.stdin && !o.stdout && !o.stderr:
		return http.StatusBadRequest, errNoStreams
	default:
		if _, _, err := r.container(); err != nil {
			return http.StatusInternalServerError, err.Error()
		}
	}
	return 0, ""
}

const errNoStreams = "you must specify at least 1 of stdin, stdout, stderr"

// start is where a command runs, or the kubelet's refusal as v5 tells it.
func (r *remote) start() (*container, *containerRun, error) {
	if !r.options.stdin && !r.options.stdout && !r.options.stderr {
		return nil, nil, errors.New("unable to upgrade connection: " + errNoStreams)
	}
	c, run, err := r.container()
	if err != nil {
		return nil, nil, fmt.Errorf("unable to upgrade connection: %w", err)
	}
	return c, run, nil
}

// greet sends, once, the empty message by which a client learns that it is
// connected.
func (r *remote) greet() error {
	if r.greeted {
		return nil
	}
	r.greeted = true
	switch {
	case r.options.stdout:
		return r.send([]byte{channelStdout})
	case r.options.stderr:
		return r.send([]byte{channelStderr})
	}
	return r.send([]byte{channelStatus})
}

// receive takes a message of the client's. It blocks while the program does
// not read, and so keeps the client waiting.
func (r *remote) receive(message []byte) bool {
	if len(message) == 0 {
		return true
	}
	if message[0] == channelClose && r.protocol == protocolV5 {
		if len(message) != 2 || message[1] >= channels {
			return false
		}
		if message[1] == channelStdin {
			r.stdin.CloseWrite()
		}
		return true
	}
	switch message[0] {
	case channelStdin:
		if r.options.stdin {
			_, _ = r.stdin.WriteContext(r.ctx, message[1:]) // What nobody reads any more is dropped.
		}
	case channelResize:
		r.resize(message[1:])
	}
	return true
}

// resize takes a piece of the stream of sizes.
func (r *remote) resize(data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sizes = append(r.sizes, data...)
	d := json.NewDecoder(bytes.NewReader(r.sizes))
	for {
		var size terminalSize
		if d.Decode(&size) != nil {
			break
		}
		r.size = size
	}
	r.sizes = r.sizes[d.InputOffset():]
	if len(r.sizes) > 1024 {
		r.sizes = nil
	}
	if r.terminal != nil {
		r.terminal.Resize(r.size.Width, r.size.Height)
	}
}

// sit puts the client in front of a terminal.
func (r *remote) sit(t *shell.Terminal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.terminal = t
	t.Resize(r.size.Width, r.size.Height)
}

// tell sends the status that is the last message.
func (r *remote) tell(s *Status) {
	body, err := json.Marshal(s)
	switch {
	case err != nil:
		r.server.options.Logger.Error("encode status", "err", err)
		return
	case r.protocol == protocolV5 || r.protocol == protocolV4:
	case s.Status == "Success":
		return
	default:
		body = []byte(s.Message)
	}
	_ = r.send(append([]byte{channelStatus}, body...)) // If it fails, the client is gone, or a fault has struck.
}

// forward sends what a stream of the program says.
func (r *remote) forward(channel byte, from *shell.Pipe) {
	b := make([]byte, 1+(32<<10))
	b[0] = channel
	for {
		n, err := from.ReadContext(r.ctx, b[1:])
		if n > 0 && r.send(b[:1+n]) != nil {
			from.CloseRead()
			return
		}
		if err != nil {
			return
		}
	}
}

// exec runs a command and returns how it ended.
func (r *remote) exec() (*Status, error) {
	c, run, err := r.start()
	if err != nil {
		return nil, err
	}
	if len(r.options.command) == 0 {
		return nil, errors.New("error executing command in container: exec: no command")
	}
	if err := shell.Find(r.options.command[0]); err != nil {
		return nil, fmt.Errorf("error executing command in container: %w", err)
	}
	if err := r.greet(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(run.ctx)
	defer cancel(nil)
	stop := context.AfterFunc(r.ctx, func() { cancel(errGone) })
	defer stop()
	return r.exited(r.execute(ctx, cancel, c)), nil
}

// container is where a command runs.
func (r *remote) container() (*container, *containerRun, error) {
	box := r.server.node.find(r.pod.key(), r.pod.uid)
	if box == nil {
		return nil, nil, containerNotFound(r.options.container)
	}
	c := box.container(r.options.container)
	run := c.current()
	if run == nil {
		return nil, nil, containerNotFound(r.options.container)
	}
	return c, run, nil
}

// execute runs the command to its end, with all that it has said sent, and
// returns its exit code.
func (r *remote) execute(ctx context.Context, cancel context.CancelCauseFunc, c *container) int {
	out, errs := shell.NewPipe(shell.PipeSize), shell.NewPipe(shell.PipeSize)
	p := c.process(r.options.command...)
	p.Stdin, p.Stdout, p.Stderr = strings.NewReader(""), out, errs
	if r.options.stdin {
		p.Stdin = r.stdin
	}
	var input, output sync.WaitGroup
	stop := func() {}
	if r.options.tty {
		t := shell.NewTerminal(out)
		t.OnInterrupt(func() { cancel(errInterrupted) })
		r.sit(t)
		p.Stdout, p.Stderr, p.Terminal = t, t, t
		if r.options.stdin {
			p.Stdin = t
			typing, end := context.WithCancel(ctx)
			stop = end
			input.Go(func() { r.keyboard(typing, t) })
		}
		p.Env = append(p.Env, "TERM=xterm")
	}
	gate := make(chan struct{}) // closed when output may be sent
	for channel, from := range map[byte]*shell.Pipe{channelStdout: out, channelStderr: errs} {
		wanted := channel == channelStdout && r.options.stdout || channel == channelStderr && r.options.stderr && !r.options.tty
		output.Go(func() {
			<-gate
			if wanted {
				r.forward(channel, from)
			} else {
				_, _ = io.Copy(io.Discard, from) // A pipe fails at its end only.
			}
		})
	}
	if !r.plan.earlyStatus {
		close(gate)
	}
	bounded, done := context.WithTimeoutCause(ctx, r.server.options.ExecTimeout, errKilled)
	defer done()
	code := exitCode(bounded, shell.Run(bounded, p))
	stop()
	r.stdin.CloseRead() // what comes now is for nobody
	out.CloseWrite()
	errs.CloseWrite()
	input.Wait()
	if r.plan.earlyStatus {
		r.tell(r.exited(code))
		r.plan.noStatus = true
		close(gate)
	}
	output.Wait()
	return code
}

// keyboard types what the client sends, until ctx ends. A client that ends its
// input hangs up the terminal.
func (r *remote) keyboard(ctx context.Context, t *shell.Terminal) {
	b := make([]byte, 4096)
	for {
		n, err := r.stdin.ReadContext(ctx, b)
		if n > 0 && t.Type(ctx, b[:n]) != nil {
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				t.Hangup()
			}
			return
		}
	}
}

// attach connects the client with the main program until either ends. Unlike
// in a cluster the client is attached when it is greeted, and misses nothing
// from then on.
func (r *remote) attach() (*Status, error) {
	c, _, err := r.start()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	a := &attacher{ctx: ctx}
	if r.options.stdout {
		a.stdout = shell.NewPipe(shell.PipeSize)
	}
	if r.options.stderr && !c.spec.TTY {
		a.stderr = shell.NewPipe(shell.PipeSize)
	}
	run, err := c.attach(a)
	if err != nil {
		return nil, err
	}
	defer c.detach(a)
	if err := r.greet(); err != nil {
		return nil, err
	}
	var output, input sync.WaitGroup
	for channel, pipe := range map[byte]*shell.Pipe{channelStdout: a.stdout, channelStderr: a.stderr} {
		if pipe != nil {
			output.Go(func() { r.forward(channel, pipe) })
		}
	}
	if run.terminal != nil {
		r.sit(run.terminal)
	}
	if r.options.stdin && c.spec.Stdin {
		input.Go(func() {
			if r.feed(ctx, c, run) {
				cancel()
			}
		})
	}
	select {
	case <-run.done:
	case <-ctx.Done():
		a.end()
	}
	output.Wait() // what was said before the end is still sent
	cancel()
	input.Wait() // and what was typed before it is still read
	r.stdin.CloseRead()
	return r.exited(0), nil
}

// feed gives the main program what the client sends, until ctx or the run ends.
// It says whether the client's end of its input ends the attachment: it does
// unless it is the program's too.
func (r *remote) feed(ctx context.Context, c *container, run *containerRun) (over bool) {
	b := make([]byte, 4096)
	for {
		n, err := r.stdin.ReadContext(ctx, b)
		if n > 0 {
			var failed error
			if run.terminal != nil {
				failed = run.terminal.Type(ctx, b[:n])
			} else {
				_, failed = run.stdin.WriteContext(ctx, b[:n])
			}
			if failed != nil {
				return false
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return false
		case c.spec.StdinOnce:
			run.endInput()
			return false
		default:
			return true
		}
	}
}

// endInput ends the input of the main program for good.
func (run *containerRun) endInput() {
	if run.terminal != nil {
		run.terminal.Hangup()
	} else {
		run.stdin.CloseWrite()
	}
}

// exited is the Status by which a client learns an exit code. Its words depend
// on whether the API server or the kubelet finds them.
func (r *remote) exited(code int) *Status {
	if code == 0 {
		return &Status{Status: "Success"}
	}
	words := "exit status"
	if r.protocol == protocolV5 {
		words = "command terminated with exit code"
	}
	return &Status{
		Status: "Failure", Reason: "NonZeroExitCode", Message: fmt.Sprintf("command terminated with non-zero exit code: %s %d", words, code),
		Details: &StatusDetails{Causes: []StatusCause{{Reason: "ExitCode", Message: fmt.Sprint(code)}}},
	}
}

// containerNotFound is how a kubelet calls a container that does not run.
func containerNotFound(name string) error { return fmt.Errorf("container not found (%q)", name) }

// internalError is how the API server reports what went wrong in a kubelet.
func internalError(err error) *Status {
	s := failure(http.StatusInternalServerError, "InternalError", "Internal error occurred: "+err.Error(),
		&StatusDetails{Causes: []StatusCause{{Message: err.Error()}}})
	s.Kind, s.APIVersion = "", ""
	return s
}
