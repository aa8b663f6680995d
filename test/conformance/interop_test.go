package conformance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	testv1 "google.golang.org/grpc/interop/grpc_testing"

	"github.com/sluice-gateway/sluice/server"
)

// interopCases are the interoperability tests of gRPC that need no cloud provider's credentials, no proxy and no load balancer.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// soakIterations is how many calls of 271,828 bytes there and 314,159 back the soak makes, one after another on one connection.
const soakIterations = 1000

func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	call := newInterop(t)
	for _, name := range interopCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			call(t, "--test_case", name)
		})
	}
	t.Run("rpc_soak", func(t *testing.T) {
		t.Parallel()
		call(t, "--test_case", "rpc_soak", "--soak_iterations", fmt.Sprint(soakIterations), "--soak_max_failures", "0",
			"--soak_overall_timeout_seconds", "300", "--soak_per_iteration_max_acceptable_latency_ms", "60000")
	})
}

// newInterop returns a function that runs gRPC's interoperability client, as a user with a token, against a gateway with the service it calls.
func newInterop(t *testing.T) func(t *testing.T, args ...string) {
	t.Helper()
	g := newGateway(t, server.Service{
		Register: func(r grpc.ServiceRegistrar) { testv1.RegisterTestServiceServer(r, testService{}) },
		Access:   server.Authenticated,
	})
	host, port, err := net.SplitHostPort(g.Server.GRPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(roots, g.certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	client := tool(t, "grpc-interop")
	same := []string{
		"--server_host", host, "--server_port", port, "--use_tls", "--use_test_ca", "--ca_file", roots,
		"--additional_metadata", "authorization:Bearer " + g.Token("interop"),
	}
	return func(t *testing.T, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), client, append(slices.Clip(same), args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the interoperability client: %v\n%s", err, out)
		}
	}
}
