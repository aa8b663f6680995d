package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// drainTimeout is how long who is attached may take to read the last output after the process has ended.
const drainTimeout = 10 * time.Second

// container is one container of a pod, through all its runs, which one goroutine (keepRunning) starts and sees end.
type container struct {
	// Immutable.
	pod  *pod
	spec containerSpec

	mu sync.Mutex
	// Guarded by mu.
	restarts int
	current  *run         // nil before the first run of this node's process
	last     *termination // how the run before the current ended; the last run if there is no current
	waiting  string       // why there is no run, if it cannot be started
}

// run is one run of a container.
type run struct {
	// Immutable.
	id      string // containerID
	started time.Time
	process *process
	log     *logFile
	outputs *outputs
	exited  chan struct{} // closed when the process has ended
	drained chan struct{} // closed when its output was taken by all

	end termination // immutable once drained is closed
}

// termination is how a run ended.
type termination struct {
	terminatedState
	log *logFile
}

func newContainerID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	return "host://" + hex.EncodeToString(id[:])
}

// keepRunning runs the container as often as its pod's restart policy says, until the pod is to end.
func (c *container) keepRunning(ctx context.Context) {
	for restarts, again := c.recover(); again && ctx.Err() == nil; {
		r, err := c.begin(restarts)
		if err == nil {
			c.pod.report()
			c.seeEnd(ctx, r)
			again = c.pod.restarts(r.end.ExitCode)
			restarts++
		} else {
			c.pod.node.log.Error("start container", "pod", c.pod.key(), "container", c.spec.Name, "error", err)
		}
		c.pod.report()
		again = again && pause(ctx, c.pod.node.restartDelay)
	}
}

// pause waits and tells whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// recover takes over what the API knows of a container whose node was killed, and with it the container. It tells
// whether the container is to be started, and which run that is.
func (c *container) recover() (restarts int, start bool) {
	for _, known := range c.pod.object.Status.ContainerStatuses {
		if known.Name != c.spec.Name || known.ContainerID == "" {
			continue
		}
		ended := known.State.Terminated
		if ended == nil {
			ended = &terminatedState{
				ExitCode: killed, Reason: "ContainerStatusUnknown", FinishedAt: stamp(time.Now()), ContainerID: known.ContainerID,
				StartedAt: stamp(time.Now()),
			}
			if running := known.State.Running; running != nil {
				ended.StartedAt = running.StartedAt
			}
		}
		c.mu.Lock()
		c.restarts, c.last = known.RestartCount, &termination{*ended, endedLog(c.logPath(known.RestartCount))}
		c.mu.Unlock()
		c.pod.report()
		return known.RestartCount + 1, c.pod.restarts(ended.ExitCode)
	}
	return 0, true
}

// logPath is where the log of a run is kept, as by the kubelet.
func (c *container) logPath(restarts int) string {
	return filepath.Join(c.pod.logs, c.spec.Name, fmt.Sprintf("%d.log", restarts))
}

// begin starts a run, the first if restarts is zero.
func (c *container) begin(restarts int) (*run, error) {
	r, err := c.start(c.logPath(restarts))
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.waiting = "CreateContainerError"
		return nil, err
	}
	if c.current != nil {
		c.last = &c.current.end
	}
	c.current, c.restarts, c.waiting = r, restarts, ""
	if restarts > 1 {
		c.removeLogs(restarts - 2)
	}
	return r, nil
}

func (c *container) start(logPath string) (*run, error) {
	log, err := createLogFile(logPath)
	if err != nil {
		return nil, err
	}
	p, err := c.pod.node.launcher.start(spec{
		command: c.arguments(), dir: c.pod.root, env: c.environment(), stdin: c.spec.Stdin, tty: c.spec.TTY,
	})
	if err != nil {
		_ = log.end() // the other error says more
		return nil, err
	}
	return &run{
		id: newContainerID(), started: time.Now(), process: p, log: log, outputs: newOutputs(),
		exited: make(chan struct{}), drained: make(chan struct{}),
	}, nil
}

// removeLogs removes what there is of the log of an older run: a kubelet keeps one beside the current.
func (c *container) removeLogs(restarts int) {
	old, _ := filepath.Glob(c.logPath(restarts) + "*") // no name of a pod or container is a pattern
	for _, name := range old {
		os.Remove(name)
	}
}

