package server_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// doors calls every way in with a context and returns how each ended.
func doors(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	gateway, clusters, sessions := sluicev1.NewGatewayServiceClient(conn), sluicev1.NewClusterServiceClient(conn), sluicev1.NewSessionServiceClient(conn)
	out := map[string]error{}
	stream, err := gateway.Connect(ctx)
	if err == nil {
		_ = stream.Send(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{openFrame(1, 0, watching())}}) // Recv says why
		_, err = stream.Recv()
	}
	out["Connect"] = err
	watch, err := gateway.Watch(ctx, &sluicev1.WatchRequest{Watch: pods()})
	if err == nil {
		_, err = watch.Recv()
	}
	out["Watch"] = err
	logs, err := gateway.Logs(ctx, &sluicev1.LogsRequest{})
	if err == nil {
		_, err = logs.Recv()
	}
	out["Logs"] = err
	listen, err := gateway.Listen(ctx, &sluicev1.ListenRequest{})
	if err == nil {
		_, err = listen.Recv()
	}
	out["Listen"] = err
	_, out["Send"] = gateway.Send(ctx, &sluicev1.SendRequest{})
	_, out["ListClusters"] = clusters.ListClusters(ctx, &sluicev1.ListClustersRequest{})
	_, out["ListResources"] = clusters.ListResources(ctx, &sluicev1.ListResourcesRequest{})
	_, out["CheckAccess"] = clusters.CheckAccess(ctx, &sluicev1.CheckAccessRequest{})
	_, out["ListSessions"] = sessions.ListSessions(ctx, &sluicev1.ListSessionsRequest{})
	_, out["GetSession"] = sessions.GetSession(ctx, &sluicev1.GetSessionRequest{})
	_, out["Revoke"] = sessions.Revoke(ctx, &sluicev1.RevokeRequest{})
	return out
}

