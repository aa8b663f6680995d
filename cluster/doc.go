// Package cluster resolves (cluster name, principal) to an upstream: an address, TLS, and the credential that the API server sees.
//
// A client names a cluster and never an address. What a kubeconfig says is honoured through client-go's own wrappers, so no kind of
// credential is implemented here: the WebSocket upgrade is a RoundTripper at the bottom of the stack that client-go builds for any other
// request. Upstream headers are built from nothing; none of a caller's ever reaches an API server.
package cluster
