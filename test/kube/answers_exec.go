package kube

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The subprotocols of exec and attach over WebSocket, and the channels, which are
// the first byte of every message (KEP-4006).
const (
	channelsV5 = "v5.channel.k8s.io"
	channelsV4 = "v4.channel.k8s.io"

	stdinChannel  = 0
	stdoutChannel = 1
	stderrChannel = 2
	errorChannel  = 3
	resizeChannel = 4
	closeChannel  = 255
)

// bearerProtocol, with a token behind it, authenticates who cannot set a header.
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

func execAnswers() []answer {
	rows := []answer{
		{"the first message is empty, the last a status, then close 1000", execBegins},
		{"exit 0 is a success", execSucceeds},
		{"another exit is in the causes of a failure", execExits},
		{"a signal is 128 and its number", execDiesOfSignal},
		{"without stdout the first message is on stderr", execWithoutStdout},
		{"with stdin alone the first message is on the error channel", execStdinAlone},
		{"ff 00 closes stdin", execClosesStdin},
		{"bytes are bytes, both ways", execIsByteExact},
		{"a message in two frames is two messages", execSplitsMessages},
		{"all output comes before the status", execStatusIsLast},
		{"output does not wait for stdin", execStreams},
		{"a terminal echoes and has one output", execOnTerminal},
		{"a terminal has the size it was told, and the next one", execResizes},
		{"Ctrl-C interrupts", execInterrupts},
		{"v4 is as v5 but for the closing of stdin", execV4},
		{"v5 is preferred to v4", execPrefersV5},
		{"without a subprotocol the status is no JSON", execWithoutSubprotocol},
		{"an unknown subprotocol is refused without a body", execRefusesUnknown},
		{"a token may be a subprotocol beside another", execTokenInSubprotocol},
		{"without a command it fails in the stream", execWithoutCommand},
		{"that connects nothing it fails in the stream", execConnectsNothing},
		{"a command that is not found is an internal error", execFindsNothing},
		{"in a container that has ended it is refused in the stream", execInEnded},
	}
	for _, r := range execRefusals {
		rows = append(rows, answer{r.name, func(a *asker) {
			_, answer := a.dial(handshake{token: r.token(a.Tokens), protocols: []string{channelsV5}}, r.path(a))
			r.check(a, answer)
		}})
	}
	return rows
}

var execRefusals = []refusal{
	{name: "an exec without a token", token: noToken, path: ofPod(ShellPod, "exec", "command=true&stdout=true"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "an exec by a user without permission", token: unpermitted, path: ofPod(ShellPod, "exec", "command=true&stdout=true"), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "an exec in a pod that does not exist", token: permitted, path: ofPod("nobody", "exec", "command=true&stdout=true"), code: notFound, reason: reasonNotFound},
	{name: "an exec in a container that does not exist", token: permitted, path: ofPod(ShellPod, "exec", "container=nobody&command=true&stdout=true"), code: badRequest, reason: reasonBadRequest},
	{name: "an exec in one of two containers", token: permitted, path: ofPod(TalkerPod, "exec", "command=true&stdout=true"), code: badRequest, reason: reasonBadRequest},
}

// processSocket is the WebSocket of an exec or an attachment.
type processSocket struct {
	*asker
	*websocket.Conn
}

// said is all that a process sent.
type said struct {
	stdout, stderr []byte
	status         *metav1.Status
	raw            string // of the status
}

// exec runs a command in the shell pod with v5; q says what is connected.
func (a *asker) exec(q string, command ...string) processSocket {
	a.Helper()
	return a.open(channelsV5, ShellPod, "exec", q, command...)
}

// open opens an exec or an attachment and reads the first message, which is empty.
func (a *asker) open(protocol, pod, subresource, q string, command ...string) processSocket {
	a.Helper()
	path := a.podPath(pod, subresource, q+"&"+url.Values{"command": command}.Encode())
	socket, answer := a.dial(handshake{token: a.Tokens.Permitted, protocols: []string{protocol}}, path)
	if socket == nil {
		a.Fatalf("%s: %d %s", path, answer.code, answer.body)
	}
	if socket.Subprotocol() != protocol {
		a.Errorf("subprotocol %q, want %q", socket.Subprotocol(), protocol)
	}
	return processSocket{a, socket}
}

// next reads a message; its first byte is the channel.
func (p processSocket) next() (channel byte, text []byte) {
	p.Helper()
	message := p.message(p.Conn, websocket.BinaryMessage)
	if len(message) == 0 {
		p.Fatal("a message without a channel")
	}
	return message[0], message[1:]
}

func (p processSocket) wantEmpty(channel byte) {
	p.Helper()
	if got, text := p.next(); got != channel || len(text) > 0 {
		p.Errorf("the first message is %q on channel %d, want nothing on channel %d", text, got, channel)
	}
}

func (p processSocket) send(channel byte, text string) {
	p.Helper()
	p.must(p.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, text...)))
}

