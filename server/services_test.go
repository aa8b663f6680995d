package server_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// who answers with the name of its caller.
type who struct {
	testv1.UnimplementedTestServiceServer
}

// UnaryCall implements TestServiceServer.
func (who) UnaryCall(ctx context.Context, _ *testv1.SimpleRequest) (*testv1.SimpleResponse, error) {
	p, ok := auth.FromContext(ctx)
	if !ok {
		return &testv1.SimpleResponse{Username: "nobody"}, nil
	}
	return &testv1.SimpleResponse{Username: p.Username}, nil
}

func registerWho(r grpc.ServiceRegistrar) { testv1.RegisterTestServiceServer(r, who{}) }

func TestT_A13_OtherServicesAreForThoseThatTheyDeclare(t *testing.T) {
	for _, c := range []struct {
		name     string
		access   server.Access
		nobody   codes.Code
		nobodyIs string
		aliceIs  string
	}{
		{"authenticated", server.Authenticated, codes.Unauthenticated, "", "alice"},
		{"public", server.Public, codes.OK, "nobody", "nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rig.New(t, rig.Options{Change: func(cfg *server.Config) {
				cfg.Services = []server.Service{{Register: registerWho, Access: c.access}}
			}})
			service := testv1.NewTestServiceClient(r.Conn())
			answer, err := service.UnaryCall(t.Context(), &testv1.SimpleRequest{})
			if grpcstatus.Code(err) != c.nobody || answer.GetUsername() != c.nobodyIs {
				t.Errorf("without a token: %v, %v", answer, err)
			}
			answer, err = service.UnaryCall(r.As(t.Context(), "alice"), &testv1.SimpleRequest{})
			if err != nil || !strings.HasSuffix(answer.GetUsername(), c.aliceIs) {
				t.Errorf("with alice's token: %v, %v", answer, err)
			}
		})
	}
}

func TestT_A13_AServiceWithoutAccessDoesNotStart(t *testing.T) {
	var cfg server.Config
	rig.New(t, rig.Options{Change: func(c *server.Config) { cfg = *c }})
	for name, s := range map[string]server.Service{
		"no access":         {Register: registerWho},
		"an unknown access": {Register: registerWho, Access: server.Public + 1},
		"no Register":       {Access: server.Public},
	} {
		t.Run(name, func(t *testing.T) {
			refused := cfg
			refused.Services = []server.Service{s}
			if made, err := server.New(refused); err == nil {
				t.Errorf("made %v", made)
			}
		})
	}
}
