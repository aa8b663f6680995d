package kubetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// run lets the container of a pod of the demo run, or not, as its phase says.
func (st *stage) run(p *pod) error {
	box := st.server.node.find(key{p.namespace(), p.name}, p.uid)
	switch p.phase {
	case phaseStarting, phaseReady:
		if box == nil {
			spec := Container{Name: p.container(), Run: p.chatter(), Env: map[string]string{"POD_NAME": p.name, "POD_NAMESPACE": p.namespace()}}
			_, err := st.server.node.place(Pod{Namespace: p.namespace(), Name: p.name, Containers: []Container{spec}}, p.uid, true)
			return err
		}
		if c := box.containers[0]; c.current() == nil {
			c.startAgain()
		}
	case phaseCrashed, phaseSucceeded:
		if box != nil {
			<-box.containers[0].kill()
		}
	default: // what terminates runs until it is gone
	}
	return nil
}

// chatter is the program of the pod: it logs what it has to do, some of them
// much, some little.
func (p *pod) chatter() Program {
	name, least := p.container(), 400*time.Millisecond
	if p.app != nil && p.app.namespace == "kube-system" {
		least = time.Minute
	}
	h := fnv.New64a()
	h.Write([]byte(p.uid))
	seed := h.Sum64()
	return func(ctx context.Context, p *shell.Process) int {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // it makes up logs
		fmt.Fprintf(p.Stdout, "%s level=info msg=\"%s is listening\" pod=%s\n", logStamp(), name, p.Hostname)
		timer := time.NewTimer(least)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-ctx.Done():
				fmt.Fprintf(p.Stderr, "%s level=error msg=\"%s ends\"\n", logStamp(), name)
				return 1
			}
			fmt.Fprintln(p.Stdout, logLine(random))
			timer.Reset(least + time.Duration(random.Int64N(int64(4*least))))
		}
	}
}

func logStamp() string { return time.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// logLine makes up what a server of the shop logs.
func logLine(random *rand.Rand) string {
	paths := []string{"/", "/items", "/items/17", "/cart", "/checkout", "/healthz"}
	level, code := "info", 200
	switch random.IntN(20) {
	case 0:
		level, code = "error", 503
	case 1, 2:
		level, code = "warn", 404
	}
	return fmt.Sprintf("%s level=%s method=GET path=%s status=%d ms=%d", logStamp(), level, paths[random.IntN(len(paths))], code, 1+random.IntN(90))
}
