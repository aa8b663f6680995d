// Package web is the HTTP side of the web port: what a browser or curl asks is refused, or becomes a call like any other.
//
//	request ──> guard ──┬── /package.Service/Method ──> dialect (gRPC-Web, Connect) ──> grpc.Server.ServeHTTP
//	                    └── /v1/, /openapi.json ──────> the REST handler
//
// The guard looks at a request before anything of ours runs: the name it was sent to, the page it comes from, what its query and its headers
// hold, and how long its body is. Behind it, headers are those of a list and the body is in memory, whole and bounded.
//
// The package knows nothing of tokens, sessions or clusters: the interceptors of the gRPC server authenticate these calls as they do all others.
package web
