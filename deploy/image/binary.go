package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// binary is the gateway for one platform, and what it is built from.
type binary struct {
	platform v1.Platform
	file     string
	version  string // "devel" when it was built outside of a repository
	commit   string
	created  time.Time // of the commit; 1970 without one, so that no clock gets into the image
}

// compile builds the gateway as the image has it: static, without the paths of this machine, and alike wherever it is built. The stamp is the
// linker's flags of tools/stamp.sh.
func compile(ctx context.Context, o options, dir string, p v1.Platform) (binary, error) {
	b, err := stamped(o.stamp)
	if err != nil {
		return binary{}, err
	}
	b.platform = p
	if b.file, err = filepath.Abs(filepath.Join(dir, name)); err != nil {
		return binary{}, err
	}
	flags := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w " + o.stamp, "-o", b.file, "./cmd/sluice"}
	cmd := exec.CommandContext(ctx, "go", flags...)
	cmd.Dir = o.source
	// What a user's environment would change in the binary is put back to its default.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return binary{}, fmt.Errorf("build the gateway for %s: %w\n%s", p, err, stderr.Bytes())
	}
	return b, nil
}

// stamped is a binary with what a stamp says of it: -X main.version=... -X main.commit=... -X main.date=...
func stamped(stamp string) (b binary, err error) {
	b = binary{version: "devel", created: time.Unix(0, 0).UTC()}
	for word := range strings.FieldsSeq(stamp) {
		field, value, _ := strings.Cut(word, "=")
		switch field {
		case "-X":
		case "main.version":
			b.version = value
		case "main.commit":
			b.commit = value
		case "main.date":
			if b.created, err = time.Parse(time.RFC3339, value); err != nil {
				return b, fmt.Errorf("date of the commit: %w", err)
			}
		default:
			return b, fmt.Errorf("the stamp says %q, which is no version, commit or date", word)
		}
	}
	return b, nil
}

// tag is the version as a tag may be written.
func (b *binary) tag() string { return strings.ReplaceAll(b.version, "+", "-") }
