package kube

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func attachAnswers() []answer {
	rows := []answer{
		{"stdin and stdout are the process's own", attachShares},
		{"ff 00 ends the attachment and not the process", attachEnds},
		{"two who are attached see the same", attachTwice},
		{"output begins with the attachment", attachFromNow},
		{"a terminal echoes", attachToTerminal},
		{"to a container that has ended it is refused in the stream", attachToEnded},
	}
	for _, r := range attachRefusals {
		rows = append(rows, answer{r.name, func(a *asker) {
			_, answer := a.dial(handshake{token: r.token(a.Tokens), protocols: []string{channelsV5}}, r.path(a))
			r.check(a, answer)
		}})
	}
	return rows
}

var attachRefusals = []refusal{
	{name: "an attachment without a token", token: noToken, path: ofPod(ShellPod, "attach", "stdout=true"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "an attachment by a user without permission", token: unpermitted, path: ofPod(ShellPod, "attach", "stdout=true"), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "an attachment to a pod that does not exist", token: permitted, path: ofPod("nobody", "attach", "stdout=true"), code: notFound, reason: reasonNotFound},
	{name: "an attachment to a container that does not exist", token: permitted, path: ofPod(ShellPod, "attach", "container=nobody&stdout=true"), code: badRequest, reason: reasonBadRequest},
}

// attach joins a container's main process.
func (a *asker) attach(pod, q string) processSocket {
	a.Helper()
	p := a.open(channelsV5, pod, "attach", q)
	p.wantEmpty(stdoutChannel)
	return p
}

func attachShares(a *asker) {
	p := a.attach(ShellPod, "stdin=true&"+allOutput)
	for n := range 3 {
		p.send(stdinChannel, fmt.Sprintf("hello %d\n", n))
		if got, want := p.until("\n"), fmt.Sprintf("> hello %d\n", n); got != want {
			a.Errorf("answered %q, want %q", got, want)
		}
	}
}

func attachEnds(a *asker) {
	for range 2 { // the process is there for the second one too
		p := a.attach(ShellPod, "stdin=true&"+allOutput)
		p.send(stdinChannel, "still there\n")
		p.until("> still there\n")
		p.closeStdin()
		p.end().want(a, 0, "", "")
	}
}

func attachTwice(a *asker) {
	one, other := a.attach(ShellPod, "stdin=true&"+allOutput), a.attach(ShellPod, allOutput)
	// Nothing tells that the second one is attached but that it hears something.
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _, _ = other.ReadMessage()
	}()
	for a.ctx.Err() == nil {
		one.send(stdinChannel, "anyone\n")
		one.until("> anyone\n")
		select {
		case <-heard:
			one.send(stdinChannel, "both\n")
			one.until("> both\n")
			other.until("> both\n")
			return
		default: // not attached yet
		}
	}
}

func attachFromNow(a *asker) {
	p := a.attach(TalkerPod, "container=main&"+allOutput)
	first := p.until("\n")
	if first == "line 1\n" {
		a.Error("output from before the attachment")
	}
	p.until("\n")
}

func attachToTerminal(a *asker) {
	p := a.attach(TermPod, "stdin=true&stdout=true&tty=true")
	p.send(stdinChannel, "hello\r")
	if got := p.until("> hello\r\n"); got != "hello\r\n> hello\r\n" {
		a.Errorf("answered %q", got)
	}
}

func attachToEnded(a *asker) {
	p := a.attach(DonePod, allOutput)
	p.end().wantInternalError(a, "container not found")
}
