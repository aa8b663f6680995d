package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/kube"
)

func openOf(clusterName string, target *sluicev1.WatchTarget) *sluicev1.ClientFrame {
	return &sluicev1.ClientFrame{Channel: 1, Seq: 1, Frame: &sluicev1.ClientFrame_Open{Open: &sluicev1.Open{
		Cluster: clusterName, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: target}},
	}}}
}

func hello() *sluicev1.ClientFrame {
	return &sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}}
}

// connect opens a link with the frames and returns how it, or its first channel, ended.
func connect(ctx context.Context, conn *grpc.ClientConn, frames ...*sluicev1.ClientFrame) error {
	link, err := sluicev1.NewGatewayServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	_ = link.Send(&sluicev1.ConnectRequest{Frames: frames}) // Recv says why
	for {
		batch, err := link.Recv()
		if err != nil {
			return err
		}
		for _, f := range batch.GetFrames() {
			if c := f.GetClosed(); c != nil {
				return status.FromProto(c.GetStatus())
			}
		}
	}
}

// doors asks for the target by every way in.
func doors(ctx context.Context, conn *grpc.ClientConn, clusterName string, target *sluicev1.WatchTarget) map[string]error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := map[string]error{
		"Connect, full":  connect(ctx, conn, hello(), openOf(clusterName, target)),
		"Connect, plain": connect(ctx, conn, openOf(clusterName, target)),
	}
	watch, err := sluicev1.NewGatewayServiceClient(conn).Watch(ctx, &sluicev1.WatchRequest{Cluster: clusterName, Watch: target})
	if err == nil {
		_, err = watch.Recv()
	}
	out["Watch"] = err
	return out
}

func pods(namespace string) *sluicev1.WatchTarget {
	return &sluicev1.WatchTarget{Version: "v1", Resource: "pods", Namespace: namespace}
}

