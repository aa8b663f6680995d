package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-gateway/sluice/test/rig"
)

// sandbox runs the image as a kubelet would: with the pod's user, arguments, environment and volumes, and a root that cannot be written to. It
// has the network of this machine. It is owned by the test.
type sandbox struct {
	t       *testing.T
	pod     *corev1.Pod
	image   image
	rootfs  string
	volumes map[string]*volume // by the name in the pod
	output  *rig.Buffer
	cmd     *exec.Cmd
	over    chan struct{} // closed when the process has ended
	err     error         // how; to be read after that
}

// newSandbox unpacks the image. Making mounts needs root: without it the test is skipped, and says so.
func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	if os.Getuid() != 0 || exec.CommandContext(t.Context(), "unshare", "--mount", "true").Run() != nil {
		fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: THE IMAGE IS NOT RUN: it takes root and unshare(1) to mount its files\n\n", t.Name())
		t.Skip("needs root and unshare(1)")
	}
	s := &sandbox{
		t: t, pod: pod(t, manifests(t, kubernetesDir)["deployment.yaml"]), rootfs: t.TempDir(), volumes: map[string]*volume{}, output: &rig.Buffer{},
	}
	s.image = load(t, archive(t), s.rootfs)
	for _, v := range s.pod.Spec.Volumes {
		s.volumes[v.Name] = &volume{dir: t.TempDir(), group: int(*s.pod.Spec.SecurityContext.FSGroup), mode: 0o644}
		if v.Secret != nil {
			s.volumes[v.Name].mode = os.FileMode(*v.Secret.DefaultMode)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway said:\n%s", s.output)
		}
	})
	return s
}

// volume is a ConfigMap or a Secret in the pod.
type volume struct {
	dir     string
	group   int
	mode    os.FileMode
	version int
}

// put changes all files of the volume at once, as a kubelet does: in a new folder, to which a link leads.
func (v *volume) put(t *testing.T, files map[string][]byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v.version++
	fresh := fmt.Sprintf("..%d", v.version)
	must(os.Mkdir(filepath.Join(v.dir, fresh), 0o755))
	for name, b := range files {
		file := filepath.Join(v.dir, fresh, name)
		must(os.WriteFile(file, b, 0o600))
		must(os.Chown(file, 0, v.group))
		must(os.Chmod(file, v.mode))
		if v.version == 1 {
			must(os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)))
		}
	}
	must(os.Symlink(fresh, filepath.Join(v.dir, "..data_tmp")))
	must(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	must(os.Chmod(v.dir, 0o755))
}

// command is the container's process, which has not been started. Everything but the last is done by the shell in a mount namespace of its
// own, and each program takes the place of the one before: the process is the gateway in the end.
func (s *sandbox) command(args ...string) *exec.Cmd {
	s.t.Helper()
	c := s.pod.Spec.Containers[0]
	script := []string{"set -e", "mount --bind $1 $1"}
	for _, m := range c.VolumeMounts {
		at := filepath.Join(s.rootfs, m.MountPath)
		if err := os.MkdirAll(at, 0o755); err != nil {
			s.t.Fatal(err)
		}
		script = append(script, fmt.Sprintf("mount --bind %s %s", s.volumes[m.Name].dir, at), "mount -o remount,bind,ro "+at)
	}
	if err := os.MkdirAll(filepath.Join(s.rootfs, "proc"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	user := s.pod.Spec.SecurityContext
	script = append(script, "mount --rbind /proc $1/proc", "mount -o remount,bind,ro $1", fmt.Sprintf(
		`root=$1; shift; exec setpriv --no-new-privs chroot --userspec=%d:%d --groups=%d "$root" "$@"`,
		*user.RunAsUser, *user.RunAsGroup, *user.FSGroup))
	line := []string{"--mount", "--propagation", "private", "sh", "-c", strings.Join(script, "\n"), "sh", s.rootfs}
	// Not exec.CommandContext: the test ends it, by a signal.
	cmd := exec.Command("unshare", slices.Concat(line, s.image.Config.Entrypoint, c.Args, args)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	env := environment(s.t, c)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// serving is what the gateway says when it serves.
type serving struct {
	Msg       string `json:"msg"`
	GRPCAddr  string `json:"grpc_addr"`
	AdminAddr string `json:"admin_addr"`
}

// start starts the container and waits until it serves.
func (s *sandbox) start(ctx context.Context) serving {
	s.t.Helper()
	s.cmd = s.command()
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.over = make(chan struct{})
	go func() {
		defer close(s.over)
		s.err = s.cmd.Wait()
	}()
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // most often it has ended
		<-s.over
	})
	var said serving
	s.await(ctx, "serves", func() bool {
		for line := range strings.SplitSeq(s.output.String(), "\n") {
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				return true
			}
		}
		return false
	})
	return said
}

// await waits until ok, or until the process or ctx ends.
func (s *sandbox) await(ctx context.Context, what string, ok func() bool) {
	s.t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-s.over:
			s.t.Fatalf("the gateway ended (%v) before it %s", s.err, what)
		case <-ctx.Done():
			s.t.Fatalf("the gateway does not do what was waited for: %s", what)
		}
	}
}

// terminate ends the container as a kubelet does, and waits.
func (s *sandbox) terminate() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-s.over
	return s.err
}

// proc is a file of the process below /proc.
func (s *sandbox) proc(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}
