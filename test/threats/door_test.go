package threats

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // the exporter of spans brings it into the gateway too
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// method is one that the gateway has; one to which the client streams is on the gRPC port alone.
type method struct {
	path                       string
	clientStream, serverStream bool
}

// speaks reports whether the web port has the method for a kind of message.
func (m method) speaks(kind string) bool {
	switch kind {
	case "application/grpc-web+proto":
		return !m.clientStream
	case "application/json":
		return !m.clientStream && !m.serverStream
	case "application/connect+json":
		return !m.clientStream && m.serverStream
	}
	return false
}

// methods are the methods that the gateway itself says it serves, but for those that are public on purpose.
func methods(t *testing.T, r *rig.Rig) (all []method) {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(r.Conn()).ServerReflectionInfo(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := &reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	public := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
	for _, s := range res.GetListServicesResponse().GetService() {
		if slices.Contains(public, s.GetName()) {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		list := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range list.Len() {
			all = append(all, method{"/" + s.GetName() + "/" + string(list.Get(i).Name()), list.Get(i).IsStreamingClient(), list.Get(i).IsStreamingServer()})
		}
	}
	return all
}

// raw calls a method with bytes.
func raw(ctx context.Context, conn *grpc.ClientConn, method string) error {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	_ = s.SendMsg(&sluicev1.ListClustersRequest{}) // RecvMsg says why it fails
	_ = s.CloseSend()
	return s.RecvMsg(&sluicev1.ListClustersResponse{})
}

// T-A13: every method that the gateway says it has refuses every bad credential, on each port, and nobody is dialled.
func TestT_A13_EveryMethodRefusesOnEveryPort(t *testing.T) {
	r := rig.New(t, rig.Options{})
	all := methods(t, r)
	if len(all) < 10 {
		t.Fatalf("the gateway has %v", all)
	}
	stranger, err := issuer.New("https://issuer.invalid")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Sign(issuer.Claims{Subject: "alice", Audience: []string{rig.Audience}})
	if err != nil {
		t.Fatal(err)
	}
	good := "Bearer " + r.Token("alice")
	conn, page := r.Conn(), r.Web()
	for name, credential := range map[string][]string{
		"none": nil, "empty": {""}, "basic": {"Basic YTpi"}, "foreign": {"Bearer " + foreign}, "twice": {good, good}, "joined": {good + ", " + good},
		"lower case": {strings.ToLower(good)}, "cut": {good[:len(good)-2]},
	} {
		for _, m := range all {
			ctx := metadata.NewOutgoingContext(within(t), metadata.MD{"authorization": credential})
			if err := raw(ctx, conn, m.path); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s, gRPC, %s: %v", name, m.path, err)
			}
			for _, kind := range []string{"application/grpc-web+proto", "application/json", "application/connect+json", "application/grpc"} {
				code, said := postWeb(t, page, r.WebURL(m.path), kind, credential)
				there := m.speaks(kind)
				refused := strings.Contains(said, `"unauthenticated"`) || strings.Contains(said, "grpc-status: 16")
				absent := strings.Contains(said, `"unimplemented"`) || strings.Contains(said, "grpc-status: 12") || code == http.StatusUnsupportedMediaType
				if there != refused || !there && !absent {
					t.Errorf("%s, web, %s, %s: %d %q", name, m.path, kind, code, said)
				}
			}
		}
	}
	if n := r.Kube.Counts(); n.Dials != 0 {
		t.Errorf("the cluster was dialled %d times", n.Dials)
	}
}

// postWeb posts an empty message and returns the code of the answer, and everything that it says.
func postWeb(t *testing.T, c *http.Client, url, kind string, credential []string) (code int, said string) {
	t.Helper()
	body := []byte("{}")
	if strings.Contains(kind, "grpc") || strings.Contains(kind, "connect") {
		payload := map[bool]string{true: "{}"}[strings.Contains(kind, "json")]
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload))), payload...)
	}
	req, err := http.NewRequestWithContext(within(t), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {kind}}
	if credential != nil {
		req.Header["Authorization"] = credential
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range res.Header {
		text = fmt.Appendf(text, "\n%s: %s", strings.ToLower(name), strings.Join(values, ","))
	}
	for name, values := range res.Trailer {
		text = fmt.Appendf(text, "\n%s: %s", strings.ToLower(name), strings.Join(values, ","))
	}
	return res.StatusCode, string(text)
}

