package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrNoRuntime means that this machine cannot run containers: it takes Linux,
// root, namespaces, and containerd, runc and a static busybox, in PATH or from
// Debian's packages.
var ErrNoRuntime = errors.New("this machine cannot run a kubelet")

// Kubelet is a real node of a cluster: the kubelet, of the version that
// kube-apiserver has, with containerd and runc, whose containers have an image of
// busybox. It shows what a [Node] only plays; that starts in a tenth of the time
// and needs nothing of the machine. A cluster has one or the other.
//
// All of it runs in mount and process namespaces of its own
// (config/kubelet/init.sh): it ends with its first process, which cannot outlive
// this one, and its mounts are nobody else's. Its files are in the cluster's
// folder and its control groups in one group with that folder's name. A kubelet
// and a containerd that the machine has itself are not touched.
//
// Its methods are safe for concurrent use.
type Kubelet struct {
	// Immutable after StartKubelet.
	cluster  *Cluster
	programs programs
	addr     string
	process  *process
}

// StartKubelet gives the cluster, which must have no node, a real one. It returns
// when that is ready: some 5 s, and before it, once, the build of the kubelet and
// the download of Debian's packages. Whoever started it must stop it, before the
// cluster. The error is [ErrNoRuntime] or [ErrOffline] where there cannot be one.
func (c *Cluster) StartKubelet(ctx context.Context) (*Kubelet, error) {
	programs, err := kubeletPrograms(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	k := &Kubelet{cluster: c, programs: programs}
	if err := k.start(ctx); err != nil {
		err = fmt.Errorf("start a kubelet: %w%s", err, k.logTails())
		return nil, errors.Join(err, k.Stop())
	}
	return k, nil
}

func (k *Kubelet) start(ctx context.Context) error {
	sweepGroups()
	addrs, err := loopbackAddrs(2)
	if err != nil {
		return err
	}
	k.addr = addrs[0]
	if err := k.writeFiles(addrs[1]); err != nil {
		return fmt.Errorf("write its files: %w", err)
	}
	if err := k.introduce(ctx); err != nil {
		return err
	}
	if k.process, err = k.spawn(); err != nil {
		return err
	}
	if err := awaitReady(ctx, k.process, k.cluster.adminHTTP, "https://"+k.addr+"/healthz", ""); err != nil {
		return err
	}
	return k.awaitNode(ctx)
}

// introduce makes what the API server has to know beforehand: the node, with an
// address that a kubelet would refuse to give itself, and that the API server may
// speak to kubelets.
func (k *Kubelet) introduce(ctx context.Context) error {
	nodes := k.cluster.admin.CoreV1().Nodes()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelHostname: nodeName}}}
	created, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create the node: %w", err)
	}
	created.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
		{Type: corev1.NodeHostName, Address: nodeName},
	}
	if _, err := nodes.UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("give the node an address: %w", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "kubelets"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:kubelet-api-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "apiserver"}},
	}
	_, err = k.cluster.admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return unlessThere(err)
}

// spawn starts the first process of the namespaces, with which all others end:
// once it is reaped none of them is left (pid_namespaces(7)).
func (k *Kubelet) spawn() (*process, error) {
	log, err := k.cluster.state.log("kubelet")
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own by then
	cmd := exec.Command(k.path("bin/busybox"), "sh", k.path("init.sh"), k.path(""), imageName)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"NODE_NAME=" + nodeName, "PATH=" + k.path("bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = childAttributes()
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	p := &process{name: "kubelet", cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.supervise(started)
	if err := <-started; errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: it may not make namespaces: %w", ErrNoRuntime, err)
	} else if err != nil {
		return nil, err
	}
	return p, k.cluster.state.record(p)
}

// awaitNode waits until the kubelet says that its node is ready.
func (k *Kubelet) awaitNode(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(readyInterval)
	defer again.Stop()
	for {
		node, err := k.cluster.admin.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err == nil && nodeReady(node) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node is not ready: %w: %w", context.Cause(ctx), err)
		case <-k.process.done:
			return fmt.Errorf("kubelet: %w", errors.Join(errDied, k.process.err))
		case <-again.C:
		}
	}
}

func nodeReady(node *corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Stop ends the kubelet, containerd and every container at once, waits until none
// of their processes is left, and removes their control groups. A second call
// does nothing. The files go with the cluster.
func (k *Kubelet) Stop() error {
	if k.process == nil {
		return nil
	}
	return errors.Join(k.process.kill(), removeGroups(k.group()))
}

// group is the name of the control group that all containers are in.
func (k *Kubelet) group() string { return filepath.Base(k.cluster.state.dir) }

// groupFolders returns where the control groups that match are: in the one
// hierarchy of version 2 or in each of version 1's (cgroups(7)).
func groupFolders(pattern string) []string {
	var all []string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		folders, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			panic(err) // the pattern is ours
		}
		all = append(all, folders...)
	}
	return all
}

