//go:build unix

// Package process runs the parts of the benchmark as processes of their own, so that each has its own CPU clock and its own memory.
//
// A parent starts its own executable with a role. Parent and child speak JSON, one value a line, over the child's standard input and output:
// the child is given its configuration, says when it is ready, and then answers one command after the other. When its input ends, so does it.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// command is what a parent asks; answer is what a child says.
type command struct {
	Name string          `json:"do"`
	With json.RawMessage `json:"with,omitempty"`
}

type answer struct {
	Value json.RawMessage `json:"ok,omitempty"`
	Error string          `json:"error,omitempty"`
}

// Usages is the command that every child knows: it answers its [Usage], unless the child knows better.
const Usages = "usage"

// Commands are what a child answers to, by name. The argument is as the parent gave it.
type Commands map[string]func(with json.RawMessage) (any, error)

// With is a command that takes an argument of a type.
func With[T any](f func(T) (any, error)) func(json.RawMessage) (any, error) {
	return func(raw json.RawMessage) (any, error) {
		var with T
		if err := json.Unmarshal(raw, &with); err != nil {
			return nil, fmt.Errorf("decode the argument: %w", err)
		}
		return f(with)
	}
}

// Serve is the child's side. begin is given the configuration and returns what the parent is told and the commands; what it started ends with
// ctx. Serve returns when the input has ended.
func Serve[C any](in io.Reader, out io.Writer, begin func(ctx context.Context, config C) (ready any, do Commands, err error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from, to := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var config C
	if err := from.Decode(&config); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	ready, do, err := begin(ctx, config)
	if err := to.Encode(answered(ready, err)); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	if err != nil {
		return err
	}
	var own profile
	do = do.with(Profiles, With(func(file string) (any, error) { return nil, own.to(file) }))
	if do[Usages] == nil {
		do = do.with(Usages, func(json.RawMessage) (any, error) { return ReadUsage(), nil })
	}
	for {
		var c command
		if err := from.Decode(&c); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read a command: %w", err)
		}
		if err := to.Encode(do.answer(c)); err != nil {
			return fmt.Errorf("answer %s: %w", c.Name, err)
		}
	}
}

// with is do and one command more.
func (do Commands) with(name string, f func(json.RawMessage) (any, error)) Commands {
	all := maps.Clone(do)
	if all == nil {
		all = Commands{}
	}
	all[name] = f
	return all
}

func (do Commands) answer(c command) answer {
	f := do[c.Name]
	if f == nil {
		return answered(nil, fmt.Errorf("no command is called %q", c.Name))
	}
	return answered(f(c.With))
}

func answered(value any, err error) answer {
	if err != nil {
		return answer{Error: err.Error()}
	}
	b, err := json.Marshal(value)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Value: b}
}

// Child is a process in a role. One goroutine at a time may use it. Whoever has one must call Stop.
type Child struct {
	role   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	errors strings.Builder // its standard error; read only after it has ended

	stopping sync.Once
	err      error // why it ended; set by stopping
}

// Start starts a child and waits until it is ready, as ready then says. env is added to the environment, as KEY=value.
func Start(ctx context.Context, role string, config, ready any, env ...string) (*Child, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the own executable: %w", err)
	}
	c := &Child{role: role, cmd: exec.Command(executable, role)}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = &c.errors
	c.in, err = c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	c.out = json.NewDecoder(bufio.NewReader(out))
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := c.exchange(ctx, config, ready); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Call has the child do something, and waits for the answer, of which to may be nil. When ctx ends before, the child is killed: what it says
// would be taken for the answer to the next command.
func (c *Child) Call(ctx context.Context, name string, with, to any) error {
	arg, err := json.Marshal(with)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", c.role, name, err)
	}
	if err := c.exchange(ctx, command{Name: name, With: arg}, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Usage is what the child has used until now.
func (c *Child) Usage(ctx context.Context) (u Usage, err error) {
	err = c.Call(ctx, Usages, nil, &u)
	return u, err
}

func (c *Child) exchange(ctx context.Context, say, to any) error {
	spare := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer spare()
	if err := json.NewEncoder(c.in).Encode(say); err != nil {
		return c.failed(ctx, err)
	}
	var a answer
	if err := c.out.Decode(&a); err != nil {
		return c.failed(ctx, err)
	}
	if a.Error != "" {
		return fmt.Errorf("%s: %s", c.role, a.Error)
	}
	if to == nil {
		return nil
	}
	if err := json.Unmarshal(a.Value, to); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", c.role, err)
	}
	return nil
}

// failed is the error of a child that does not answer.
func (c *Child) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s does not answer: %w", c.role, err)
}

// patience is how long a child may take to end.
const patience = 5 * time.Second

// Stop has the child end and waits for it. The error is its own, with what it wrote to its standard error.
func (c *Child) Stop() error {
	c.stopping.Do(func() {
		_ = c.in.Close() // it may have ended before
		kill := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
		defer kill.Stop()
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("%s: %w\n%s", c.role, err, strings.TrimSpace(c.errors.String()))
		}
	})
	return c.err
}
