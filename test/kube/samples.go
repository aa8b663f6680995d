package kube

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The pods of [Cluster.RunSamplePods], in namespace "default".
const (
	sampleNamespace = "default"

	// ShellPod has a container, main, that prints each line of its stdin with "> "
	// before it; attach reaches it.
	ShellPod = "shell"

	// TermPod is the same on a terminal.
	TermPod = "term"

	// TalkerPod has two containers: main prints a numbered line every 50 ms, quiet
	// prints nothing.
	TalkerPod = "talker"

	// DonePod has printed 100 numbered lines and exited 0.
	DonePod = "done"

	// WebPod serves HTTP on its port 80: GET / says hello, POST /echo answers with
	// the body.
	WebPod = "web"
)

const (
	repeating = `while IFS= read -r line; do printf '> %s\n' "$line"; done`
	talking   = `i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done`
	counting  = `i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo "line $i"; done`
)

func shell(script string) []string { return []string{"sh", "-c", script} }

// RunSamplePods runs the pods that a person at a terminal and the table of
// [StreamAnswers] find in every cluster that streams; those that exist already
// stay. It needs a node.
func (c *Cluster) RunSamplePods(ctx context.Context) error {
	n, err := c.theNode(ctx)
	if err != nil {
		return err
	}
	addrs, err := loopbackAddrs(1)
	if err != nil {
		return err
	}
	for _, p := range samplePods(n.binary, addrs[0]) {
		err := c.RunPod(ctx, p)
		if apierrors.IsAlreadyExists(err) {
			err = c.AwaitPod(ctx, p.Namespace, p.Name, begun)
		}
		if err != nil {
			return fmt.Errorf("run the sample pods: %w", err)
		}
	}
	over := func(pod *corev1.Pod) bool { return pod != nil && pod.Status.Phase == corev1.PodSucceeded }
	if err := c.AwaitPod(ctx, sampleNamespace, DonePod, over); err != nil {
		return fmt.Errorf("wait for pod %s to be done: %w", DonePod, err)
	}
	web, err := c.admin.CoreV1().Pods(sampleNamespace).Get(ctx, WebPod, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("look at pod %s: %w", WebPod, err)
	}
	url := "http://" + net.JoinHostPort("127.0.0.1", web.Annotations[portAnnotation+strconv.Itoa(webPort)])
	return awaitReady(ctx, n.running(), c.anyoneHTTP, url, "")
}

// samplePods are the pods; web is where the last of them serves.
func samplePods(program, web string) []Pod {
	pods := []Pod{
		{Name: ShellPod, Containers: []Container{{Name: "main", Command: shell(repeating), Stdin: true}}},
		{Name: TermPod, Containers: []Container{{Name: "main", Command: shell(repeating), Stdin: true, TTY: true}}},
		{Name: TalkerPod, Containers: []Container{{Name: "main", Command: shell(talking)}, {Name: "quiet"}}},
		{Name: DonePod, Containers: []Container{{Name: "main", Command: shell(counting)}}, Restart: "Never"},
		{
			Name:       WebPod,
			Containers: []Container{{Name: "main", Command: []string{program, "web", web}}},
			Ports:      map[int]string{webPort: web},
		},
	}
	for i := range pods {
		pods[i].Namespace = sampleNamespace
	}
	return pods
}
