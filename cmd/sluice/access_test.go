package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// accessOf is what a command line, an environment and a client configuration file say together.
func accessOf(t *testing.T, file string, env environment, args ...string) (access, error) {
	t.Helper()
	env = isolated(t).with(env.pairs()...)
	if file != "" {
		dir := filepath.Join(env["XDG_CONFIG_HOME"], "sluice")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "client.yaml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var a access
	var err error
	cmd := &cobra.Command{Use: "test", SilenceErrors: true, SilenceUsage: true}
	f := newAccessFlags(cmd, system{getenv: func(k string) string { return env[k] }})
	f.withCluster(cmd)
	f.withNamespace(cmd)
	cmd.RunE = func(*cobra.Command, []string) error { a, err = f.resolve(cmd); return nil }
	cmd.SetArgs(args)
	if e := cmd.Execute(); e != nil {
		return a, e
	}
	if filepath.IsAbs(a.CAFile) {
		a.CAFile = strings.TrimPrefix(a.CAFile, env["XDG_CONFIG_HOME"])
	}
	if filepath.IsAbs(a.TokenFile) {
		a.TokenFile = strings.TrimPrefix(a.TokenFile, env["XDG_CONFIG_HOME"])
	}
	return a, err
}

func (e environment) pairs() (out []string) {
	for k, v := range e {
		out = append(out, k, v)
	}
	return out
}

const clientFile = "server: file.example.org\nca_file: ca.crt\ntoken_file: token\ncluster: c-file\nnamespace: n-file\n"

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	env := environment{
		"SLUICE_SERVER": "env:1", "SLUICE_CA_FILE": "env.crt", "SLUICE_TOKEN": "env-token", "SLUICE_CLUSTER": "c-env", "SLUICE_NAMESPACE": "n-env",
	}
	for _, tc := range []struct {
		name, file string
		env        environment
		args       []string
		want       access
	}{
		{"file alone", clientFile, nil, nil, access{"file.example.org:8443", "/sluice/ca.crt", "/sluice/token", "c-file", "n-file", ""}},
		{"environment over file", clientFile, env, nil, access{"env:1", "env.crt", "", "c-env", "n-env", "env-token"}},
		{
			"flags over all", clientFile, env,
			[]string{"--server", "flag:2", "--ca-file", "flag.crt", "--token-file", "flag-token", "--cluster", "c-flag", "-n", "n-flag"},
			access{"flag:2", "flag.crt", "flag-token", "c-flag", "n-flag", ""},
		},
		{"a token flag over a token file", clientFile, nil, []string{"--token", "t"}, access{"file.example.org:8443", "/sluice/ca.crt", "", "c-file", "n-file", "t"}},
		{"no file", "", env, nil, access{"env:1", "env.crt", "", "c-env", "n-env", "env-token"}},
		{"an IPv6 address", "", env, []string{"--server", "[::1]"}, access{"[::1]:8443", "env.crt", "", "c-env", "n-env", "env-token"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := accessOf(t, tc.file, tc.env, tc.args...)
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestWhatIsMissingToReachAGatewayIsSaid(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		env        environment
		args       []string
		want       string
	}{
		{"no gateway", "", environment{"SLUICE_TOKEN": "t"}, nil, "SLUICE_SERVER"},
		{"no token", "", environment{"SLUICE_SERVER": "s"}, nil, "SLUICE_TOKEN"},
		{"two tokens in the environment", "", environment{"SLUICE_SERVER": "s", "SLUICE_TOKEN": "t", "SLUICE_TOKEN_FILE": "f"}, nil, "unset one"},
		{"two tokens in flags", "", nil, []string{"--token", "t", "--token-file", "f"}, "token-file"},
		{"an unknown field in the file", "token: secret\n", nil, nil, `unknown field "token"`},
		{"a field twice in the file", "server: a\nserver: b\n", nil, nil, "already set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := accessOf(t, tc.file, tc.env, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds a token: %v", err)
			}
		})
	}
}

func TestATokenFileIsReadAgainForEveryAttempt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	tokens := func() (string, error) {
		source, err := access{TokenFile: file}.tokens()
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte("second\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return source(t.Context())
	}
	if _, err := tokens(); err == nil {
		t.Error("a file that does not exist was accepted")
	}
	if err := os.WriteFile(file, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := tokens(); err != nil || got != "second" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhatIsNoTokenIsRefusedWithoutQuotingIt(t *testing.T) {
	for _, token := range []string{"Bearer hush", "hush\nnext", "hush\x00", "hüsh"} {
		_, err := access{token: token}.tokens()
		if err == nil {
			t.Errorf("%q was accepted", token)
			continue
		}
		if strings.Contains(err.Error(), "sh\n") || strings.Contains(err.Error(), "hush") {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
}
