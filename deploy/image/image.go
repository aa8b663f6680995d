package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// name is the image's name and its program's.
const name = "sluice"

// nobody is the user of the image: a number, since a kubelet that must not run root does not trust names.
const nobody = "65532"

const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\n" + "nonroot:x:" + nobody + ":" + nobody + ":nonroot:/:/sbin/nologin\n"
	group  = "root:x:0:\n" + "nonroot:x:" + nobody + ":\n"
)

// platformImage is the image for one platform.
type platformImage struct {
	v1.Image
	binary binary
}

// newImage is a binary with the little it needs around it. Nothing is taken from another image.
func newImage(b binary, source string) (platformImage, error) {
	roots, err := authorities()
	if err != nil {
		return platformImage{}, err
	}
	base := []file{
		folder("etc/"),
		{name: "etc/group", text: []byte(group)},
		{name: "etc/passwd", text: []byte(passwd)},
		folder("etc/ssl/"),
		folder("etc/ssl/certs/"),
		{name: "etc/ssl/certs/ca-certificates.crt", text: roots},
		{name: "tmp/", mode: 0o1777},
		folder("usr/"),
		folder("usr/share/"),
		folder("usr/share/doc/"),
		folder("usr/share/doc/sluice/"),
	}
	for _, n := range []string{"LICENSE", "NOTICE"} {
		text, err := os.ReadFile(filepath.Join(source, n))
		if err != nil {
			return platformImage{}, err
		}
		base = append(base, file{name: "usr/share/doc/sluice/" + n, text: text})
	}
	program, err := os.ReadFile(b.file)
	if err != nil {
		return platformImage{}, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	for _, l := range []struct {
		by    string
		files []file
	}{
		{"certificates, users, licence", base},
		{"sluice " + b.version, []file{{name: name, text: program, mode: 0o755}}},
	} {
		if image, err = add(image, b.created, l.by, l.files); err != nil {
			return platformImage{}, err
		}
	}
	image, err = configure(image, b)
	return platformImage{image, b}, err
}

// file is an entry of a layer; a folder's name ends in a slash.
type file struct {
	name string
	text []byte
	mode int64 // 0644 if zero
}

func folder(name string) file { return file{name: name, mode: 0o755} }

// add adds a layer with the files.
func add(image v1.Image, created time.Time, by string, files []file) (v1.Image, error) {
	text, err := archive(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: by}})
}

// archive is a tar file of the files, which belong to root and have no time of their own.
func archive(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Mode: 0o644, Size: int64(len(f.text)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if f.mode != 0 {
			h.Mode = f.mode
		}
		if f.name[len(f.name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := w.Write(f.text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// configure says how the image runs, and what it is.
func configure(image v1.Image, b binary) (v1.Image, error) {
	c, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant = b.platform.OS, b.platform.Architecture, b.platform.Variant
	c.Created = v1.Time{Time: b.created}
	c.Config = v1.Config{
		Entrypoint: []string{"/" + name}, WorkingDir: "/", User: nobody + ":" + nobody,
		ExposedPorts: map[string]struct{}{"8443/tcp": {}, "8444/tcp": {}},
		Labels:       labels(b),
	}
	return mutate.ConfigFile(image, c)
}

// labels are the annotations of the OCI image specification that we can vouch for.
func labels(b binary) map[string]string {
	const prefix = "org.opencontainers.image."
	l := map[string]string{
		prefix + "title":       "Sluice",
		prefix + "description": "gRPC streaming gateway in front of Kubernetes API servers",
		prefix + "licenses":    "Apache-2.0",
		prefix + "version":     b.version,
		prefix + "created":     b.created.Format(time.RFC3339),
	}
	if b.commit != "" {
		l[prefix+"revision"] = b.commit
	}
	return l
}