func (p processSocket) closeStdin() {
	p.Helper()
	p.send(closeChannel, string([]byte{stdinChannel}))
}

// until reads stdout until it ends with suffix, and returns it.
func (p processSocket) until(suffix string) string {
	p.Helper()
	var out []byte
	for !strings.HasSuffix(string(out), suffix) {
		channel, text := p.next()
		if channel != stdoutChannel {
			p.Fatalf("%q on channel %d while waiting for %q after %q", text, channel, suffix, out)
		}
		out = append(out, text...)
	}
	return string(out)
}

// end reads up to a close of 1000.
func (p processSocket) end() said {
	p.Helper()
	var s said
	for _, message := range p.messages(p.Conn, websocket.BinaryMessage) {
		if s.status != nil {
			p.Errorf("after the status %q", message)
		}
		switch text := message[1:]; message[0] {
		case stdoutChannel:
			s.stdout = append(s.stdout, text...)
		case stderrChannel:
			s.stderr = append(s.stderr, text...)
		case errorChannel:
			if len(text) == 0 {
				continue
			}
			s.status, s.raw = new(metav1.Status), string(text)
			p.must(json.Unmarshal(text, s.status))
		default:
			p.Errorf("%q on channel %d", text, message[0])
		}
	}
	if s.status == nil {
		p.Fatalf("no status came; stdout %q, stderr %q", s.stdout, s.stderr)
	}
	return s
}

// want checks what was said, and the exit code.
func (s said) want(a *asker, code int, stdout, stderr string) {
	a.Helper()
	if string(s.stdout) != stdout || string(s.stderr) != stderr {
		a.Errorf("stdout %q, stderr %q, want %q and %q", s.stdout, s.stderr, stdout, stderr)
	}
	s.wantExit(a, code)
}

func (s said) wantExit(a *asker, code int) {
	a.Helper()
	if code == 0 {
		if s.raw != `{"metadata":{},"status":"Success"}` {
			a.Errorf("status %s, want a success", s.raw)
		}
		return
	}
	want := []metav1.StatusCause{{Type: "ExitCode", Message: fmt.Sprint(code)}}
	if s.status.Status != metav1.StatusFailure || s.status.Reason != "NonZeroExitCode" ||
		s.status.Details == nil || !slices.Equal(s.status.Details.Causes, want) {
		a.Errorf("status %s, want exit code %d", s.raw, code)
	}
	if s.status.Code != 0 || s.status.Message == "" {
		a.Errorf("status %s", s.raw)
	}
}

const allOutput = "stdout=true&stderr=true"

func execBegins(a *asker) {
	p := a.exec(allOutput, shell("echo out; echo err >&2; exit 7")...)
	p.wantEmpty(stdoutChannel)
	p.end().want(a, 7, "out\n", "err\n")
}

func execSucceeds(a *asker) {
	p := a.exec(allOutput, "echo", "one", "two words")
	p.wantEmpty(stdoutChannel)
	p.end().want(a, 0, "one two words\n", "")
}

func execExits(a *asker) {
	for _, code := range []int{1, 2, 126, 127, 255} {
		p := a.exec(allOutput, shell(fmt.Sprint("exit ", code))...)
		p.wantEmpty(stdoutChannel)
		p.end().want(a, code, "", "")
	}
}

func execDiesOfSignal(a *asker) {
	p := a.exec(allOutput, shell("kill -9 $$")...)
	p.wantEmpty(stdoutChannel)
	p.end().want(a, 137, "", "")
}

func execWithoutStdout(a *asker) {
	p := a.exec("stderr=true", shell("echo out; echo err >&2")...)
	p.wantEmpty(stderrChannel)
	p.end().want(a, 0, "", "err\n")
}

