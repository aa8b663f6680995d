// Package server is the gateway: it authenticates callers, carries their sessions over links, and joins each channel to a bridge.
//
//	          ┌── interceptors: request id, recovery, authentication ──┐
//	Connect ──┤  internal/link                                         │
//	Watch ────┤  link_watch.go     ──> mux.Session ──> channel.go ──> bridge.Start ──> API server
//	          └────────────────────────────────────────────────────────┘
//
// Every way in is a link of the same kind of session, so authentication, expiry, limits, audit, metrics and drain exist once. An RPC handler
// only supervises: what reads and what writes its stream are goroutines of the session, since grpc-go ends a blocked call of a server's stream
// only when the handler returns.
package server
