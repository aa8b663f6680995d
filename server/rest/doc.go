// Package rest is the gateway for who speaks HTTP and JSON: curl, scripts, EventSource.
//
// What there is, is said once: the methods in proto/sluice/v1, their paths in proto/gateway.yaml. grpc-gateway translates the unary ones;
// streams are forwarded by code of ours, which can answer an error before the first message as such, send server-sent events, and keep a
// silent stream alive. The routes are read from the OpenAPI document that is served, so nothing is accepted that it does not name.
//
// What reaches a method is built from nothing: the message, and the four headers of forwarded. The package knows no origins, no certificates and
// no principals: it calls a connection on which every call is authenticated like any other.
package rest
