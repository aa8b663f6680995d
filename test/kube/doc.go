// Package kube gives tests, and a person at a terminal, a real Kubernetes API on
// the loopback interface: etcd and kube-apiserver at pinned versions, with TLS,
// RBAC and OpenID Connect issuers, and a node for who asks for it, but without
// scheduler or controllers.
//
// [Binaries] builds the two programs from the Go module proxy, once per version,
// into the user's cache folder. [Start] runs them on free ports with a PKI of
// their own; [Shared] gives all tests of a package one such [Cluster], which the
// package's TestMain ends by way of [Tests]. A [Recorder] is a TLS proxy in front
// of the API server that shows what really reaches it. [Answers] is the table of
// what a Kubernetes API server answers to the requests a gateway makes; it runs
// against this cluster and against every stand-in for one. [StreamAnswers] is
// the part of it that needs a node, [AccessAnswers] that about who may do what.
//
// [Cluster.Grant] and [Cluster.Revoke] change what users may do,
// [Cluster.RequestToken], [Cluster.ShortToken] and [Cluster.IssueCertificate] make
// credentials of every kind.
//
// [Cluster.StartNode] adds a [Node], on which [Cluster.RunPod] runs pods whose
// containers are processes of this host: without privileges, images or a
// container runtime, but with everything that streams through an API server.
//
// Because no controller runs: a namespace needs its default service account made
// by hand ([Cluster.CreateNamespace] does), deleted namespaces never finish
// terminating, and pods that are not bound to the node stay Pending.
//
// The package runs on Unix systems only.
package kube
