package main

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// podObject is a pod as far as choosing one, and one of its containers or ports, needs it.
type podObject struct {
	Metadata struct {
		Name              string            `json:"name"`
		UID               string            `json:"uid"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp time.Time         `json:"creationTimestamp"`
		DeletionTimestamp *time.Time        `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Containers          []podContainer `json:"containers"`
		InitContainers      []podContainer `json:"initContainers"`
		EphemeralContainers []podContainer `json:"ephemeralContainers"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
		ContainerStatuses          []podContainerStatus `json:"containerStatuses"`
		InitContainerStatuses      []podContainerStatus `json:"initContainerStatuses"`
		EphemeralContainerStatuses []podContainerStatus `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type podContainer struct {
	Name  string    `json:"name"`
	Ports []podPort `json:"ports"`
}

type podPort struct {
	Name          string `json:"name"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

// podContainerStatus is how a container stands. Of the states the one that is not nil is the container's.
type podContainerStatus struct {
	Name         string `json:"name"`
	RestartCount int    `json:"restartCount"`
	State        struct {
		Running    *struct{} `json:"running"`
		Terminated *struct{} `json:"terminated"`
	} `json:"state"`
}

// preferred orders pods: those that stay, run and are ready before others, then the oldest, which has most to tell.
func preferred(a, b podObject) int {
	return cmp.Or(cmp.Compare(a.distance(), b.distance()), a.Metadata.CreationTimestamp.Compare(b.Metadata.CreationTimestamp),
		strings.Compare(a.Metadata.Name, b.Metadata.Name))
}

// distance is how far a pod is from being of use.
func (o podObject) distance() (d int) {
	if o.Metadata.DeletionTimestamp != nil {
		d += 4
	}
	if o.Status.Phase != "Running" {
		d += 2
	}
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return d
		}
	}
	return d + 1
}

// finished reports whether no container of the pod runs any more, or ever will.
func (o podObject) finished() bool {
	return o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed"
}

// defaultAnnotation names a pod's default container.
const defaultAnnotation = "kubectl.kubernetes.io/default-container"

// defaultContainer is the container that is meant when nobody names one, and all there are; empty if the pod does not have several.
func (o podObject) defaultContainer() (chosen string, all []string) {
	all = names(o.Spec.Containers)
	if len(all) < 2 {
		return "", nil
	}
	if annotated := o.Metadata.Annotations[defaultAnnotation]; slices.Contains(all, annotated) {
		return annotated, all
	}
	return all[0], all
}

// containers are all there are, in the order in which they run.
func (o podObject) containers() []string {
	return slices.Concat(names(o.Spec.InitContainers), names(o.Spec.Containers), names(o.Spec.EphemeralContainers))
}

func names(containers []podContainer) (all []string) {
	for _, c := range containers {
		all = append(all, c.Name)
	}
	return all
}

// hasLog reports whether a container runs or has run: before that there is no log.
func (o podObject) hasLog(container string) bool {
	for _, s := range slices.Concat(o.Status.InitContainerStatuses, o.Status.ContainerStatuses, o.Status.EphemeralContainerStatuses) {
		if s.Name == container {
			return s.State.Running != nil || s.State.Terminated != nil || s.RestartCount > 0
		}
	}
	return false
}

// ports are those that the pod's containers declare, of any protocol: the main ones' before those of init containers, which may be sidecars.
func (o podObject) ports() (all []podPort) {
	for _, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers) {
		all = append(all, c.Ports...)
	}
	return all
}

// listed is a list for people: a, b, c.
func listed(words []string) string { return strings.Join(words, ", ") }
