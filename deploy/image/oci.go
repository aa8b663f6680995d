package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes an OCI image layout as a tar file: one index with the image of each platform. A manifest.json is in it too, so that an
// engine that knows no index can load the images, each under a tag of its own. It returns the digest of the index.
func writeArchive(out string, images []platformImage) (digest string, err error) {
	if err := os.MkdirAll(filepath.Dir(out), 0o750); err != nil {
		return "", err
	}
	f, err := os.Create(out)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := &archiveWriter{tar: tar.NewWriter(f), written: map[string]bool{}}
	digest, err = w.write(images)
	return digest, errors.Join(err, w.tar.Close())
}

// archiveWriter writes an image layout (OCI image specification 1.1, image-layout) from its leaves to its root, the root last: a file that was cut
// off is no image.
type archiveWriter struct {
	tar     *tar.Writer
	written map[string]bool // blobs, by path
}

// loaded is an image in manifest.json, as `docker save` writes it.
type loaded struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (w *archiveWriter) write(images []platformImage) (digest string, err error) {
	index := newIndex()
	var all []loaded
	for _, image := range images {
		l, manifest, err := w.image(image)
		if err != nil {
			return "", err
		}
		all = append(all, l)
		index.Manifests = append(index.Manifests, manifest)
	}
	inner, err := w.index(index)
	if err != nil {
		return "", err
	}
	tag := images[0].binary.tag()
	inner.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": tag,              // what skopeo and podman call it
		"io.containerd.image.name":          name + ":" + tag, // what containerd calls it
	}
	root := newIndex(inner)
	return inner.Digest.String(), errors.Join(w.json("manifest.json", all), w.json("index.json", root),
		w.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)))
}

func newIndex(of ...v1.Descriptor) v1.IndexManifest {
	return v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: of}
}

// image writes the layers, configuration and manifest of an image, and describes it for both kinds of reader.
func (w *archiveWriter) image(image platformImage) (loaded, v1.Descriptor, error) {
	l := loaded{RepoTags: []string{name + ":" + image.binary.tag() + "-" + image.binary.platform.Architecture}}
	m, err := image.Manifest()
	if err != nil {
		return l, v1.Descriptor{}, err
	}
	for _, d := range m.Layers {
		path, err := w.layer(image, d.Digest)
		if err != nil {
			return l, v1.Descriptor{}, err
		}
		l.Layers = append(l.Layers, path)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return l, v1.Descriptor{}, err
	}
	if l.Config, err = w.blob(m.Config.Digest, config); err != nil {
		return l, v1.Descriptor{}, err
	}
	text, err := image.RawManifest()
	if err != nil {
		return l, v1.Descriptor{}, err
	}
	manifest, err := w.described(types.OCIManifestSchema1, text)
	manifest.Platform = &image.binary.platform
	return l, manifest, err
}

func (w *archiveWriter) layer(image v1.Image, digest v1.Hash) (path string, err error) {
	layer, err := image.LayerByDigest(digest)
	if err != nil {
		return "", err
	}
	content, err := layer.Compressed()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(content)
	if err := errors.Join(err, content.Close()); err != nil {
		return "", err
	}
	return w.blob(digest, text)
}

// index writes the index of the platforms.
func (w *archiveWriter) index(index v1.IndexManifest) (v1.Descriptor, error) {
	text, err := json.Marshal(index)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return w.described(types.OCIImageIndex, text)
}

// described writes a blob that others refer to by a descriptor.
func (w *archiveWriter) described(kind types.MediaType, text []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, err
	}
	_, err = w.blob(digest, text)
	return v1.Descriptor{MediaType: kind, Digest: digest, Size: size}, err
}

// blob writes what a digest names, once.
func (w *archiveWriter) blob(digest v1.Hash, text []byte) (path string, err error) {
	path = "blobs/" + digest.Algorithm + "/" + digest.Hex
	if w.written[path] {
		return path, nil
	}
	w.written[path] = true
	return path, w.file(path, text)
}

func (w *archiveWriter) json(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.file(path, text)
}

func (w *archiveWriter) file(path string, text []byte) error {
	err := w.tar.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.tar.Write(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
