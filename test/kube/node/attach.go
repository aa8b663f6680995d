package main

import (
	"context"
	"io"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// AttachContainer implements remotecommand.Attacher for the run of a container: it joins streams to those of the
// container's process until that ends. As with containerd, the end of stdin closes the process's stdin if that is to be
// used once, and otherwise ends the attachment.
func (c containerRun) AttachContainer(_ context.Context, _, _, _ string, in io.Reader, out, errout io.WriteCloser,
	_ bool, sizes <-chan remotecommand.TerminalSize,
) error {
	t := c.outputs.attach()
	defer func() {
		c.outputs.detach(t)
		for _, stream := range []io.WriteCloser{out, errout} {
			if stream != nil {
				_ = stream.Close() // fails when the connection has ended
			}
		}
	}()
	go resize(c.process, sizes) // ends with the connection, which is closed after this returns
	detached := make(chan struct{})
	if in != nil && c.process.stdin != nil && (c.spec.Stdin || c.spec.TTY) {
		go func() { // likewise
			_, _ = io.Copy(c.process.stdin, in)
			if c.spec.StdinOnce && c.process.terminal == nil {
				c.process.stdin.Close()
			} else {
				close(detached)
			}
		}()
	}
	streams := map[string]io.Writer{"stdout": orNobody(out), "stderr": orNobody(errout)}
	for {
		select {
		case some := <-t.chunks:
			if _, err := streams[some.stream].Write(some.bytes); err != nil {
				return nil // who was attached is gone
			}
		case <-detached:
			return nil
		case <-t.gone:
			return nil
		case <-c.drained:
			return nil
		}
	}
}

// orNobody stands in for a stream that was not asked for. An interface that holds a nil pointer is none.
func orNobody(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
