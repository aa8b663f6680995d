// Package conformance holds the gateway to the protocols it speaks, with suites that others have written: the connectrpc conformance suite,
// the interoperability tests of gRPC, and h2spec. The suites run against a whole gateway, with its listeners, TLS, interceptors and limits;
// their services are registered beside Sluice's own (server.Service). What a suite finds and is left as it is stands in testdata, with the
// reason, and a case that stands there and passes fails the test.
package conformance
