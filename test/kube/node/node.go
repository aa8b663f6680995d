package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	loopback = "127.0.0.1"

	// retryDelay is the pause after the API server did not do what was asked.
	retryDelay = 200 * time.Millisecond
)

// node runs the pods that the API binds to it.
type node struct {
	// Immutable.
	name         string
	state        string // folder of all it keeps
	restartDelay time.Duration
	api          *apiServer
	launcher     *launcher
	log          *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	pods map[string]*pod // by uid
}

// followPods keeps to what the API says of the node's pods, until ctx ends.
func (n *node) followPods(ctx context.Context) {
	for {
		list, err := n.api.listPods(ctx, n.name)
		if err == nil {
			n.keepOnly(list.Items)
			for _, object := range list.Items {
				n.see(object)
			}
			err = n.api.watchPods(ctx, n.name, list.Metadata.ResourceVersion, n.changed)
		}
		if !pause(ctx, retryDelay) {
			return
		}
		n.log.Info("list the pods again", "because", err)
	}
}

func (n *node) changed(event podEvent) {
	if event.Type == "DELETED" {
		n.drop(event.Object.Metadata.UID)
	} else {
		n.see(event.Object)
	}
}

// see starts a pod that is new, and ends one that is to be deleted.
func (n *node) see(object podObject) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[object.Metadata.UID]
	if p == nil {
		p = n.newPod(object)
		n.pods[object.Metadata.UID] = p
		if object.Metadata.DeletionTimestamp != nil {
			p.stop(0) // nothing of it runs
		}
		go p.live()
	}
	if object.Metadata.DeletionTimestamp != nil {
		var grace time.Duration
		if seconds := object.Metadata.DeletionGrace; seconds != nil {
			grace = time.Duration(*seconds) * time.Second
		}
		p.stop(grace)
	}
}

// keepOnly drops the pods that are gone from the API.
func (n *node) keepOnly(objects []podObject) {
	n.mu.Lock()
	gone := map[string]bool{}
	for uid := range n.pods {
		gone[uid] = true
	}
	n.mu.Unlock()
	for _, object := range objects {
		delete(gone, object.Metadata.UID)
	}
	for uid := range gone {
		n.drop(uid)
	}
}

// drop ends a pod that is gone from the API already.
func (n *node) drop(uid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pods[uid]; p != nil {
		p.stop(0)
	}
}

// forget is the end of a pod.
func (n *node) forget(p *pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, p.object.Metadata.UID)
}

// pod finds a pod by name: of two, the one that is not about to end.
func (n *node) pod(namespace, name string) (*pod, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found *pod
	for _, p := range n.pods {
		if p.object.Metadata.Namespace == namespace && p.object.Metadata.Name == name && (found == nil || p.ctx.Err() == nil) {
			found = p
		}
	}
	if found == nil {
		return nil, fmt.Errorf("pod %q does not exist", name)
	}
	return found, nil
}

// container finds a container of a pod.
func (n *node) container(namespace, name, container string) (*container, error) {
	p, err := n.pod(namespace, name)
	if err != nil {
		return nil, err
	}
	for _, c := range p.containers {
		if c.spec.Name == container {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %q not found in pod %q", container, name)
}
