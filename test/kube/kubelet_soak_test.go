//go:build soak && linux

package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// podsTimeout bounds the start of some pods.
const podsTimeout = 2 * time.Minute

func kubeletWithSamples(t *testing.T) (*Cluster, *Kubelet) {
	t.Helper()
	c := New(t, Options{})
	k := NewKubelet(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), podsTimeout)
	defer cancel()
	if err := k.RunSamplePods(ctx); err != nil {
		t.Fatal(err)
	}
	return c, k
}

func TestSoakStreamAnswersOfARealKubelet(t *testing.T) {
	c, _ := kubeletWithSamples(t)
	target := answersTarget(t, c)
	target.Namespace = sampleNamespace
	putQuestions(t, target, []answerGroup{
		{"logs", logAnswers()},
		{"exec", instead(t, execAnswers(), kubeletExecAnswers)},
		{"attach", instead(t, attachAnswers(), kubeletAttachAnswers)},
		{"port-forward", instead(t, forwardAnswers(), kubeletForwardAnswers)},
	})
}

// instead puts rows in the place of those of the same name.
func instead(t *testing.T, rows, others []answer) []answer {
	t.Helper()
	for _, other := range others {
		at := slices.IndexFunc(rows, func(row answer) bool { return row.name == other.name })
		if at < 0 {
			t.Fatalf("the table has no row %q", other.name)
		}
		rows[at] = other
	}
	return rows
}

// What follows is all that the table says otherwise of the node which plays the
// kubelet: measured on kubelet 1.37.2 with containerd 1.6.20. The first three come
// of the kubelet, which looks at a request before it takes the WebSocket up (API
// servers relay v5 to kubelets since 1.36, KEP-4006), the last two of containerd,
// whose library for port-forward is of 2022.
var (
	kubeletExecAnswers = []answer{
		{"without a subprotocol the status is no JSON", kubeletWithoutSubprotocol},
		{"that connects nothing it fails in the stream", func(a *asker) {
			a.wantNoSocket(ShellPod, "exec", "stdout=false&command=true", http.StatusBadRequest, "you must specify at least 1 of stdin, stdout, stderr")
		}},
		{"in a container that has ended it is refused in the stream", func(a *asker) {
			a.wantNoSocket(DonePod, "exec", "command=true&"+allOutput, http.StatusInternalServerError, `container not found ("main")`)
		}},
	}
	kubeletAttachAnswers = []answer{
		{"to a container that has ended it is refused in the stream", func(a *asker) {
			a.wantNoSocket(DonePod, "attach", allOutput, http.StatusInternalServerError, "container main not found in pod done_default")
		}},
	}
	kubeletForwardAnswers = []answer{
		{"the tunnel tells a refused port on the error stream and resets the streams", kubeletTunnelsRefused},
		{"the tunnel stays when a connection has ended", kubeletTunnelsOn},
	}
)

// wantNoSocket asks for a subresource and wants a refusal in plain text.
func (a *asker) wantNoSocket(pod, subresource, q string, code int, text string) {
	a.Helper()
	say := handshake{token: a.Tokens.Permitted, protocols: []string{channelsV5}}
	socket, answer := a.dial(say, a.podPath(pod, subresource, q))
	if socket != nil || answer.code != code || strings.TrimSpace(string(answer.body)) != text {
		a.Errorf("%d %q, want %d %q", answer.code, answer.body, code, text)
	}
}

func kubeletWithoutSubprotocol(a *asker) {
	socket, answer := a.dial(handshake{token: a.Tokens.Permitted}, a.podPath(ShellPod, "exec", "command=sh&command=-c&command=echo%20out%3Bexit%207&"+allOutput))
	if socket == nil || socket.Subprotocol() != "" {
		a.Fatalf("%d %v %s", answer.code, answer.header, answer.body)
	}
	p := processSocket{a, socket}
	p.wantEmpty(stdoutChannel)
	got := string(bytes.Join(p.messages(socket, websocket.BinaryMessage), nil))
	want := "\x01out\n\x03command terminated with non-zero exit code: error executing command [sh -c echo out;exit 7], exit code 7"
	if got != want {
		a.Errorf("%q, want %q", got, want)
	}
}

// wantRefused checks a connection to a port where nobody listens: the text is on
// the error stream, and both streams end as after a connection that was good.
func (t *tunnel) wantRefused(errors, data uint32) {
	t.Helper()
	t.until(func() bool { return t.got[errors].ended && t.got[data].ended })
	e, d := t.got[errors], t.got[data]
	if text := string(e.text); !strings.HasPrefix(text, "error forwarding port 81 to pod ") || !strings.Contains(text, "refused") {
		t.Errorf("the error stream: %q", text)
	}
	if e.resets || d.resets || len(d.text) > 0 {
		t.Errorf("the streams: %+v %+v", e, d)
	}
}

func kubeletTunnelsRefused(a *asker) {
	t := a.tunnel()
	t.wantRefused(t.connect("0", refusedPort))
}

func kubeletTunnelsOn(a *asker) {
	t := a.tunnel()
	for n, port := range []int{webPort, refusedPort, webPort} {
		errors, data := t.connect(fmt.Sprint(n), port)
		if port == refusedPort {
			t.wantRefused(errors, data)
			continue
		}
		t.send(data, getRoot)
		t.wantConnection(errors, data)
	}
}
