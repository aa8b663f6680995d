package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// noon is when the printing tests take place.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func printEvents(t *testing.T, p printer, events ...client.Event) {
	t.Helper()
	for _, ev := range events {
		if err := p.print(ev); err != nil {
			t.Fatal(err)
		}
	}
}

func event(kind, object string) client.Event {
	return client.Event{Type: kind, Object: []byte(object), Raw: []byte(`{"type":"` + kind + `","object":` + object + `}`)}
}

const webPod = `{"metadata":{"name":"web-1","namespace":"shop","creationTimestamp":"2026-11-23T11:50:00Z"},
	"spec":{"nodeName":"node-2","containers":[{},{}]},
	"status":{"phase":"Running","podIP":"10.0.0.7","containerStatuses":[{"ready":true,"restartCount":2,"state":{"running":{}}},{"ready":false,"restartCount":1,"state":{"running":{}}}]}}`

func resource(group, name string, namespaced bool) *sluicev1.Resource {
	return &sluicev1.Resource{Group: group, Version: "v1", Resource: name, Namespaced: namespaced}
}

// golden compares what is printed with what people should see; lines of want lose their indentation.
func golden(t *testing.T, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimLeft(want, "\n"), "\t", "")
	if got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

func TestPodsArePrintedAsATable(t *testing.T) {
	var out bytes.Buffer
	printEvents(t, newTablePrinter(&out, resource("", "pods", true), false, func() time.Time { return noon }),
		event("ADDED", webPod),
		event("MODIFIED", strings.Replace(webPod, `"name"`, `"deletionTimestamp":"2026-11-23T12:00:00Z","name"`, 1)),
		event("DELETED", strings.Replace(webPod, "web-1", "a-name-that-is-longer-than-the-column-was", 1)),
		event("ADDED", webPod))
	golden(t, out.String(), `
	EVENT      NAMESPACE     NAME                                   READY   STATUS              RESTARTS   AGE
	ADDED      shop          web-1                                  1/2     Running             3          10m
	MODIFIED   shop          web-1                                  1/2     Terminating         3          10m
	DELETED    shop          a-name-that-is-longer-than-the-column-was   1/2     Running             3          10m
	ADDED      shop          web-1                                       1/2     Running             3          10m
	`)
}

func TestWideAddsWhatHelpsToFindAPod(t *testing.T) {
	var out bytes.Buffer
	printEvents(t, newTablePrinter(&out, resource("", "pods", true), true, func() time.Time { return noon }), event("ADDED", webPod))
	golden(t, out.String(), `
	EVENT      NAMESPACE     NAME                                   READY   STATUS              RESTARTS   AGE     IP               NODE
	ADDED      shop          web-1                                  1/2     Running             3          10m     10.0.0.7         node-2
	`)
}

