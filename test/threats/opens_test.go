package threats

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/bridge"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// kinds are a target of each kind that leads into a pod, by the subresource that is asked for it.
func kinds() map[string]*sluicev1.Target {
	return map[string]*sluicev1.Target{
		"log": {Target: &sluicev1.Target_Logs{Logs: &sluicev1.LogTarget{Namespace: "default", Pod: "p", Container: "main", Follow: true}}},
		"exec": {Target: &sluicev1.Target_Exec{Exec: &sluicev1.ExecTarget{
			Namespace: "default", Pod: "p", Command: []string{"cat"}, Stdin: true, Stdout: true, Stderr: true,
		}}},
		"attach":      {Target: &sluicev1.Target_Attach{Attach: &sluicev1.AttachTarget{Namespace: "default", Pod: "p", Stdin: true, Stdout: true, Stderr: true}}},
		"portforward": {Target: &sluicev1.Target_PortForward{PortForward: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "p", Port: 80}}},
	}
}

// spoken are the subprotocols of each kind that an API server takes first.
var spoken = map[string]string{
	"log": "binary.k8s.io", "exec": "v5.channel.k8s.io", "attach": "v5.channel.k8s.io", "portforward": "SPDY/3.1+portforward.k8s.io",
}

// asked is how often something below a path was asked for.
func (h *hostile) asked(subresource string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.paths {
		if strings.HasSuffix(p, "/pods/p/"+subresource) {
			n++
		}
	}
	return n
}

// refuse answers with an error as an API server writes one.
func refuse(code int, reason, header string) serve {
	body := fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no, says the server","reason":%q,"code":%d}`, reason, code)
	return answer(fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", code, header, len(body), body))
}

// first is the first that a channel is told of its fate: a state that says that it waits, or its end.
func (s *session) first(channel uint32) *sluicev1.ServerFrame {
	s.t.Helper()
	for {
		f, err := s.recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if f.GetChannel() == channel && (f.GetClosed() != nil || f.GetChannelState().GetKind() == sluicev1.ChannelState_KIND_RECONNECTING) {
			return f
		}
	}
}

// T-E5: what an API server answers instead of opening comes through one to one. Only what can be asked for twice without doing anything twice is
// asked for again, and then not before the server wants it.
func TestT_E5_RefusedOpensAreToldAsTheyAre(t *testing.T) {
	for _, c := range []struct {
		http   int
		reason string
		header string
		code   codes.Code
		after  time.Duration
		again  bool // a log is asked for again
	}{
		{401, "Unauthorized", "", codes.Unauthenticated, 0, false},
		{403, "Forbidden", "", codes.PermissionDenied, 0, false},
		{404, "NotFound", "", codes.NotFound, 0, false},
		{429, "TooManyRequests", "Retry-After: 7\r\n", codes.ResourceExhausted, 7 * time.Second, true},
		{500, "InternalError", "", codes.Internal, 0, true},
		{503, "ServiceUnavailable", "Retry-After: 3\r\n", codes.Unavailable, 3 * time.Second, true},
	} {
		r, h := facing(t, refuse(c.http, c.reason, c.header))
		for subresource, target := range kinds() {
			t.Run(fmt.Sprint(c.http, " ", subresource), func(t *testing.T) {
				s := newSession(t, r, "alice")
				f := s.first(s.open(&sluicev1.Open{Cluster: evil, Target: target}))
				p := f.GetClosed().GetStatus()
				if c.again && subresource == "log" {
					p = f.GetChannelState().GetStatus()
					if next := f.GetChannelState().GetNextTry().AsDuration(); next < c.after {
						t.Errorf("the next attempt is in %v, and the server wants %v", next, c.after)
					}
				}
				e := status.FromProto(p)
				if e == nil || e.Code != c.code || e.HTTPCode != c.http || e.RetryAfter != c.after || e.Kubernetes.GetReason() != c.reason ||
					!strings.Contains(e.Message+e.Kubernetes.GetMessage(), "no, says the server") {
					t.Errorf("told %v", f)
				}
				if subresource == "log" {
					return
				}
				if closed := f.GetClosed(); closed.GetExit() != nil || !closed.GetAborted() || closed.GetStatus().GetReason() != sluicev1.Reason_REASON_UPSTREAM_REFUSED ||
					closed.GetStatus().GetResumable() {
					t.Errorf("closed by %v", closed)
				}
				if n := h.asked(subresource); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		}
		r.Stop()
	}
}

// T-E5: a token that is refused in the middle. A log that was let in is asked for again for a while, and then told what the server says.
func TestT_E5_RefusedInTheMiddle(t *testing.T) {
	for _, c := range []struct {
		http int
		code codes.Code
	}{{401, codes.Unauthenticated}, {403, codes.PermissionDenied}} {
		var opened atomic.Bool
		h := newHostile(t, func(nc net.Conn, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/log") && opened.CompareAndSwap(false, true) {
				line := "2026-11-23T10:00:00.000000001Z line\n"
				upgrade(nc, req, spoken["log"], append([]byte{0x82, byte(len(line))}, line...)) // and the connection breaks
				return
			}
			refuse(c.http, "", "")(nc, req)
		})
		r := rig.New(t, rig.Options{Clusters: []cluster.Config{h.config}, Change: func(cfg *server.Config) {
			cfg.Bridge = bridge.Options{Doubt: 100 * time.Millisecond, FirstBackoff: time.Millisecond, LastBackoff: 10 * time.Millisecond}
		}})
		s := newSession(t, r, "alice")
		channel := s.open(&sluicev1.Open{Cluster: evil, Target: kinds()["log"]})
		var said []string
		for {
			f, err := s.recv()
			if err != nil {
				t.Fatal(err)
			}
			if f.GetChannel() != channel {
				continue
			}
			if d := f.GetData(); d != nil {
				said = append(said, string(d.GetBinary())+d.GetText())
			}
			if closed := f.GetClosed(); closed != nil {
				if e := status.FromProto(closed.GetStatus()); e == nil || e.Code != c.code || e.HTTPCode != c.http || !closed.GetAborted() {
					t.Errorf("%d in the middle ended it with %v", c.http, closed)
				}
				break
			}
		}
		if !slices.Equal(said, []string{"line\n"}) {
			t.Errorf("%d in the middle: it said %q", c.http, said)
		}
		r.Stop()
	}
}
