package deploy

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// built is the image of this tree for this machine's processor, which the first test that needs it builds.
var built struct {
	sync.Once
	dir string // with the archive
	err error
}

// archive is the image's archive.
func archive(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "sluice-deploy-"); built.err == nil { //nolint:usetesting // it outlives the first test
			built.err = buildImage(t, root(t), filepath.Join(built.dir, "image.tar"))
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "image.tar")
}

// buildImage builds the image of a tree as `make image` does, for one platform.
func buildImage(t *testing.T, source, out string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", ".", "-source", source, "-out", out, "-platforms", "linux/"+runtime.GOARCH)
	cmd.Dir = filepath.Join(root(t), "deploy", "image")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the image: %w\n%s", err, said)
	}
	return nil
}

// image is an image as an engine sees it.
type image struct {
	Config struct {
		User       string
		Entrypoint []string
	}
}

// load reads the archive with nothing of what wrote it, and puts the image's files below rootfs.
func load(t *testing.T, archive, rootfs string) image {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	extract(t, f, dir)
	index := descriptors(t, filepath.Join(dir, "index.json"))
	index = descriptors(t, blob(dir, index.Manifests[0].Digest))
	manifest := descriptors(t, blob(dir, index.Manifests[0].Digest))
	var i image
	decode(t, blob(dir, manifest.Config.Digest), &i)
	for _, layer := range manifest.Layers {
		f, err := os.Open(blob(dir, layer.Digest))
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		extract(t, z, rootfs)
		if err := errors.Join(z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

// description is an index or a manifest.
type description struct {
	Manifests, Layers []struct{ Digest string }
	Config            struct{ Digest string }
}

func descriptors(t *testing.T, file string) (d description) {
	t.Helper()
	decode(t, file, &d)
	return d
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func blob(dir, digest string) string {
	return filepath.Join(dir, "blobs", filepath.FromSlash(strings.Replace(digest, ":", "/", 1)))
}

// extract unpacks a tar file below dir.
func extract(t *testing.T, from io.Reader, dir string) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := unpack(r, h, filepath.Join(dir, filepath.FromSlash(h.Name))); err != nil {
			t.Fatal(err)
		}
	}
}

func unpack(r io.Reader, h *tar.Header, to string) error {
	mode := h.FileInfo().Mode()
	if mode.IsDir() {
		return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, mode.Perm()|mode&fs.ModeSticky))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// TestT_K3_TheGatewaysImageIsTheSameFromAnyFolder: the tree is copied to two folders, and the gateway's own image is built in each.
func TestT_K3_TheGatewaysImageIsTheSameFromAnyFolder(t *testing.T) {
	var sums [2]string
	for i := range sums {
		tree, out := t.TempDir(), filepath.Join(t.TempDir(), "image.tar")
		copyTree(t, tree)
		if err := buildImage(t, tree, out); err != nil {
			t.Fatal(err)
		}
		sums[i] = sum(t, out)
	}
	if sums[0] != sums[1] {
		t.Error("the same tree made two different images")
	}
}
