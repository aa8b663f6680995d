// Package prometheus tests deploy/prometheus and deploy/grafana with Prometheus' own code: the alerts parse, fire and keep quiet as they should,
// and neither they nor the dashboard ask for a metric or a label that no gateway has. It is a module of its own, so that nothing else depends
// on Prometheus.
package prometheus
