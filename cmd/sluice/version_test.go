package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionIsForPeopleAndPrograms(t *testing.T) {
	out, _, code := sluice(t, isolated(t), "version")
	if code != exitOK || !strings.HasPrefix(out, "sluice ") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit code %d: %q", code, out)
	}
	out, _, _ = sluice(t, isolated(t), "version", "-o", "json")
	var b build
	if err := json.Unmarshal([]byte(out), &b); err != nil || b != thisBuild() || b.Version == "" || b.GoVersion == "" {
		t.Errorf("%v: %q", err, out)
	}
	if _, _, code := sluice(t, isolated(t), "version", "-o", "xml"); code != exitUsage {
		t.Errorf("exit code %d for xml", code)
	}
}

func TestAVersionIsWhatTheLinkerWasToldAndElseWhatGoStamped(t *testing.T) {
	of := func(version string, settings ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return info
	}
	stamped := of("v0.0.0-2026+dirty", "vcs.revision", "abc", "vcs.time", "2026-01-02T03:04:05Z", "vcs.modified", "true")
	for _, tc := range []struct {
		name       string
		info       *debug.BuildInfo
		told, want build
	}{
		{"nothing", of("(devel)"), build{}, build{Version: "devel"}},
		{"a module", of("v1.2.3"), build{}, build{Version: "v1.2.3"}},
		{"a repository", stamped, build{}, build{Version: "v0.0.0-2026+dirty", Commit: "abc", Date: "2026-01-02T03:04:05Z", Modified: true}},
		{"the linker", stamped, build{Version: "v2.0.0", Commit: "def", Date: "d"}, build{Version: "v2.0.0", Commit: "def", Date: "d"}},
		{"the linker alone", of(""), build{Version: "v2.0.0-dirty"}, build{Version: "v2.0.0-dirty", Modified: true}},
	} {
		tc.want.GoVersion, tc.want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
		if got := buildOf(tc.info, tc.told); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestABinarySaysWhatItIsStampedWith(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "version").Output()
	want := "sluice v1.2.3-dirty (" + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH +
		", commit 0123456789abcdef0123456789abcdef01234567, 2026-01-02T03:04:05Z, modified)\n"
	if err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// TestAStampIsTheCommits runs tools/stamp.sh in a repository of its own.
func TestAStampIsTheCommits(t *testing.T) {
	root := t.TempDir()
	script, err := os.ReadFile("../../tools/stamp.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "tools"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "tools", "stamp.sh"), script, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = root
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CEILING_DIRECTORIES=" + filepath.Dir(root),
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
			"GIT_AUTHOR_DATE=2026-01-02T04:04:05+01:00", "GIT_COMMITTER_DATE=2026-01-02T04:04:05+01:00",
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	want := func(when, version string) {
		t.Helper()
		pattern := `^-X main\.version=` + version + ` -X main\.commit=[0-9a-f]{40} -X main\.date=2026-01-02T03:04:05Z\n$`
		if out := run("tools/stamp.sh"); !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("%s: stamped %q, want %s", when, out, version)
		}
	}
	if out := run("tools/stamp.sh"); out != "" {
		t.Errorf("without a repository: stamped %q", out)
	}
	run("git", "init", "-q")
	run("git", "add", "tools")
	run("git", "commit", "-q", "-m", "first")
	want("before the first tag", `v0\.0\.0-20260102030405-[0-9a-f]{12}`)
	run("git", "tag", "v1.2.3")
	want("at a tag", `v1\.2\.3`)
	run("git", "commit", "-q", "--allow-empty", "-m", "second")
	want("after a tag", `v1\.2\.3-1-g[0-9a-f]+`)
	if err := os.WriteFile(filepath.Join(root, "tools", "stamp.sh"), append(script, "# changed\n"...), 0o700); err != nil {
		t.Fatal(err)
	}
	want("with changes", `v1\.2\.3-1-g[0-9a-f]+-dirty`)
}