func execStdinAlone(a *asker) {
	p := a.exec("stdin=true", "cat")
	p.wantEmpty(errorChannel)
	p.send(stdinChannel, "nobody hears this")
	p.closeStdin()
	p.end().want(a, 0, "", "")
}

func execClosesStdin(a *asker) {
	p := a.exec("stdin=true&"+allOutput, "cat")
	p.wantEmpty(stdoutChannel)
	p.send(stdinChannel, "hello ")
	p.send(stdinChannel, "") // nothing, and not the end
	p.send(stdinChannel, "there")
	p.closeStdin()
	p.end().want(a, 0, "hello there", "")
}

// everyByte is n bytes of all values.
func everyByte(n int) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(i*7 + i>>8)
	}
	return string(text)
}

func execIsByteExact(a *asker) {
	want := everyByte(1 << 20)
	p := a.exec("stdin=true&"+allOutput, "cat")
	p.wantEmpty(stdoutChannel)
	sent := make(chan error, 1)
	go func() {
		for part := range slices.Chunk([]byte(want), 30000) {
			if err := p.WriteMessage(websocket.BinaryMessage, append([]byte{stdinChannel}, part...)); err != nil {
				sent <- err
				return
			}
		}
		sent <- p.WriteMessage(websocket.BinaryMessage, []byte{closeChannel, stdinChannel})
	}()
	got := p.end()
	a.must(<-sent)
	if string(got.stdout) != want {
		a.Errorf("%d bytes came back, want %d", len(got.stdout), len(want))
	}
	got.wantExit(a, 0)
}

// execSplitsMessages shows that fragments (RFC 6455 section 5.4) are not put
// together again: the first byte of each is taken for a channel.
func execSplitsMessages(a *asker) {
	say := handshake{token: a.Tokens.Permitted, protocols: []string{channelsV5}, frame: 16}
	socket, answer := a.dial(say, a.podPath(ShellPod, "exec", "stdin=true&command=cat&"+allOutput))
	if socket == nil {
		a.Fatalf("%d %s", answer.code, answer.body)
	}
	p := processSocket{a, socket}
	p.wantEmpty(stdoutChannel)
	p.send(stdinChannel, "fifteen bytes.."+"\x00to stdin")
	p.send(stdinChannel, "fifteen bytes.."+"\x09to nobody")
	p.closeStdin()
	p.end().want(a, 0, "fifteen bytes..to stdin"+"fifteen bytes..", "")
}

func execStatusIsLast(a *asker) {
	for range 5 {
		p := a.exec(allOutput, shell("seq 20000; seq 20000 >&2; exit 3")...)
		p.wantEmpty(stdoutChannel)
		got := p.end()
		var want bytes.Buffer
		for n := range 20000 {
			fmt.Fprintln(&want, n+1)
		}
		if !bytes.Equal(got.stdout, want.Bytes()) || !bytes.Equal(got.stderr, want.Bytes()) {
			a.Errorf("%d and %d bytes, want %d of both", len(got.stdout), len(got.stderr), want.Len())
		}
		got.wantExit(a, 3)
	}
}

func execStreams(a *asker) {
	p := a.exec("stdin=true&"+allOutput, "cat")
	p.wantEmpty(stdoutChannel)
	for n := range 3 {
		line := fmt.Sprintln("line", n)
		p.send(stdinChannel, line)
		p.until(line)
	}
	p.closeStdin()
	p.end().want(a, 0, "", "")
}

func execOnTerminal(a *asker) {
	p := a.exec("stdin=true&stdout=true&tty=true", shell("read -r line; echo got $line; echo err >&2; exit 4")...)
	p.wantEmpty(stdoutChannel)
	p.send(stdinChannel, "hello\r")
	p.end().want(a, 4, "hello\r\ngot hello\r\nerr\r\n", "")
}

// execResizes lets the terminal say when it has the size: nothing else does.
func execResizes(a *asker) {
	const each = `for size in "44 133" "24 80"; do until [ "$(stty size)" = "$size" ]; do sleep 0.02; done; echo "$size"; done`
	p := a.exec("stdin=true&stdout=true&tty=true", shell(each)...)
	p.wantEmpty(stdoutChannel)
	p.send(resizeChannel, `{"Width":133,"Height":44}`)
	p.until("44 133\r\n")
	p.send(resizeChannel, `{"Width":80,"Height":24}`)
	p.until("24 80\r\n")
	p.end().want(a, 0, "", "")
}

