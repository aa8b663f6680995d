// Package config is the configuration file of `sluice serve`: what it may say, how it is read, and what is wrong with it.
//
// It is YAML, read strictly: a field that is unknown or said twice is refused, so that a misspelt limit is never a default. No field holds
// a secret; certificates, keys and kubeconfigs are named as files.
//
// The types are the reference: docs/configuration.md and docs/sluice.example.yaml are generated from their comments and tags. A field's
// comment is its meaning; the tags default, bounds and unit say what else there is to know, example is a value for the example file, and a
// field that contradicts another example has `instead:"true"`.
package config

//go:generate go run ./reference ../../..

// Config is the whole file. Paths are relative to the file's own folder.
type Config struct {
	// GRPCAddr is where gRPC listens, as HOST:PORT; an empty host is every address.
	GRPCAddr string `json:"grpc_addr" bounds:"HOST:PORT" example:":8443"`
	// WebAddr is where the web port listens: gRPC-Web, Connect and REST. Empty for no web port.
	WebAddr string `json:"web_addr" bounds:"HOST:PORT, or empty" example:":8444"`
	// AdminAddr is where metrics, health and profiles listen, without authentication: keep it on loopback, or behind a network policy.
	AdminAddr string `json:"admin_addr" bounds:"HOST:PORT" example:"127.0.0.1:9090"`
	// TLS is the certificate of both ports. It is read again when its files change.
	TLS TLS `json:"tls" default:"required"`
	// Web is who may call the web port from a browser, and by which names.
	Web Web `json:"web"`
	// Issuers are whose tokens are accepted.
	Issuers []Issuer `json:"issuers" default:"required" bounds:"one or more"`
	// Clusters are the clusters behind the gateway, each with exactly one of kubeconfig, in_cluster and server.
	Clusters []Cluster `json:"clusters" default:"required" bounds:"one or more"`
	// Limits are the bounds of everything that a caller can make large; 0 is the default. docs/limits.md says what happens at each.
	Limits Limits `json:"limits"`
	// DrainTimeout is how long sessions may go on after SIGTERM: keep it below the pod's terminationGracePeriodSeconds. 0s ends them at once.
	DrainTimeout Duration `json:"drain_timeout" bounds:"0s or more" example:"25s"`
	// Reflection lets anybody ask which services there are, as grpcurl does.
	Reflection bool `json:"reflection" example:"true"`
	// Log is what operators read, on the standard error.
	Log Log `json:"log"`
	// Audit is who opened what: one JSON line for each channel's beginning and end.
	Audit Audit `json:"audit"`
	// Tracing is where spans go, by OTLP over gRPC.
	Tracing Tracing `json:"tracing"`
}

// TLS names the files of a certificate and its key. They are read again when they change.
type TLS struct {
	// CertFile is the certificate, with its intermediates.
	CertFile string `json:"cert_file" unit:"file, PEM" default:"required" example:"tls.crt"`
	// KeyFile is its key.
	KeyFile string `json:"key_file" unit:"file, PEM" default:"required" example:"tls.key"`
}

// Web is who may call the web port from a browser, and by which names. Programs that are no browser need none of it.
type Web struct {
	// Origins are the origins whose pages may call, byte for byte as browsers send them; pages of the web port's own origin always may.
	Origins []string `json:"origins" default:"none" bounds:"scheme://host[:port]" example:"[\"https://console.example.org\"]"`
	// Hosts are the names by which the port may be called besides those in its certificate, as behind a proxy.
	Hosts []string `json:"hosts" default:"none" bounds:"host or host:port" example:"[sluice.example.org]"`
	// BodyBytes is the longest body of a request, before and after decompression.
	BodyBytes int `json:"body_bytes" unit:"bytes" default:"1048576" bounds:"1024 to 67108864" example:"1048576"`
	// Headers are the header fields that a request may have.
	Headers int `json:"headers" default:"64" bounds:"16 to 1024" example:"64"`
}

