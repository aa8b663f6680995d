package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/kubetest"
)

var forwarding = regexp.MustCompile(`(?m)^Forwarding from (\S+) -> (\d+)$`)

// get asks an HTTP server and returns its answer.
func get(t *testing.T, address string) (string, error) {
	t.Helper()
	h := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s", res.StatusCode, b), err
}

func TestPortsLeadToThePodAndFailAlone(t *testing.T) {
	_, env := behindRelay(t)
	f := begin(t, env, "port-forward", "web", ":80", ":81", "--address", "127.0.0.1")
	f.stdout.await(t, "both ports", func(s string) bool { return strings.Count(s, "\n") == 2 })
	found := forwarding.FindAllStringSubmatch(f.stdout.String(), -1)
	if len(found) != 2 || found[0][2] != "80" || found[1][2] != "81" {
		t.Fatalf("printed %q", f.stdout)
	}
	if got, err := get(t, found[0][1]); err != nil || !strings.HasPrefix(got, "200 ") {
		t.Errorf("port 80: %q, %v", got, err)
	}
	if got, err := get(t, found[1][1]); err == nil {
		t.Errorf("port 81, which nobody listens at: %q", got)
	}
	f.stderr.await(t, "the failure", func(s string) bool { return strings.Contains(s, " to port 81 of pod web failed: ") })
	if got, err := get(t, found[0][1]); err != nil || !strings.HasPrefix(got, "200 ") {
		t.Errorf("port 80 after another has failed: %q, %v", got, err)
	}
	f.stop()
	if code := f.end(t); code != exitOK {
		t.Errorf("exit code %d after Ctrl-C:\n%s", code, f.stderr)
	}
}

func TestPortsAreFoundByTheirNames(t *testing.T) {
	k := startKube(t)
	k.runPods(t, kubetest.Pod{
		Name: "web-0", Labels: map[string]string{"app": "web"}, Containers: []kubetest.Container{{}},
		Ports: map[uint16]func(net.Conn){8080: kubetest.ServeHTTP(http.NotFoundHandler())},
	})
	pod, err := k.Get("", "pods", "default", "web-0")
	if err != nil {
		t.Fatal(err)
	}
	container := pod["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	container["ports"] = []any{map[string]any{"name": "http", "containerPort": 8080}}
	for _, o := range []kubetest.Object{pod, {
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "web", "namespace": "default"},
		"spec": map[string]any{"clusterIP": "10.0.0.1", "selector": map[string]any{"app": "web"}, "ports": []any{
			map[string]any{"name": "main", "port": 80, "targetPort": "http"},
		}},
	}} {
		if _, err := k.Apply(o); err != nil {
			t.Fatal(err)
		}
	}
	_, env := k.throughGateway(t)
	for _, args := range [][]string{{"web-0", ":http"}, {"pod/web-0", ":http"}, {"service/web", ":80"}, {"svc/web", ":main"}} {
		f := begin(t, env, append([]string{"port-forward", "--address", "127.0.0.1"}, args...)...)
		text := f.stdout.await(t, "an address", func(s string) bool { return strings.HasSuffix(s, "\n") })
		found := forwarding.FindStringSubmatch(text)
		if len(found) != 3 || found[2] != "8080" {
			t.Fatalf("%v: printed %q", args, text)
		}
		if got, err := get(t, found[1]); err != nil || !strings.HasPrefix(got, "404 ") {
			t.Errorf("%v: %q, %v", args, got, err)
		}
		f.stop()
		f.end(t)
	}
	if _, errs, code := sluice(t, env, "port-forward", "svc/web", ":http"); code != exitFailed || !strings.Contains(errs, "service web has no port http for TCP; it has main (80)") {
		t.Errorf("a port of the pod's: exit code %d:\n%s", code, errs)
	}
	f := begin(t, env, "port-forward", "svc/web", ":80", "--address", "127.0.0.1")
	address := forwarding.FindStringSubmatch(f.stdout.await(t, "an address", func(s string) bool { return strings.HasSuffix(s, "\n") }))[1]
	if err := k.Delete("", "pods", "default", "web-0"); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, address); err == nil {
		t.Errorf("of a pod that is gone: %q", got)
	}
	f.stderr.await(t, "what to do", func(s string) bool {
		return strings.Contains(s, "the pod is gone; the command, given again, finds another of svc/web")
	})
	f.stop()
	f.end(t)

	forbid := "pods"
	k.forbid.Store(&forbid)
	if _, errs, code := sluice(t, env, "port-forward", "web-0", ":http"); code != exitFailed || !strings.Contains(errs, "hint: ask for the permission to watch pods in namespace default, or give the number of port http") {
		t.Errorf("a name that nobody may see: exit code %d:\n%s", code, errs)
	}
	f = begin(t, env, "port-forward", "web-0", ":8080", "--address", "127.0.0.1")
	f.stdout.await(t, "an address", func(s string) bool { return strings.HasSuffix(s, " -> 8080\n") })
}

func TestForwardedPortsGoOnThroughACut(t *testing.T) {
	relay, env := behindRelay(t)
	f := begin(t, env, "port-forward", "web", ":80")
	text := f.stdout.await(t, "an address", func(s string) bool { return strings.Contains(s, "127.0.0.1") && strings.HasSuffix(s, "\n") })
	address := forwarding.FindStringSubmatch(text)[1]
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web\r\nConn"); err != nil {
		t.Fatal(err)
	}
	relay.Cut()
	if _, err := io.WriteString(conn, "ection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestABusyPortIsRefusedWithAnother(t *testing.T) {
	_, env := behindRelay(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	out, errs, code := sluice(t, env, "port-forward", "web", fmt.Sprintf("%d:80", port), "--address", "127.0.0.1")
	if code != exitFailed || out != "" || !strings.Contains(errs, "address already in use") || !strings.Contains(errs, "hint: give another local port before the colon, or none for a free one, :80") {
		t.Errorf("exit code %d, %q:\n%s", code, out, errs)
	}
}
