package threats

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// T-C20: whatever callers call themselves and their targets, and whatever an API server says of them, a line of the log is one JSON object
// that no terminal obeys (CVE-2021-25743, CWE-117).
func TestT_C20_ALineOfTheLogIsOneLine(t *testing.T) {
	const forged = `{"level":"INFO","msg":"forged"}`
	hostileNames := []string{
		"a\n" + forged + "\n", "a\r\n" + forged, "\x1b[2J\x1b]0;owned\x07", `"}` + "\n" + forged, "\u2028" + forged, "\u0085" + forged, "\u009b2J", "\x7f\b\b\b",
		"\u202e" + forged,
	}
	said := strings.Join(hostileNames, " ")
	evilAPI := newHostile(t, answer(fmt.Sprintf("HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(said), said)))
	r := rig.New(t, rig.Options{Clusters: []cluster.Config{evilAPI.config}})
	gateway := sluicev1.NewGatewayServiceClient(r.Conn())
	page := r.Web()
	for _, name := range hostileNames {
		for _, token := range []string{r.Token(name), r.Token("u", func(c *issuer.Claims) { c.Groups = []string{name} })} {
			called := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+token)
			_, err := sluicev1.NewClusterServiceClient(r.Conn()).ListClusters(called, &sluicev1.ListClustersRequest{})
			if c := status.Code(err); c != codes.OK && c != codes.Unauthenticated { // names that no Kubernetes would have are refused
				t.Error(err)
			}
		}
		ctx := r.As(within(t), "alice")
		for _, open := range []*sluicev1.Open{watching(evil, ""), watching(name, ""), watching(rig.Cluster, name)} {
			open.GetTarget().GetWatch().LabelSelector = name
			stream, err := gateway.Connect(ctx)
			if err != nil {
				t.Fatal(err)
			}
			hello := &sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1, Client: name}}}
			frame := &sluicev1.ClientFrame{Channel: 1, Seq: 1, Frame: &sluicev1.ClientFrame_Open{Open: open}}
			if err := stream.Send(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{hello, frame}}); err != nil {
				t.Fatal(err)
			}
			for closed := false; !closed; {
				res, err := stream.Recv()
				if err != nil {
					t.Fatalf("%q: %v", name, err)
				}
				for _, f := range res.GetFrames() {
					closed = closed || f.GetClosed() != nil
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
		}
		postWeb(t, page, r.WebURL(listClusters), "application/json", []string{"Bearer a.b.c"})
		req, err := http.NewRequestWithContext(within(t), http.MethodGet, r.WebURL("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = "/" + name
		req.Header = http.Header{"Origin": {"https://" + strings.Map(printable, name)}, "User-Agent": {strings.Map(printable, name)}}
		res, err := page.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	r.Stop()
	for which, log := range map[string]string{"log": r.Log.String(), "audit": r.Audit.String()} {
		n := 0
		for line := range strings.Lines(log) {
			n++
			var told struct{ Msg string }
			if err := json.Unmarshal([]byte(line), &told); err != nil || told.Msg == "" || told.Msg == "forged" {
				t.Errorf("%s: %q: %v", which, line, err)
			}
			if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), obeyed); i >= 0 {
				t.Errorf("%s: %q has a control character at %d", which, line, i)
			}
		}
		if n < len(hostileNames) {
			t.Errorf("the %s has %d lines", which, n)
		}
	}
}

// printable is for headers, in which a client of Go's sends nothing else.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

// obeyed reports what a terminal does something for, rather than showing it, or what other readers take for the end of a line.
func obeyed(r rune) bool { return r < ' ' || r == '\u2028' || r == '\u2029' }
