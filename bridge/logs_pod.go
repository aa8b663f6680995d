package bridge

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/status"
)

// pod is what a log needs of a Pod (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/).
type pod struct {
	Metadata struct {
		UID               string  `json:"uid"`
		DeletionTimestamp *string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		RestartPolicy       string      `json:"restartPolicy"`
		Containers          []container `json:"containers"`
		InitContainers      []container `json:"initContainers"`
		EphemeralContainers []container `json:"ephemeralContainers"`
	} `json:"spec"`
	Status struct {
		Phase                      string            `json:"phase"`
		ContainerStatuses          []containerStatus `json:"containerStatuses"`
		InitContainerStatuses      []containerStatus `json:"initContainerStatuses"`
		EphemeralContainerStatuses []containerStatus `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type container struct {
	Name               string            `json:"name"`
	RestartPolicy      string            `json:"restartPolicy"`
	RestartPolicyRules []json.RawMessage `json:"restartPolicyRules"`
}

type containerStatus struct {
	Name         string         `json:"name"`
	ContainerID  string         `json:"containerID"`
	RestartCount uint32         `json:"restartCount"`
	State        containerState `json:"state"`
	LastState    containerState `json:"lastState"`
}

type containerState struct {
	Running    *struct{}   `json:"running"`
	Terminated *terminated `json:"terminated"`
}

type terminated struct {
	ContainerID string    `json:"containerID"`
	ExitCode    int       `json:"exitCode"`
	FinishedAt  time.Time `json:"finishedAt"`
}

// standing is how a container stands, as far as the API server knows.
type standing struct {
	current  instance  // the one whose log it has
	earlier  instance  // the one before
	ended    time.Time // when that one did, cut to seconds; zero if that is not known
	running  bool
	returns  bool // it will be started again
	deleting bool // its pod is being deleted
}

// look asks for the pod.
func (g *logs) look() (*standing, error) {
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	res, err := g.up.Get(ctx, podPath(g.target.GetNamespace(), g.target.GetPod(), ""), nil)
	if err != nil {
		return nil, err
	}
	b := &body{Reader: res.Body, timeout: g.opts.BodyTimeout, limit: g.opts.ObjectBytes}
	b.timer = time.AfterFunc(b.timeout, cancel)
	defer func() {
		b.timer.Stop()
		_ = res.Body.Close() // everything of interest was read
	}()
	b.renew()
	var p pod
	if err := json.NewDecoder(b).Decode(&p); err != nil {
		return nil, lost(err)
	}
	return p.standing(g.target.GetContainer()), nil
}

// standing finds a container; the pod's only one if name is empty. One that was never started has no instance.
func (p *pod) standing(name string) *standing {
	if name == "" && len(p.Spec.Containers) == 1 {
		name = p.Spec.Containers[0].Name
	}
	s := &standing{deleting: p.Metadata.DeletionTimestamp != nil}
	for _, all := range [][]containerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range all {
			if c := &all[i]; c.Name == name {
				s.current = p.instance(c.ContainerID, c.RestartCount)
				s.running = c.State.Running != nil
				s.returns = !s.running && !s.deleting && p.restarts(c)
				if last := c.LastState.Terminated; last != nil {
					s.earlier, s.ended = p.instance(last.ContainerID, c.RestartCount-1), last.FinishedAt
				}
			}
		}
	}
	return s
}

func (p *pod) instance(id string, restarts uint32) (i instance) {
	if id == "" {
		return instance{}
	}
	copy(i.pod[:], hash(p.Metadata.UID))
	copy(i.container[:], hash(id))
	i.restarts = restarts
	return i
}

// restarts reports whether the kubelet starts a container again that has ended
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy).
func (p *pod) restarts(c *containerStatus) bool {
	if p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return false
	}
	named := func(c2 container) bool { return c2.Name == c.Name }
	policy := p.Spec.RestartPolicy
	if slices.ContainsFunc(p.Spec.EphemeralContainers, named) {
		return false
	}
	own := p.Spec.Containers
	if i := slices.IndexFunc(p.Spec.InitContainers, named); i >= 0 {
		own = p.Spec.InitContainers
		if policy == "Always" { // it is done when it has succeeded once
			policy = "OnFailure"
		}
	}
	if i := slices.IndexFunc(own, named); i >= 0 {
		if len(own[i].RestartPolicyRules) > 0 { // which of them applies is the kubelet's business: the pod's phase will tell
			return true
		}
		if own[i].RestartPolicy != "" {
			policy = own[i].RestartPolicy
		}
	}
	switch policy {
	case "Never":
		return false
	case "OnFailure":
		return lastExit(c) != 0
	}
	return true
}

// lastExit is the exit code of the container which has ended last.
func lastExit(c *containerStatus) int {
	for _, t := range []*terminated{c.State.Terminated, c.LastState.Terminated} {
		if t != nil {
			return t.ExitCode
		}
	}
	return 0
}

// identify notes whose log the first upstream brings. It is asked after the upstream was had: a container that is started anew in between is
// taken for the one after, where the position will not be found, and not for the one before, whose log would be delivered twice. A failure
// leaves it unknown until there is reason to ask again.
func (g *logs) identify() {
	if s, err := g.look(); err == nil {
		g.seen = true
		g.pos.instance = s.instanceOf(g.target.GetPrevious())
	}
}

func (s *standing) instanceOf(previous bool) instance {
	if previous {
		return s.earlier
	}
	return s.current
}

// decide finds out what the next upstream is to be asked for, if there is to be one.
func (g *logs) decide() error {
	if g.whole && !g.follows() {
		return errEnded
	}
	s, err := g.look()
	if err == nil {
		g.seen = true
		return g.proceed(s)
	}
	switch code := status.From(err).HTTPCode; {
	case code == http.StatusNotFound:
		return g.gone("the pod is gone").Wrap(err)
	case code == http.StatusForbidden && !g.seen:
		return g.proceedBlindly()
	}
	return refused(err)
}

// proceedBlindly is for callers who may see the log and not the pod: two ends in a row that bring nothing are the end.
func (g *logs) proceedBlindly() error {
	g.check = !g.follows() || g.empty > 0
	if g.whole {
		return errEnded
	}
	return nil
}

// proceed decides by how the container stands.
func (g *logs) proceed(s *standing) error {
	mine, theirs := &g.pos.instance, s.instanceOf(g.target.GetPrevious())
	switch {
	case !theirs.known() && s.deleting:
		return g.gone("the pod is being deleted")
	case !theirs.known() && g.target.GetPrevious():
		return g.gone("the container was not started anew")
	case !theirs.known():
		return g.notRunning()
	case !mine.known():
		*mine = theirs
	case mine.pod != theirs.pod:
		return g.gone("another pod has taken the place of this one")
	}
	if mine.container == theirs.container {
		if g.stage > logEnd {
			g.stage = logCurrent
		}
		return g.same(s)
	}
	if g.target.GetPrevious() {
		return g.gone("the container was started anew")
	}
	return g.succeed(s)
}

// firstRun reports whether the container has none before it, as its kubelet says, which is the first to know.
func (g *logs) firstRun() bool {
	q := url.Values{"previous": {"true"}, "limitBytes": {"1"}}
	if name := g.target.GetContainer(); name != "" {
		q.Set("container", name)
	}
	res, err := g.up.Get(g.ctx, podPath(g.target.GetNamespace(), g.target.GetPod(), "log"), q)
	if err == nil {
		_ = res.Body.Close() // that there is a log was the question
		return false
	}
	return status.From(err).HTTPCode == http.StatusBadRequest
}

// same goes on with the log of the container that it was.
func (g *logs) same(s *standing) error {
	ends := !s.running || g.target.GetPrevious()
	g.running, g.settled = s.running, !s.running && !s.returns
	if g.whole && ends {
		switch {
		case s.deleting:
			return g.gone("the pod is being deleted")
		case s.returns:
			return g.notRunning()
		}
		return errEnded
	}
	g.check = ends || !g.follows()
	return nil
}

// succeed goes on with the log of the container that has taken the place of the one it was, after the rest of that one's.
func (g *logs) succeed(s *standing) error {
	direct := s.current.restarts == g.pos.instance.restarts+1
	apart := !direct || s.earlier.known() && s.earlier.container != g.pos.instance.container
	switch {
	case apart && g.strayed && g.pos.begun():
		g.carried = true
	case !direct:
		g.tellGap("the container was started anew more than once; the logs in between are missing")
	case g.stage == logRested, g.complete() && (apart || g.before(s.ended)): // all of it was delivered
	case apart: // the new one has ended as well: its log is the only one there is
		g.tellGap("the log of the container that was started anew is gone; its last lines may be missing")
	case g.stage == logRest:
		return nil
	default:
		g.stage, g.check, g.amiss = logRest, true, 0
		return nil
	}
	g.stage, g.check, g.whole = logCurrent, !s.running || !g.follows(), false
	g.running, g.settled, g.strayed = false, false, false
	g.proper, g.empty, g.amiss, g.doubted = 0, 0, 0, time.Time{}
	if g.carried {
		g.pos.instance = s.current
		return nil
	}
	g.pos, g.virgin, g.reader.lenient = position{instance: s.current}, false, false
	g.tellRestart(g.cursors.atBeginning(&g.pos))
	return nil
}

// complete reports whether all of the log was read after its container had ended.
func (g *logs) complete() bool { return g.whole && !g.reader.spoken }

// before reports whether all that was read was written before a container ended: none of it is the next one's.
func (g *logs) before(ended time.Time) bool {
	return !g.pos.begun() || !ended.IsZero() && g.pos.newest < ended.Add(time.Second).UnixNano()
}