func segment(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// forged is the payload of a genuine token with another header and signature.
func forged(genuine string, header map[string]string, sign func(signed string) string) string {
	signed := segment(header) + "." + strings.Split(genuine, ".")[1]
	return "Bearer " + signed + "." + sign(signed)
}

// TestTheGatewayRefusesByItself what it can, with its reason, and dials nothing for it.
func TestTheGatewayRefusesByItself(t *testing.T) {
	s := newSetup(t)
	good := s.token()
	signed := func(f func(*issuer.Claims)) []string { return []string{"Bearer " + s.token(f)} }
	key := s.cluster.Issuer()
	other, err := issuer.New(key.URL()) // the same name with keys of its own
	if err != nil {
		t.Fatal(err)
	}
	impostor, err := other.Sign(issuer.Claims{Subject: "alice", Audience: []string{kube.Audience}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		authorization []string
		reason        sluicev1.Reason
	}{
		"no token": {nil, sluicev1.Reason_REASON_MISSING_CREDENTIAL},
		"expired": {signed(func(c *issuer.Claims) {
			c.Issued, c.Expiry = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Second)
		}), sluicev1.Reason_REASON_EXPIRED},
		"other audience": {signed(func(c *issuer.Claims) { c.Audience = []string{"another"} }), sluicev1.Reason_REASON_AUDIENCE},
		"other issuer":   {signed(func(c *issuer.Claims) { c.Extra = map[string]any{"iss": "https://issuer.invalid"} }), sluicev1.Reason_REASON_INVALID_TOKEN},
		"impostor":       {[]string{"Bearer " + impostor}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"alg none": {
			[]string{forged(good, map[string]string{"alg": "none", "typ": "JWT"}, func(string) string { return "" })},
			sluicev1.Reason_REASON_INVALID_TOKEN,
		},
		"alg none, with a signature": {
			[]string{forged(good, map[string]string{"alg": "none"}, func(string) string { return "AAAA" })},
			sluicev1.Reason_REASON_INVALID_TOKEN,
		},
		"HS256 with the public key": {[]string{forged(good, map[string]string{"alg": "HS256", "kid": key.KeyID()}, func(text string) string {
			mac := hmac.New(sha256.New, key.PublicKeyPEM())
			mac.Write([]byte(text))
			return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		})}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"two values": {[]string{"Bearer " + good, "Bearer " + good}, sluicev1.Reason_REASON_MULTIPLE_CREDENTIALS},
		"9 KiB": {
			signed(func(c *issuer.Claims) { c.Extra = map[string]any{"filler": strings.Repeat("f", 6<<10+512)} }),
			sluicev1.Reason_REASON_TOKEN_TOO_LARGE,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(within(t, 30*time.Second), metadata.MD{"authorization": c.authorization})
			for door, err := range doors(ctx, s.Conn(), upstream, pods(kube.Namespace)) {
				refused(t, s, door, err, codes.Unauthenticated, c.reason)
			}
		})
	}
	for name, c := range map[string]struct {
		clusterName, token string
		code               codes.Code
		reason             sluicev1.Reason
		target             *sluicev1.WatchTarget
	}{
		"wrong cluster": {"nowhere", good, codes.NotFound, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, pods("")},
		"an address":    {s.cluster.URL(), good, codes.NotFound, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, pods("")},
		"which cluster": {"", good, codes.InvalidArgument, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, pods("")},
		"no audience of the cluster's": {
			upstream, s.token(func(c *issuer.Claims) { c.Audience = []string{gatewayOnly} }), codes.PermissionDenied,
			sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED, pods(""),
		},
		"a path": {upstream, good, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, pods("../../nodes")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(within(t, 30*time.Second), "authorization", "Bearer "+c.token)
			for door, err := range doors(ctx, s.Conn(), c.clusterName, c.target) {
				refused(t, s, door, err, c.code, c.reason)
			}
		})
	}
	t.Run("unknown RPC", func(t *testing.T) {
		ctx := metadata.AppendToOutgoingContext(within(t, 30*time.Second), "authorization", "Bearer "+good)
		err := s.Conn().Invoke(ctx, "/sluice.v1.GatewayService/Unknown", &sluicev1.WatchRequest{}, &sluicev1.WatchResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
	})
	if all, live := s.api.Requests(), s.api.Live(); len(all) > 0 || live > 0 {
		t.Errorf("%d requests and %d TCP connections reached the API server: %v", len(all), live, all)
	}
}

func refused(t *testing.T, s *setup, door string, err error, code codes.Code, reason sluicev1.Reason) {
	t.Helper()
	e := status.From(err)
	if e == nil || e.Code != code || e.Reason != reason || !e.FromPeer {
		t.Errorf("%s: %v, want %v (%s) from the gateway", door, err, code, status.ReasonName(reason))
	}
	if n := s.api.Live(); n != 0 {
		t.Errorf("%s: the API server was dialled", door)
	}
}

// TestTheAPIServersRefusalsComeThrough as they are, typed: its code, its Status, by every door.
func TestTheAPIServersRefusalsComeThrough(t *testing.T) {
	s := newSetup(t)
	viewer := s.token(func(c *issuer.Claims) { c.Subject, c.Groups = "carol", []string{kube.Viewers} })
	stranger := s.token(func(c *issuer.Claims) { c.Audience = []string{gatewayOnly} })
	for name, c := range map[string]struct {
		clusterName, token string
		target             *sluicev1.WatchTarget
		code               codes.Code
		http               int
		reason             string
	}{
		"resource":  {upstream, viewer, &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: kube.Namespace}, codes.PermissionDenied, 403, "Forbidden"},
		"namespace": {upstream, viewer, pods("default"), codes.PermissionDenied, 403, "Forbidden"},
		"no such":   {upstream, s.token(), &sluicev1.WatchTarget{Version: "v1", Resource: kube.UnknownResource}, codes.NotFound, 404, "NotFound"},
		"selector":  {upstream, s.token(), &sluicev1.WatchTarget{Version: "v1", Resource: "pods", LabelSelector: "a in"}, codes.InvalidArgument, 400, "BadRequest"},
		"token":     {lenient, stranger, pods(kube.Namespace), codes.Unauthenticated, 401, "Unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			want := directly(t, s, c.token, c.target)
			if int(want.Code) != c.http || string(want.Reason) != c.reason {
				t.Fatalf("the API server itself says %d %s", want.Code, want.Reason)
			}
			ctx := metadata.AppendToOutgoingContext(within(t, 30*time.Second), "authorization", "Bearer "+c.token)
			all := doors(ctx, s.Conn(), c.clusterName, c.target)
			sdk := s.Client("alice", func(cfg *client.Config) { cfg.Token = client.StaticToken(c.token) })
			_, all["client"] = sdk.Watch(client.WatchRequest{Cluster: c.clusterName, Target: c.target}).Next(ctx)
			for door, err := range all {
				e := status.From(err)
				if e == nil || e.Code != c.code || e.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED || e.HTTPCode != c.http {
					t.Errorf("%s: %v, want %v for %d", door, err, c.code, c.http)
					continue
				}
				k := e.Kubernetes
				if k.GetMessage() != want.Message || k.GetReason() != c.reason || int(k.GetCode()) != c.http || k.GetStatus() != want.Status {
					t.Errorf("%s: %v, want %v", door, k, want)
				}
			}
			if sdk.Err() != nil {
				t.Errorf("what one watch was refused ended the client: %v", sdk.Err())
			}
		})
	}
}

// directly is what the API server itself says.
func directly(t *testing.T, s *setup, token string, target *sluicev1.WatchTarget) (out metav1.Status) {
	t.Helper()
	path := fmt.Sprintf("%s/api/v1/namespaces/%s/%s?%s", s.cluster.URL(), target.GetNamespace(), target.GetResource(),
		url.Values{"watch": {"true"}, "labelSelector": {target.GetLabelSelector()}}.Encode())
	path = strings.Replace(path, "/namespaces//", "/", 1)
	req, err := http.NewRequestWithContext(within(t, 30*time.Second), http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.cluster.CertPool(), MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