func TestOtherResourcesHaveTheirOwnColumns(t *testing.T) {
	for _, tc := range []struct {
		name     string
		resource *sluicev1.Resource
		object   string
		want     string // the second line, spaces joined
	}{
		{
			"deployments", resource("apps", "deployments", true),
			`{"metadata":{"name":"web","namespace":"shop"},"spec":{"replicas":3,"template":{"spec":{"containers":[{"image":"a:1"},{"image":"b:2"}]}}},"status":{"readyReplicas":1,"updatedReplicas":2,"availableReplicas":1}}`,
			"ADDED shop web 1/3 2 1 <unknown> a:1,b:2",
		},
		{"a deployment without replicas", resource("apps", "deployments", true), `{"metadata":{"name":"web","namespace":"shop"}}`, "ADDED shop web 0/1 0 0 <unknown> <none>"},
		{"ready nodes", resource("", "nodes", false), `{"metadata":{"name":"n"},"status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}],"nodeInfo":{"kubeletVersion":"v1.37.0"}}}`, "ADDED n Ready <unknown> v1.37.0"},
		{"cordoned nodes", resource("", "nodes", false), `{"metadata":{"name":"n"},"spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"Unknown"}]}}`, "ADDED n NotReady,SchedulingDisabled <unknown> <none>"},
		{"namespaces", resource("", "namespaces", false), `{"metadata":{"name":"shop"},"status":{"phase":"Active"}}`, "ADDED shop Active <unknown>"},
		{"events", resource("", "events", true), `{"metadata":{"name":"e","namespace":"shop"},"type":"Warning","reason":"BackOff","message":"again","involvedObject":{"kind":"Pod","name":"web-1"}}`, "ADDED shop e Warning BackOff pod/web-1 <unknown> again"},
		{"anything else", resource("example.org", "crates", false), `{"metadata":{"name":"c","creationTimestamp":"2026-11-20T12:00:00Z"}}`, "ADDED c 3d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			printEvents(t, newTablePrinter(&out, tc.resource, true, func() time.Time { return noon }), event("ADDED", tc.object))
			lines := strings.Split(out.String(), "\n")
			if got := strings.Join(strings.Fields(lines[1]), " "); got != tc.want {
				t.Errorf("printed %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAPodsStateIsWhatHoldsItUp(t *testing.T) {
	for _, tc := range []struct{ status, want string }{
		{`{"phase":"Pending"}`, "Pending"},
		{`{}`, "<none>"},
		{`{"phase":"Failed","reason":"Evicted"}`, "Evicted"},
		{`{"phase":"Running","containerStatuses":[{"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}`, "CrashLoopBackOff"},
		{`{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"reason":"OOMKilled","exitCode":137}}}]}`, "OOMKilled"},
		{`{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":3}}}]}`, "ExitCode:3"},
		{`{"phase":"Failed","containerStatuses":[{"state":{"terminated":{"exitCode":137,"signal":9}}}]}`, "Signal:9"},
		{`{"phase":"Pending","initContainerStatuses":[{"state":{"terminated":{"exitCode":0}}},{"state":{"running":{}}}]}`, "Init:1/2"},
		{`{"phase":"Pending","initContainerStatuses":[{"state":{"waiting":{"reason":"PodInitializing"}}}]}`, "Init:0/2"},
		{`{"phase":"Pending","initContainerStatuses":[{"state":{"waiting":{"reason":"ErrImagePull"}}}]}`, "Init:ErrImagePull"},
		{`{"phase":"Running","initContainerStatuses":[{"ready":true,"state":{"running":{}}}],"containerStatuses":[{"ready":true,"state":{"running":{}}}]}`, "Running"},
	} {
		p, err := decode[pod]([]byte(`{"spec":{"initContainers":[{},{}]},"status":` + tc.status + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.state(); got != tc.want {
			t.Errorf("%s is %q, want %q", tc.status, got, tc.want)
		}
	}
}

func TestJSONIsTheEventAsItCame(t *testing.T) {
	var out bytes.Buffer
	raw := `{"type":"ADDED","object":{"b":1,"a":"<\u003e","n":1e400}}`
	printEvents(t, printers["json"](&out, nil), client.Event{Raw: []byte(raw + "\n")}, client.Event{Raw: []byte(raw)})
	if got, want := out.String(), raw+"\n"+raw+"\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

func TestNamesAreOneALine(t *testing.T) {
	var out bytes.Buffer
	p := printers["name"](&out, resource("apps", "deployments", true))
	printEvents(t, p, event("ADDED", `{"metadata":{"name":"web","namespace":"shop"}}`))
	p = printers["name"](&out, resource("", "nodes", false))
	printEvents(t, p, event("DELETED", `{"metadata":{"name":"n"}}`))
	golden(t, out.String(), `
	ADDED deployments.apps shop/web
	DELETED nodes n
	`)
}

func TestNothingFromAClusterSteersTheTerminal(t *testing.T) {
	var out bytes.Buffer
	printEvents(t, newTablePrinter(&out, resource("", "events", true), true, func() time.Time { return noon }),
		event("ADDED", `{"metadata":{"name":"e","namespace":"shop"},"type":"Normal","reason":"x","message":"a\u001b]0;title\u0007b\nc\u009b2J\u202ed"}`))
	if got := out.String(); strings.ContainsAny(got, "\x1b\a\u009b\u202e") || strings.Count(got, "\n") != 2 {
		t.Errorf("printed %q", got)
	}
	var stderr bytes.Buffer
	report(errors.New("refused:\n\x1b[2Jclear"), &stderr)
	if got, want := stderr.String(), "error: refused:\n\uFFFD[2Jclear\n"; got != want {
		t.Errorf("reported %q, want %q", got, want)
	}
}

func TestAnObjectThatIsNoObjectIsAnError(t *testing.T) {
	for name, newPrinter := range printers {
		if name == "json" {
			continue // whatever came is printed
		}
		if err := newPrinter(&bytes.Buffer{}, resource("", "pods", true)).print(event("ADDED", `[]`)); err == nil {
			t.Errorf("-o %q printed it", name)
		}
	}
}

// brokenWriter refuses everything.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAWriteThatFailsEndsThePrinting(t *testing.T) {
	for name, newPrinter := range printers {
		if err := newPrinter(brokenWriter{}, resource("", "pods", true)).print(event("ADDED", webPod)); err == nil {
			t.Errorf("-o %q went on", name)
		}
	}
}

func TestAgesReadAsKubectlPrintsThem(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Minute, "0s"},
		{119 * time.Second, "119s"},
		{2 * time.Minute, "2m"},
		{5*time.Minute + 30*time.Second, "5m30s"},
		{179 * time.Minute, "179m"},
		{3*time.Hour + 20*time.Minute, "3h20m"},
		{47 * time.Hour, "47h"},
		{50 * time.Hour, "2d2h"},
		{9 * 24 * time.Hour, "9d"},
		{800 * 24 * time.Hour, "2y70d"},
		{9 * 365 * 24 * time.Hour, "9y"},
	} {
		since := noon.Add(-tc.d)
		if got := age(&since, noon); got != tc.want {
			t.Errorf("%v is %s, want %s", tc.d, got, tc.want)
		}
	}
	if got := age(nil, noon); got != "<unknown>" {
		t.Errorf("no time is %s", got)
	}
}
