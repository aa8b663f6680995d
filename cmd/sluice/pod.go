package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// podFlags are the flags of every command about one pod.
type podFlags struct {
	sys       system
	access    *accessFlags
	container string
}

func newPodFlags(cmd *cobra.Command, sys system) *podFlags {
	f := &podFlags{sys: sys, access: newAccessFlags(cmd, sys)}
	f.access.withCluster(cmd)
	f.access.withPodNamespace(cmd)
	cmd.ValidArgsFunction = f.access.askingWith(podWords)
	return f
}

// withContainer adds the flag --container.
func (f *podFlags) withContainer(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.container, "container", "c", "", "the container's `NAME`; without it the pod's only one, or its default")
	complete(cmd, "container", f.access.asking(containerWords))
}

// podTarget is a pod that a command is about, and the way to it.
type podTarget struct {
	access access
	client *client.Client
	n      *notices
	name   string

	of      string         // the TYPE/NAME that has selected the pod; empty if somebody has named it
	service *serviceObject // that TYPE/NAME is; nil if it is no service
}

// reach dials the gateway. The caller closes its client.
func (f *podFlags) reach(cmd *cobra.Command) (*podTarget, error) {
	a, err := f.access.resolve(cmd)
	if err != nil {
		return nil, err
	}
	a.Namespace = a.podNamespace()
	p := &podTarget{access: a, n: newNotices(f.sys.stderr)}
	if p.client, err = a.dial(p.n.session); err != nil {
		return nil, err
	}
	return p, nil
}

// named dials the gateway and finds the pod that a person means by text: POD, or TYPE/NAME. The caller closes its client.
func (f *podFlags) named(cmd *cobra.Command, text string) (*podTarget, error) {
	p, err := f.reach(cmd)
	if err != nil {
		return nil, err
	}
	if p.name, err = p.find(cmd.Context(), text); err != nil {
		return nil, errors.Join(ended(cmd.Context(), err), p.client.Close())
	}
	return p, nil
}

// ended is err, but the exit code of the signal if that is what ended a command.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return interrupted(ctx)
	}
	return err
}

// orDefault opens a channel to a container of the pod. One that is refused as a bad request while nobody has named a container is opened again
// to the pod's default: the API server knows none when there are several.
func (p *podTarget) orDefault(ctx context.Context, container string, open func(container string) error) error {
	err := open(container)
	if container != "" || !badRequest(err) {
		return err
	}
	chosen, all := p.defaultContainer(ctx)
	if chosen == "" {
		return err
	}
	p.n.sayf("container %s of %s; -c chooses another", chosen, listed(all))
	return open(chosen)
}

// badRequest reports whether the API server refused a request as one that makes no sense.
func badRequest(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && e.Reason == sluicev1.Reason_REASON_UPSTREAM_REFUSED && e.HTTPCode == 400
}

// advised adds to a refusal of the API server what to do about it: which permission is missing, or where to see the pods that there are.
func (p *podTarget) advised(err error, permission string) error {
	e, ok := errors.AsType[*status.Error](err)
	_, known := errors.AsType[hinted](err)
	switch {
	case known || !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED:
	case e.Code == codes.PermissionDenied:
		return hinted{err, fmt.Sprintf("the cluster's API server said so; ask for the permission to %s in namespace %s", permission, p.access.Namespace)}
	case e.Code == codes.NotFound:
		return hinted{err, fmt.Sprintf("`sluice watch pods -n %s` shows those there are", p.access.Namespace)}
	}
	return err
}

// gone reports whether a pod, or a container, is there no more.
func gone(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && (e.Reason == sluicev1.Reason_REASON_TARGET_GONE || e.Reason == sluicev1.Reason_REASON_UPSTREAM_REFUSED && e.Code == codes.NotFound)
}

// forbidden reports whether the API server refused for want of permission.
func forbidden(err error) bool {
	e, ok := errors.AsType[*status.Error](err)
	return ok && e.Reason == sluicev1.Reason_REASON_UPSTREAM_REFUSED && e.Code == codes.PermissionDenied
}
