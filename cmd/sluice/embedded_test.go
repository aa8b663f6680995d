package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// devInProcess is `sluice dev` in this process, once it serves, and the environment of its clients.
func devInProcess(t *testing.T, args ...string) (*command, ready, environment) {
	t.Helper()
	env := isolated(t)
	file := filepath.Join(t.TempDir(), "ready.json")
	c := begin(t, env, append(append([]string{"dev", "--ready-file", file}, freePorts...), args...)...)
	c.stdout.await(t, "the last line", func(s string) bool { return strings.Contains(s, "The token lives until ") })
	r := readReady(t, file)
	return c, r, env.with("SLUICE_TOKEN", r.Token, "SLUICE_SERVER", r.GRPCAddr, "SLUICE_CA_FILE", r.CAFile)
}

func TestAClientWatchesDev(t *testing.T) {
	dev, _, env := devInProcess(t)
	t.Run("clusters", func(t *testing.T) {
		out, errs, code := sluice(t, env, "clusters")
		if want := "NAME   CREDENTIAL\ndev    passthrough\n"; out != want || errs != "" || code != exitOK {
			t.Errorf("exit code %d, %q, %q", code, out, errs)
		}
		if out, _, _ := sluice(t, env, "clusters", "-o", "json"); out != `{"name":"dev","credential":"passthrough"}`+"\n" {
			t.Errorf("as JSON: %q", out)
		}
		if out, _, _ := sluice(t, env, "clusters", "-o", "name"); out != "dev\n" {
			t.Errorf("as names: %q", out)
		}
	})
	t.Run("one namespace", func(t *testing.T) {
		w := begin(t, env.with("SLUICE_NAMESPACE", "shop"), "watch", "po", "-o", "name")
		w.stdout.await(t, "a pod", func(s string) bool { return strings.Count(s, "\n") > 5 })
		w.stop()
		if code := w.end(t); code != exitOK {
			t.Errorf("exit code %d after Ctrl-C:\n%s", code, w.stderr)
		}
		for line := range strings.Lines(w.stdout.String()) {
			if !strings.Contains(line, " pods shop/") {
				t.Errorf("of another namespace: %s", line)
			}
		}
	})
	t.Run("all namespaces over a default", func(t *testing.T) {
		w := begin(t, env.with("SLUICE_NAMESPACE", "shop"), "watch", "pods", "-A", "-o", "name")
		w.stdout.await(t, "a pod elsewhere", func(s string) bool { return strings.Contains(s, "pods kube-system/") })
	})
	t.Run("one object", func(t *testing.T) {
		for _, args := range [][]string{{"deploy", "web"}, {"deploy/web"}} {
			w := begin(t, env, append([]string{"watch", "-n", "shop", "-o", "json"}, args...)...)
			line, _, _ := strings.Cut(w.stdout.await(t, "a line", func(s string) bool { return strings.Contains(s, "\n") }), "\n")
			var ev struct {
				Type   string
				Object struct {
					Metadata struct{ Name, Namespace string }
				}
			}
			if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.Type != "ADDED" || ev.Object.Metadata.Name != "web" || ev.Object.Metadata.Namespace != "shop" {
				t.Errorf("%v: %v: %s", args, err, line)
			}
			w.stop()
			w.end(t)
		}
	})
	t.Run("labels", func(t *testing.T) {
		w := begin(t, env, "watch", "pods", "-l", "app=no-such-app")
		w.stderr.await(t, "the notice", func(s string) bool { return strings.Contains(s, "there is no such object yet") })
		if w.stdout.String() != "" {
			t.Errorf("printed %s", w.stdout)
		}
	})
	t.Run("changes only", func(t *testing.T) {
		w := begin(t, env, "watch", "pods", "--changes-only", "-o", "name")
		out := w.stdout.await(t, "a change", func(s string) bool { return strings.Count(s, "\n") >= 2 })
		if strings.Count(out, "ADDED") > 10 { // a change adds a few pods at most; more are there from the beginning
			t.Errorf("what was there already was printed:\n%s", out)
		}
	})
	dev.stop()
	if code := dev.end(t); code != exitOK {
		t.Errorf("dev: exit code %d:\n%s", code, dev.stderr)
	}
}

