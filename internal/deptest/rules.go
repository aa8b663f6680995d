package deptest

// Import paths that several rules name.
const (
	grpc       = "google.golang.org/grpc"
	codes      = grpc + "/codes" // the words of internal/status: constants; no transport comes with them
	protobuf   = "google.golang.org/protobuf"
	kubernetes = "k8s.io"
	rpcDetails = "google.golang.org/genproto/googleapis/rpc"
	messages   = "gen"
	prometheus = "github.com/prometheus/client_golang"
	otel       = "go.opentelemetry.io/otel"

	grpcGateway = "github.com/grpc-ecosystem/grpc-gateway/v2"
)

// Rules is the direction of every import of the repository's packages, tests excepted: a test may bring together what
// the product keeps apart.
var Rules = []Rule{
	{
		Package: messages,
		Others:  []string{grpc, protobuf},
		Because: "generated code knows the messages and nothing of ours",
		Bans: []Ban{
			{grpcGateway, "who imports the messages, as the SDK does, must not link what REST needs: gen/rest has that"},
		},
	},
	{
		Package: "gen/rest",
		Ours:    []string{messages},
		Others:  []string{grpc, protobuf, grpcGateway},
		Because: "generated code knows the messages and nothing of ours",
	},
	{
		Package: "internal/openapi",
		Others:  []string{protobuf},
		Because: "it makes a document of what protoc tells it, and needs none of the packages that the document is about",
	},
	{
		Package: "internal/status",
		Ours:    []string{messages},
		Others:  []string{codes, grpc + "/status", protobuf, rpcDetails},
		Because: "every package shares the error type, so it may drag nothing along",
		Bans: []Ban{
			{kubernetes, "a Kubernetes Status is data of ours, so that mux and client need no Kubernetes library to carry one"},
			{grpc, "mapping a status needs the codes and the status of gRPC, not its transport"},
		},
	},
	{
		Package: "internal/data",
		Ours:    []string{messages, "internal/status"},
		Others:  []string{protobuf, grpc + "/mem"},
		Because: "mux and bridge share what a channel carries through it, so it knows neither of them",
	},
	{
		Package: "internal/websocket",
		Ours:    []string{messages, "internal/status", "internal/data", "internal/nowait"},
		Others:  []string{codes, "golang.org/x/sys/unix", "github.com/gorilla/websocket"},
		Because: "it frames bytes of RFC 6455 and knows nothing of channels, clusters or callers",
	},
	{
		Package: "internal/spdy",
		Because: "it writes and reads frames, and knows nothing of what they are for",
		Bans: []Ban{
			{"github.com/moby/spdystream", "it inflates what an upstream sends, and holds what nobody reads (T-C19); in tests it is the peer"},
		},
	},
	{
		Package: "internal/ready",
		Others:  []string{"golang.org/x/sys/unix"},
		Because: "it says when a socket can be read and knows nothing of what is in it",
	},
	{
		Package: "internal/nowait",
		Because: "it makes two system calls and knows nothing of who asks for them",
	},
	{
		Package: "mux",
		Ours:    []string{messages, "internal/status", "internal/data"},
		Others:  []string{codes, protobuf},
		Because: "the mux turns one ordered link into channels, for any link, on either end",
		Bans: []Ban{
			{grpc, "a link may be a gRPC stream, a browser's pair of calls or a WebSocket: the adapter lives with the transport"},
			{"bridge", "mux and bridge do not know each other: bridge declares the Channel it needs, mux satisfies it, server introduces them"},
			{"auth", "who the caller is was settled before a channel exists; no frame can change it"},
			{kubernetes, "Kubernetes libraries live in cluster and bridge alone"},
		},
	},
	{
		Package: "internal/link",
		Ours:    []string{"mux", "internal/nowait"},
		Others:  []string{grpc + "/credentials", grpc + "/encoding", grpc + "/mem"},
		Because: "it shows the mux's segments and the records of TLS to grpc-go, at either end, and that is all it does",
	},
	{
		Package: "auth",
		Ours:    []string{messages, "internal/status"},
		Others:  []string{codes, "github.com/coreos/go-oidc/v3", "github.com/go-jose/go-jose/v4", "golang.org/x/sync", "golang.org/x/time"},
		Because: "auth turns a credential into a principal, whatever door it came through and wherever it leads",
		Bans: []Ban{
			{grpc, "the doors read metadata and headers and pass the credential on; all of them share one Authenticate"},
			{kubernetes, "Kubernetes libraries live in cluster and bridge alone"},
			{"internal/issuer", "the issuer of dev and of tests can sign anything: production code must not be able to reach it"},
		},
	},
	{
		Package: "cluster",
		Ours:    []string{messages, "auth", "internal/status", "internal/websocket"},
		Others:  []string{codes, kubernetes, "golang.org/x/sync", "golang.org/x/net/proxy", "sigs.k8s.io/yaml"},
		Because: "cluster answers where an upstream is and which credential it gets, and dials nothing for anyone",
		Bans: []Ban{
			{"bridge", "bridge asks cluster, never the other way"},
			{grpc, "what a cluster is does not depend on how its user reached the gateway"},
		},
	},
	{
		Package: "bridge",
		Ours: []string{
			messages, "internal/status", "internal/data", "internal/ready", "internal/spdy", "internal/websocket", "cluster", "auth",
		},
		Others:  []string{codes, kubernetes, protobuf, "github.com/gorilla/websocket", "golang.org/x/sync", "golang.org/x/time"},
		Because: "bridge joins a channel to its upstream and knows no door, no session and no transport of frames",
		Bans: []Ban{
			{"mux", "mux and bridge do not know each other: bridge declares the Channel it needs, mux satisfies it, server introduces them"},
			{grpc, "a channel may have arrived by any link, so no pump may depend on gRPC"},
			{"github.com/moby/spdystream", "it inflates what an upstream sends, and holds what nobody reads (T-C19): internal/spdy does neither"},
		},
	},
	{
		Package: "server",
		Ours:    []string{messages, "mux", "auth", "cluster", "bridge", "replica", "internal/status", "internal/data", "internal/link", "internal/ready", "internal/websocket"},
		Others: []string{
			grpc, protobuf, rpcDetails, prometheus, "github.com/grpc-ecosystem/go-grpc-middleware",
			otel + "/attribute", otel + "/codes", otel + "/propagation", otel + "/semconv", otel + "/trace",
			"golang.org/x/sync", "golang.org/x/time", "golang.org/x/net",
		},
		Because: "server offers the services and joins channels to bridges; what it is made of is decided in cmd/sluice",
		Bans: []Ban{
			{"client", "server and client agree through proto/SPEC.md, not through shared code"},
			{kubernetes, "Kubernetes libraries live in cluster and bridge alone"},
			{"internal/kubetest", "the embedded cluster is what dev points the gateway at, not part of the gateway"},
			{"internal/issuer", "the issuer of dev and of tests can sign anything: production code must not be able to reach it"},
			{otel + "/sdk", "spans are made through OpenTelemetry's interface; where they go is internal/tracing's business"},
			{otel + "/exporters", "spans are made through OpenTelemetry's interface; where they go is internal/tracing's business"},
		},
	},
	{
		Package: "server/web",
		Ours:    []string{messages, "internal/status"},
		Others:  []string{grpc, protobuf, rpcDetails, "golang.org/x/net/http/httpguts"},
		Because: "it makes calls of what browsers send; who calls and what a call does are the business of the gRPC server behind it",
		Bans: []Ban{
			{"auth", "a check in this door would be one that the others do not have: all of them share the interceptors of the gRPC server"},
			{"server", "server puts the door in front of itself, never the other way"},
		},
	},
	{
		Package: "server/rest",
		Ours:    []string{messages, "internal/status"},
		Others:  []string{grpc, protobuf, grpcGateway},
		Because: "REST translates between HTTP and calls on a connection; who may call is settled before it and behind it",
		Bans: []Ban{
			{"server", "server mounts REST and gives it a connection, never the other way"},
			{"auth", "REST passes a credential on; the interceptors of the services judge it, as by every door"},
		},
	},
	{
		Package: "internal/tracing",
		Others:  []string{otel, grpc + "/credentials"},
		Because: "it sends spans to a collector, whoever made them and whatever they tell",
	},
	{
		Package: "internal/tracing/tracetest",
		Others:  []string{"go.opentelemetry.io/proto", grpc},
		Because: "a collector that shared code with who sends to it would share its mistakes",
	},
	{
		Package: "client",
		Ours:    []string{messages, "mux", "internal/status", "internal/data", "internal/link"},
		Others:  []string{grpc, protobuf, rpcDetails, "golang.org/x/sync"},
		Because: "the SDK is what others link into their programs: gRPC and the messages, no more",
		Bans: []Ban{
			{kubernetes, "a caller of the SDK chooses its own version of client-go, or none"},
			{"server", "server and client agree through proto/SPEC.md, not through shared code"},
			{"bridge", "upstreams are the gateway's business"},
			{"cluster", "clusters are names to a client"},
		},
	},
	{
		Package: "cmd/sluice",
		Ours: []string{
			messages, "mux", "auth", "cluster", "bridge", "replica", "server", "client",
			"internal/status", "internal/issuer", "internal/kubetest", "internal/tracing",
		},
		Others: []string{
			grpc, protobuf, prometheus, "github.com/spf13/cobra", "github.com/spf13/pflag", "sigs.k8s.io/yaml",
			"golang.org/x/sync", "golang.org/x/term",
		},
		Because: "the command reads flags and configuration and wires the packages; what it needs beyond that belongs in one of them",
		Bans: []Ban{
			{kubernetes, "Kubernetes libraries live in cluster and bridge alone; what the command must ask of a cluster, cluster offers"},
		},
	},
	{
		Package: "internal/issuer",
		Others:  []string{"github.com/go-jose/go-jose/v4"},
		Because: "the issuer is a stranger to the gateway, as a real one is",
	},
	{
		Package: "internal/kubetest",
		Ours:    []string{"internal/status", "internal/issuer"},
		Others: []string{
			codes, "github.com/gorilla/websocket", "github.com/go-jose/go-jose/v4", "github.com/coreos/go-oidc/v3", "github.com/moby/spdystream/spdy",
		},
		Because: "an API server that shared code with the gateway would share its mistakes: it reads and writes SPDY by the library that kubelets use",
	},
	{
		Package: "internal/kubetest/shell",
		Others:  []string{"mvdan.cc/sh/v3/syntax", "mvdan.cc/sh/v3/expand", "mvdan.cc/sh/v3/pattern"},
		Because: "what runs in the embedded cluster's containers happens in memory",
		Bans: []Ban{
			{"mvdan.cc/sh/v3/interp", "it looks at the host's files, runs its programs and makes its pipes; a shell for demos must reach nothing of the host"},
		},
	},
	{
		Package: "internal/source",
		Because: "it reads files",
	},
	{
		Package: "internal/deptest",
		Ours:    []string{"internal/source"},
		Because: "a rule about imports needs none of the packages it is about",
	},
	{
		Package: "internal/houserules",
		Ours:    []string{"internal/source"},
		Because: "a rule about the tree needs none of the packages it is about",
	},
	{
		Package: "test",
		Ours:    []string{Everything},
		Others:  []string{Everything},
		Because: "what only tests use may use everything",
	},
	{
		Package: "deploy/image",
		Others:  []string{"github.com/google/go-containerregistry", "golang.org/x/crypto/x509roots/fallback"},
		Because: "it packs a binary that the go command has built, whatever is in it",
	},
	{
		Package: "bench",
		Ours:    []string{Everything},
		Others:  []string{Everything},
		Because: "what only measures may use everything",
	},
}
