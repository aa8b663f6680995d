// Package deploy tests what the folder deploy holds: that a real API server takes the manifests and admits the pod, that the image runs as the
// pod says, that the metrics are those which the alerts and the dashboard are made of, and that the examples of docs/deploying.md are right.
package deploy