func TestRefusalsSayWhatHappenedAndWhatToDo(t *testing.T) {
	_, r, env := devInProcess(t)
	_, other, _ := devInProcess(t, "--token-ttl", "1h")
	idle, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := idle.Addr().String()
	idle.Close()
	for _, tc := range []struct {
		name string
		env  environment
		args []string
		code int
		want []string
	}{
		{"another issuer's token", env.with("SLUICE_TOKEN", other.Token), []string{"watch", "pods"}, exitFailed, []string{"INVALID_TOKEN", "hint: is it a token of an issuer"}},
		{"an unknown cluster", env, []string{"watch", "pods", "--cluster", "prod"}, exitFailed, []string{`"prod"`, "dev", "hint: `sluice clusters`"}},
		{"an unknown resource", env, []string{"watch", "podz"}, exitFailed, []string{`no resource "podz"; did you mean pods?`}},
		{"nobody listens", env.with("SLUICE_SERVER", nobody), []string{"clusters"}, exitFailed, []string{"Unavailable", "hint: is a gateway listening there?"}},
		{"an untrusted certificate", env.with("SLUICE_CA_FILE", other.CAFile), []string{"clusters"}, exitFailed, []string{"certificate", "--ca-file"}},
		{"no token", env.with("SLUICE_TOKEN", ""), []string{"clusters"}, exitUsage, []string{"no token", "sluice clusters --help"}},
		{"a CA file that is none", env.with("SLUICE_CA_FILE", "/dev/null"), []string{"clusters"}, exitFailed, []string{"holds none in PEM"}},
		{"a namespace for nodes", env, []string{"watch", "nodes", "-n", "shop"}, exitUsage, []string{"nodes live in no namespace"}},
		{"a name twice", env, []string{"watch", "deploy/web", "web"}, exitUsage, []string{"name the object once"}},
		{"a selector that is none", env, []string{"watch", "pods", "-l", "a b c"}, exitFailed, []string{"unable to parse requirement"}},
		{"an unknown output", env, []string{"watch", "pods", "-o", "xml"}, exitUsage, []string{"none of wide, json, name"}},
		{"no resource", env, []string{"watch"}, exitUsage, []string{"RESOURCE [NAME] is missing"}},
		{"too much", env, []string{"clusters", "dev"}, exitUsage, []string{"takes no argument"}},
		{"an unknown command", env, []string{"wach"}, exitUsage, []string{"did you mean watch?"}},
		{"a command of a later version", env, []string{"sessions"}, exitUsage, []string{`there is no command "sessions"`}},
		{"an unknown flag", env, []string{"clusters", "--clutser", "x"}, exitUsage, []string{"unknown flag: --clutser"}},
		{"a namespace and all", env, []string{"watch", "pods", "-n", "a", "-A"}, exitUsage, []string{"--namespace and --all-namespaces contradict"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, code := sluice(t, tc.env, tc.args...)
			if code != tc.code || out != "" {
				t.Errorf("exit code %d, want %d; printed %q", code, tc.code, out)
			}
			for _, want := range append(tc.want, "error: ") {
				if !strings.Contains(errs, want) {
					t.Errorf("%q is missing in:\n%s", want, errs)
				}
			}
			if strings.Contains(errs, r.Token) || strings.Contains(errs, other.Token) {
				t.Error("a token was printed")
			}
		})
	}
}

func TestAnExpiredTokenIsRefused(t *testing.T) {
	_, _, env := devInProcess(t, "--token-ttl", "1ms")
	_, errs, code := sluice(t, env, "clusters")
	if code != exitFailed || !strings.Contains(errs, "EXPIRED") || !strings.Contains(errs, "hint: get a new token") {
		t.Errorf("exit code %d:\n%s", code, errs)
	}
}

