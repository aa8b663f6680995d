package conformance

import (
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // as in the command, where the exporter of traces brings it
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// answerVariable names the environment variable that makes the test binary the program which the suite starts as its server under test. Its value
// is the file with what that program answers.
const answerVariable = "SLUICE_CONFORMANCE_ANSWER"

// gateway is a whole gateway that serves the suites' services beside its own.
type gateway struct {
	*rig.Rig
	certificate []byte // PEM
}

func newGateway(t *testing.T, services ...server.Service) *gateway {
	t.Helper()
	g := &gateway{}
	g.Rig = rig.New(t, rig.Options{Change: func(c *server.Config) {
		c.Services, c.WebAddr, c.Web.Forward = services, "127.0.0.1:0", suiteHeaders
		g.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.TLS.Certificates[0].Certificate[0]})
	}})
	return g
}

// suiteHeaders are the headers that the suite wants to be told back; the web port drops what is not listed.
var suiteHeaders = []string{"x-conformance-test", "x-test-case-name"}

func TestConnectConformance(t *testing.T) {
	desc := conformanceService(schema(t))
	g := newGateway(t, server.Service{
		Register: func(r grpc.ServiceRegistrar) { r.RegisterService(desc, nil) },
		Access:   server.Public, // the suite decides on every header, and has no credential
	})
	t.Run("gRPC", func(t *testing.T) { g.conform(t, "grpc", g.Server.GRPCAddr()) })
	t.Run("gRPC-Web", func(t *testing.T) { g.conform(t, "grpc-web", g.Server.WebAddr()) })
	t.Run("Connect", func(t *testing.T) { g.conform(t, "connect", g.Server.WebAddr()) })
	if strings.Contains(g.Log.String(), "panicked") {
		t.Errorf("a call or a request panicked: %s", g.Log)
	}
}

// conform runs the suite against a door of the gateway, with the features and the known failures of testdata/connect.
func (g *gateway) conform(t *testing.T, door string, addr net.Addr) {
	answer := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(answer, g.introduction(t, addr), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	known := readKnownConnect(t, filepath.Join("testdata", "connect", door+"-known.txt"))
	// Few calls at a time: some have 2 s to come back, on a machine that may be busy.
	args := append([]string{"--mode", "server", "--parallel", "2", "--conf", filepath.Join("testdata", "connect", door+".yaml")}, known.arguments()...)
	cmd := exec.CommandContext(t.Context(), tool(t, "connectconformance"), append(args, "--", self)...)
	cmd.Env = append(os.Environ(), answerVariable+"="+answer)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("connectconformance: %v\n%s", err, expectedFailure.ReplaceAll(out, nil))
	}
	known.judge(t, string(out))
	t.Log(summary.FindString(string(out)))
}

// summary is how the suite's report ends.
var summary = regexp.MustCompile(`(?s)Total cases: .*`)

// introduction is what the program under test answers to the suite: where the server is, and its certificate.
func (g *gateway) introduction(t *testing.T, addr net.Addr) []byte {
	t.Helper()
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v is a %T", addr, addr)
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName("connectrpc.conformance.v1.ServerCompatResponse")
	if err != nil {
		t.Fatal(err)
	}
	m := message{kind.New()}
	m.set("host", tcp.IP.String())
	m.Set(m.descriptor("port"), protoreflect.ValueOfUint32(uint32(tcp.Port)))
	m.set("pem_cert", g.certificate)
	b, err := proto.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// introduce is the program under test: it tells the suite of a server that runs already, and stays until it is told to end.
func introduce(answer string) error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // what kind of server is asked for: this one speaks them all
		return fmt.Errorf("read the suite's request: %w", err)
	}
	b, err := os.ReadFile(answer)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(b); err != nil {
		return fmt.Errorf("answer the suite: %w", err)
	}
	<-ended
	return nil
}
