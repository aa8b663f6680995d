package kubetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Demo is a workload with some life in it: a small shop whose pods are rolled
// out, scaled, restarted and replaced. The same seed tells the same story, up
// to the times in it.
type Demo struct {
	// Seed selects the story.
	Seed uint64
	// Pace is the longest time between two changes of a pod, 1.8 s if 0; the
	// shortest is half of it.
	Pace time.Duration
}

// RunDemo runs the [Demo] with seed 1 at its normal pace.
func RunDemo(ctx context.Context, s *Server) error { return Demo{Seed: 1}.Run(ctx, s) }

// Run creates the workload in s and changes it until ctx ends, which is no
// error. The number of objects is bounded: about 30 pods, 60 events. The pods
// that run have logs, and a shell can be run in them; their programs are the
// server's, and end when it is closed. The caller waits for Run's return.
func (d Demo) Run(ctx context.Context, s *Server) error {
	if d.Pace == 0 {
		d.Pace = 1800 * time.Millisecond
	}
	st := newStage(s, d.Seed)
	if err := st.populate(); err != nil {
		return fmt.Errorf("populate the demo: %w", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := st.step(); err != nil {
			return fmt.Errorf("run the demo: %w", err)
		}
		timer.Reset(d.Pace/2 + time.Duration(st.random.Int64N(int64(d.Pace/2))))
	}
}

// app is a deployment of the demo.
type app struct {
	namespace, name, image string
	port, replicas         int
	least, most            int // bounds of replicas
	uid                    string
	set                    replicaSet
	release                int // counts roll-outs
	generation             int
	created                time.Time
}

// replicaSet is what a deployment's pods belong to; only its name is seen.
type replicaSet struct{ hash, uid string }

// phase is how far a pod has come.
type phase int

const (
	phaseUnscheduled phase = iota
	phaseCreating
	phaseStarting
	phaseReady
	phaseCrashed
	phaseSucceeded
	phaseTerminating
)

// pod is a pod of the demo.
type pod struct {
	app      *app // nil for a job's pod
	set      replicaSet
	name     string
	uid      string
	node     string
	ip       string
	phase    phase
	restarts int
	created  time.Time
	started  time.Time // of the container
	ended    time.Time // of the container before, if it restarted
	changed  time.Time // of readiness
	deleted  time.Time
}

func (p *pod) namespace() string {
	if p.app == nil {
		return "shop"
	}
	return p.app.namespace
}

// stage is where the demo happens. Owned by Demo.Run.
type stage struct {
	server *Server
	random *rand.Rand
	nodes  []string
	apps   []*app
	pods   []*pod
	events []key // oldest first
	jobs   int
	ips    int
}

func newStage(s *Server, seed uint64) *stage {
	return &stage{
		server: s,
		random: rand.New(rand.NewPCG(seed, 0x51)), //nolint:gosec // the same seed must tell the same story
		nodes:  []string{"node-1", "node-2", "node-3"},
		apps: []*app{
			{namespace: "kube-system", name: "coredns", image: "coredns/coredns:1.12.1", port: 53, replicas: 2, least: 2, most: 2},
			{namespace: "kube-system", name: "metrics-server", image: "metrics-server/metrics-server:v0.8.0", port: 10250, replicas: 1, least: 1, most: 1},
			{namespace: "default", name: "hello", image: "library/hello:1.4", port: 8080, replicas: 1, least: 1, most: 2},
			{namespace: "shop", name: "web", image: "shop/web:2.14", port: 8080, replicas: 3, least: 2, most: 5},
			{namespace: "shop", name: "catalog", image: "shop/catalog:1.9", port: 9000, replicas: 2, least: 2, most: 4},
			{namespace: "shop", name: "cart", image: "shop/cart:3.2", port: 9000, replicas: 2, least: 1, most: 3},
			{namespace: "shop", name: "checkout", image: "shop/checkout:5.0", port: 9000, replicas: 2, least: 2, most: 3},
			{namespace: "shop", name: "payments", image: "shop/payments:0.27", port: 9443, replicas: 1, least: 1, most: 2},
		},
	}
}

// populate creates a cluster that has been running for some days.
func (st *stage) populate() error {
	if _, err := st.server.Apply(namespace("shop")); err != nil {
		return err
	}
	for _, node := range st.nodes {
		if _, err := st.server.Apply(nodeObject(node, st.uid(), time.Now().AddDate(0, 0, -9))); err != nil {
			return err
		}
	}
	if err := st.flags(false); err != nil {
		return err
	}
	for _, a := range st.apps {
		if err := st.install(a); err != nil {
			return err
		}
	}
	return nil
}

func (st *stage) install(a *app) error {
	age := time.Duration(3+st.random.IntN(200)) * time.Hour
	a.created, a.uid, a.set, a.release, a.generation = time.Now().Add(-age), st.uid(), st.replicaSet(), 1, 1
	if _, err := st.server.Apply(serviceObject(a, st.uid(), 10+st.random.IntN(240))); err != nil {
		return err
	}
	for range a.replicas {
		p := st.newPod(a)
		p.phase, p.node, p.ip = phaseReady, st.node(), st.address()
		p.created, p.started, p.changed = a.created, a.created.Add(2*time.Second), a.created.Add(5*time.Second)
		if err := st.store(p); err != nil {
			return err
		}
	}
	return st.settle(a)
}

// step makes one thing happen to a pod: what is under way goes on, and now and
// then something new begins.
func (st *stage) step() error {
	under := st.underWay()
	if len(under) == 0 || len(under) < 4 && st.random.IntN(6) == 0 {
		return st.begin()
	}
	return under[st.random.IntN(len(under))]()
}

// underWay are the next steps of all that has begun.
func (st *stage) underWay() (steps []func() error) {
	for _, p := range st.pods {
		if p.phase != phaseReady || p.app == nil {
			steps = append(steps, func() error { return st.advance(p) })
		}
	}
	for _, a := range st.apps {
		if act := st.reconcile(a); act != nil {
			steps = append(steps, act)
		}
	}
	return steps
}

// begin starts a roll-out, a scaling, a crash or a job.
func (st *stage) begin() error {
	a := st.apps[3+st.random.IntN(len(st.apps)-3)]
	switch n := st.random.IntN(10); {
	case n < 3:
		return st.rollOut(a)
	case n < 6:
		return st.scale(a)
	case n < 8 || st.jobPods() >= 3:
		return st.crash()
	default:
		return st.startJob()
	}
}

func (st *stage) rollOut(a *app) error {
	a.set, a.release, a.generation = st.replicaSet(), a.release+1, a.generation+1
	if err := st.flags(a.release%2 == 0); err != nil {
		return err
	}
	if err := st.settle(a); err != nil {
		return err
	}
	return st.act(a)
}

// act takes the next step of a deployment that has just been changed.
func (st *stage) act(a *app) error {
	if next := st.reconcile(a); next != nil {
		return next()
	}
	return nil
}

func (st *stage) scale(a *app) error {
	replicas := a.least + st.random.IntN(a.most-a.least+1)
	if replicas == a.replicas {
		return st.crash()
	}
	a.replicas, a.generation = replicas, a.generation+1
	if err := st.settle(a); err != nil {
		return err
	}
	return st.act(a)
}

func (st *stage) crash() error {
	var ready []*pod
	for _, p := range st.pods {
		if p.phase == phaseReady && p.app != nil && p.app.namespace != "kube-system" {
			ready = append(ready, p)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	p := ready[st.random.IntN(len(ready))]
	p.phase, p.ended, p.changed = phaseCrashed, time.Now(), time.Now()
	p.restarts++
	return st.show(p, "Warning", "BackOff", "Back-off restarting failed container "+p.app.name)
}

func (st *stage) startJob() error {
	st.jobs++
	p := st.newPod(nil)
	return st.show(p, "", "", "")
}

func (st *stage) jobPods() (n int) {
	for _, p := range st.pods {
		if p.app == nil {
			n++
		}
	}
	return n
}

// reconcile is the next step towards what a deployment wants, one pod more
// than that being allowed during a roll-out; nil if it has it.
func (st *stage) reconcile(a *app) func() error {
	var fresh, old []*pod
	ready := 0
	for _, p := range st.pods {
		switch {
		case p.app != a || p.phase == phaseTerminating:
		case p.set == a.set:
			fresh = append(fresh, p)
			if p.phase == phaseReady {
				ready++
			}
		default:
			old = append(old, p)
		}
	}
	switch {
	case len(fresh) > a.replicas:
		return func() error { return st.terminate(fresh[len(fresh)-1]) }
	case len(old) > 0 && ready+len(old) > a.replicas:
		return func() error { return st.terminate(old[0]) }
	case len(fresh) < a.replicas && len(fresh)+len(old) <= a.replicas:
		return func() error { return st.show(st.newPod(a), "", "", "") }
	}
	return nil
}

// advance takes a pod to its next phase.
func (st *stage) advance(p *pod) error {
	now := time.Now()
	switch p.phase {
	case phaseUnscheduled:
		p.phase, p.node = phaseCreating, st.node()
		return st.show(p, "Normal", "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", p.namespace(), p.name, p.node))
	case phaseCreating:
		p.phase, p.ip, p.started, p.changed = phaseStarting, st.address(), now, now
		return st.show(p, "Normal", "Started", "Started container "+p.container())
	case phaseCrashed:
		p.phase, p.started = phaseStarting, now
		return st.show(p, "Normal", "Started", "Started container "+p.container())
	case phaseStarting:
		p.phase, p.changed = phaseReady, now
		return st.show(p, "", "", "")
	case phaseReady: // only a job's pod gets here
		p.phase, p.ended, p.changed = phaseSucceeded, now, now
		return st.show(p, "", "", "")
	case phaseSucceeded:
		return st.terminate(p)
	default:
		return st.remove(p)
	}
}

func (st *stage) terminate(p *pod) error {
	p.phase, p.deleted, p.changed = phaseTerminating, time.Now(), time.Now()
	return st.show(p, "Normal", "Killing", "Stopping container "+p.container())
}

func (st *stage) remove(p *pod) error {
	st.pods = slices.DeleteFunc(st.pods, func(q *pod) bool { return q == p })
	if err := st.gone(st.server.Delete("", "pods", p.namespace(), p.name)); err != nil {
		return err
	}
	return st.settle(p.app)
}

// gone forgives that somebody else has deleted an object of the demo.
func (st *stage) gone(err error) error {
	var status *Status
	if errors.As(err, &status) && status.Reason == "NotFound" {
		return nil
	}
	return err
}

// show stores the pod as it is now, its deployment's counts, and an event if
// there is a reason for one.
func (st *stage) show(p *pod, severity, reason, message string) error {
	if err := st.store(p); err != nil {
		return err
	}
	if err := st.settle(p.app); err != nil || reason == "" {
		return err
	}
	return st.report(p, severity, reason, message)
}

func (st *stage) store(p *pod) error {
	if _, err := st.server.Apply(podObject(p)); err != nil {
		return err
	}
	return st.run(p)
}

// settle stores a deployment with the counts of its pods.
func (st *stage) settle(a *app) error {
	if a == nil {
		return nil
	}
	var c replicaCounts
	for _, p := range st.pods {
		if p.app != a || p.phase == phaseTerminating {
			continue
		}
		c.total++
		if p.set == a.set {
			c.updated++
		}
		if p.phase == phaseReady {
			c.ready++
		}
	}
	_, err := st.server.Apply(deploymentObject(a, c))
	return err
}

// keptEvents bounds the events of the demo.
const keptEvents = 60

func (st *stage) report(p *pod, severity, reason, message string) error {
	name := fmt.Sprintf("%s.%016x", p.name, st.random.Uint64())
	if _, err := st.server.Apply(eventObject(p, name, st.uid(), severity, reason, message)); err != nil {
		return err
	}
	st.events = append(st.events, key{p.namespace(), name})
	if len(st.events) <= keptEvents {
		return nil
	}
	oldest := st.events[0]
	st.events = slices.Delete(st.events, 0, 1)
	return st.gone(st.server.Delete("", "events", oldest.namespace, oldest.name))
}

// flags stores the shop's feature flags.
func (st *stage) flags(on bool) error {
	_, err := st.server.Apply(Object{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "feature-flags", "namespace": "shop", "labels": map[string]any{"app.kubernetes.io/part-of": "shop"}},
		"data":     map[string]any{"express-checkout": fmt.Sprint(on), "currency": "EUR"},
	})
	return err
}

func (st *stage) newPod(a *app) *pod {
	p := &pod{app: a, uid: st.uid(), created: time.Now()}
	if a == nil {
		p.set = replicaSet{uid: st.uid()}
		p.name = fmt.Sprintf("nightly-report-%d-%s", 29400000+st.jobs, suffixFrom(st.random.IntN))
	} else {
		p.set = a.set
		p.name = a.name + "-" + a.set.hash + "-" + suffixFrom(st.random.IntN)
	}
	st.pods = append(st.pods, p)
	return p
}

func (st *stage) replicaSet() replicaSet {
	return replicaSet{suffixFrom(st.random.IntN) + suffixFrom(st.random.IntN)[:4], st.uid()}
}

func (st *stage) node() string { return st.nodes[st.random.IntN(len(st.nodes))] }

func (st *stage) address() string {
	st.ips++
	return fmt.Sprintf("10.244.%d.%d", st.ips/250%250, 2+st.ips%250)
}

func (st *stage) uid() string {
	var b [16]byte
	for i := range b {
		b[i] = byte(st.random.Uint32())
	}
	return formatUID(b)
}
