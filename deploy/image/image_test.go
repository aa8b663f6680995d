package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	reference "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// small is a module with a program where the gateway's is: what is tested here is what surrounds it. test/deploy builds the real one.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"go.mod": "module example.org/small\n\ngo 1.26\n", "LICENSE": "a licence\n", "NOTICE": "a notice\n",
		"cmd/sluice/main.go": "package main\n\nimport \"net\"\n\nfunc main() { _, _ = net.LookupHost(\"small\") }\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build builds the image of a module and returns the archive.
func build(t *testing.T, source string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "sluice-image.tar")
	var told bytes.Buffer
	if err := run(t.Context(), append([]string{"-source", source, "-out", out}, args...), &told); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(told.String(), "docker load -i "+out) {
		t.Errorf("nobody is told how to load it:\n%s", &told)
	}
	return out
}

// unpacked is the folder that the archive holds.
func unpacked(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack: %v\n%s", err, out)
	}
	return dir
}

// images are those of the one index in an archive, read by other code than wrote it.
func images(t *testing.T, archive string) map[string]v1.Image {
	t.Helper()
	root, err := layout.ImageIndexFromPath(unpacked(t, archive))
	if err != nil {
		t.Fatal(err)
	}
	outer, err := root.IndexManifest()
	if err != nil || len(outer.Manifests) != 1 {
		t.Fatalf("index.json: %+v, %v", outer, err)
	}
	index, err := root.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("the index is not valid: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]v1.Image{}
	for _, d := range manifest.Manifests {
		if out[d.Platform.String()], err = index.Image(d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// contents are the files of an image.
func contents(t *testing.T, image v1.Image) map[string]*tar.Header {
	t.Helper()
	flat := mutate.Extract(image)
	defer flat.Close()
	out := map[string]*tar.Header{}
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h
	}
}

func TestTheImageIsTheSameFromAnyFolder(t *testing.T) {
	var builds [2][]byte
	for i := range builds {
		text, err := os.ReadFile(build(t, small(t)))
		if err != nil {
			t.Fatal(err)
		}
		builds[i] = text
	}
	if !bytes.Equal(builds[0], builds[1]) {
		t.Error("two folders with the same source made different images")
	}
}

func TestEachPlatformHasItsOwnProgram(t *testing.T) {
	all := images(t, build(t, small(t)))
	if len(all) != 2 {
		t.Errorf("%d images, want two", len(all))
	}
	for platform, machine := range map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64} {
		image := all[platform]
		if image == nil {
			t.Fatalf("no image for %s", platform)
		}
		c, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.OS + "/" + c.Architecture; got != platform {
			t.Errorf("the image for %s says it is for %s", platform, got)
		}
		program := read(t, image, "sluice")
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine {
			t.Errorf("the program for %s is for %s", platform, f.Machine)
		}
		if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("the program for %s needs a loader, and there is none in the image", platform)
		}
	}
}

// read is a file of an image.
func read(t *testing.T, image v1.Image, name string) []byte {
	t.Helper()
	flat := mutate.Extract(image)
	defer flat.Close()
	for r := tar.NewReader(flat); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if h.Name != name {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// TestEveryLayerEnds with the two empty blocks that end a tar file: not every reader does without.
func TestEveryLayerEnds(t *testing.T) {
	layers, err := images(t, build(t, small(t), "-platforms", "linux/amd64"))["linux/amd64"].Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		if len(text)%512 != 0 || !bytes.HasSuffix(text, make([]byte, 1024)) {
			t.Errorf("layer %d breaks off", i)
		}
	}
}

func TestTheImageHoldsWhatItNeedsAndNoMore(t *testing.T) {
	image := images(t, build(t, small(t), "-platforms", "linux/amd64"))["linux/amd64"]
	for name, mode := range map[string]fs.FileMode{"sluice": 0o755, "etc/passwd": 0o644, "etc/group": 0o644, "tmp": 0o777 | fs.ModeSticky} {
		h := contents(t, image)[name]
		if h == nil {
			t.Errorf("%s is not in the image", name)
			continue
		}
		if got := h.FileInfo().Mode() &^ fs.ModeDir; got != mode || h.Uid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: %v, uid %d, %v", name, got, h.Uid, h.ModTime)
		}
	}
	var programs []string
	for name, h := range contents(t, image) {
		if h.Typeflag == tar.TypeReg && h.Mode&0o111 != 0 {
			programs = append(programs, name)
		}
	}
	if !slices.Equal(programs, []string{"sluice"}) {
		t.Errorf("what can be run: %v", programs)
	}
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532:65532" || !slices.Equal(c.Config.Entrypoint, []string{"/sluice"}) {
		t.Errorf("configuration: %+v", c.Config)
	}
	if got := c.Config.Labels["org.opencontainers.image.licenses"]; got != "Apache-2.0" {
		t.Errorf("licence: %q", got)
	}
}

