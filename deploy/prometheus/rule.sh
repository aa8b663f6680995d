#!/usr/bin/env bash
# Writes the alerts as the Prometheus operator takes them: deploy/kubernetes/prometheus-operator/prometheusrule.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

{
	cat <<'EOF'
# Written by deploy/prometheus/rule.sh from deploy/prometheus/alerts.yaml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sluice
  namespace: sluice
  labels:
    app.kubernetes.io/name: sluice
spec:
EOF
	sed -e '/^#/d' -e 's/^\(.\)/  \1/' alerts.yaml
} >../kubernetes/prometheus-operator/prometheusrule.yaml
