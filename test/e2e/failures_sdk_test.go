package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// program is a client of the SDK with a channel of each kind to a pod. Its goroutines end with its context, and stop waits for them.
type program struct {
	sdk       *client.Client
	namespace string
	pod       string
	policy    sluicev1.DetachPolicy
	ctx       context.Context
	running   sync.WaitGroup
}

func (p *program) open(k kind, sc *scene) (*subject, error) {
	s := newSubject(k, "SDK, "+k.String())
	switch k {
	case watchKind:
		p.watch(s)
		s.send = sc.marker(p.pod)
	case logsKind:
		p.logs(s)
	case execKind, terminalKind:
		p.exec(s, sc.script(k, p.pod))
	case attachKind:
		p.attach(s)
	case forwardKind:
		return s, p.forward(s)
	}
	return s, nil
}

// marked is what is looked at of a pod.
type marked struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

func (p *program) watch(s *subject) {
	w := p.sdk.Watch(client.WatchRequest{
		Cluster: upstream, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods", Namespace: p.namespace, Name: p.pod},
	})
	p.running.Go(func() {
		defer w.Close()
		for {
			ev, err := w.Next(p.ctx)
			switch {
			case err != nil:
				s.end(err)
				return
			case ev.State != nil:
				s.state(ev.State)
			default:
				s.event(ev.Type, ev.Object)
			}
		}
	})
}

// event is a line of an event: its type, and the number that the pod was given last.
func (s *subject) event(kind string, object []byte) {
	var o marked
	if err := json.Unmarshal(object, &o); err != nil {
		s.end(err)
		return
	}
	n := o.Metadata.Annotations[mark]
	if n == "" {
		n = "0"
	}
	s.line(kind + " " + n)
}

func (p *program) logs(s *subject) {
	l := p.sdk.Logs(client.LogsRequest{
		Cluster: upstream, Target: &sluicev1.LogTarget{Namespace: p.namespace, Pod: p.pod, Container: talker, Follow: true},
	})
	p.running.Go(func() {
		defer l.Close()
		for {
			chunk, err := l.Next(p.ctx)
			switch {
			case err != nil:
				s.end(err)
				return
			case chunk.State != nil:
				s.state(chunk.State)
			default:
				_, _ = s.Write(chunk.Data)
			}
		}
	})
}

// streams are those of a process: what is typed, and what it says.
func (s *subject) streams() client.Streams {
	in, typed := io.Pipe()
	s.send = func(n int) error {
		_, err := fmt.Fprintln(typed, n)
		return err
	}
	return client.Streams{Stdin: in, Stdout: s}
}

func (p *program) exec(s *subject, script string) {
	req := client.ExecRequest{
		Cluster: upstream, Streams: s.streams(), OnState: s.state, OnDetachExpiry: p.policy,
		Target: &sluicev1.ExecTarget{Namespace: p.namespace, Pod: p.pod, Container: echoer, Command: []string{"sh", "-c", script}, Tty: s.kind == terminalKind},
	}
	p.running.Go(func() { s.end(p.sdk.Exec(p.ctx, req)) })
}

func (p *program) attach(s *subject) {
	req := client.AttachRequest{
		Cluster: upstream, Streams: s.streams(), OnState: s.state, OnDetachExpiry: p.policy,
		Target: &sluicev1.AttachTarget{Namespace: p.namespace, Pod: p.pod, Container: echoer},
	}
	p.running.Go(func() { s.end(p.sdk.Attach(p.ctx, req)) })
}

func (p *program) forward(s *subject) error {
	conn, err := p.sdk.PortForward(p.ctx, client.PortForwardRequest{
		Cluster: upstream, Target: &sluicev1.PortForwardTarget{Namespace: p.namespace, Pod: p.pod, Port: servedPort},
	})
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	context.AfterFunc(p.ctx, conn.Reset)
	p.running.Go(s.converse(conn))
	return nil
}