// T-B8: the name of a cluster is a name, whatever it looks like: nothing is dialled for one that is none (CVE-2020-8555, CVE-2022-3294).
func TestT_B8_AClustersNameIsNoAddress(t *testing.T) {
	elsewhere := newHostile(t, answer(""))
	addr := elsewhere.lis.Addr().String()
	r := rig.New(t, rig.Options{Clusters: []cluster.Config{}})
	conn := r.Conn()
	var names []string
	for _, host := range []string{addr, "[::1%25lo]:443", "[::ffff:127.0.0.1]:443", "0x7f000001", "localhost", "metadata.internal", "127.1"} {
		for _, form := range []string{
			"%s", "https://%s", "http://%s/", "//%s", "dev@%s", "https://dev@%s/", "dev\x00%s", "dev\r\nHost: %s", "dev/../%s", "dev#%s", "dev?%s", "DEV;%s",
			"unix:%s", "dns:///%s", "file://%s", "dev %s", "d\u0435v%s",
		} {
			names = append(names, fmt.Sprintf(form, host))
		}
	}
	names = append(names, "..", ".", "/", "dev/", "/dev", "DEV", "dev ", " dev", "dev.", "de\u0301v", strings.Repeat("dev", 10_000))
	for _, name := range names {
		stream, err := sluicev1.NewGatewayServiceClient(conn).Watch(r.As(within(t), "alice"), &sluicev1.WatchRequest{Cluster: name, Watch: pods()})
		if err == nil {
			_, err = stream.Recv()
		}
		if e := status.From(err); e == nil || e.Code != codes.NotFound || len(e.Message) > 500 || strings.ContainsAny(e.Message, "\x00\r\n\x1b") {
			t.Errorf("%.60q: %v", name, err)
		}
	}
	if n := elsewhere.dials.Load() + int64(r.Kube.Counts().Dials); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// T-C9: a message that is small on the wire and large when decompressed (grpc-go #9114).
func TestT_C9_ACompressedBomb(t *testing.T) {
	r := rig.New(t, rig.Options{})
	p := ports(r)[0]
	if err := p.call(within(t)); err != nil {
		t.Fatal(err)
	}
	var bomb bytes.Buffer
	w, err := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	message := append(binary.BigEndian.AppendUint32([]byte{1}, uint32(bomb.Len())), bomb.Bytes()...)
	const window = 65_535
	if len(message) > window {
		t.Fatalf("the bomb has %d bytes", len(message))
	}
	for _, path := range []string{listClusters, connect} {
		before := used(t)
		c := speak(t, r, p)
		header := append(request(p.addr, path, r.Token("mallory")), hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})
		id, err := c.stream(false, c.block(header...))
		if err != nil {
			t.Fatal(err)
		}
		for len(message) > 0 && err == nil {
			part := message[:min(len(message), 16<<10)]
			message = message[len(part):]
			err = c.frames.WriteData(id, len(message) == 0, part)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !await(within(t), func() bool { return c.status.Load() != nil }) {
			t.Fatal("no answer")
		}
		if got := c.status.Load(); got != fmt.Sprint(int(codes.ResourceExhausted)) {
			t.Errorf("%s: a bomb of %d bytes was answered with code %v", path, bomb.Len(), got)
		}
		message = append(binary.BigEndian.AppendUint32([]byte{1}, uint32(bomb.Len())), bomb.Bytes()...)
		c.close()
		before.grew(4 << 20)
		before.returns()
	}
}
