package kube

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// deletionGrace is how long a container may go on after its pod was deleted.
const deletionGrace = time.Second

// Pod is what [Cluster.RunPod] runs.
type Pod struct {
	Namespace, Name string
	Containers      []Container

	// Restart is "Always", which is the default, "OnFailure" or "Never".
	Restart string

	// Ports maps a port of the pod to the address on the loopback interface where
	// it is served: by a container, or by the test itself. Another port of the pod
	// refuses connections.
	Ports map[int]string

	// ForwardLinger, unless zero, makes port-forward end as containerd does, which
	// has a second: the client's FIN is not passed on, and that long after either
	// direction has ended the other is cut.
	ForwardLinger time.Duration
}

// Container is a process of this host.
type Container struct {
	Name    string
	Command []string // without one it is idle

	// Stdin connects the process's stdin for who attaches; StdinOnce closes it when
	// the first of them is done.
	Stdin, StdinOnce bool
	TTY              bool
	Env              map[string]string
}

// podAnnotations say what the API has no fields for (test/kube/node, forward.go).
const (
	portAnnotation   = "sluice.test/port-"
	lingerAnnotation = "sluice.test/forward-linger"
)

// object is the pod as the API knows it, bound to the node.
func (p Pod) object() (*corev1.Pod, error) {
	grace := int64(deletionGrace / time.Second)
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			NodeName: nodeName, RestartPolicy: corev1.RestartPolicy(p.Restart), TerminationGracePeriodSeconds: &grace,
		},
	}
	for port, addr := range p.Ports {
		_, served, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		object.Annotations[portAnnotation+strconv.Itoa(port)] = served
	}
	if p.ForwardLinger > 0 {
		object.Annotations[lingerAnnotation] = p.ForwardLinger.String()
	}
	for _, c := range p.Containers {
		container := corev1.Container{
			Name: c.Name, Image: "host", Command: c.Command, Stdin: c.Stdin, StdinOnce: c.StdinOnce, TTY: c.TTY,
		}
		for name, value := range c.Env {
			container.Env = append(container.Env, corev1.EnvVar{Name: name, Value: value})
		}
		object.Spec.Containers = append(object.Spec.Containers, container)
	}
	return object, nil
}

// RunPod makes a pod in a namespace that exists and waits until it runs, or has
// run to its end. The cluster needs a node ([Cluster.StartNode]).
func (c *Cluster) RunPod(ctx context.Context, p Pod) error {
	object, err := p.object()
	if err == nil {
		_, err = c.admin.CoreV1().Pods(p.Namespace).Create(ctx, object, metav1.CreateOptions{})
	}
	if err == nil {
		err = c.AwaitPod(ctx, p.Namespace, p.Name, begun)
	}
	if err != nil {
		return fmt.Errorf("run pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// begun tells whether every container of a pod has been started.
func begun(pod *corev1.Pod) bool {
	if pod == nil || pod.Status.Phase == corev1.PodPending {
		return false
	}
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Waiting != nil {
			return false
		}
	}
	return len(pod.Status.ContainerStatuses) > 0
}

// DeletePod deletes a pod and waits until it is gone, which its containers are
// then too. They are asked to end and get a second for it. A pod that does not
// exist is no error.
func (c *Cluster) DeletePod(ctx context.Context, namespace, name string) error {
	err := c.admin.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = c.AwaitPod(ctx, namespace, name, func(pod *corev1.Pod) bool { return pod == nil })
	}
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// AwaitPod waits until the pod is as wanted, which it asks of every state the pod
// comes into; of nil when there is no such pod. It returns the cause of ctx if
// that ends first.
func (c *Cluster) AwaitPod(ctx context.Context, namespace, name string, wanted func(*corev1.Pod) bool) error {
	pods := c.admin.CoreV1().Pods(namespace)
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	for ctx.Err() == nil {
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 && wanted(nil) || len(list.Items) > 0 && wanted(&list.Items[0]) {
			return nil
		}
		events, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: selector, ResourceVersion: list.ResourceVersion})
		if err != nil {
			return err
		}
		if sawWanted(events, wanted) {
			return nil
		}
	}
	return context.Cause(ctx)
}

// sawWanted reads events until the pod is as wanted, and closes them. It tells
// whether that has come before their end.
func sawWanted(events watch.Interface, wanted func(*corev1.Pod) bool) bool {
	defer events.Stop()
	for event := range events.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return false // a Status: the watch has failed
		}
		if event.Type == watch.Deleted {
			pod = nil
		}
		if wanted(pod) {
			return true
		}
	}
	return false
}
