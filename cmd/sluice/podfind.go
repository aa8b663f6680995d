package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// find is the name of the pod that a person means: POD is that name, TYPE/NAME one of the pods that an object selects. A name alone is not
// looked up: the API server says soon enough if there is no such pod.
func (p *podTarget) find(ctx context.Context, text string) (string, error) {
	if !strings.Contains(text, "/") {
		return text, nil
	}
	name, selector, err := p.read(ctx, text)
	if err != nil || selector == "" {
		return name, err
	}
	return p.choose(ctx, text, selector)
}

// read is what TYPE/NAME says: the name of a pod, or the label selector of the pods that belong to an object.
func (p *podTarget) read(ctx context.Context, text string) (pod, selector string, err error) {
	kind, name, _ := strings.Cut(text, "/")
	if name == "" {
		return "", "", fmt.Errorf("%q names no object; TYPE/NAME is one, such as deployment/web", text)
	}
	resource, err := resolveResource(ctx, p.client, p.access, p.n, kind)
	if err != nil {
		return "", "", err
	}
	if resource.GetGroup() == "" && resource.GetResource() == "pods" {
		return name, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer p.n.waiting(p.access.Server + " to show " + text).Stop()
	selector, err = p.selectorOf(ctx, resource, name)
	return "", selector, err
}

// choose is the name of the pod that is of most use among those that an object selects.
func (p *podTarget) choose(ctx context.Context, text, selector string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer p.n.waiting(p.access.Server + " to tell the pods of " + text).Stop()
	all, err := p.pods(ctx, &sluicev1.WatchTarget{LabelSelector: selector})
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("%s has no pods in namespace %s", text, p.access.Namespace)
	}
	chosen := slices.MinFunc(all, preferred).Metadata.Name
	p.of = text
	p.n.sayf("pod %s, %s", chosen, oneOf(len(all), text))
	return chosen, nil
}

func oneOf(n int, of string) string {
	if n == 1 {
		return "the only one of " + of
	}
	return fmt.Sprintf("one of the %d of %s", n, of)
}

// selectorOf is the label selector of the pods that belong to an object.
func (p *podTarget) selectorOf(ctx context.Context, r *sluicev1.Resource, name string) (string, error) {
	t := &sluicev1.WatchTarget{Group: r.GetGroup(), Version: r.GetVersion(), Resource: r.GetResource(), Namespace: p.access.Namespace, Name: name}
	var selectors []string
	err := eachThereIs(ctx, p.client, p.access.Cluster, t, func(ev client.Event) error {
		o, err := decode[struct {
			Spec struct {
				Selector json.RawMessage `json:"selector"`
			} `json:"spec"`
		}](ev.Object)
		if err != nil || len(o.Spec.Selector) == 0 {
			return err
		}
		s, err := selectorText(o.Spec.Selector)
		selectors = append(selectors, s)
		if err != nil || qualified(r) != "services" {
			return err
		}
		service, err := decode[serviceObject](ev.Object)
		p.service = &service
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(selectors) == 0 || selectors[0] == "":
		return "", fmt.Errorf("there is no %s/%s in namespace %s that selects pods", qualified(r), name, p.access.Namespace)
	}
	return selectors[0], nil
}

// selectorText is the selector in an object's spec, a metav1.LabelSelector or a plain map of labels, as text.
func selectorText(text json.RawMessage) (string, error) {
	labels, err := decode[map[string]json.RawMessage](text)
	if err != nil {
		return "", err
	}
	var s struct {
		MatchLabels      map[string]string `json:"matchLabels"`
		MatchExpressions []struct {
			Key, Operator string
			Values        []string
		} `json:"matchExpressions"`
	}
	if labels["matchLabels"] != nil || labels["matchExpressions"] != nil {
		err = json.Unmarshal(text, &s)
	} else {
		err = json.Unmarshal(text, &s.MatchLabels)
	}
	if err != nil {
		return "", fmt.Errorf("decode the selector: %w", err)
	}
	var parts []string
	for k, v := range s.MatchLabels {
		parts = append(parts, k+"="+v)
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case "In", "NotIn":
			parts = append(parts, e.Key+" "+strings.ToLower(e.Operator)+" ("+strings.Join(e.Values, ",")+")")
		case "Exists":
			parts = append(parts, e.Key)
		case "DoesNotExist":
			parts = append(parts, "!"+e.Key)
		default:
			return "", fmt.Errorf("the selector has an operator %q that is not known", e.Operator)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ","), nil
}

// pods are those of the namespace that a target names besides.
func (p *podTarget) pods(ctx context.Context, t *sluicev1.WatchTarget) ([]podObject, error) {
	t.Version, t.Resource, t.Namespace = "v1", "pods", p.access.Namespace
	var all []podObject
	err := eachThereIs(ctx, p.client, p.access.Cluster, t, func(ev client.Event) error {
		o, err := decode[podObject](ev.Object)
		all = append(all, o)
		return err
	})
	return all, err
}

// defaultContainer is the container that is meant when nobody names one, and all there are; empty if the pod does not have several, or if it
// cannot be seen: then what the API server has said already is all there is to say.
func (p *podTarget) defaultContainer(ctx context.Context) (chosen string, all []string) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	found, err := p.pods(ctx, &sluicev1.WatchTarget{Name: p.name})
	if err != nil || len(found) == 0 {
		return "", nil
	}
	return found[0].defaultContainer()
}

// eachThereIs calls f for each object that there is: a watch begins with them.
func eachThereIs(ctx context.Context, c *client.Client, cluster string, t *sluicev1.WatchTarget, f func(client.Event) error) error {
	w := c.Watch(client.WatchRequest{Cluster: cluster, Target: t})
	defer w.Close()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if ev.State != nil {
			if ev.State.GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
				return nil
			}
			continue
		}
		if err := f(ev); err != nil {
			return err
		}
	}
}
