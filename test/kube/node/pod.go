package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// pod is a pod bound to this node. Its goroutine (live) and those it waits for run its containers and report on them;
// it ends when the pod is gone from the API.
type pod struct {
	// Immutable.
	node       *node
	object     podObject
	root       string // working directory of its processes
	logs       string
	containers []*container
	born       time.Time
	ctx        context.Context // ends when the pod is to end
	end        context.CancelFunc
	graceOver  chan struct{} // closed when its grace has passed
	changed    chan struct{} // there is something to report
	gone       chan struct{} // closed by live at its end

	mu sync.Mutex
	// Guarded by mu.
	killing *time.Timer // closes graceOver; nil while the pod is to live
	killAt  time.Time
}

func (n *node) newPod(object podObject) *pod {
	meta := object.Metadata
	p := &pod{
		node: n, object: object, born: time.Now(),
		root:      filepath.Join(n.state, "pods", meta.UID),
		logs:      filepath.Join(n.state, "logs", meta.Namespace+"_"+meta.Name+"_"+meta.UID),
		graceOver: make(chan struct{}), changed: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	for _, spec := range object.Spec.Containers {
		p.containers = append(p.containers, &container{pod: p, spec: spec})
	}
	return p
}

func (p *pod) key() string { return p.object.Metadata.Namespace + "/" + p.object.Metadata.Name }

// live runs the pod to its end.
func (p *pod) live() {
	defer close(p.gone)
	if err := os.MkdirAll(p.root, 0o700); err != nil {
		p.node.log.Error("make the pod's folder", "pod", p.key(), "error", err)
		return
	}
	var all sync.WaitGroup
	for _, c := range p.containers {
		all.Go(func() { c.keepRunning(p.ctx) })
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		<-p.ctx.Done()
		close(ended)
	}()
	p.keepReporting(ended)
	p.remove()
}

// report makes the pod's status known soon.
func (p *pod) report() {
	select {
	case p.changed <- struct{}{}:
	default: // it will be looked at
	}
}

// keepReporting tells the API of every change until ended, trying as long as it takes: the API server may be away.
func (p *pod) keepReporting(ended <-chan struct{}) {
	for {
		select {
		case <-p.changed:
		case <-ended:
			return
		}
		err := p.node.api.updateStatus(context.Background(), p.object.Metadata, p.status())
		if err != nil && !refusedWith(err, http.StatusNotFound, http.StatusConflict) { // otherwise it is gone: the watch will tell
			p.node.log.Warn("report the pod's status", "pod", p.key(), "error", err)
			select {
			case <-time.After(retryDelay):
				p.report()
			case <-ended:
				return
			}
		}
	}
}

// remove takes the pod out of the API, as long as that takes, and then away from here.
func (p *pod) remove() {
	// How its containers ended is told if it can be: who watches the pod may want to know.
	_ = p.node.api.updateStatus(context.Background(), p.object.Metadata, p.status())
	for {
		err := p.node.api.removePod(context.Background(), p.object.Metadata)
		if err == nil {
			break
		}
		p.node.log.Warn("remove the pod", "pod", p.key(), "error", err)
		pause(context.Background(), retryDelay)
	}
	p.node.forget(p)
	for _, dir := range []string{p.root, p.logs} {
		if err := os.RemoveAll(dir); err != nil {
			p.node.log.Warn("remove the pod's files", "pod", p.key(), "error", err)
		}
	}
}

// stop ends the pod within grace. A second call can only bring the end nearer.
func (p *pod) stop(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().Add(grace)
	switch {
	case p.killing == nil:
		p.killing = time.AfterFunc(grace, func() { close(p.graceOver) })
	case at.Before(p.killAt) && p.killing.Stop():
		p.killing.Reset(grace)
	default:
		return
	}
	p.killAt = at
	p.end()
}

// restarts tells whether a container that exited so is run again.
func (p *pod) restarts(exit int) bool {
	switch {
	case p.ctx.Err() != nil:
		return false
	case p.object.Spec.RestartPolicy == "OnFailure":
		return exit != 0
	}
	return p.object.Spec.RestartPolicy != "Never"
}

// status is what the API is told of the pod.
func (p *pod) status() podStatus {
	status := podStatus{
		Phase: "Running", HostIP: loopback, PodIP: loopback, PodIPs: []podIP{{loopback}}, StartTime: stamp(p.born),
	}
	ready, over, failed := true, true, false
	for _, c := range p.containers {
		s := c.status()
		status.ContainerStatuses = append(status.ContainerStatuses, s)
		ready = ready && s.Ready
		ended := s.State.Terminated
		over = over && ended != nil && !p.restarts(ended.ExitCode)
		failed = failed || ended != nil && ended.ExitCode != 0
		if s.State.Waiting != nil && s.RestartCount == 0 {
			status.Phase = "Pending"
		}
	}
	switch {
	case over && failed:
		status.Phase = "Failed"
	case over:
		status.Phase = "Succeeded"
	}
	for _, c := range []condition{{Type: "PodScheduled"}, {Type: "Initialized"}, {Type: "ContainersReady"}, {Type: "Ready"}} {
		c.Status, c.LastTransitionTime = "True", stamp(time.Now())
		if !ready && (c.Type == "Ready" || c.Type == "ContainersReady") {
			c.Status = "False"
		}
		status.Conditions = append(status.Conditions, c)
	}
	return status
}
