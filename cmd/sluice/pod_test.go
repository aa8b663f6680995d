package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func TestASelectorIsReadFromWhateverSelectsPods(t *testing.T) {
	for _, tc := range []struct{ selector, want string }{
		{`{"app":"web","tier":"front"}`, "app=web,tier=front"},
		{`{"matchLabels":{"app":"web"}}`, "app=web"},
		{`{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"In","values":["a","b"]},{"key":"old","operator":"DoesNotExist"}]}`, "!old,app=web,tier in (a,b)"},
		{`{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["a"]},{"key":"new","operator":"Exists"}]}`, "new,tier notin (a)"},
	} {
		if got, err := selectorText(json.RawMessage(tc.selector)); err != nil || got != tc.want {
			t.Errorf("%s: got %q, %v; want %q", tc.selector, got, err, tc.want)
		}
	}
	for _, wrong := range []string{`[]`, `{"matchExpressions":[{"key":"a","operator":"Gt","values":["1"]}]}`, `{"app":1}`} {
		if got, err := selectorText(json.RawMessage(wrong)); err == nil {
			t.Errorf("%s was read as %q", wrong, got)
		}
	}
}

// podCalled is a pod of an age in minutes.
func podCalled(name, phase string, ready bool, age int) (o podObject) {
	text := `{"metadata":{"name":"` + name + `"},"status":{"phase":"` + phase + `","conditions":[{"type":"Ready","status":"` + map[bool]string{true: "True", false: "False"}[ready] + `"}]}}`
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	o.Metadata.CreationTimestamp = time.Unix(1_000_000, 0).Add(-time.Duration(age) * time.Minute)
	return o
}

func TestThePodThatIsOfMostUseIsPreferred(t *testing.T) {
	going := podCalled("going", "Running", true, 90)
	at := time.Unix(1_000_000, 0)
	going.Metadata.DeletionTimestamp = &at
	all := []podObject{
		going, podCalled("pending", "Pending", false, 80), podCalled("unready", "Running", false, 70), podCalled("new", "Running", true, 1),
		podCalled("old-b", "Running", true, 60), podCalled("old-a", "Running", true, 60),
	}
	slices.SortFunc(all, preferred)
	var got []string
	for _, o := range all {
		got = append(got, o.Metadata.Name)
	}
	if want := "old-a old-b new unready pending going"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestADefaultContainerIsTheAnnotatedOneOrTheFirst(t *testing.T) {
	for _, tc := range []struct{ name, pod, want string }{
		{"the only one", `{"spec":{"containers":[{"name":"a"}]}}`, ""},
		{"the first", `{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`, "a"},
		{"the annotated", `{"metadata":{"annotations":{"kubectl.kubernetes.io/default-container":"b"}},"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`, "b"},
		{"annotated wrongly", `{"metadata":{"annotations":{"kubectl.kubernetes.io/default-container":"c"}},"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`, "a"},
	} {
		o, err := decode[podObject](json.RawMessage(tc.pod))
		if err != nil {
			t.Fatal(err)
		}
		if got, all := o.defaultContainer(); got != tc.want || got != "" && listed(all) != "a, b" {
			t.Errorf("%s: %q of %q", tc.name, got, all)
		}
	}
}

func TestNoFailureOfAProcessBecomesSuccess(t *testing.T) {
	for code, want := range map[int]exitError{1: 1, 130: 130, 255: 255, 256: 255, -1: 255, 512: 255, 0: 255} {
		if got := exitStatus(code); got != want {
			t.Errorf("%d became %d, want %d", code, got, want)
		}
	}
}

func TestCommandLinesThatMakeNoSenseAreRefusedWithTheOneThatDoes(t *testing.T) {
	env := isolated(t).with("SLUICE_SERVER", "127.0.0.1:1", "SLUICE_TOKEN", "token")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"no pod to exec in", []string{"exec"}, "sluice exec POD -- COMMAND"},
		{"no pod before the dashes", []string{"exec", "--", "ls"}, "sluice exec POD -- COMMAND"},
		{"no dashes", []string{"exec", "web", "ls"}, "put -- before the command: sluice exec web -- ls"},
		{"no command", []string{"exec", "web"}, "sluice exec web -- sh"},
		{"no command after the dashes", []string{"exec", "web", "--"}, "missing after --"},
		{"two pods", []string{"exec", "web", "shop", "--", "ls"}, `such as "shop"`},
		{"a policy that is none", []string{"exec", "web", "--on-detach-expiry", "kill", "--", "ls"}, "one of hang-up, leave"},
		{"no pod to attach to", []string{"attach"}, "POD is missing"},
		{"no pod whose log", []string{"logs"}, "POD is missing, or a selector: -l app=web"},
		{"a pod and a selector", []string{"logs", "web", "-l", "app=web"}, `-l and "web" contradict each other`},
		{"a selector that selects all", []string{"logs", "-l", ""}, "-l needs a selector"},
		{"all pods of a pod", []string{"logs", "web", "--all-pods"}, "--all-pods goes with TYPE/NAME"},
		{"all pods and a selector", []string{"logs", "--all-pods", "-l", "app=web"}, "contradict"},
		{"one container and all", []string{"logs", "web", "-c", "main", "--all-containers"}, "contradict"},
		{"two containers", []string{"logs", "web", "main", "-c", "side"}, `name the container once: "main"`},
		{"too many words", []string{"logs", "web", "main", "side"}, `such as "side"`},
		{"no log at once", []string{"logs", "-f", "-l", "app=web", "--max-log-requests", "0"}, "--max-log-requests 0"},
		{"two beginnings", []string{"logs", "web", "--since", "1h", "--since-time", "2026-01-02T15:04:05Z"}, "contradict"},
		{"a time to come", []string{"logs", "web", "--since", "-1h"}, "no time that has passed"},
		{"a time that is none", []string{"logs", "web", "--since-time", "yesterday"}, "2026-01-02T15:04:05Z"},
		{"no port", []string{"port-forward", "web"}, "sluice port-forward POD 8080:80"},
		{"a port that is none", []string{"port-forward", "web", "8080:"}, "such as 8080:80 or 8080:http"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, errs, code := sluice(t, env, tc.args...); code != exitUsage || out != "" || !strings.Contains(errs, tc.want) {
				t.Errorf("exit code %d, %q:\n%s", code, out, errs)
			}
		})
	}
}

