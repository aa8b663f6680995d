package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// ExecInContainer implements remotecommand.Executor for the run of a container. As with containerd, the command goes on
// when who asked for it is gone; what it then prints waits to be read, and in the end so does it. It ends with the run.
func (c containerRun) ExecInContainer(_ context.Context, _, _, _ string, command []string, in io.Reader,
	out, errout io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	if len(command) == 0 {
		return errors.New("failed to exec in container: no command")
	}
	p, err := c.pod.node.launcher.start(spec{
		command: command, dir: c.pod.root, env: c.environment(), stdin: in != nil, tty: tty,
	})
	if err != nil {
		return fmt.Errorf("failed to exec in container: %w", err)
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-c.exited:
			p.kill()
		case <-over:
		}
	}()
	if in != nil {
		go feed(p, in) // ends with the connection, which is closed after this returns
	}
	go resize(p, sizes) // likewise
	var reading sync.WaitGroup
	reading.Go(func() { carry(out, p.stdout) })
	if p.stderr != nil {
		reading.Go(func() { carry(errout, p.stderr) })
	}
	exit := p.wait()
	// All that could write has ended, so what is left to read has an end. It is read before the status is told:
	// whoever gets the status has got everything.
	reading.Wait()
	p.close()
	if exit == 0 {
		return nil
	}
	// It must not be wrapped: the one who reports it looks at its type.
	return utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", exit), Code: exit}
}

// feed gives a process its stdin. A terminal stays open at the end of it, a pipe does not.
func feed(p *process, in io.Reader) {
	_, _ = io.Copy(p.stdin, in) // fails when the process has ended or the connection has; both are told elsewhere
	if p.terminal == nil {
		p.stdin.Close()
	}
}

// carry brings output to a stream and closes that, or to nobody if it was not asked for. When the stream fails it reads
// no more.
func carry(to io.WriteCloser, from io.Reader) {
	_, _ = io.Copy(orNobody(to), from) // the end of a terminal reads as an error
	if to != nil {
		_ = to.Close() // fails when the connection has ended
	}
}

// resize sets the size of a terminal whenever a new one comes, until the channel is closed. Without a terminal there is
// no channel.
func resize(p *process, sizes <-chan remotecommand.TerminalSize) {
	if sizes == nil {
		return
	}
	for size := range sizes {
		p.resize(size.Width, size.Height)
	}
}