// removeGroups removes the control groups of the name, which have no processes
// any more, and those within.
func removeGroups(name string) error {
	var errs []error
	for _, folder := range groupFolders(name) {
		var within []string
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				within = append(within, path)
			}
			return err
		})
		errs = append(errs, err)
		for _, path := range slices.Backward(within) { // a folder after what is in it
			errs = append(errs, os.Remove(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the control groups of a kubelet: %w", err)
	}
	return nil
}

// sweepGroups removes the control groups of runs that were killed: those whose
// cluster has no folder any more.
func sweepGroups() {
	for _, folder := range groupFolders(statePattern) {
		name := filepath.Base(folder)
		if _, err := os.Stat(filepath.Join(os.TempDir(), name)); errors.Is(err, fs.ErrNotExist) {
			_ = removeGroups(name) // what somebody still uses stays
		}
	}
}

// RunPod is [Cluster.RunPod] for this node. The containers' programs are those of
// busybox and the web server of [Kubelet.RunSamplePods]; Ports and ForwardLinger
// mean nothing, since a container's own ports are reached and containerd lingers
// by itself.
func (k *Kubelet) RunPod(ctx context.Context, p Pod) error {
	object, err := p.object()
	if err == nil {
		_, err = k.cluster.admin.CoreV1().Pods(p.Namespace).Create(ctx, contained(object), metav1.CreateOptions{})
	}
	if err == nil {
		err = k.cluster.AwaitPod(ctx, p.Namespace, p.Name, begun)
	}
	if err != nil {
		return fmt.Errorf("run pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// contained makes of a pod of host processes one of containers.
func contained(pod *corev1.Pod) *corev1.Pod {
	no := false
	pod.Spec.AutomountServiceAccountToken, pod.Spec.EnableServiceLinks = &no, &no // both come from controllers
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Image, pod.Spec.Containers[i].ImagePullPolicy = imageName, corev1.PullNever
	}
	return pod
}

// RunSamplePods is [Cluster.RunSamplePods] for this node; those that exist
// already stay.
func (k *Kubelet) RunSamplePods(ctx context.Context) error {
	for _, p := range samplePods(imageWeb, loopback(webPort)) {
		err := k.RunPod(ctx, p)
		if apierrors.IsAlreadyExists(err) {
			err = k.cluster.AwaitPod(ctx, p.Namespace, p.Name, begun)
		}
		if err != nil {
			return fmt.Errorf("run the sample pods: %w", err)
		}
	}
	over := func(pod *corev1.Pod) bool { return pod != nil && pod.Status.Phase == corev1.PodSucceeded }
	if err := k.cluster.AwaitPod(ctx, sampleNamespace, DonePod, over); err != nil {
		return fmt.Errorf("wait for pod %s to be done: %w", DonePod, err)
	}
	return k.awaitWords(ctx, sampleNamespace, WebPod)
}

// awaitWords waits until the pod has printed something.
func (k *Kubelet) awaitWords(ctx context.Context, namespace, pod string) error {
	log, err := k.cluster.admin.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		return fmt.Errorf("follow the log of pod %s: %w", pod, err)
	}
	defer log.Close()
	if _, err := log.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for the log of pod %s: %w", pod, err)
	}
	return nil
}

// logTails returns the ends of the kubelet's and containerd's logs, for an error.
func (k *Kubelet) logTails() string {
	return fmt.Sprintf("\n--- kubelet ---\n%s\n--- containerd ---\n%s",
		tail(k.cluster.state.logName("kubelet"), 0), tail(k.path("containerd.log"), 0))
}

// NewKubelet starts a kubelet for one test, which stops it at its end. Where there
// cannot be one it skips the test and says so on standard error, except when the
// variable CI is set: there, and on any other error, it fails the test.
func NewKubelet(t testing.TB, c *Cluster) *Kubelet {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	k, err := c.StartKubelet(ctx)
	if errors.Is(err, ErrNoRuntime) && os.Getenv("CI") == "" {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: NOT TESTED WITH A REAL KUBELET: %v\n\n", t.Name(), err)
		t.Skip(err)
	}
	if err != nil {
		giveUp(t, err)
	}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Errorf("stop the kubelet: %v", err)
		}
		if t.Failed() {
			t.Logf("the kubelet meanwhile:%s", k.logTails())
		}
	})
	return k
}
