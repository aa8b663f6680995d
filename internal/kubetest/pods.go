package kubetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// Pod is a pod that runs: its containers' programs are executed in this
// process, by [Server.RunPod].
type Pod struct {
	// Namespace is "default" if empty.
	Namespace string
	// Name is required.
	Name string
	// Labels are put on the object.
	Labels map[string]string
	// Containers are one at least.
	Containers []Container
	// Restart is the restartPolicy: Always if empty, OnFailure or Never.
	Restart string
	// Ports are what listens in the pod. Each is called for every connection,
	// on a goroutine of its own, with one end of a TCP connection on loopback,
	// so half-closes and resets are real; it must return when the connection
	// is closed, which also the end of the pod does. What it leaves open is
	// closed for it. A port that is not named refuses.
	Ports map[uint16]func(net.Conn)
}

// Container is a container of a [Pod].
type Container struct {
	// Name is "main" if empty.
	Name string
	// Run is its main program; one that idles if nil. The container's log is
	// what that writes.
	Run Program
	// TTY gives it a terminal, Stdin an input, which [who attaches] writes to.
	//
	// [who attaches]: https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
	TTY, Stdin bool
	// StdinOnce ends the input with that of the first who attaches.
	StdinOnce bool
	// Env are variables that its programs see, beside PATH, HOME and HOSTNAME.
	Env map[string]string
	// Files are the contents of files in it, by path.
	Files map[string]string
}

// Program is what runs in a container. It returns its exit code when it is
// done or ctx ends, at the latest; then it also leaves nothing behind.
type Program func(ctx context.Context, p *shell.Process) int

// Script is a [Program] that runs a script of the shell in package shell.
func Script(script string) Program {
	return func(ctx context.Context, p *shell.Process) int {
		q := *p
		q.Args = []string{"sh", "-c", script}
		return shell.Run(ctx, &q)
	}
}

// idle is the program of a container that has none.
func idle(ctx context.Context, _ *shell.Process) int {
	<-ctx.Done()
	return 0
}

// restartDelay is how long a container that has ended waits for its next run.
const restartDelay = time.Second

// node runs the pods of a server. Safe for concurrent use.
type node struct {
	server *Server // Immutable.

	mu     sync.Mutex
	pods   map[key]*sandbox // Guarded by mu.
	closed bool             // Guarded by mu.
	tasks  sync.WaitGroup   // every goroutine of a pod; begun under mu while not closed
}

// begin runs f on a goroutine of the node's, which close waits for; false
// after close.
func (n *node) begin(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.tasks.Go(f)
	return true
}

// find is the running pod of an object; nil if that does not run here.
func (n *node) find(at key, uid string) *sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b := n.pods[at]; b != nil && b.uid == uid {
		return b
	}
	return nil
}

// close ends all pods and waits for them.
func (n *node) close() {
	n.mu.Lock()
	n.closed = true
	boxes := slices.Collect(maps.Values(n.pods))
	n.mu.Unlock()
	for _, b := range boxes {
		b.stop()
	}
	n.tasks.Wait()
}

// collect ends the pods whose objects are gone.
func (n *node) collect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at, b := range n.pods {
		r, err := n.server.store.get(n.server.kind("", "pods"), at)
		if err != nil || r.uid != b.uid {
			delete(n.pods, at)
			b.stop()
		}
	}
}

// sandbox is a pod that runs.
type sandbox struct {
	// Immutable after place.
	node       *node
	pod        Pod
	uid        string
	told       bool // its object is somebody else's business: the demo's
	containers []*container
	ports      map[uint16]*podPort
	stop       context.CancelFunc

	showing sync.Mutex // one writes the object at a time
}

