package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// A process through the gateway as somebody writes it by hand: its streams, its half-close, its exit, and the bytes that both ends counted.
func TestAProcessOverConnect(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	for _, full := range []bool{true, false} {
		c := connect(t, r, "alice")
		if full {
			c.hello(nil)
		}
		p := c.run(executing("p", "printf ready >&2; cat; exit 7"))
		p.until(func() bool { return p.opened != nil && string(p.err) == "ready" })
		p.say("some ", "input")
		p.says("some input")
		p.say(&sluicev1.CloseSend{})
		closed, err := p.ended()
		if err != nil || closed.GetExit() == nil || closed.GetExit().GetCode() != 7 || closed.GetAborted() || closed.GetBytesIn() != 10 || closed.GetBytesOut() != 15 {
			t.Errorf("full session %v: closed by %v", full, closed)
		}
	}
	streams(t, r, 0)
}

// line is one line of the audit.
type line struct {
	Message   string `json:"msg"`
	Kind      string
	Principal struct{ Username string }
	Cluster   string
	Code      string
	Reason    string
	BytesIn   int `json:"bytes_in"`
	BytesOut  int `json:"bytes_out"`
	Exit      *int
	Target    struct {
		Namespace, Pod, Container string
		Port                      int
	}
}

// audit is what the audit says so far, by what happened.
func audit(t *testing.T, r *rig.Rig) map[string][]line {
	t.Helper()
	all := map[string][]line{}
	for text := range strings.Lines(r.Audit.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all[l.Message] = append(all[l.Message], l)
	}
	return all
}

// Every kind has its two lines in the audit, and is counted under its own name. Of what passes through it neither tells anything but its size, and
// of a process not even what it was told to do.
func TestEveryKindIsAuditedAndCounted(t *testing.T) {
	r := rig.New(t, rig.Options{})
	const secret = "xyzzy"
	ended := 0
	for kind := range targets("") {
		ended++
		runPod(t, r, kind, kubetest.Script("while read line; do echo \"> $line\"; done")) // its own: what one kind makes a pod say, another reads in its log
		o := targets(kind)[kind]
		if kind == "exec" {
			o = executing(kind, "cat; : "+secret)
		}
		c := connect(t, r, "alice")
		c.hello(nil)
		p := c.run(o)
		p.until(func() bool { return p.opened != nil })
		in, out := len(secret)+1, len(secret)+1
		switch kind {
		case "logs":
			in, out = 0, 3+len(secret)
			if err := r.Kube.WriteLog("default", kind, "main", "it "+secret[1:]+"\n"); err != nil {
				t.Fatal(err)
			}
		default:
			p.say(secret + "\n")
		}
		if kind == "attach" {
			out += 2
		}
		p.until(func() bool { return len(p.out) == out })
		if got := metric(t, r, fmt.Sprintf("sluice_channels{kind=%q}", kind)); got != "1" {
			t.Errorf("%s: %s channels are open", kind, got)
		}
		p.say(&sluicev1.Close{Reason: "enough"})
		p.until(func() bool { return p.closed != nil })
		streams(t, r, 0)
		c.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Goodbye{Goodbye: &sluicev1.Goodbye{}}})
		if err := c.end(); err != nil {
			t.Errorf("%s: Goodbye was answered with %v", kind, err)
		}
		if !eventually(t, func() bool { return len(audit(t, r)["channel closed"]) == ended }) {
			t.Fatalf("%s: the audit does not have its end", kind)
		}
		lines := audit(t, r)
		opened, closed := last(lines["channel opened"]), last(lines["channel closed"])
		for _, l := range []line{opened, closed} {
			if l.Kind != kind || l.Principal.Username != "alice" || l.Cluster != rig.Cluster || l.Target.Namespace != "default" || l.Target.Pod != kind {
				t.Errorf("%s: a line of the audit is %+v", kind, l)
			}
			if forward := kind == "port-forward"; (l.Target.Port == 80) != forward || (l.Target.Container == "main") == forward {
				t.Errorf("%s: the target in the audit is %+v", kind, l.Target)
			}
		}
		if closed.Code != codes.Canceled.String() || closed.Reason != "CLOSED_BY_PEER" || closed.BytesIn != in || closed.BytesOut != out || closed.Exit != nil {
			t.Errorf("%s: the audit says %+v of its end, want %d and %d bytes", kind, closed, in, out)
		}
		for series, want := range map[string]string{
			"sluice_channels_opened_total{kind=%q}": "1", "sluice_channels_closed_total{code=\"Canceled\",kind=%q}": "1", "sluice_channels{kind=%q}": "0",
			"sluice_channel_bytes_total{direction=\"in\",kind=%q}": fmt.Sprint(in), "sluice_channel_bytes_total{direction=\"out\",kind=%q}": fmt.Sprint(out),
		} {
			if got := metric(t, r, fmt.Sprintf(series, kind)); got != want {
				t.Errorf("%s is %s, want %s", fmt.Sprintf(series, kind), got, want)
			}
		}
	}
	c := connect(t, r, "alice")
	p := c.run(executing("exec", "exit 3"))
	p.until(func() bool { return p.closed != nil })
	c.cancel()
	if !eventually(t, func() bool { return len(audit(t, r)["channel closed"]) == ended+1 }) {
		t.Fatal("the audit does not have the end of a process")
	}
	if l := last(audit(t, r)["channel closed"]); l.Kind != "exec" || l.Exit == nil || *l.Exit != 3 || l.Code != "OK" {
		t.Errorf("of a process that exited with 3 the audit says %+v", l)
	}
	_, metrics := r.Admin("/metrics")
	for where, text := range map[string]string{"audit": r.Audit.String(), "log": r.Log.String(), "metrics": metrics} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s tells what passed: %s", where, text)
		}
	}
}

