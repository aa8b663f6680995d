// Package kubetest is an in-process API server in the shape of Kubernetes: the
// embedded cluster of `sluice dev`, and the upstream that tests can make fail.
//
// It answers what a kube-apiserver 1.37 answers for discovery, get, list,
// watch (over WebSocket and over chunked HTTP) and simple writes, down to the
// texts of its Status objects and its peculiarities: a watch over WebSocket
// needs an Origin, a compacted resource version is reported inside the watch,
// a future one by silence. Its store keeps one resource version for all kinds
// and a bounded history of changes for each.
//
// What it is not: there is no admission, defaulting or validation of specs, no
// protobuf or CBOR, no server-side apply, and Tables, subresources and
// aggregated discovery are absent, so clients fall back as they do elsewhere.
package kubetest
