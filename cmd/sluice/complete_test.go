package main

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	transport "google.golang.org/grpc/credentials"

	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// suggested runs the command that the scripts of shells ask, and returns its words and its directive.
func suggested(t *testing.T, env environment, args ...string) (words []string, directive string) {
	t.Helper()
	out, _, code := sluice(t, env, append([]string{"__complete"}, args...)...)
	if code != exitOK {
		t.Fatalf("%q: exit code %d", args, code)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

// What a shell is to do beside offering the words.
const (
	noFiles    = ":4"
	anyFiles   = ":0"
	someFiles  = ":8"
	foldersToo = ":16"
)

func TestWordsAreCompletedWithWhatTheGatewayKnows(t *testing.T) {
	_, _, env := devInProcess(t)
	for _, tc := range []struct {
		name string
		args []string
		want []string // among others
		not  string
	}{
		{"clusters", []string{"watch", "--cluster", ""}, []string{"dev\tpassthrough"}, ""},
		{"clusters of a beginning", []string{"watch", "--cluster", "x"}, nil, "dev"},
		{"namespaces", []string{"watch", "pods", "-n", ""}, []string{"shop", "kube-system"}, ""},
		{"resources", []string{"watch", ""}, []string{"pods\tPod", "deployments.apps\tDeployment"}, "bindings"},
		{"resources of a beginning", []string{"watch", "dep"}, []string{"deployments.apps\tDeployment"}, "pods"},
		{"names", []string{"watch", "deploy", "-n", "shop", ""}, []string{"web\tshop"}, ""},
		{"names of a beginning", []string{"watch", "deploy", "-n", "shop", "we"}, []string{"web\tshop"}, "cart"},
		{"names elsewhere", []string{"watch", "deploy", "-n", "default", ""}, nil, "web"},
		{"names of no resource", []string{"watch", "podz", ""}, nil, ""},
		{"nothing after a name", []string{"watch", "deploy", "web", ""}, nil, "web"},
		{"no such cluster", []string{"watch", "--cluster", "prod", ""}, nil, "pods"},
		{"pods", []string{"logs", ""}, []string{"shell\tdefault", "talker\tdefault"}, "web-"},
		{"containers after a pod", []string{"logs", "talker", ""}, []string{"main\ttalker", "quiet\ttalker"}, ""},
		{"objects that have pods", []string{"logs", "-n", "shop", "deploy/"}, []string{"deploy/web\tshop", "deploy/cart\tshop"}, "web"},
		{"objects of a beginning", []string{"exec", "-n", "shop", "svc/we"}, []string{"svc/web\tshop"}, "svc/cart"},
		{"objects of no resource", []string{"attach", "podz/"}, nil, "podz"},
		{"containers of an object's pods", []string{"exec", "-n", "kube-system", "deploy/coredns", "-c", ""}, nil, "main"},
		{"ports of a service", []string{"port-forward", "-n", "shop", "service/web", ""}, []string{"8080\tmain"}, ""},
		{"ports of a deployment's pods", []string{"port-forward", "-n", "shop", "deploy/cart", ""}, []string{"9000\tcart"}, ""},
		{"pods elsewhere", []string{"exec", "-n", "shop", ""}, []string{}, "shell"},
		{"nothing after a pod", []string{"attach", "shell", ""}, nil, "talker"},
		{"containers", []string{"logs", "talker", "-c", ""}, []string{"main\ttalker", "quiet\ttalker"}, ""},
		{"containers of no pod yet", []string{"exec", "-c", ""}, []string{"quiet\ttalker"}, ""},
		{"pods to forward to", []string{"port-forward", ""}, []string{"web\tdefault"}, ""},
		{"policies", []string{"exec", "--on-detach-expiry", ""}, []string{"leave\tlet it be"}, ""},
		{"forms", []string{"watch", "-o", ""}, []string{"wide\ta table with more columns"}, ""},
		{"levels", []string{"dev", "--log-level", ""}, []string{"debug", "error"}, ""},
		{"shells", []string{"completion", ""}, []string{"bash", "zsh", "fish", "powershell"}, ""},
		{"commands", []string{"w"}, []string{"watch\tFollow the objects of a resource: those there are, then every change"}, "serve"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			words, directive := suggested(t, env, tc.args...)
			for _, want := range tc.want {
				if !slices.Contains(words, want) {
					t.Errorf("%q is missing in %q", want, words)
				}
			}
			if tc.not != "" && slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, tc.not) }) {
				t.Errorf("%q is among %q", tc.not, words)
			}
			if directive != noFiles {
				t.Errorf("directive %s", directive)
			}
		})
	}
}

