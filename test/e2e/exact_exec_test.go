package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
	"github.com/sluice-gateway/sluice/test/kube"
)

const (
	// execs is how many processes a run of the tests starts, and execsAtOnce how many of them run at a time.
	execs       = 300
	execsAtOnce = 6
	// largestOutput is the most that one writes.
	largestOutput = 20_000_000
)

// TestT_H3_NoExecIsTruncated: processes of random output, random input and random exit status. Each byte of both outputs arrives, and the exit
// status is the process's own and comes after them.
func TestT_H3_NoExecIsTruncated(t *testing.T) { execMany(t, execs) }

func execMany(t *testing.T, n int) {
	g := newGrounds(t)
	g.idle("exact-exec")
	c := g.alice()
	limit := within(t, time.Duration(n)*125*time.Millisecond+4*time.Minute)
	begin, total := time.Now(), make(chan int64, n)
	done := progress(t, n, "processes")
	if err := crowd(n, execsAtOnce, func(i int) error {
		defer done()
		size, err := g.execOne(limit, c, rand.New(rand.NewPCG(seed, uint64(i))))
		total <- size
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for range n {
		sum += <-total
	}
	t.Logf("%d processes wrote %d MB in %v", n, sum/1e6, time.Since(begin).Round(time.Millisecond))
}

// execOne runs a random process and returns how much it wrote.
func (g *grounds) execOne(ctx context.Context, c *client.Client, random *rand.Rand) (int64, error) {
	key := random.Int64N(1 << 62)
	out, errs, in, exit := logUniform(random, largestOutput), int64(0), int64(0), int64(0)
	if random.IntN(3) == 0 {
		errs, out = out, logUniform(random, 100_000)
	}
	if random.IntN(4) == 0 {
		in = logUniform(random, 1_000_000)
	}
	if random.IntN(4) > 0 {
		exit = random.Int64N(256)
	}
	stdout, stderr := seeded.NewChecker(uint64(key)), seeded.NewChecker(uint64(key)+1)
	req := client.ExecRequest{
		Cluster: upstream, Target: g.execIn("exact-exec", "pour", key, out, errs, in, exit, 0),
		Streams: client.Streams{Stdout: stdout, Stderr: stderr},
	}
	if in > 0 {
		req.Stdin = seeded.NewReader(uint64(key)+2, in)
	}
	if err := errors.Join(exitIs(c.Exec(ctx, req), exit), stdout.Whole(out), stderr.Whole(errs)); err != nil {
		return 0, fmt.Errorf("a process of %d and %d bytes, with %d of input and exit %d: %w", out, errs, in, exit, err)
	}
	return out + errs, nil
}

// exitIs fails unless err is how Exec tells of that exit status.
func exitIs(err error, want int64) error {
	if want == 0 {
		return err
	}
	exit, ok := errors.AsType[*client.ExitError](err)
	if !ok || int64(exit.Code) != want {
		return fmt.Errorf("it has ended with %w, want exit code %d", notNil(err), want)
	}
	return nil
}

var errNone = errors.New("no error")

func notNil(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// TestTwentyMegabytesThroughStdin arrive whole: their end is the end of the process's input, and their sum is what the process says. What it
// writes while it reads arrives whole too.
func TestTwentyMegabytesThroughStdin(t *testing.T) {
	const size, key, twist = 20_000_000, 11, 12
	g := newGrounds(t)
	g.idle("exact-stdin")
	c := g.alice()
	var sum bytes.Buffer
	if err := c.Exec(within(t, 3*time.Minute), client.ExecRequest{
		Cluster: upstream, Target: g.execIn("exact-stdin", "swallow"),
		Streams: client.Streams{Stdin: seeded.NewReader(key, size), Stdout: &sum},
	}); err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, seeded.NewReader(key, size)); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d %x\n", size, hash.Sum(nil)); sum.String() != want {
		t.Errorf("the process has read %q, want %q", &sum, want)
	}
	echoed := twisted(key, twist)
	if err := c.Exec(within(t, 3*time.Minute), client.ExecRequest{
		Cluster: upstream, Target: g.execIn("exact-stdin", "echo", twist),
		Streams: client.Streams{Stdin: seeded.NewReader(key, size), Stdout: echoed},
	}); err != nil {
		t.Fatal(err)
	}
	if err := echoed.Whole(size); err != nil {
		t.Error(err)
	}
}

// TestAttachWithoutAnInputIsToldTheOutput, also of a container that has an input: only the end of the process ends it.
func TestAttachWithoutAnInputIsToldTheOutput(t *testing.T) {
	g := newGrounds(t)
	g.run(kube.Pod{Name: "exact-attach", Restart: "Never", Containers: []kube.Container{{Name: "main", Stdin: true, Command: []string{g.program, "await"}}}})
	c := g.alice()
	const size, key = 3_000_000, 31
	limit := within(t, 3*time.Minute)
	out, opened := seeded.NewChecker(key), make(chan struct{})
	attach := func(streams client.Streams, told func(*sluicev1.Opened)) error {
		return c.Attach(limit, client.AttachRequest{
			Cluster: upstream, Target: &sluicev1.AttachTarget{Namespace: kube.Namespace, Pod: "exact-attach"}, Streams: streams, OnOpened: told,
		})
	}
	watched := make(chan error, 1)
	go func() {
		watched <- attach(client.Streams{Stdout: out}, func(*sluicev1.Opened) { close(opened) })
	}()
	select {
	case <-opened:
	case err := <-watched:
		t.Fatalf("who has no input is not attached: %v", err)
	}
	stdin, keys := io.Pipe()
	go func() { _, _ = fmt.Fprintf(keys, "%d %d 0 0 0 0\n", key, size) }() // fails with the attachment, which closes the other end
	said := seeded.NewChecker(key)
	if err := errors.Join(attach(client.Streams{Stdin: stdin, Stdout: said}, nil), stdin.Close()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(<-watched, said.Whole(size)); err != nil {
		t.Error(err)
	}
	if out.Count() == 0 { // that it was opened does not say since when it listens
		t.Error("who has no input was told nothing")
	}
}
