package kubetest

import (
	"fmt"
	"strings"
	"time"
)

func (p *pod) container() string {
	if p.app == nil {
		return "report"
	}
	return p.app.name
}

func (p *pod) image() string {
	if p.app == nil {
		return "shop/report:1.1"
	}
	return p.app.image
}

// podObject is the pod as the API server would show it.
func podObject(p *pod) Object {
	metadata := map[string]any{
		"name": p.name, "namespace": p.namespace(), "uid": p.uid,
		"creationTimestamp": timestamp(p.created),
		"labels":            podLabels(p),
		"ownerReferences":   []any{podOwner(p)},
		"generateName":      p.name[:len(p.name)-5],
	}
	if p.phase == phaseTerminating {
		metadata["deletionTimestamp"] = timestamp(p.deleted.Add(30 * time.Second))
		metadata["deletionGracePeriodSeconds"] = 30
	}
	return Object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": metadata, "spec": podSpec(p), "status": podStatus(p),
	}
}

func podLabels(p *pod) map[string]any {
	if p.app == nil {
		return map[string]any{"app.kubernetes.io/name": "nightly-report", "app.kubernetes.io/part-of": "shop"}
	}
	return map[string]any{"app": p.app.name, "app.kubernetes.io/name": p.app.name, "pod-template-hash": p.set.hash}
}

func podOwner(p *pod) map[string]any {
	owner := map[string]any{"controller": true, "blockOwnerDeletion": true, "uid": p.set.uid}
	if p.app == nil {
		owner["apiVersion"], owner["kind"], owner["name"] = "batch/v1", "Job", p.name[:len(p.name)-6]
	} else {
		owner["apiVersion"], owner["kind"], owner["name"] = "apps/v1", "ReplicaSet", p.app.name+"-"+p.set.hash
	}
	return owner
}

func podSpec(p *pod) map[string]any {
	container := map[string]any{
		"name": p.container(), "image": p.image(), "imagePullPolicy": "IfNotPresent",
		"resources":                map[string]any{"requests": map[string]any{"cpu": "50m", "memory": "64Mi"}, "limits": map[string]any{"memory": "256Mi"}},
		"terminationMessagePath":   "/dev/termination-log",
		"terminationMessagePolicy": "File",
	}
	policy := "Never"
	if p.app != nil {
		policy = "Always"
		container["ports"] = []any{map[string]any{"containerPort": p.app.port, "protocol": "TCP"}}
		container["readinessProbe"] = map[string]any{
			"httpGet": map[string]any{"path": "/ready", "port": p.app.port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1,
		}
	}
	spec := map[string]any{
		"containers": []any{container}, "restartPolicy": policy, "dnsPolicy": "ClusterFirst",
		"serviceAccountName": "default", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
		"enableServiceLinks": true, "securityContext": map[string]any{},
	}
	if p.node != "" {
		spec["nodeName"] = p.node
	}
	return spec
}

func podStatus(p *pod) map[string]any {
	status := map[string]any{"phase": podPhase(p), "qosClass": "Burstable", "conditions": podConditions(p)}
	if p.phase != phaseUnscheduled {
		status["containerStatuses"] = []any{containerStatus(p)}
		status["startTime"] = timestamp(p.created)
	}
	if p.ip != "" {
		status["podIP"], status["podIPs"] = p.ip, []any{map[string]any{"ip": p.ip}}
		status["hostIP"] = "10.0.0." + strings.TrimPrefix(p.node, "node-")
	}
	return status
}

func podPhase(p *pod) string {
	switch p.phase {
	case phaseUnscheduled, phaseCreating:
		return "Pending"
	case phaseSucceeded:
		return "Succeeded"
	case phaseTerminating:
		if p.app == nil {
			return "Succeeded"
		}
	default:
	}
	return "Running"
}

func podConditions(p *pod) []any {
	condition := func(kind string, is bool, since time.Time) any {
		c := map[string]any{"type": kind, "status": "False", "lastProbeTime": nil, "lastTransitionTime": timestamp(since)}
		if is {
			c["status"] = "True"
		} else if kind != "PodScheduled" {
			c["reason"], c["message"] = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", p.container())
		}
		return c
	}
	if p.phase == phaseUnscheduled {
		return []any{condition("PodScheduled", false, p.created)}
	}
	since := p.changed
	if since.IsZero() {
		since = p.created
	}
	ready := p.phase == phaseReady
	return []any{
		condition("PodScheduled", true, p.created),
		condition("Initialized", true, p.created),
		condition("ContainersReady", ready, since),
		condition("Ready", ready, since),
	}
}

func containerStatus(p *pod) map[string]any {
	s := map[string]any{
		"name": p.container(), "image": p.image(), "imageID": "", "restartCount": p.restarts,
		"ready": p.phase == phaseReady, "started": p.phase == phaseReady || p.phase == phaseStarting,
		"state": containerState(p), "lastState": map[string]any{},
	}
	if p.phase != phaseCreating {
		s["imageID"], s["containerID"] = p.image(), "containerd://"+strings.ReplaceAll(p.uid, "-", "")
	}
	if p.restarts > 0 {
		s["lastState"] = terminated(p, 1, "Error")
	}
	return s
}

func containerState(p *pod) map[string]any {
	switch p.phase {
	case phaseCreating:
		return map[string]any{"waiting": map[string]any{"reason": "ContainerCreating"}}
	case phaseCrashed:
		return map[string]any{"waiting": map[string]any{
			"reason":  "CrashLoopBackOff",
			"message": fmt.Sprintf("back-off 10s restarting failed container=%s pod=%s_%s(%s)", p.container(), p.name, p.namespace(), p.uid),
		}}
	case phaseSucceeded:
		return terminated(p, 0, "Completed")
	case phaseTerminating:
		if p.app == nil {
			return terminated(p, 0, "Completed")
		}
	default:
	}
	return map[string]any{"running": map[string]any{"startedAt": timestamp(p.started)}}
}

func terminated(p *pod, code int, reason string) map[string]any {
	return map[string]any{"terminated": map[string]any{
		"exitCode": code, "reason": reason, "finishedAt": timestamp(p.ended),
		"containerID": "containerd://" + strings.ReplaceAll(p.uid, "-", ""),
	}}
}

// replicaCounts are the pods of a deployment that are not terminating.
type replicaCounts struct{ total, updated, ready int }

func deploymentObject(a *app, c replicaCounts) Object {
	labels := map[string]any{"app": a.name}
	return Object{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{
			"name": a.name, "namespace": a.namespace, "uid": a.uid, "generation": a.generation,
			"creationTimestamp": timestamp(a.created), "labels": map[string]any{"app.kubernetes.io/name": a.name},
			"annotations": map[string]any{"deployment.kubernetes.io/revision": fmt.Sprint(a.release)},
		},
		"spec": map[string]any{
			"replicas": a.replicas, "selector": map[string]any{"matchLabels": labels},
			"strategy":             map[string]any{"type": "RollingUpdate", "rollingUpdate": map[string]any{"maxSurge": 1, "maxUnavailable": 0}},
			"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels, "annotations": map[string]any{"release": fmt.Sprint(a.release)}},
				"spec":     podSpec(&pod{app: a}),
			},
		},
		"status": deploymentStatus(a, c),
	}
}

