//go:build unix

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// Profiles is a command that every child knows: it is given the name of a file and writes the child's CPU profile to it, until it is given
// an empty name.
const Profiles = "profile"

// profile is the CPU profile that is being written; there is one in a process.
type profile struct{ file *os.File }

// to begins to write, or ends.
func (p *profile) to(name string) (err error) {
	if name == "" {
		return p.end()
	}
	if p.file != nil {
		return errors.New("a profile is being written already")
	}
	if p.file, err = os.Create(name); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(p.file); err != nil {
		return errors.Join(fmt.Errorf("profile: %w", err), p.end())
	}
	return nil
}

func (p *profile) end() error {
	if p.file == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := p.file.Close()
	p.file = nil
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}

// Profile has the child write its CPU profile to a file until the function that is returned is called.
func (c *Child) Profile(ctx context.Context, file string) (end func() error, err error) {
	if err := c.Call(ctx, Profiles, file, nil); err != nil {
		return nil, err
	}
	return func() error { return c.Call(ctx, Profiles, "", nil) }, nil
}