// Issuer says which tokens of one OpenID Connect issuer are accepted, and whom they name.
type Issuer struct {
	// URL is the `iss` of the tokens, byte for byte.
	URL string `json:"url" default:"required" bounds:"https, or http on loopback" example:"https://issuer.example.org"`
	// Audiences are whom a token may be meant for: one of these is in its `aud`.
	Audiences []string `json:"audiences" default:"required" bounds:"one or more" example:"[sluice]"`
	// AuthorizedParties are clients, besides the audiences, that may have obtained a token of several audiences (`azp`).
	AuthorizedParties []string `json:"authorized_parties" default:"none" example:"[console]"`
	// CAFile is the certificates that may have signed the issuer's.
	CAFile string `json:"ca_file" unit:"file, PEM" default:"the system's" example:"issuer-ca.crt"`
	// UsernameClaim is the claim that names the user; an `email` must not be marked unverified.
	UsernameClaim string `json:"username_claim" default:"sub" example:"email"`
	// UsernamePrefix is put before user names, as the API server's `--oidc-username-prefix`.
	UsernamePrefix string `json:"username_prefix" default:"none" example:"\"oidc:\""`
	// GroupsClaim is the claim, a text or a list, that names the user's groups.
	GroupsClaim string `json:"groups_claim" default:"groups" example:"groups"`
	// GroupsPrefix is put before group names.
	GroupsPrefix string `json:"groups_prefix" default:"none" example:"\"oidc:\""`
	// UIDClaim is a claim that tells apart two holders of one subject.
	UIDClaim string `json:"uid_claim" default:"none" example:"oid"`
	// Algorithms are the accepted signature algorithms.
	Algorithms []string `json:"algorithms" default:"all of them" bounds:"RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA" example:"[RS256, ES256]"`
	// Leeway is by how much the issuer's clock may be ahead (`nbf`, `iat`); a token never outlives its `exp`.
	Leeway Duration `json:"leeway" default:"10s" bounds:"0s to 30s" example:"10s"`
	// MaxLifetime is the longest accepted time from `iat` to `exp`.
	MaxLifetime Duration `json:"max_lifetime" default:"any" bounds:"0s or more; 0s is any" example:"24h"`
}

// Cluster is one cluster behind the gateway. Exactly one of kubeconfig, in_cluster and server says where it is.
type Cluster struct {
	// Name is what clients call it.
	Name string `json:"name" default:"required" bounds:"[a-z0-9]([-a-z0-9.]*[a-z0-9])?, at most 63 characters" example:"production"`
	// ID is what cursors call the cluster: gateways that reach one cluster by different names share it.
	ID string `json:"id" default:"the name" example:"production-eu"`
	// Kubeconfig says where the cluster is by a kubeconfig, with everything that client-go honours. $KUBECONFIG is not read.
	Kubeconfig *Kubeconfig `json:"kubeconfig" default:"none" instead:"true"`
	// InCluster says that it is the cluster that the gateway runs in, by its service account's address and CA.
	InCluster bool `json:"in_cluster" default:"false" example:"true" instead:"true"`
	// Server is the API server's URL.
	Server string `json:"server" default:"none" bounds:"https" example:"https://api.example.org:6443"`
	// CAFile is, with server, the certificates that may have signed the API server's.
	CAFile string `json:"ca_file" unit:"file, PEM" default:"the system's" example:"production-ca.crt"`
	// Insecure allows a kubeconfig that says insecure-skip-tls-verify: whoever poses as that API server gets the tokens.
	Insecure bool `json:"insecure" default:"false" example:"false"`
	// Credential is what the API server sees. passthrough: the caller's own token. kubeconfig: that of the kubeconfig, or with in_cluster
	// the gateway's service account.
	Credential string `json:"credential" default:"required" bounds:"passthrough, kubeconfig" example:"passthrough"`
	// Audiences are, with passthrough, whose tokens the cluster receives: those that are meant for one of these.
	Audiences []string `json:"audiences" default:"none" bounds:"with passthrough, these or issuers" example:"[kubernetes]"`
	// Issuers are, with passthrough, whose tokens the cluster receives: those of these issuers.
	Issuers []string `json:"issuers" default:"none" bounds:"with passthrough, these or audiences" example:"[\"https://issuer.example.org\"]"`
	// Subjects are, with the credential kubeconfig, who acts with it, each with all its rights.
	Subjects []string `json:"subjects" default:"none" bounds:"required with kubeconfig" example:"[alice, bob]" instead:"true"`
}

// Kubeconfig names a kubeconfig and a context in it.
type Kubeconfig struct {
	// File is the kubeconfig.
	File string `json:"file" unit:"file" default:"required" example:"production.kubeconfig" instead:"true"`
	// Context is the context in it.
	Context string `json:"context" default:"the current one" example:"production-admin" instead:"true"`
}