func TestDevRefusesWhatMakesNoSense(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"an address that others reach", []string{"--grpc-addr", ":8443"}, "is not on loopback"},
		{"an address that is none", []string{"--admin-addr", "9090"}, "is no HOST:PORT"},
		{"a web address that others reach", []string{"--web-addr", "0.0.0.0:0"}, "is not on loopback"},
		{"a token that never lived", []string{"--token-ttl", "0s"}, "must live for some time"},
		{"a level that is none", append([]string{"--log-level", "loud"}, freePorts...), "log level"},
		{"an argument", []string{"pods"}, "takes no argument"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, errs, code := sluice(t, isolated(t), append([]string{"dev"}, tc.args...)...); code != exitUsage || !strings.Contains(errs, tc.want) {
				t.Errorf("exit code %d:\n%s", code, errs)
			}
		})
	}
	if _, errs, code := sluice(t, isolated(t), append([]string{"dev", "--kubeconfig", "/nonexistent"}, freePorts...)...); code != exitFailed || !strings.Contains(errs, "/nonexistent") {
		t.Errorf("a kubeconfig that is not there: exit code %d:\n%s", code, errs)
	}
}

func TestTheWebPortCanBeSwitchedOff(t *testing.T) {
	c, r, _ := devInProcess(t, "--web-addr", "")
	if r.WebAddr != "" || strings.Contains(c.stdout.String(), "curl --cacert") {
		t.Errorf("ready: %+v, printed:\n%s", r, c.stdout)
	}
}

func TestAKubeconfigTakesTheEmbeddedClustersPlace(t *testing.T) {
	k := startKube(t)
	file := k.kubeconfig(t, "arn:aws:eks:eu-west-1:1:cluster/Shop", "lab")
	c, r, env := devInProcess(t, "--kubeconfig", file)
	if r.Cluster != "lab" {
		t.Errorf("the lines to paste use %q, not the current context", r.Cluster)
	}
	if !strings.Contains(c.stderr.String(), "context arn:aws:eks:eu-west-1:1:cluster/Shop is cluster shop") {
		t.Errorf("the derived name was not said:\n%s", c.stderr)
	}
	if line := printed(t, c.stdout.String(), thisCommand()); !strings.HasSuffix(line, " watch pods --cluster lab") {
		t.Errorf("printed %q", line)
	}
	out, _, _ := sluice(t, env, "clusters")
	if out != "NAME   CREDENTIAL\nlab    kubeconfig\nshop   kubeconfig\n" {
		t.Errorf("clusters: %q", out)
	}
	w := begin(t, env, "watch", "configmaps", "--cluster", "shop", "-o", "name")
	w.stdout.await(t, "the object", func(s string) bool { return s == "ADDED configmaps default/proof\n" })
}

func TestQuotedWordsAreReadBackByAShell(t *testing.T) {
	for word, want := range map[string]string{
		"/home/alice/ca.crt": "/home/alice/ca.crt", "/home/al ice/ca": "'/home/al ice/ca'", "it's": `'it'\''s'`, "": "''", "$HOME": "'$HOME'",
	} {
		if got := quoted(word); got != want {
			t.Errorf("%q is quoted %s, want %s", word, got, want)
		}
	}
}

func TestAReadyFileReplacesAnotherAndIsRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	if err := os.WriteFile(file, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	remove, err := ready{GRPCAddr: "a", CAFile: "b"}.write(file)
	if err != nil {
		t.Fatal(err)
	}
	readReady(t, file)
	text, err := os.ReadFile(file)
	if want := `{"grpcAddr":"a","webAddr":"","adminAddr":"","caFile":"b"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("wrote %q, %v", text, err)
	}
	for range 2 {
		if err := remove(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := (ready{}).write(filepath.Join(file, "no", "folder")); err == nil {
		t.Error("a file without a folder was written")
	}
}

func TestWhatTakesLongIsSaid(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	c := begin(t, isolated(t).with("SLUICE_SERVER", silent.Addr().String(), "SLUICE_TOKEN", "token"), "clusters")
	c.stderr.await(t, "the notice", func(s string) bool {
		return strings.Contains(s, "still waiting for "+silent.Addr().String()+" to list its clusters")
	})
	if took := time.Since(began); took < slow {
		t.Errorf("it was said after %v", took)
	}
	c.stop()
	c.end(t)
}