// arguments are the command to run. An image is not looked at; without a command the container is idle.
func (c *container) arguments() []string {
	if all := append(append([]string(nil), c.spec.Command...), c.spec.Args...); len(all) > 0 {
		return all
	}
	return []string{"sleep", "infinity"}
}

// environment is that of the container's processes. Nothing of the node's own but the path gets in.
func (c *container) environment() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.pod.root, "HOSTNAME=" + c.pod.object.Metadata.Name,
		"POD_NAMESPACE=" + c.pod.object.Metadata.Namespace, "CONTAINER=" + c.spec.Name,
	}
	if c.spec.TTY {
		env = append(env, "TERM=xterm")
	}
	for _, v := range c.spec.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

// seeEnd carries the run to its end: of itself, or by the end of ctx and then within the pod's grace.
func (c *container) seeEnd(ctx context.Context, r *run) {
	stop := context.AfterFunc(ctx, func() {
		r.process.signal(syscall.SIGTERM)
		select {
		case <-r.exited:
		case <-c.pod.graceOver:
			r.process.kill()
		}
	})
	defer stop()
	var reading sync.WaitGroup
	reading.Go(func() { r.outputs.carry("stdout", r.process.stdout, r.log) })
	if r.process.stderr != nil {
		reading.Go(func() { r.outputs.carry("stderr", r.process.stderr, r.log) })
	}
	exit := r.process.wait()
	close(r.exited)
	// All that could write has ended: the output ends, unless somebody who is attached does not take it.
	tooSlow := time.AfterFunc(drainTimeout, r.outputs.leave)
	reading.Wait()
	tooSlow.Stop()
	r.process.close()
	if err := r.log.end(); err != nil {
		c.pod.node.log.Error("write log", "file", r.log.path, "error", err)
	}
	r.end = termination{terminatedState{
		ExitCode: exit, Reason: "Completed", StartedAt: stamp(r.started), FinishedAt: stamp(time.Now()), ContainerID: r.id,
	}, r.log}
	if exit != 0 {
		r.end.Reason = "Error"
	}
	close(r.drained)
}

// running returns the run under way.
func (c *container) running() (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		select {
		case <-c.current.exited:
		default:
			return c.current, nil
		}
	}
	return nil, fmt.Errorf("container %q in pod %q is not running", c.spec.Name, c.pod.object.Metadata.Name)
}

// ended tells how a run ended that has.
func (r *run) ended() (termination, bool) {
	select {
	case <-r.drained:
		return r.end, true
	default:
		return termination{}, false
	}
}

// logOf returns the log of the current run or, between runs, of the newest; or that of the run before.
func (c *container) logOf(previous bool) (*logFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case previous && c.current != nil && c.last != nil:
		return c.last.log, nil
	case previous:
		return nil, fmt.Errorf("previous terminated container %q in pod %q not found", c.spec.Name, c.pod.object.Metadata.Name)
	case c.current != nil:
		return c.current.log, nil
	case c.last != nil:
		return c.last.log, nil
	}
	reason := "ContainerCreating"
	if c.waiting != "" {
		reason = c.waiting
	}
	return nil, fmt.Errorf("container %q in pod %q is waiting to start: %s", c.spec.Name, c.pod.object.Metadata.Name, reason)
}

// status is what the API is told.
func (c *container) status() containerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := containerStatus{Name: c.spec.Name, Image: c.spec.Image, ImageID: "host", RestartCount: c.restarts}
	if c.last != nil {
		s.LastState.Terminated = &c.last.terminatedState
	}
	switch {
	case c.waiting != "":
		s.State.Waiting = &waitingState{c.waiting}
	case c.current == nil && c.last != nil:
		s.State, s.LastState, s.ContainerID = s.LastState, containerState{}, c.last.ContainerID
	case c.current == nil:
		s.State.Waiting = &waitingState{"ContainerCreating"}
	default:
		s.ContainerID = c.current.id
		if end, ended := c.current.ended(); ended {
			s.State.Terminated = &end.terminatedState
		} else {
			s.State.Running = &runningState{stamp(c.current.started)}
			s.Ready, s.Started = true, true
		}
	}
	return s
}
