package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/metadata"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// direct is what an API server itself tells a watch of one object, of its beginning and then of one change, message by message.
func direct(ctx context.Context, t *testing.T, server, token string, roots *x509.CertPool, target *sluicev1.WatchTarget) *websocket.Conn {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	origin := u.String()
	u.Scheme, u.Path = "wss", "/api/v1/namespaces/"+target.GetNamespace()+"/configmaps"
	u.RawQuery = url.Values{"watch": {"true"}, "fieldSelector": {"metadata.name=" + target.GetName()}}.Encode()
	d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, res, err := d.DialContext(ctx, u.String(), http.Header{"Authorization": {"Bearer " + token}, "Origin": {origin}})
	if err != nil {
		t.Fatalf("watch directly: %v, %v", err, res)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func message(t *testing.T, conn *websocket.Conn) []byte {
	t.Helper()
	_, b, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// large is text of n bytes in which every length of rune occurs.
func large(n int, seed string) string {
	s := strings.Repeat(seed+"aä€😀\"\\\n", n/8)
	for s = s[:n]; !strings.HasSuffix(s, "a"); s = s[:len(s)-1] {
	}
	return s + strings.Repeat("x", n-len(s))
}

// compareLarge watches an object by the gateway's doors and directly, through a change, and compares byte by byte.
func compareLarge(t *testing.T, s *setup, c *client.Client, clusterName, token string, straight *websocket.Conn, target *sluicev1.WatchTarget, least int, change func()) {
	t.Helper()
	ctx := within(t, time.Minute)
	w := c.Watch(client.WatchRequest{Cluster: clusterName, Target: target})
	defer w.Close()
	call, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
	defer cancel()
	plain, err := sluicev1.NewGatewayServiceClient(s.Conn()).Watch(call, &sluicev1.WatchRequest{Cluster: clusterName, Watch: target})
	if err != nil {
		t.Fatal(err)
	}
	sdk := func() []byte {
		for {
			ev, err := w.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if ev.State == nil {
				return ev.Raw
			}
		}
	}
	rpc := func() []byte {
		for {
			r, err := plain.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r.GetState() == nil {
				return []byte(r.GetEvent())
			}
		}
	}
	for i := range 2 {
		want := message(t, straight)
		if len(want) < least {
			t.Fatalf("an event of %d bytes shows nothing", len(want))
		}
		for door, got := range map[string][]byte{"client": sdk(), "Watch": rpc()} {
			if !bytes.Equal(got, want) {
				t.Errorf("event %d by %s: %d bytes differ from the %d of the API server", i, door, len(got), len(want))
			}
		}
		if i == 0 {
			change()
		}
	}
}

// TestAMebibytePassesOverTheSmallestWindow: an object as large as etcd takes arrives through 64 KiB of window as the API server sent it.
func TestAMebibytePassesOverTheSmallestWindow(t *testing.T) {
	s := newSetup(t)
	const size = 1 << 20 // what a ConfigMap may hold
	maps := s.cluster.Admin().CoreV1().ConfigMaps(kube.Namespace)
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string]string{"d": large(size, "before")}}
	o, err := maps.Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := s.token()
	c := s.alice(func(c *client.Config) { c.Window = 64 << 10 })
	target := &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: kube.Namespace, Name: o.Name}
	straight := direct(within(t, time.Minute), t, s.cluster.URL(), token, s.cluster.CertPool(), target)
	compareLarge(t, s, c, upstream, token, straight, target, size, func() {
		o.Data["d"] = large(size, "after")
		if _, err := maps.Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestTwoMebibytesPassOverTheSmallestWindow, from an API server that takes larger objects than etcd.
func TestTwoMebibytesPassOverTheSmallestWindow(t *testing.T) {
	s := newSetup(t)
	const size = 2 << 20
	put := func(seed string) {
		if _, err := s.Kube.Apply(kubetest.Object{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "default", "name": "large"},
			"data": map[string]any{"d": large(size, seed)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	token := s.Token("alice")
	c := s.Client("alice", func(c *client.Config) { c.Window = 64 << 10 })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Kube.CAPEM())
	target := &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: "default", Name: "large"}
	straight := direct(within(t, time.Minute), t, s.Kube.URL(), token, roots, target)
	compareLarge(t, s, c, rig.Cluster, token, straight, target, size, func() { put("after") })
}

// TestLargeTextIsWhatItSays, so that the tests above compare what they mean to.
func TestLargeTextIsWhatItSays(t *testing.T) {
	for _, n := range []int{1 << 20, 2 << 20} {
		s := large(n, "seed")
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != s || len(s) != n || !strings.Contains(s, "😀") {
			t.Errorf("%d bytes of %d, %v", len(s), n, err)
		}
	}
}
