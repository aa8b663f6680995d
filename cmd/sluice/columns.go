package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// columns are those of a resource between its name and its age, and those after it with -o wide.
type columns struct {
	header, wide []string
	// The least width of each, since lines are printed as they come.
	widths, wideWidths []int
	cells              func(object json.RawMessage, now time.Time) (cells, wide []string, err error)
}

// columnsOf are the columns of a resource: name and age alone for those that are not known here. The API server's own Tables would need
// another request for every change.
func columnsOf(r *sluicev1.Resource) columns {
	if c, ok := ownColumns[qualified(r)]; ok {
		return c
	}
	return columns{cells: func(json.RawMessage, time.Time) ([]string, []string, error) { return nil, nil, nil }}
}

// ownColumns are the resources whose state people look for.
var ownColumns = map[string]columns{
	"pods":             {header: []string{"READY", "STATUS", "RESTARTS"}, widths: []int{5, len("ContainerCreating"), 8}, wide: []string{"IP", "NODE"}, wideWidths: []int{len("10.244.100.100")}, cells: podCells},
	"deployments.apps": {header: []string{"READY", "UP-TO-DATE", "AVAILABLE"}, widths: []int{5, 10, 9}, wide: []string{"IMAGES"}, cells: deploymentCells},
	"nodes":            {header: []string{"STATUS"}, widths: []int{8}, wide: []string{"VERSION"}, cells: nodeCells},
	"namespaces":       {header: []string{"STATUS"}, widths: []int{len("Terminating")}, cells: namespaceCells},
	"events":           {header: []string{"TYPE", "REASON", "OBJECT"}, widths: []int{7, 16, 36}, wide: []string{"MESSAGE"}, cells: eventCells},
}

// pod is what of a pod its columns show.
type pod struct {
	Metadata struct {
		DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName       string     `json:"nodeName"`
		Containers     []struct{} `json:"containers"`
		InitContainers []struct{} `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase                 string            `json:"phase"`
		Reason                string            `json:"reason"`
		PodIP                 string            `json:"podIP"`
		InitContainerStatuses []containerStatus `json:"initContainerStatuses"`
		ContainerStatuses     []containerStatus `json:"containerStatuses"`
	} `json:"status"`
}

type containerStatus struct {
	Ready        bool `json:"ready"`
	RestartCount int  `json:"restartCount"`
	State        struct {
		Waiting    *reasoned `json:"waiting"`
		Running    *struct{} `json:"running"`
		Terminated *reasoned `json:"terminated"`
	} `json:"state"`
}

// reasoned is a state of a container that has a reason.
type reasoned struct {
	Reason   string `json:"reason"`
	ExitCode int    `json:"exitCode"`
	Signal   int    `json:"signal"`
}

func podCells(text json.RawMessage, _ time.Time) (cells, wide []string, err error) {
	p, err := decode[pod](text)
	ready, restarts := 0, 0
	for _, c := range p.Status.ContainerStatuses {
		restarts += c.RestartCount
		if c.Ready {
			ready++
		}
	}
	return []string{fmt.Sprintf("%d/%d", ready, len(p.Spec.Containers)), p.state(), strconv.Itoa(restarts)},
		[]string{orNone(p.Status.PodIP), orNone(p.Spec.NodeName)}, err
}

// state is the pod's state in a word, as kubectl finds it: its deletion, else what its init containers, else its containers are held up by,
// else its phase.
func (p *pod) state() string {
	switch s := p.initState(); {
	case p.Metadata.DeletionTimestamp != nil:
		return "Terminating"
	case s != "":
		return s
	}
	state := p.Status.Phase
	if p.Status.Reason != "" {
		state = p.Status.Reason
	}
	for _, c := range p.Status.ContainerStatuses {
		if s := c.trouble(); s != "" {
			return s
		}
	}
	return orNone(state)
}

// initState tells of the first init container that has not succeeded.
func (p *pod) initState() string {
	for i, c := range p.Status.InitContainerStatuses {
		if t := c.State.Terminated; t != nil && t.ExitCode == 0 {
			continue
		}
		if s := c.trouble(); s != "" && s != "PodInitializing" {
			return "Init:" + s
		}
		if c.State.Running != nil && c.Ready { // a sidecar
			continue
		}
		return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
	}
	return ""
}

// trouble is why a container does not run; empty while it does.
func (c containerStatus) trouble() string {
	switch w, t := c.State.Waiting, c.State.Terminated; {
	case w != nil:
		return w.Reason
	case t != nil && t.Reason != "":
		return t.Reason
	case t != nil && t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	case t != nil:
		return fmt.Sprintf("ExitCode:%d", t.ExitCode)
	}
	return ""
}

// deployment is what of a deployment its columns show.
type deployment struct {
	Spec struct {
		Replicas *int `json:"replicas"`
		Template struct {
			Spec struct {
				Containers []struct {
					Image string `json:"image"`
				} `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
	Status struct {
		ReadyReplicas     int `json:"readyReplicas"`
		UpdatedReplicas   int `json:"updatedReplicas"`
		AvailableReplicas int `json:"availableReplicas"`
	} `json:"status"`
}

func deploymentCells(text json.RawMessage, _ time.Time) (cells, wide []string, err error) {
	d, err := decode[deployment](text)
	replicas := 1 // the API's default
	if d.Spec.Replicas != nil {
		replicas = *d.Spec.Replicas
	}
	var images []string
	for _, c := range d.Spec.Template.Spec.Containers {
		images = append(images, c.Image)
	}
	s := d.Status
	return []string{fmt.Sprintf("%d/%d", s.ReadyReplicas, replicas), strconv.Itoa(s.UpdatedReplicas), strconv.Itoa(s.AvailableReplicas)},
		[]string{orNone(strings.Join(images, ","))}, err
}

func nodeCells(text json.RawMessage, _ time.Time) (cells, wide []string, err error) {
	n, err := decode[struct {
		Spec struct {
			Unschedulable bool `json:"unschedulable"`
		} `json:"spec"`
		Status struct {
			Conditions []struct{ Type, Status string } `json:"conditions"`
			NodeInfo   struct {
				KubeletVersion string `json:"kubeletVersion"`
			} `json:"nodeInfo"`
		} `json:"status"`
	}](text)
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type == "Ready" && c.Status == "True":
			state = "Ready"
		case c.Type == "Ready":
			state = "NotReady"
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	return []string{state}, []string{orNone(n.Status.NodeInfo.KubeletVersion)}, err
}

func namespaceCells(text json.RawMessage, _ time.Time) (cells, wide []string, err error) {
	n, err := decode[struct {
		Status struct {
			Phase string `json:"phase"`
		} `json:"status"`
	}](text)
	return []string{orNone(n.Status.Phase)}, nil, err
}

func eventCells(text json.RawMessage, _ time.Time) (cells, wide []string, err error) {
	e, err := decode[struct {
		Type           string                      `json:"type"`
		Reason         string                      `json:"reason"`
		Message        string                      `json:"message"`
		InvolvedObject struct{ Kind, Name string } `json:"involvedObject"`
	}](text)
	return []string{e.Type, e.Reason, strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name}, []string{e.Message}, err
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
