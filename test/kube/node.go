package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// nodeName is the name of a cluster's node.
const nodeName = "node-0"

// Node is the node of a cluster: a process that plays the kubelet and its
// runtime, whose containers are processes of this host (test/kube/node). The API
// server streams logs, execs, attachments and ports from it as from a real one.
// All its methods are safe for concurrent use.
//
// It is faithful where a gateway could tell the difference: CRI's log format with
// lines cut at 16 KiB, log files by run and their rotation, restarts and previous
// logs, exit codes, what the end of stdin does to an exec and to an attachment,
// an exec that goes on when its connection is lost. It is kinder than containerd
// in two things: the last output of an exec always comes before its exit status
// (https://github.com/kubernetes/kubernetes/issues/124571), and a forwarded
// connection ends one direction at a time unless [Pod].ForwardLinger says
// otherwise.
type Node struct {
	// Immutable.
	cluster *Cluster
	binary  string
	addr    string

	mu sync.Mutex
	// Guarded by mu.
	process *process
}

// StartNode gives the cluster a node, or returns the one it has. It returns when
// the node is ready; [NodeBinary] before it may have to build it. The node is
// stopped with the cluster.
func (c *Cluster) StartNode(ctx context.Context) (*Node, error) {
	n, err := c.theNode(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

func (c *Cluster) theNode(ctx context.Context) (*Node, error) {
	binary, err := NodeBinary(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	addrs, err := loopbackAddrs(1)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, errors.New("the cluster is stopped")
	}
	if c.node == nil {
		c.node = &Node{cluster: c, binary: binary, addr: addrs[0]}
	}
	return c.node, nil
}

// Start starts the node again after [Node.Kill], as the same one: with its name,
// its address and what it keeps on disk. It takes its pods over and starts their
// containers anew, each a restart. It returns when the node is ready, and does
// nothing if it runs.
func (n *Node) Start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.alive() {
		return nil
	}
	state := n.cluster.state
	p, err := n.cluster.spawn("node", exec.Command(n.binary, "-name", nodeName,
		"-server", n.cluster.URL(), "-ca", state.path("ca.crt"), "-client", state.path("node-client"),
		"-serving", state.path("node"), "-listen", n.addr, "-state", n.dir()))
	if err != nil {
		return err
	}
	n.process = p
	return awaitReady(ctx, p, n.cluster.adminHTTP, "https://"+n.addr+"/healthz", "")
}

// running is the node's process, which may have been killed.
func (n *Node) running() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

func (n *Node) dir() string { return n.cluster.state.path("node") }

// Kill ends the node as a crash does (SIGKILL), and with it every process it has
// started. It returns when all of them are gone. The API does not come to know.
func (n *Node) Kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	if err := n.process.kill(); err != nil {
		return err
	}
	// The guardians of the containers hold this lock to their end.
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	held, err := lock(ctx, n.dir()+"/alive")
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was killed before it could start anything
	}
	if err != nil {
		return fmt.Errorf("wait for the containers of a killed node: %w", err)
	}
	return held.Close()
}

// Rotate makes a running container write another log file, as a kubelet does with
// one that has grown too large: a log that is followed goes on, and one that is
// asked for later begins with what came after.
func (n *Node) Rotate(namespace, pod, container string) error {
	return n.post("rotate", namespace, pod, container)
}

// KillContainer ends the process of a running container with SIGKILL. What
// follows is up to the pod's restart policy.
func (n *Node) KillContainer(namespace, pod, container string) error {
	return n.post("kill", namespace, pod, container)
}

// post asks the node for something.
func (n *Node) post(path ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	url := "https://" + n.addr + "/" + strings.Join(path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	response, err := n.cluster.adminHTTP.Do(request)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the node to %s: %s: %s", strings.Join(path, " "), response.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
