package bridge

import (
	"context"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// startAttach is Start for a container's running process. It returns when the channel is done with it. That the API server reports success
// means that the process's output has ended, not how the process did: no exit is told.
func startAttach(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	t := open.GetTarget().GetAttach()
	p := newProcess(ctx, up, open, ch, opts)
	p.path = podPath(t.GetNamespace(), t.GetPod(), "attach")
	p.log = podPath(t.GetNamespace(), t.GetPod(), "log")
	if p.policy == sluicev1.DetachPolicy_DETACH_POLICY_UNSPECIFIED { // the process was there before the channel
		p.policy = sluicev1.DetachPolicy_DETACH_POLICY_LEAVE
	}
	p.query = streamsQuery(t, t.GetContainer())
	p.streams, p.joins = streamsOf(t), true
	done(p.run())
}

func validateAttach(t *sluicev1.AttachTarget) error {
	if err := validatePod("attach", t.GetNamespace(), t.GetPod(), t.GetContainer()); err != nil {
		return err
	}
	return validateStreams("attach", t)
}
