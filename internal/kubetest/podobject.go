package kubetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object is the pod as it is created: bound to a node, none of its containers
// running yet.
func (p Pod) object() Object {
	labels := map[string]any{}
	for name, value := range p.Labels {
		labels[name] = value
	}
	var containers, statuses []any
	for _, c := range p.Containers {
		spec := map[string]any{"name": c.Name, "image": "embedded/" + c.Name, "imagePullPolicy": "IfNotPresent", "resources": map[string]any{}}
		for name, is := range map[string]bool{"tty": c.TTY, "stdin": c.Stdin, "stdinOnce": c.StdinOnce} {
			if is {
				spec[name] = true
			}
		}
		if len(containers) == 0 && len(p.Ports) > 0 {
			spec["ports"] = p.portList()
		}
		containers = append(containers, spec)
		statuses = append(statuses, map[string]any{
			"name": c.Name, "image": "embedded/" + c.Name, "imageID": "", "ready": false, "started": false, "restartCount": 0,
			"state": map[string]any{"waiting": map[string]any{"reason": "ContainerCreating"}}, "lastState": map[string]any{},
		})
	}
	return Object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": p.Name, "namespace": p.Namespace, "labels": labels},
		"spec": map[string]any{
			"containers": containers, "restartPolicy": p.Restart, "nodeName": "node-1", "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
			"schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": map[string]any{},
		},
		"status": map[string]any{"phase": "Pending", "qosClass": "BestEffort", "containerStatuses": statuses},
	}
}

// portList is what the pod listens at, as its first container's.
func (p Pod) portList() (all []any) {
	for _, port := range slices.Sorted(maps.Keys(p.Ports)) {
		all = append(all, map[string]any{"containerPort": int64(port), "protocol": "TCP"})
	}
	return all
}

// show writes into the pod's object how its containers are, unless somebody
// else does. A pod that is gone has no object.
func (b *sandbox) show() {
	if b.told {
		return
	}
	b.showing.Lock()
	defer b.showing.Unlock()
	s := b.node.server
	k := s.kind("", "pods")
	for {
		r, err := s.store.get(k, key{b.pod.Namespace, b.pod.Name})
		if err != nil || r.uid != b.uid {
			return
		}
		o, err := r.object.normalize()
		if err == nil {
			o["status"], err = throughJSON(b.status(o))
		}
		if err == nil {
			_, err = s.store.put(k, o, write{mustExist: true, version: fmt.Sprint(r.version), uid: b.uid})
		}
		if err == nil {
			return
		}
		if !isConflict(err) {
			s.options.Logger.Error("show pod", "namespace", b.pod.Namespace, "pod", b.pod.Name, "err", err)
			return
		}
	}
}

// AwaitPod returns when the pod's phase is this one: Running, or Succeeded or
// Failed when none of its containers runs any more. It fails with a [*Status]
// when there is no such pod, and with the error of ctx.
func (s *Server) AwaitPod(ctx context.Context, namespace, name, phase string) error {
	k := s.kind("", "pods")
	w, _, _, err := s.store.watch(k, watchStart{scope: key{namespace, name}, initial: true}, func() {})
	if err != nil {
		return err
	}
	defer s.store.unwatch(w)
	for {
		r, err := s.store.get(k, key{namespace, name})
		if err != nil || r.object.String("status", "phase") == phase {
			return err
		}
		select {
		case <-w.wake:
			w.take()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// status is the pod's status as its containers are.
func (b *sandbox) status(o Object) map[string]any {
	ready, over, failed := true, true, false
	var statuses []any
	for _, c := range b.containers {
		runs := c.runs()
		ready = ready && runs.running
		over = over && runs.over
		failed = failed || runs.over && runs.code != 0
		statuses = append(statuses, c.status(runs))
	}
	phase := "Running"
	switch {
	case over && failed:
		phase = "Failed"
	case over:
		phase = "Succeeded"
	}
	created := o.String("metadata", "creationTimestamp")
	condition := func(kind string, is bool) any {
		value := "False"
		if is {
			value = "True"
		}
		return map[string]any{"type": kind, "status": value, "lastProbeTime": nil, "lastTransitionTime": created}
	}
	return map[string]any{
		"phase": phase, "qosClass": "BestEffort", "startTime": created, "containerStatuses": statuses,
		"hostIP": "10.0.0.1", "podIP": "10.244.0.10", "podIPs": []any{map[string]any{"ip": "10.244.0.10"}},
		"conditions": []any{
			condition("PodScheduled", true), condition("Initialized", true), condition("ContainersReady", ready), condition("Ready", ready),
		},
	}
}

// status is the container's part of its pod's status.
func (c *container) status(runs containerRuns) map[string]any {
	s := map[string]any{
		"name": c.spec.Name, "image": "embedded/" + c.spec.Name, "imageID": "embedded/" + c.spec.Name, "containerID": c.id(runs.restarts),
		"ready": runs.running, "started": runs.running, "restartCount": runs.restarts, "lastState": map[string]any{},
	}
	ended := c.terminated(runs.restarts, runs.code, timestamp(runs.begun), timestamp(runs.ended))
	switch {
	case runs.running:
		s["state"] = map[string]any{"running": map[string]any{"startedAt": timestamp(runs.begun)}}
	case runs.begun.IsZero():
		s["state"] = map[string]any{"waiting": map[string]any{"reason": "ContainerCreating"}}
	case runs.over:
		s["state"] = ended
	default:
		s["state"] = map[string]any{"waiting": map[string]any{
			"reason":  "CrashLoopBackOff",
			"message": fmt.Sprintf("back-off 1s restarting failed container=%s pod=%s_%s(%s)", c.spec.Name, c.box.pod.Name, c.box.pod.Namespace, c.box.uid),
		}}
		s["lastState"] = ended
		return s
	}
	if runs.restarts > 0 {
		s["lastState"] = c.terminated(runs.restarts-1, runs.lastCode, timestamp(runs.lastBegun), timestamp(runs.lastEnded))
	}
	return s
}

// id names one run of the container.
func (c *container) id(run int) string {
	return fmt.Sprintf("containerd://%s%02x", strings.ReplaceAll(c.box.uid, "-", ""), run)
}

func (c *container) terminated(run, code int, begun, ended string) map[string]any {
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	return map[string]any{"terminated": map[string]any{
		"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": ended, "containerID": c.id(run),
	}}
}
