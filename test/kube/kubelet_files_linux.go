package kube

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"k8s.io/client-go/tools/clientcmd/api"
)

const (
	// imageName is the one image of a kubelet's containers: all of busybox, and
	// what serves the web pod. Its command, for who has none, sleeps.
	imageName = "sluice.test/busybox:1"
	imageWeb  = "/bin/node"
)

//go:embed config/kubelet
var kubeletConfig embed.FS

// path returns a name in the kubelet's folder.
func (k *Kubelet) path(name string) string {
	return k.cluster.state.path(filepath.Join("kubelet", name))
}

// writeFiles makes the folder of the kubelet: programs, image and configuration.
// containerd serves streams to the kubelet at an address that it picks itself.
func (k *Kubelet) writeFiles(healthz string) error {
	for _, dir := range []string{"bin", "cni/bin", "cni/conf", "logs", "volumes"} {
		if err := os.MkdirAll(k.path(dir), 0o700); err != nil {
			return err
		}
	}
	for name, path := range k.programs {
		if err := os.Symlink(path, k.path("bin/"+name)); err != nil {
			return err
		}
	}
	network := `{"cniVersion":"0.4.0","name":"loopback","plugins":[{"type":"loopback"}]}`
	return errors.Join(
		k.copyConfig("init.sh", "init.sh", 0o600),
		k.copyConfig("loopback", "cni/bin/loopback", 0o700),
		k.copyConfig("containerd.toml", "containerd.toml", 0o600),
		os.WriteFile(k.path("cni/conf/10-loopback.conflist"), []byte(network), 0o600),
		k.writeConfiguration(healthz),
		k.cluster.writeKubeconfig(k.path("kubeconfig"), nodeName, k.cluster.URL(), &api.AuthInfo{
			ClientCertificate: k.cluster.state.path("node-client.crt"), ClientKey: k.cluster.state.path("node-client.key"),
		}),
		k.writeImage())
}

// copyConfig writes a file of config/kubelet with its blanks filled in.
func (k *Kubelet) copyConfig(name, to string, mode os.FileMode) error {
	text, err := kubeletConfig.ReadFile("config/kubelet/" + name)
	if err != nil {
		return err
	}
	filled := strings.NewReplacer(`"STATE/`, `"`+k.path("")+"/", `"IMAGE"`, strconv.Quote(imageName)).Replace(string(text))
	return os.WriteFile(k.path(to), []byte(filled), mode)
}

// writeConfiguration writes the kubelet's configuration
// (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/) for a
// machine that may be a container itself: with version 1 of control groups, no
// swap accounting, no firewall and little room.
func (k *Kubelet) writeConfiguration(healthz string) error {
	type object = map[string]any
	port, err := portOf(k.addr)
	if err != nil {
		return err
	}
	healthzPort, err := portOf(healthz)
	if err != nil {
		return err
	}
	state := k.cluster.state
	text, err := json.MarshalIndent(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": "127.0.0.1", "port": port, "healthzBindAddress": "127.0.0.1", "healthzPort": healthzPort,
		"tlsCertFile": state.path("node.crt"), "tlsPrivateKeyFile": state.path("node.key"),
		"authentication": object{
			"anonymous": object{"enabled": false}, "webhook": object{"enabled": true},
			"x509": object{"clientCAFile": state.path("ca.crt")},
		},
		"authorization":            object{"mode": "Webhook"},
		"containerRuntimeEndpoint": "unix://" + k.path("containerd.sock"),

		"failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": "/" + k.group(),
		"cgroupsPerQOS": false, "enforceNodeAllocatable": []string{},
		"failSwapOn": false, "makeIPTablesUtilChains": false, "resolvConf": "",
		"localStorageCapacityIsolation": false, "imageGCHighThresholdPercent": 100,
		"evictionHard": object{"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "10Mi"},

		"podLogsDir": k.path("logs"), "volumePluginDir": k.path("volumes"),
		"containerLogMaxSize": "1Mi", "containerLogMonitorInterval": "3s",
		"nodeStatusUpdateFrequency": "5s",
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(k.path("kubelet.json"), text, 0o600)
}

func portOf(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// writeImage writes the image as "docker save" would, which containerd imports
// (https://github.com/moby/docker-image-spec/blob/main/v1.2.md, "Combined Image
// JSON + Filesystem Changeset Format").
func (k *Kubelet) writeImage() error {
	layer, err := k.imageLayer()
	if err != nil {
		return err
	}
	type object = map[string]any
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config":  object{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "2147483647"}},
		"rootfs":  object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
		"history": []object{{"created": "1970-01-01T00:00:00Z"}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]object{{
		"Config": "config.json", "Layers": []string{"layer.tar"}, "RepoTags": []string{imageName},
	}})
	if err != nil {
		return err
	}
	var image archive
	image.file("manifest.json", manifest)
	image.file("config.json", config)
	image.file("layer.tar", layer)
	text, err := image.end()
	return errors.Join(err, os.WriteFile(k.path("image.tar"), text, 0o600))
}

// imageLayer is what the containers see as /.
func (k *Kubelet) imageLayer() ([]byte, error) {
	busybox, err := os.ReadFile(k.programs["busybox"])
	if err != nil {
		return nil, err
	}
	web, err := os.ReadFile(k.programs["node"])
	if err != nil {
		return nil, err
	}
	applets, err := appletsOf(k.programs["busybox"])
	if err != nil {
		return nil, err
	}
	var root archive
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp"} {
		root.write(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	root.file("bin/busybox", busybox)
	root.file(strings.TrimPrefix(imageWeb, "/"), web)
	root.file("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"))
	root.file("etc/group", []byte("root:x:0:\n"))
	for _, applet := range applets {
		root.write(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil)
	}
	return root.end()
}

// archive is a tar file in memory; the first error stays.
type archive struct {
	text bytes.Buffer
	tar  *tar.Writer
	err  error
}

func (a *archive) file(name string, content []byte) {
	a.write(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}, content)
}

func (a *archive) write(header *tar.Header, content []byte) {
	if a.tar == nil {
		a.tar = tar.NewWriter(&a.text)
	}
	if a.err == nil {
		a.err = a.tar.WriteHeader(header)
	}
	if a.err == nil {
		_, a.err = io.Copy(a.tar, bytes.NewReader(content))
	}
}

func (a *archive) end() ([]byte, error) {
	if a.err == nil {
		a.err = a.tar.Close()
	}
	if a.err != nil {
		return nil, fmt.Errorf("write an archive: %w", a.err)
	}
	return slices.Clip(a.text.Bytes()), nil
}