func TestPortsAreCompletedWithThoseThatAPodNames(t *testing.T) {
	k := startKube(t)
	if _, err := k.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "many", "namespace": "default"},
		"spec": map[string]any{"containers": []any{
			map[string]any{"name": "web", "ports": []any{map[string]any{"containerPort": 8080, "name": "http"}, map[string]any{"containerPort": 53, "protocol": "UDP"}}},
			map[string]any{"name": "side", "ports": []any{map[string]any{"containerPort": 9090, "protocol": "TCP"}}},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	_, _, env := devInProcess(t, "--kubeconfig", k.kubeconfig(t, "lab"))
	for _, pod := range []string{"many", "pod/many"} {
		if words, directive := suggested(t, env, "port-forward", pod, ""); !slices.Equal(words, []string{"8080\tweb http", "9090\tside"}) || directive != noFiles {
			t.Errorf("%s: offered %q, %s", pod, words, directive)
		}
	}
}

func TestOnlyWhatCanBeWatchedIsOffered(t *testing.T) {
	words := resourceWords(served())
	if !slices.Contains(words, "crates.shop.example.org\tCrate") || slices.Contains(words, "bindings\tBinding") {
		t.Errorf("offered %q", words)
	}
}

func TestFilesAreCompletedWhereFilesBelong(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--config", ""}, someFiles},
		{[]string{"dev", "--kubeconfig", ""}, anyFiles},
		{[]string{"watch", "--token-file", ""}, anyFiles},
		{[]string{"man", ""}, foldersToo},
		{[]string{"version", ""}, noFiles},
		{[]string{"watch", "--server", ""}, noFiles},
	} {
		if _, got := suggested(t, isolated(t), tc.args...); got != tc.want {
			t.Errorf("%q: directive %s, want %s", tc.args, got, tc.want)
		}
	}
}

// startSilent is a gateway that takes every call and never answers one.
func startSilent(t *testing.T) (env environment) {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	config, err := devCertificate(ca)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(transport.NewTLS(config)), grpc.UnknownServiceHandler(func(_ any, call grpc.ServerStream) error {
		<-call.Context().Done()
		return call.Context().Err()
	}))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return isolated(t).with("SLUICE_SERVER", l.Addr().String(), "SLUICE_TOKEN", "token", "SLUICE_CA_FILE", ca)
}

func TestAGatewayThatDoesNotAnswerCompletesNothing(t *testing.T) {
	silent := startSilent(t)
	for name, env := range map[string]environment{
		"no settings": isolated(t), "silent": silent, "no certificates": silent.with("SLUICE_CA_FILE", "/nonexistent"),
	} {
		out, errs, code := sluice(t, env, "__complete", "watch", "--cluster", "")
		if code != exitOK || out != noFiles+"\n" || strings.Contains(errs, "sluice:") || strings.Contains(errs, "error") {
			t.Errorf("%s: exit code %d, %q, %q", name, code, out, errs)
		}
	}
}

// bashWords has bash complete a command line with the script, and returns the words that it offers. What the package bash-completion would do
// with the line is done by the function beside it.
const bashWords = `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
source <(sluice completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=63
__start_sluice 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"`

func TestBashCompletesWithTheScript(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	_, r, _ := devInProcess(t)
	env := environment{
		"PATH": strings.TrimSuffix(path, "/sluice") + ":/usr/bin:/bin", "SLUICE_TOKEN": r.Token, "SLUICE_SERVER": r.GRPCAddr, "SLUICE_CA_FILE": r.CAFile,
	}
	for _, tc := range []struct{ line, want string }{
		{"sluice wat", "watch"},
		{"sluice watch dep", "deployments.apps"},
		{"sluice watch --cluster d", "dev"},
		{"sluice watch pods --namespace sho", "shop"},
		{"sluice version --ou", "--output"},
	} {
		p := start(t, env, nil, "/bin/bash", append([]string{"-c", bashWords, "bash"}, strings.Fields(tc.line)...)...)
		if code := p.end(t, patience); code != exitOK {
			t.Errorf("%s: exit code %d:\n%s", tc.line, code, p.stderr)
		}
		words := strings.Fields(p.stdout.String())
		if len(words) == 0 || words[0] != tc.want {
			t.Errorf("%s: bash offers %q, want %s\n%s", tc.line, words, tc.want, p.stderr)
		}
	}
}

func TestEveryShellHasAScript(t *testing.T) {
	for shell, want := range map[string]string{
		"bash": "complete -o default -F __start_sluice sluice", "zsh": "#compdef sluice", "fish": "complete -c sluice", "powershell": "Register-ArgumentCompleter",
	} {
		if out, errs, code := sluice(t, isolated(t), "completion", shell); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %s", shell, code, errs)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if _, errs, code := sluice(t, isolated(t), args...); code != exitUsage || !strings.Contains(errs, "bash, zsh, fish, powershell") {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
	}
}