// T-A13: surfaces that check differently. Every method of every service refuses every bad credential the same way, and nothing is dialled.
func TestT_A13_EveryDoorRefusesAlike(t *testing.T) {
	r := rig.New(t, rig.Options{})
	good := r.Token("alice")
	stranger, err := issuer.New("https://issuer.invalid")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Sign(issuer.Claims{Subject: "alice", Audience: []string{rig.Audience}})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(f func(*issuer.Claims)) []string { return []string{"Bearer " + r.Token("alice", f)} }
	cases := map[string]struct {
		authorization []string
		reason        sluicev1.Reason
	}{
		"none":         {nil, sluicev1.Reason_REASON_MISSING_CREDENTIAL},
		"empty":        {[]string{""}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"two":          {[]string{"Bearer " + good, "Bearer " + good}, sluicev1.Reason_REASON_MULTIPLE_CREDENTIALS},
		"joined":       {[]string{"Bearer " + good + ", Bearer " + good}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"other scheme": {[]string{"Basic YTpi"}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"9 KiB":        {[]string{"Bearer " + strings.Repeat("a", 9<<10)}, sluicev1.Reason_REASON_TOKEN_TOO_LARGE},
		"other issuer": {[]string{"Bearer " + foreign}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"garbled":      {[]string{"Bearer " + good[:len(good)-4] + "AAAA"}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"expired": {claims(func(c *issuer.Claims) {
			c.Issued, c.Expiry = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), sluicev1.Reason_REASON_EXPIRED},
		"not yet valid":  {claims(func(c *issuer.Claims) { c.NotBefore = time.Now().Add(time.Hour) }), sluicev1.Reason_REASON_NOT_YET_VALID},
		"other audience": {claims(func(c *issuer.Claims) { c.Audience = []string{"somebody-else"} }), sluicev1.Reason_REASON_AUDIENCE},
	}
	conn := r.Conn()
	for name, c := range cases {
		ctx := metadata.NewOutgoingContext(within(t), metadata.MD{"authorization": c.authorization})
		for door, err := range doors(ctx, conn) {
			e := status.From(err)
			if e == nil || e.Code != codes.Unauthenticated || e.Reason != c.reason || !e.FromPeer {
				t.Errorf("%s by %s: %v, want UNAUTHENTICATED (%s)", name, door, err, status.ReasonName(c.reason))
			}
		}
	}
	if n := r.Kube.Counts(); n.Dials != 0 {
		t.Errorf("the cluster was dialled %d times", n.Dials)
	}
}

func TestWrongClusterIsRefusedByName(t *testing.T) {
	r := rig.New(t, rig.Options{})
	for name, want := range map[string]codes.Code{"prod": codes.NotFound, "https://127.0.0.1": codes.NotFound, strings.Repeat("x", 1000): codes.NotFound} {
		c := connect(t, r, "alice")
		o := watching()
		o.Cluster = name
		c.send(openFrame(1, 0, o))
		err := c.closed(1)
		if err == nil || err.Code != want || err.Reason != sluicev1.Reason_REASON_UNKNOWN_CLUSTER || len(err.Message) > 500 {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if n := r.Kube.Counts(); n.Dials != 0 {
		t.Errorf("the cluster was dialled %d times", n.Dials)
	}
}

// A token is passed on only to a cluster that may receive its audience.
func TestClusterTakesOnlyItsAudience(t *testing.T) {
	r := rig.New(t, rig.Options{})
	token := r.Token("alice", func(c *issuer.Claims) { c.Audience = []string{"other-cluster"} })
	c := connectWith(t, r, "Bearer "+token)
	c.send(openFrame(1, 0, watching()))
	if err := c.closed(1); err == nil || err.Code != codes.PermissionDenied || err.Reason != sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED {
		t.Errorf("got %v", err)
	}
	list, err := sluicev1.NewClusterServiceClient(r.Conn()).ListClusters(withToken(within(t), token), &sluicev1.ListClustersRequest{})
	if err != nil || len(list.GetClusters()) != 0 {
		t.Errorf("clusters: %v, %v", list, err)
	}
	if n := r.Kube.Counts(); n.Dials != 0 {
		t.Errorf("the cluster was dialled %d times", n.Dials)
	}
}

func TestUnknownAndLaterMethodsAreUnimplemented(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := r.As(within(t), "alice")
	conn := r.Conn()
	for _, method := range []string{"/sluice.v1.GatewayService/Nope", "/sluice.v1.Nope/Connect", "/nope"} {
		if err := conn.Invoke(ctx, method, &sluicev1.ListClustersRequest{}, &sluicev1.ListClustersResponse{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	all := doors(ctx, conn)
	for _, door := range []string{"Listen", "Send", "CheckAccess", "ListSessions", "GetSession", "Revoke"} {
		if status.Code(all[door]) != codes.Unimplemented {
			t.Errorf("%s: %v", door, all[door])
		}
	}
}

// soon is when a credential ends whose end a test waits for: in whole seconds, and late enough for what the test does before.
func soon() time.Time { return time.Now().Add(8 * time.Second).Truncate(time.Second) }

// A session ends with its credential, with a status that says so, by every door. That it does so at that moment and no later, a clock that is not
// the machine's tells: [TestASessionLivesAsLongAsItsCredential].
func TestSessionsEndWithTheirCredential(t *testing.T) {
	r := rig.New(t, rig.Options{})
	expiry := soon()
	token := r.Token("alice", func(c *issuer.Claims) { c.Expiry = expiry })
	plain, full := connectWith(t, r, "Bearer "+token), connectWith(t, r, "Bearer "+token)
	plain.send(openFrame(1, 0, watching()))
	plain.until(listed(1))
	full.hello(nil)
	full.send(openFrame(1, 1, watching()))
	full.until(listed(1))
	watch, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(withToken(within(t), token), &sluicev1.WatchRequest{Watch: pods()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	goodbye := full.until(func(f *sluicev1.ServerFrame) bool { return f.GetGoodbye() != nil })
	_, watchErr := watch.Recv()
	for door, err := range map[string]*status.Error{
		"Connect, plain": plain.end(), "Connect, full": full.end(), "Goodbye": status.FromProto(goodbye.GetGoodbye().GetStatus()),
		"Watch": status.From(watchErr),
	} {
		if err == nil || err.Code != codes.Unauthenticated || err.Reason != sluicev1.Reason_REASON_EXPIRED {
			t.Errorf("%s ended with %v", door, err)
		}
	}
	if early := time.Until(expiry); early > 0 {
		t.Errorf("the sessions ended %v before the credential", early)
	}
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 0 }); err != nil {
		t.Error("upstreams live on: ", err)
	}
}