// Limits are the bounds of everything that a caller can make large; 0 is the default.
type Limits struct {
	// Sessions are the sessions in this replica, attached or detached.
	Sessions int `json:"sessions" default:"10000" bounds:"1 or more" example:"10000"`
	// PrincipalSessions are the sessions of one principal in this replica.
	PrincipalSessions int `json:"principal_sessions" default:"100" bounds:"1 or more" example:"100"`
	// SessionChannels are the channels open in one session.
	SessionChannels int `json:"session_channels" default:"1024" bounds:"1 to 4096" example:"1024"`
	// Channels are the channels open in this replica.
	Channels int `json:"channels" default:"20000" bounds:"1 or more" example:"20000"`
	// Streams are the concurrent calls over one TCP connection.
	Streams int `json:"streams" default:"100" bounds:"1 or more" example:"100"`
	// MessageBytes is the largest message that is put together from pieces.
	MessageBytes int `json:"message_bytes" unit:"bytes" default:"4194304" bounds:"65536 or more" example:"4194304"`
	// WindowBytes is the largest window of a channel.
	WindowBytes int `json:"window_bytes" unit:"bytes" default:"1048576" bounds:"65536 or more" example:"1048576"`
	// SessionBytes is what one session's channels may hold to be sent or acknowledged.
	SessionBytes int `json:"session_bytes" unit:"bytes" default:"8388608" bounds:"65536 or more" example:"8388608"`
	// HeldBytes is the same for all sessions together.
	HeldBytes int `json:"held_bytes" unit:"bytes" default:"a quarter of GOMEMLIMIT, or 1 GiB without one" bounds:"session_bytes or more" example:"268435456"`
	// HeaderBytes is the largest header of a call.
	HeaderBytes int `json:"header_bytes" unit:"bytes" default:"16384" bounds:"16384 or more" example:"16384"`
	// DetachTTL is how long a session outlives its link.
	DetachTTL Duration `json:"detach_ttl" default:"2m" bounds:"1s to 1h" example:"2m"`
	// ClusterDials are the upstreams of one cluster that are dialled at a time.
	ClusterDials int `json:"cluster_dials" default:"64" bounds:"1 or more" example:"64"`
}

// Log is the form of the log, which goes to the standard error.
type Log struct {
	// Format is how a line is written.
	Format string `json:"format" bounds:"json, text" example:"json"`
	// Level is the level from which on lines are written.
	Level string `json:"level" bounds:"debug, info, warn, error" example:"info"`
}

// Audit is where the audit goes.
type Audit struct {
	// Destination is where the audit goes: stdout, stderr, or a file that is appended to.
	Destination string `json:"destination" unit:"word or file" bounds:"stdout, stderr, or a path" example:"stdout"`
}

// Tracing is where spans go, by OTLP over gRPC. Spans hold names of clusters, namespaces and resources, and no credential.
type Tracing struct {
	// Endpoint is the collector. Empty makes no spans.
	Endpoint string `json:"endpoint" default:"none" bounds:"HOST:PORT" example:"collector.example.org:4317"`
	// Insecure sends spans in the clear, as to a collector in the same pod.
	Insecure bool `json:"insecure" default:"false" bounds:"not with ca_file" example:"false"`
	// CAFile is the certificates that may have signed the collector's.
	CAFile string `json:"ca_file" unit:"file, PEM" default:"the system's" example:"collector-ca.crt"`
	// SampleRatio is the part of the traces begun here that is kept; one that a caller began is kept if the caller keeps it.
	SampleRatio float64 `json:"sample_ratio" bounds:"0 to 1" example:"0.01"`
}

// Words that fields accept.
const (
	Passthrough          = "passthrough"
	KubeconfigCredential = "kubeconfig"
	Stdout               = "stdout"
	Stderr               = "stderr"
)

// Default addresses.
const (
	DefaultGRPCAddr  = ":8443"
	DefaultWebAddr   = ":8444"
	DefaultAdminAddr = "127.0.0.1:9090"
)

// Credentials are whose credential a cluster may see.
func Credentials() []string { return []string{Passthrough, KubeconfigCredential} }

// Formats are the forms of a log.
func Formats() []string { return []string{"json", "text"} }

// Levels are the levels from which on a log is written.
func Levels() []string { return []string{"debug", "info", "warn", "error"} }