// TestTheAuthoritiesAreThoseOfTheWeb: the certificates verify as Go reads them from a file, and there are as many as a browser trusts.
func TestTheAuthoritiesAreThoseOfTheWeb(t *testing.T) {
	image := images(t, build(t, small(t), "-platforms", "linux/amd64"))["linux/amd64"]
	text := read(t, image, "etc/ssl/certs/ca-certificates.crt")
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("no certificate can be read")
	}
	if n := bytes.Count(text, []byte("BEGIN CERTIFICATE")); n < 80 {
		t.Errorf("%d authorities", n)
	}
}

// tagged is the tags in manifest.json, each of which names an image that is whole.
func tagged(t *testing.T, archive string) (tags []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(unpacked(t, archive), "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []loaded
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		tag, err := reference.NewTag(l.RepoTags[0])
		if err != nil {
			t.Fatal(err)
		}
		image, err := tarball.ImageFromPath(archive, &tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(image); err != nil {
			t.Errorf("%v: %v", l.RepoTags, err)
		}
		tags = append(tags, l.RepoTags...)
	}
	return tags
}

func TestEnginesWithoutIndexesCanLoadIt(t *testing.T) {
	if tags, want := tagged(t, build(t, small(t))), []string{"sluice:devel-amd64", "sluice:devel-arm64"}; !slices.Equal(tags, want) {
		t.Errorf("tags %v, want %v", tags, want)
	}
}

// TestTheImageSaysWhatItIsBuiltFrom, in its tag and its labels, as the program itself does.
func TestTheImageSaysWhatItIsBuiltFrom(t *testing.T) {
	archive := build(t, small(t), "-platforms", "linux/amd64", "-stamp",
		"-X main.version=v1.2.3+more -X main.commit=abc -X main.date=2026-11-23T10:00:00Z")
	c, err := images(t, archive)["linux/amd64"].ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{"version": "v1.2.3+more", "revision": "abc", "created": "2026-11-23T10:00:00Z"} {
		if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("%s is %q, want %q", label, got, want)
		}
	}
	if got := c.Created.UTC().Format(time.RFC3339); got != "2026-11-23T10:00:00Z" {
		t.Errorf("created %s", got)
	}
	if tags := tagged(t, archive); !slices.Equal(tags, []string{"sluice:v1.2.3-more-amd64"}) {
		t.Errorf("tags: %v", tags)
	}
}

func TestAStampOfSomethingElseIsRefused(t *testing.T) {
	for _, stamp := range []string{"-X main.secret=x", "-extldflags=-static", "-X main.date=today"} {
		if err := run(t.Context(), []string{"-source", small(t), "-out", filepath.Join(t.TempDir(), "x.tar"), "-stamp", stamp}, io.Discard); err == nil {
			t.Errorf("%q was taken", stamp)
		}
	}
}

func TestWhatIsNoPlatformIsRefused(t *testing.T) {
	for _, p := range []string{"", "linux", "windows/amd64", "linux/amd64,"} {
		if err := run(t.Context(), []string{"-source", small(t), "-out", filepath.Join(t.TempDir(), "x.tar"), "-platforms", p}, io.Discard); err == nil {
			t.Errorf("%q was built", p)
		}
	}
}

func TestAGatewayThatDoesNotBuildIsNoImage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.tar")
	err := run(t.Context(), []string{"-source", t.TempDir(), "-out", out}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "build the gateway for linux/amd64") {
		t.Errorf("error: %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the archive: %v", err)
	}
}