func deploymentStatus(a *app, c replicaCounts) map[string]any {
	available := "False"
	if c.ready >= a.least {
		available = "True"
	}
	status := map[string]any{
		"observedGeneration": a.generation, "replicas": c.total, "updatedReplicas": c.updated,
		"readyReplicas": c.ready, "availableReplicas": c.ready,
		"conditions": []any{map[string]any{
			"type": "Available", "status": available, "reason": "MinimumReplicasAvailable",
			"message": "Deployment has minimum availability.", "lastTransitionTime": timestamp(a.created), "lastUpdateTime": timestamp(a.created),
		}},
	}
	if available == "False" {
		condition := status["conditions"].([]any)[0].(map[string]any)
		condition["reason"], condition["message"] = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
	}
	if missing := a.replicas - c.ready; missing > 0 {
		status["unavailableReplicas"] = missing
	}
	return status
}

func serviceObject(a *app, uid string, host int) Object {
	ip := fmt.Sprintf("10.96.0.%d", host)
	return Object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{
			"name": a.name, "namespace": a.namespace, "uid": uid, "creationTimestamp": timestamp(a.created),
			"labels": map[string]any{"app.kubernetes.io/name": a.name},
		},
		"spec": map[string]any{
			"type": "ClusterIP", "clusterIP": ip, "clusterIPs": []any{ip}, "selector": map[string]any{"app": a.name},
			"ports":           []any{map[string]any{"name": "main", "port": a.port, "targetPort": a.port, "protocol": "TCP"}},
			"sessionAffinity": "None", "ipFamilies": []any{"IPv4"}, "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
		},
		"status": map[string]any{"loadBalancer": map[string]any{}},
	}
}

func nodeObject(name, uid string, created time.Time) Object {
	return Object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{
			"name": name, "uid": uid, "creationTimestamp": timestamp(created),
			"labels": map[string]any{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
		},
		"spec": map[string]any{"podCIDR": "10.244." + strings.TrimPrefix(name, "node-") + ".0/24"},
		"status": map[string]any{
			"capacity":    map[string]any{"cpu": "4", "memory": "16384Mi", "pods": "110"},
			"allocatable": map[string]any{"cpu": "4", "memory": "16000Mi", "pods": "110"},
			"addresses":   []any{map[string]any{"type": "Hostname", "address": name}},
			"conditions": []any{map[string]any{
				"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
				"lastHeartbeatTime": timestamp(created), "lastTransitionTime": timestamp(created),
			}},
			"nodeInfo": map[string]any{"kubeletVersion": gitVersion, "operatingSystem": "linux", "architecture": "amd64", "osImage": "Linux"},
		},
	}
}

func eventObject(p *pod, name, uid, severity, reason, message string) Object {
	now := timestamp(time.Now())
	component := "kubelet"
	if reason == "Scheduled" {
		component = "default-scheduler"
	}
	return Object{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"name": name, "namespace": p.namespace(), "uid": uid, "creationTimestamp": now},
		"involvedObject": map[string]any{
			"apiVersion": "v1", "kind": "Pod", "namespace": p.namespace(), "name": p.name, "uid": p.uid,
		},
		"type": severity, "reason": reason, "message": message, "count": 1,
		"firstTimestamp": now, "lastTimestamp": now, "eventTime": nil,
		"source": map[string]any{"component": component, "host": p.node}, "reportingComponent": component, "reportingInstance": p.node,
	}
}
