package kube

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
)

// touchKey is outside what the API server reads: writing it moves etcd's revision
// on without changing any object.
const touchKey = "/sluice/touch"

// startEtcd starts a store of one member that does not bother to reach the disk.
func (c *Cluster) startEtcd(ctx context.Context, binary, addr, peer string) error {
	client, peerURL := "https://"+addr, "http://"+peer
	cmd := exec.Command(binary, "--name", "etcd", "--data-dir", c.state.path("etcd"), "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL,
		"--initial-cluster", "etcd="+peerURL,
		"--cert-file", c.state.path("etcd.crt"), "--key-file", c.state.path("etcd.key"),
		"--trusted-ca-file", c.state.path("ca.crt"), "--client-cert-auth", "--unsafe-no-fsync")
	p, err := c.spawn("etcd", cmd)
	if err != nil {
		return err
	}
	c.etcd, c.etcdURL = p, client
	return awaitReady(ctx, p, c.etcdHTTP, client+"/health", "")
}

// Compact makes etcd forget every revision before the newest, after moving the
// newest on by one, and returns it. That alone makes the API server answer 410
// only where it reads etcd itself: to a "continue" token of a paginated list, and
// to watches of resources named in [Options].Uncached. A watch of any other
// resource is answered by the API server's watch cache, which remembers its own
// recent events whatever etcd forgot. Use [Cluster.Expire] for those.
func (c *Cluster) Compact(ctx context.Context) (revision int64, err error) {
	touch := map[string]string{"key": base64.StdEncoding.EncodeToString([]byte(touchKey))}
	var answer struct {
		Header struct {
			Revision int64 `json:"revision,string"`
		} `json:"header"`
	}
	if err := c.callEtcd(ctx, "/v3/kv/put", touch, &answer); err != nil {
		return 0, err
	}
	revision = answer.Header.Revision
	compact := map[string]any{"revision": revision, "physical": true}
	return revision, c.callEtcd(ctx, "/v3/kv/compaction", compact, &answer)
}

// callEtcd calls etcd's JSON gateway (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/).
func (c *Cluster) callEtcd(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, c.etcdURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := c.etcdHTTP.Do(post)
	if err != nil {
		return fmt.Errorf("call etcd: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("call etcd %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("call etcd %s: %s: %s", path, response.Status, text)
	}
	return json.Unmarshal(text, answer)
}
