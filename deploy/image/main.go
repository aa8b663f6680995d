// Command image builds the container image of Sluice without a container engine: a static binary, the certificates of public authorities and
// a user that is not root, for each platform, in one OCI archive. The same source, Go and go.mod give the same bytes, wherever it is built.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	source    string        // folder of the main module
	out       string        // the archive
	stamp     string        // flags of the linker that say the version
	platforms []v1.Platform // of the image
}

func parse(args []string) (options, error) {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	source := f.String("source", "../..", "folder of the main module")
	out := f.String("out", "../../dist/sluice-image.tar", "the archive to write")
	stamp := f.String("stamp", "", "what tools/stamp.sh says of the source")
	platforms := f.String("platforms", "linux/amd64,linux/arm64", "platforms of the image, with commas between them")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	o := options{source: *source, out: *out, stamp: *stamp}
	for name := range strings.SplitSeq(*platforms, ",") {
		p, err := v1.ParsePlatform(name)
		if err != nil || p.OS != "linux" || p.Architecture == "" {
			return options{}, fmt.Errorf("platform %q is no linux/ARCHITECTURE", name)
		}
		o.platforms = append(o.platforms, *p)
	}
	return o, nil
}

// run builds the binaries and writes the archive; w is told what it holds and how it is loaded.
func run(ctx context.Context, args []string, w io.Writer) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	temporary, err := os.MkdirTemp("", "sluice-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	var images []platformImage
	for _, p := range o.platforms {
		b, err := compile(ctx, o, filepath.Join(temporary, p.Architecture), p)
		if err != nil {
			return err
		}
		image, err := newImage(b, o.source)
		if err != nil {
			return fmt.Errorf("put together the image for %s: %w", p, err)
		}
		images = append(images, image)
	}
	digest, err := writeArchive(o.out, images)
	if err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	return tell(w, o, images[0].binary.tag(), digest)
}

// tell says what was built and how to load it.
func tell(w io.Writer, o options, tag, digest string) error {
	info, err := os.Stat(o.out)
	if err != nil {
		return err
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `%[1]s: %[2]s, %.1[3]f MiB, index %[4]s
Load it with one of

  docker load -i %[1]s
  podman load -i %[1]s
  ctr -n k8s.io images import %[1]s
  kind load image-archive %[1]s
  skopeo copy --all oci-archive:%[1]s docker://REGISTRY/%[2]s
`, out, name+":"+tag, float64(info.Size())/(1<<20), digest)
	return err
}
