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
// Pods that are run with [Server.RunPod] have logs, exec, attach and
// port-forward, over WebSocket in the subprotocols of a kube-apiserver with a
// kubelet behind it; [RunPods] runs some for demos and tests. What runs in
// them is Go: functions ([Program]), or scripts of package shell. Nothing of
// the host is reached but loopback, where what a pod listens at is.
//
// Who asks is found out by client certificates, the tokens of the server's own
// service accounts and [Options.Authenticator]; they may impersonate. What they
// may do is everything, unless [Options.Authorizer] or, with [Options.RBAC], the
// roles and bindings in the store say no. The reviews of authorization.k8s.io
// and authentication.k8s.io answer by the same.
//
// Everything can be made to fail: see [Faults], the functions that make an
// [Action], and the methods of [Server] that end, kill, restart and rotate.
// For a log that is cut off as if it had ended, for example:
//
//	s.Faults.Add(kubetest.Fault{Match: kubetest.Logs, Times: 1, Action: kubetest.EndAfter(3)})
//
// What it is not: there is no admission, defaulting or validation of specs, and
// who may write roles may grant what they do not have. There is no protobuf or
// CBOR, no server-side apply, and Tables, the other subresources and aggregated
// discovery are absent, so clients fall back as they do elsewhere. Of the base64
// subprotocols only that of logs is served, and SPDY only inside WebSockets.
package kubetest
