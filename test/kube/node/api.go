package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// apiTimeout bounds a request to the API server that is not a watch.
const apiTimeout = 10 * time.Second

// The fields of the Kubernetes API that a node needs (k8s.io/api/core/v1).
type (
	metadata struct {
		Name              string     `json:"name"`
		Namespace         string     `json:"namespace,omitempty"`
		UID               string     `json:"uid,omitempty"`
		ResourceVersion   string     `json:"resourceVersion,omitempty"`
		DeletionTimestamp *time.Time `json:"deletionTimestamp,omitempty"`
		// DeletionGrace is in seconds.
		DeletionGrace *int64            `json:"deletionGracePeriodSeconds,omitempty"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}

	podObject struct {
		Metadata metadata  `json:"metadata"`
		Spec     podSpec   `json:"spec"`
		Status   podStatus `json:"status"`
	}

	podSpec struct {
		RestartPolicy string          `json:"restartPolicy"`
		Containers    []containerSpec `json:"containers"`
	}

	containerSpec struct {
		Name      string   `json:"name"`
		Image     string   `json:"image"`
		Command   []string `json:"command"`
		Args      []string `json:"args"`
		Stdin     bool     `json:"stdin"`
		StdinOnce bool     `json:"stdinOnce"`
		TTY       bool     `json:"tty"`
		Env       []envVar `json:"env"`
	}

	envVar struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}

	podStatus struct {
		Phase             string            `json:"phase"`
		HostIP            string            `json:"hostIP,omitempty"`
		PodIP             string            `json:"podIP,omitempty"`
		PodIPs            []podIP           `json:"podIPs,omitempty"`
		StartTime         string            `json:"startTime,omitempty"`
		Conditions        []condition       `json:"conditions,omitempty"`
		ContainerStatuses []containerStatus `json:"containerStatuses"`
	}

	podIP struct {
		IP string `json:"ip"`
	}

	condition struct {
		Type               string `json:"type"`
		Status             string `json:"status"`
		LastTransitionTime string `json:"lastTransitionTime,omitempty"`
	}

	containerStatus struct {
		Name         string         `json:"name"`
		Image        string         `json:"image"`
		ImageID      string         `json:"imageID"`
		ContainerID  string         `json:"containerID,omitempty"`
		Ready        bool           `json:"ready"`
		Started      bool           `json:"started"`
		RestartCount int            `json:"restartCount"`
		State        containerState `json:"state"`
		LastState    containerState `json:"lastState"`
	}

	containerState struct {
		Running    *runningState    `json:"running,omitempty"`
		Terminated *terminatedState `json:"terminated,omitempty"`
		Waiting    *waitingState    `json:"waiting,omitempty"`
	}

	runningState struct {
		StartedAt string `json:"startedAt"`
	}

	waitingState struct {
		Reason string `json:"reason"`
	}

	terminatedState struct {
		ExitCode    int    `json:"exitCode"`
		Reason      string `json:"reason"`
		StartedAt   string `json:"startedAt"`
		FinishedAt  string `json:"finishedAt"`
		ContainerID string `json:"containerID"`
	}
)

// apiServer is the node's client of the API server. It is safe for concurrent use.
type apiServer struct {
	url  string
	http *http.Client
}

// refusedError is an answer that is not a success.
type refusedError struct {
	request string
	code    int
	body    []byte
}

func (e *refusedError) Error() string { return fmt.Sprintf("%s: %d %s", e.request, e.code, e.body) }

// refusedWith tells whether err is an answer of one of the codes.
func refusedWith(err error, codes ...int) bool {
	var refused *refusedError
	return errors.As(err, &refused) && slices.Contains(codes, refused.code)
}

// open sends a request and returns the body of its answer, which the caller closes.
func (a *apiServer) open(ctx context.Context, method, path, mediaType string, body any) (io.ReadCloser, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < http.StatusMultipleChoices {
		return response.Body, nil
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return nil, errors.Join(&refusedError{method + " " + path, response.StatusCode, answer}, err)
}

// call sends a request and decodes the answer, unless into is nil.
func (a *apiServer) call(ctx context.Context, method, path, mediaType string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	answer, err := a.open(ctx, method, path, mediaType, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, answer)
		return err
	}
	return json.NewDecoder(answer).Decode(into)
}

// Of a body that is sent.
const (
	asObject         = "application/json"
	asMergePatch     = "application/merge-patch+json"
	asStrategicPatch = "application/strategic-merge-patch+json"
)

// podEvent is an event of a watch of pods.
type podEvent struct {
	Type   string    `json:"type"`
	Object podObject `json:"object"`
}

// podList is all pods of a node at one resourceVersion.
type podList struct {
	Metadata metadata    `json:"metadata"`
	Items    []podObject `json:"items"`
}

func podsOf(node string) string {
	return "/api/v1/pods?fieldSelector=" + url.QueryEscape("spec.nodeName="+node)
}

func (a *apiServer) listPods(ctx context.Context, node string) (list podList, err error) {
	err = a.call(ctx, http.MethodGet, podsOf(node), "", nil, &list)
	return list, err
}

// watchPods tells what changes after version, until the watch ends, however it does.
func (a *apiServer) watchPods(ctx context.Context, node, version string, changed func(podEvent)) error {
	body, err := a.open(ctx, http.MethodGet, podsOf(node)+"&watch=1&resourceVersion="+url.QueryEscape(version), "", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	for events := json.NewDecoder(body); ; {
		var event podEvent
		if err := events.Decode(&event); err != nil {
			return err
		}
		if event.Type == "ERROR" {
			return errors.New("the watch of pods has ended with an error")
		}
		changed(event)
	}
}

// register makes the node known, ready and reachable at port.
func (a *apiServer) register(ctx context.Context, node string, port int) error {
	object := map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": node, "labels": map[string]string{"kubernetes.io/hostname": node}},
	}
	err := a.call(ctx, http.MethodPost, "/api/v1/nodes", asObject, object, nil)
	if err != nil && !refusedWith(err, http.StatusConflict) {
		return err
	}
	now := stamp(time.Now())
	room := map[string]string{"cpu": "64", "memory": "64Gi", "pods": "1000"}
	status := map[string]any{
		"addresses": []map[string]string{
			{"type": "InternalIP", "address": loopback}, {"type": "Hostname", "address": node},
		},
		"daemonEndpoints": map[string]any{"kubeletEndpoint": map[string]int{"Port": port}},
		"capacity":        room,
		"allocatable":     room,
		"conditions": []map[string]string{{
			"type": "Ready", "status": "True", "reason": "NodeReady", "message": "processes of the host play containers",
			"lastHeartbeatTime": now, "lastTransitionTime": now,
		}},
	}
	return a.call(ctx, http.MethodPatch, "/api/v1/nodes/"+node+"/status", asStrategicPatch, map[string]any{"status": status}, nil)
}

func (m metadata) path() string { return "/api/v1/namespaces/" + m.Namespace + "/pods/" + m.Name }

// updateStatus replaces the parts of a pod's status that a node decides.
func (a *apiServer) updateStatus(ctx context.Context, pod metadata, status podStatus) error {
	patch := map[string]any{"metadata": map[string]string{"uid": pod.UID}, "status": status}
	return a.call(ctx, http.MethodPatch, pod.path()+"/status", asMergePatch, patch, nil)
}

// removePod takes a pod that has ended out of the API. That it is gone already, or another has its name, is no error.
func (a *apiServer) removePod(ctx context.Context, pod metadata) error {
	options := map[string]any{"gracePeriodSeconds": 0, "preconditions": map[string]string{"uid": pod.UID}}
	err := a.call(ctx, http.MethodDelete, pod.path(), asObject, options, nil)
	if refusedWith(err, http.StatusNotFound, http.StatusConflict) {
		return nil
	}
	return err
}

// stamp writes a time as the API does, to the second.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
