// Package e2e tests the whole of Sluice against a real API server: client, link, server, mux, bridge and cluster are the real ones, and so
// are etcd and kube-apiserver (test/kube), with a recorder between the gateway and the API server that shows what the latter is sent.
package e2e