// execInterrupts waits in the shell itself: a program that it starts takes a Ctrl-C between fork and exec by the shell's handler, and is not interrupted.
func execInterrupts(a *asker) {
	p := a.exec("stdin=true&stdout=true&tty=true", shell("echo ready; read -r line; echo not reached")...)
	p.wantEmpty(stdoutChannel)
	p.until("ready\r\n")
	p.send(stdinChannel, "\x03")
	p.end().want(a, 130, "^C", "")
}

func execV4(a *asker) {
	p := a.open(channelsV4, ShellPod, "exec", "stdin=true&"+allOutput, shell("read -r line; echo got $line; exit 5")...)
	p.wantEmpty(stdoutChannel)
	p.send(stdinChannel, "hello\n")
	p.end().want(a, 5, "got hello\n", "")
}

func execPrefersV5(a *asker) {
	for _, offer := range [][]string{{channelsV4, channelsV5}, {channelsV5, channelsV4}} {
		socket, answer := a.dial(handshake{token: a.Tokens.Permitted, protocols: offer}, a.podPath(ShellPod, "exec", "command=true&stdout=true"))
		if socket == nil || socket.Subprotocol() != channelsV5 {
			a.Errorf("offered %v: %d %v", offer, answer.code, answer.header)
		}
	}
}

func execWithoutSubprotocol(a *asker) {
	socket, answer := a.dial(handshake{token: a.Tokens.Permitted}, a.podPath(ShellPod, "exec", "command=sh&command=-c&command=echo%20out%3Bexit%207&"+allOutput))
	if socket == nil || socket.Subprotocol() != "" {
		a.Fatalf("%d %v %s", answer.code, answer.header, answer.body)
	}
	p := processSocket{a, socket}
	p.wantEmpty(stdoutChannel)
	got := string(bytes.Join(p.messages(socket, websocket.BinaryMessage), nil))
	if want := "\x01out\n\x03command terminated with non-zero exit code: exit status 7"; got != want {
		a.Errorf("%q, want %q", got, want)
	}
}

func execRefusesUnknown(a *asker) {
	say := handshake{token: a.Tokens.Permitted, protocols: []string{"v9.channel.k8s.io"}}
	_, answer := a.dial(say, a.podPath(ShellPod, "exec", "command=true&stdout=true"))
	refusal{code: forbidden, body: asNothing}.check(a, answer)
}

func execTokenInSubprotocol(a *asker) {
	token := bearerProtocol + base64.RawURLEncoding.EncodeToString([]byte(a.Tokens.Permitted))
	path := a.podPath(ShellPod, "exec", "command=true&stdout=true")
	socket, answer := a.dial(handshake{protocols: []string{token, channelsV5}}, path)
	if socket == nil || socket.Subprotocol() != channelsV5 {
		a.Errorf("%d %s", answer.code, answer.body)
	}
	_, answer = a.dial(handshake{protocols: []string{token}}, path)
	refusal{code: unauthorized, reason: metav1.StatusReasonUnauthorized}.check(a, answer)
}

// wantInternalError checks the status of what could not be done.
func (s said) wantInternalError(a *asker, about string) {
	a.Helper()
	if s.status.Status != metav1.StatusFailure || s.status.Reason != metav1.StatusReasonInternalError ||
		s.status.Code != http.StatusInternalServerError || !strings.Contains(s.status.Message, about) {
		a.Errorf("status %s, want an internal error about %q", s.raw, about)
	}
}

func execWithoutCommand(a *asker) {
	p := a.exec(allOutput)
	p.wantEmpty(stdoutChannel)
	p.end().wantInternalError(a, "")
}

func execConnectsNothing(a *asker) {
	p := a.exec("stdout=false", "true")
	p.wantEmpty(errorChannel)
	p.end().wantInternalError(a, "")
}

func execFindsNothing(a *asker) {
	p := a.exec(allOutput, "/no/such/command")
	p.wantEmpty(stdoutChannel)
	p.end().wantInternalError(a, "/no/such/command")
}

func execInEnded(a *asker) {
	p := a.open(channelsV5, DonePod, "exec", allOutput, "true")
	p.wantEmpty(stdoutChannel)
	p.end().wantInternalError(a, "container not found")
}