func last(all []line) line {
	if len(all) == 0 {
		return line{}
	}
	return all[len(all)-1]
}

// Every kind has the spans of its opening: by its own name, with the pod, and with nothing of what it is told to do.
func TestEveryKindIsTraced(t *testing.T) {
	r := newTraced(t, 1, rig.Options{})
	runPod(t, r.Rig, "p", nil)
	for _, o := range targets("p") {
		c := connect(t, r.Rig, "alice")
		p := c.run(o)
		p.until(func() bool { return p.opened != nil })
		c.cancel()
	}
	streams(t, r.Rig, 0)
	spans := r.spans()
	for kind := range targets("p") {
		open := named(t, spans, "open "+kind)
		if a := attributes(open); a["sluice.channel.kind"] != kind || a["k8s.namespace.name"] != "default" || a["k8s.pod.name"] != "p" {
			t.Errorf("the span of %s has %v", kind, a)
		}
		dial := named(t, spans, kind)
		if a := attributes(dial); a["http.response.status_code"] != "101" || ancestry(spans, dial)[1] != "open "+kind {
			t.Errorf("the request of %s has %v, and is of %v", kind, a, ancestry(spans, dial))
		}
	}
	for _, s := range spans {
		for name, value := range attributes(s) {
			if strings.Contains(value, "cat") && name != "rpc.method" {
				t.Errorf("%s says %s=%s", s.GetName(), name, value)
			}
		}
	}
}

// What an API server refuses is counted as refused, under the kind's name.
func TestRefusedKindsAreCounted(t *testing.T) {
	const refused = `sluice_channels_refused_total{reason="UPSTREAM_REFUSED"}`
	r := rig.New(t, rig.Options{})
	for kind, o := range targets("nobody") {
		before := metric(t, r, refused)
		c := connect(t, r, "alice")
		if closed, err := c.run(o).ended(); err == nil || err.Code != codes.NotFound || err.HTTPCode != 404 || closed.GetExit() != nil {
			t.Errorf("%s: closed by %v", kind, closed)
		}
		c.cancel()
		closed := fmt.Sprintf("sluice_channels_closed_total{code=\"NotFound\",kind=%q}", kind)
		if !eventually(t, func() bool { return metric(t, r, closed) == "1" }) {
			t.Errorf("%s is %s", closed, metric(t, r, closed))
		}
		if !eventually(t, func() bool { return metric(t, r, refused) != before }) {
			t.Errorf("%s: %s channels were refused, as before", kind, before)
		}
	}
}

// Port-forwards of a principal to one pod share the watch that tells when it is gone; those of another principal, who may see less, do not.
func TestForwardsShareTheWatchOfTheirPod(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil)
	live := func(want int) {
		t.Helper()
		if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == want }); err != nil {
			t.Fatalf("%d watches run, want %d", r.Kube.Counts().Live, want)
		}
	}
	var calls []*call
	for _, user := range []string{"alice", "bob"} {
		for range 5 {
			c := connect(t, r, user)
			p := c.run(targets("p")["port-forward"])
			p.until(func() bool { return p.opened != nil })
			calls = append(calls, c)
		}
	}
	live(2)
	for _, c := range calls[:9] { // all but one of bob's
		c.cancel()
	}
	live(1)
	if n := r.Kube.Counts().Watches; n != 2 {
		t.Errorf("%d watches were opened", n)
	}
	calls[9].cancel()
	live(0)
	streams(t, r, 0)
}