// RunPod creates a pod and runs it; it returns when its containers do. The pod
// ends when its object is deleted, in whatever way, or the server is closed.
// The errors are of type [*Status] unless a port cannot be listened at.
func (s *Server) RunPod(p Pod) error {
	p = p.withDefaults()
	k := s.kind("", "pods")
	object, err := p.object().normalize()
	if err != nil {
		return err
	}
	if err := identify(k, object, p.Namespace); err != nil {
		return err
	}
	r, err := s.store.put(k, object, write{mustNotExist: true})
	if err != nil {
		return err
	}
	b, err := s.node.place(p, r.uid, false)
	if err != nil {
		_, gone := s.store.remove(k, r.key(), write{uid: r.uid})
		return errors.Join(err, gone)
	}
	for _, c := range b.containers {
		<-c.started
	}
	s.node.collect() // The object may be gone already.
	return nil
}

func (p Pod) withDefaults() Pod {
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if p.Restart == "" {
		p.Restart = "Always"
	}
	p.Containers = slices.Clone(p.Containers)
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Name == "" {
			c.Name = "main"
		}
		if c.Run == nil {
			c.Run = idle
		}
	}
	return p
}

// place runs the pod of an object that exists.
func (n *node) place(p Pod, uid string, told bool) (*sandbox, error) {
	ctx, stop := context.WithCancel(context.Background())
	b := &sandbox{node: n, pod: p, uid: uid, told: told, stop: stop, ports: map[uint16]*podPort{}}
	for _, spec := range p.Containers {
		b.containers = append(b.containers, newContainer(b, spec))
	}
	for number, serve := range p.Ports {
		port, err := n.listen(ctx, serve)
		if err != nil {
			stop()
			return nil, fmt.Errorf("run pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		b.ports[number] = port
	}
	n.mu.Lock()
	if old := n.pods[key{p.Namespace, p.Name}]; old != nil {
		old.stop()
	}
	n.pods[key{p.Namespace, p.Name}] = b
	n.mu.Unlock()
	for _, c := range b.containers {
		if !n.begin(func() { c.supervise(ctx) }) {
			stop()
			return nil, unclassified("the server is closed")
		}
	}
	return b, nil
}

// container finds one by its name; nil if there is none.
func (b *sandbox) container(name string) *container {
	for _, c := range b.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

// runningContainer is a container of a pod that runs here.
func (s *Server) runningContainer(namespace, pod, name string) (*container, error) {
	r, err := s.store.get(s.kind("", "pods"), key{namespace, pod})
	if err != nil {
		return nil, err
	}
	b := s.node.find(r.key(), r.uid)
	if b == nil {
		return nil, badRequest("pod %s does not run here", pod)
	}
	if c := b.container(name); c != nil {
		return c, nil
	}
	return nil, invalidContainer(name, pod)
}

// KillContainer kills what runs in a container, as a node does that is out of
// memory: the main program ends with 137, with it all that were started by
// exec, and what the restart policy says follows a second later. It returns
// when the container has ended.
func (s *Server) KillContainer(namespace, pod, container string) error {
	c, err := s.runningContainer(namespace, pod, container)
	if err != nil {
		return err
	}
	<-c.kill()
	return nil
}

// RestartContainer kills what runs in a container and starts it anew at once,
// whatever its restart policy says. It returns when the new run has begun,
// with a log of its own; the old one is the previous log.
func (s *Server) RestartContainer(namespace, pod, container string) error {
	c, err := s.runningContainer(namespace, pod, container)
	if err != nil {
		return err
	}
	return c.restart()
}

// RotateLog begins a new file for a container's log, as a kubelet does when it
// is long: who reads the log from now on does not see the older lines. Who
// follows it goes on without a gap.
func (s *Server) RotateLog(namespace, pod, container string) error {
	c, err := s.runningContainer(namespace, pod, container)
	if err != nil {
		return err
	}
	log, _ := c.logs()
	log.rotate()
	return nil
}

// WriteLog adds to a container's log as if its main program had written it to
// its standard output. A line is seen once it ends. Who is attached sees it too.
func (s *Server) WriteLog(namespace, pod, container, text string) error {
	c, err := s.runningContainer(namespace, pod, container)
	if err != nil {
		return err
	}
	c.output(s.ctx, stdout, []byte(text))
	return nil
}