func TestARefusalOfTheAPIServerSaysWhatToDo(t *testing.T) {
	refused := status.New(codes.PermissionDenied, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "pods is forbidden")
	permission := "the cluster's API server said so; ask for the permission to create (and get) pods/exec in namespace shop"
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"forbidden", refused, permission},
		{"forbidden on the way", fmt.Errorf("exec: %w", refused), permission},
		{"no such pod", status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "not found"), "`sluice watch pods -n shop` shows those there are"},
		{"the gateway's refusal", status.New(codes.PermissionDenied, sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED, "no"), hints[sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED]},
		{"success", nil, ""},
	} {
		p := &podTarget{access: access{Namespace: "shop"}}
		if got := hintOf(p.advised(tc.err, "create (and get) pods/exec")); got != tc.want {
			t.Errorf("%s: the hint is %q", tc.name, got)
		}
	}
}

func TestFlagsSayWhatAProcessGets(t *testing.T) {
	p := &podTarget{access: access{Cluster: "lab", Namespace: "shop"}, name: "web"}
	for _, tc := range []struct {
		args   []string
		policy sluicev1.DetachPolicy
	}{
		{nil, sluicev1.DetachPolicy_DETACH_POLICY_UNSPECIFIED},
		{[]string{"--on-detach-expiry", "hang-up"}, sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP},
		{[]string{"--on-detach-expiry=leave"}, sluicev1.DetachPolicy_DETACH_POLICY_LEAVE},
	} {
		cmd := &cobra.Command{Use: "test"}
		f := newProcessFlags(cmd, system{getenv: func(string) string { return "" }})
		if err := cmd.ParseFlags(tc.args); err != nil {
			t.Fatal(err)
		}
		j := joint{container: "side", tty: true}
		exec, attach := f.execRequest(p, []string{"ls", "-l"}, j), f.attachRequest(p, j)
		e, a := exec.Target, attach.Target
		if exec.Cluster != "lab" || e.GetNamespace() != "shop" || e.GetPod() != "web" || e.GetContainer() != "side" || !e.GetTty() ||
			!slices.Equal(e.GetCommand(), []string{"ls", "-l"}) || exec.OnDetachExpiry != tc.policy {
			t.Errorf("%v: exec asks for %+v", tc.args, exec)
		}
		if attach.Cluster != "lab" || a.GetNamespace() != "shop" || a.GetPod() != "web" || a.GetContainer() != "side" || !a.GetTty() || attach.OnDetachExpiry != tc.policy {
			t.Errorf("%v: attach asks for %+v", tc.args, attach)
		}
	}
}

func TestFlagsSayWhichLinesOfALog(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want *sluicev1.LogTarget
	}{
		{nil, &sluicev1.LogTarget{}},
		{[]string{"-f", "-p", "--timestamps"}, &sluicev1.LogTarget{Follow: true, Previous: true, Timestamps: true}},
		{[]string{"--tail", "0"}, &sluicev1.LogTarget{TailLines: proto.Int64(0)}},
		{[]string{"--tail=-1"}, &sluicev1.LogTarget{}},
		{[]string{"--since", "90s"}, &sluicev1.LogTarget{Since: durationpb.New(90 * time.Second)}},
		{[]string{"--since-time", "2026-01-02T15:04:05.5Z"}, &sluicev1.LogTarget{SinceTime: &timestamppb.Timestamp{Seconds: 1767366245, Nanos: 500_000_000}}},
	} {
		f, cmd := newLogsFlags(system{getenv: func(string) string { return "" }})
		if err := cmd.ParseFlags(tc.args); err != nil {
			t.Fatal(err)
		}
		if got, err := f.target(cmd); err != nil || !proto.Equal(got, tc.want) {
			t.Errorf("%v: asks for %v, %v", tc.args, got, err)
		}
	}
}
