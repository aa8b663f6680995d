package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
	"github.com/sluice-gateway/sluice/test/kube"
)

// storm is one session with channels of every kind while its link is cut again and again. Both directions of each are seeded.
type storm struct {
	name                                               string // of its pods and namespaces
	watches, logs, shells, terminals, echoes, forwards int
	cuts                                               int
	between                                            time.Duration // from one cut to the next, at the most
	upstreams                                          bool          // are cut too

	// Set by run.
	*grounds
	sdk  *client.Client
	ses  sessions
	line *relay

	mu     sync.Mutex
	passed map[string]int64 // what was checked, by what it is. Guarded by mu.
}

// lives is how long a storm may last beyond its cuts.
const lives = 3 * time.Minute

// TestOneStreamCarriesEverythingThroughCuts: 50 watches, 20 logs, 10 shells of which two have a terminal, two processes that echo what they are
// poured and 10 forwarded ports in one session, whose TCP is reset every second. Every byte is checked on both sides; no process notices.
func TestOneStreamCarriesEverythingThroughCuts(t *testing.T) {
	(&storm{name: "storm", watches: 50, logs: 20, shells: 8, terminals: 2, echoes: 2, forwards: 10, cuts: 11, between: time.Second}).run(t)
}

// TestT_H1_T_H2_EveryCutIsHarmless: as many cuts as there is time for, at any byte. Nothing is lost, and nothing is heard twice: a shell ends when
// a line of its input is not the next one.
func TestT_H1_T_H2_EveryCutIsHarmless(t *testing.T) {
	(&storm{name: "cuts", logs: 2, shells: 2, terminals: 1, echoes: 2, forwards: 2, cuts: 60, between: 100 * time.Millisecond}).run(t)
}

// TestT_H5_LogsOutliveTheirUpstreams: not only the link is cut, but all that the gateway has open to the API server. Logs go on in the middle of a
// line; many lines have one time, and some are longer than what a container runtime writes at once.
func TestT_H5_LogsOutliveTheirUpstreams(t *testing.T) {
	(&storm{name: "loglines", logs: 10, cuts: 10, between: 400 * time.Millisecond, upstreams: true}).run(t)
}

// TestT_E2_WatchesOutliveTheirTimeouts: an API server that ends each watch after a second or two, as one does after some minutes. Nothing is
// missing, nothing comes twice, nothing is listed again.
func TestT_E2_WatchesOutliveTheirTimeouts(t *testing.T) {
	const watches = 20
	g := &grounds{setup: setupOf(t, kube.New(t, kube.Options{APIServerArgs: []string{"--min-request-timeout=1"}}))}
	s := &storm{name: "timeouts", watches: watches, grounds: g, sdk: g.alice()}
	ended := func(all []kube.Request) (n int) {
		for _, r := range all {
			if strings.Contains(r.RawQuery, "watch=true") && r.Ended {
				n++
			}
		}
		return n
	}
	s.amongWatches(func() error {
		return s.api.Await(within(t, 3*time.Minute), func(all []kube.Request) bool { return ended(all) >= 5*watches })
	})
	t.Logf("%d watches have ended; checked: %v", ended(s.api.Requests()), s.passed)
}

func (s *storm) run(t *testing.T) {
	s.grounds = newGrounds(t)
	s.line = newRelay(t, s.Server.GRPCAddr().String())
	s.sdk = s.alice(func(c *client.Config) { c.Address, c.OnState = s.line.addr(), s.ses.on })
	s.idle(s.name)
	s.serve(s.name + "-web")
	s.talkers()
	limit := within(t, time.Duration(s.cuts)*(s.between+time.Second/2)+lives)
	storm, calm := context.WithCancel(limit)
	defer calm()

	errs := make(chan error, s.logs+s.shells+s.terminals+s.echoes+s.forwards)
	var all sync.WaitGroup
	start := func(kind string, n int, do func(ctx, storm context.Context, i int) error) {
		for i := range n {
			all.Go(func() {
				if err := do(limit, storm, i); err != nil {
					errs <- fmt.Errorf("%s %d: %w", kind, i, err)
				}
			})
		}
	}
	start("log", s.logs, s.log)
	start("shell", s.shells, func(ctx, storm context.Context, i int) error { return s.shell(ctx, storm, i, false) })
	start("terminal", s.terminals, func(ctx, storm context.Context, i int) error { return s.shell(ctx, storm, 1000+i, true) })
	start("echo", s.echoes, s.echo)
	start("forward", s.forwards, s.forward)
	s.amongWatches(func() error {
		defer calm()
		return s.cut(limit)
	})
	calm()
	err := s.silence(limit)
	all.Wait()
	close(errs)
	for failed := range errs {
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Error(err)
	}
	s.report()
}

// amongWatches does something while s.watches watches are told of changes, each once and in order.
func (s *storm) amongWatches(do func() error) {
	if s.watches == 0 {
		if err := do(); err != nil {
			s.t.Error(err)
		}
		return
	}
	namespaces := []string{s.name + "-a", s.name + "-b"}
	w := newWriter(s.t, s.cluster, seed, 4, namespaces...)
	limit := within(s.t, 2*time.Minute)
	if err := w.all(limit); err != nil {
		s.t.Fatal(err)
	}
	var all []*follower
	for _, sel := range selections(s.watches, namespaces) {
		all = append(all, follow(s.sdk, upstream, sel))
	}
	if err := each(all, func(f *follower) error { return f.until(limit, func() bool { return f.list == nil }) }); err != nil {
		s.t.Fatal(err)
	}
	meanwhile(s.t, w, all, do)
	for _, f := range all {
		if resyncs, err := judge(f.selection, w.history, f.told); err != nil || resyncs > 0 {
			s.t.Errorf("watch %v: %d resyncs, %v", f.selection, resyncs, err)
		}
		if err := w.checkList(s.t.Context(), f.selection, f.fold); err != nil {
			s.t.Error(err)
		}
	}
	s.count("watch events", int64(count(all, "")))
}

// cut cuts the link s.cuts times, at a random byte.
func (s *storm) cut(ctx context.Context) error {
	random := rand.New(rand.NewPCG(seed, 4))
	done := progress(s.t, s.cuts, "cuts")
	for s.line.count() < s.cuts {
		if err := pause(ctx, time.Duration(float64(s.between)*(0.5+random.Float64()/2))); err != nil {
			return err
		}
		if err := s.ses.awaitConnected(ctx); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, s.between/2)
		select {
		case <-s.line.cutAfter(random.IntN(128 << 10)):
		case <-soon.Done():
			s.line.cut()
		}
		cancel()
		if s.upstreams {
			s.api.CutAll()
		}
		done()
	}
	return s.ses.awaitConnected(ctx)
}

// containers are the talkers' containers: each is followed by two logs.
func (s *storm) containers() int { return (s.logs + 1) / 2 }

func (s *storm) talkers() {
	p := kube.Pod{Name: s.name + "-talkers", Restart: "Never"}
	for i := range s.containers() {
		p.Containers = append(p.Containers, kube.Container{
			Name: fmt.Sprintf("talker-%d", i), Stdin: true, Command: []string{s.program, "talk", fmt.Sprint(logKey + i), fmt.Sprint(3000 + 1000*(i%5))},
		})
	}
	s.grounds.run(p)
}

// Keys of the streams of a storm.
const (
	logKey = 1000 * (1 + iota)
	shellKey
	echoKey
	forwardKey
	twistKey
)

// silence tells the talkers to end, by attaching to them.
func (s *storm) silence(ctx context.Context) error {
	return crowd(s.containers(), 4, func(i int) error {
		stdin, keys := io.Pipe()
		go func() { _, _ = keys.Write([]byte("\n")) }() // fails when the attachment has failed, which closes the other end
		defer func() { _ = stdin.Close() }()            // never fails
		return s.sdk.Attach(ctx, client.AttachRequest{
			Cluster: upstream,
			Target:  &sluicev1.AttachTarget{Namespace: kube.Namespace, Pod: s.name + "-talkers", Container: fmt.Sprintf("talker-%d", i)},
			Streams: client.Streams{Stdin: stdin, Stdout: io.Discard},
		})
	})
}

// log follows a talker to its last line.
func (s *storm) log(ctx, _ context.Context, i int) error {
	l := s.sdk.Logs(logOf(s.name+"-talkers", fmt.Sprintf("talker-%d", i/2)))
	defer l.Close()
	lines := seeded.NewLineChecker(uint64(logKey + i/2))
	for {
		chunk, err := l.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			s.count("lines of logs", int64(lines.Count()))
			return lines.Whole()
		case err != nil:
			return err
		case chunk.State != nil:
			if kind := chunk.State.GetKind(); !s.upstreams || kind == sluicev1.ChannelState_KIND_GAP || kind == sluicev1.ChannelState_KIND_RESTARTED {
				return fmt.Errorf("after %d lines: %v", lines.Count(), chunk.State)
			}
		}
		if _, err := lines.Write(chunk.Data); err != nil {
			return err
		}
	}
}

// shell talks with a shell until the storm is over.
func (s *storm) shell(ctx, storm context.Context, i int, tty bool) error {
	stdin, keys := io.Pipe()
	screen, stdout := io.Pipe()
	var stderr bytes.Buffer
	target := s.execIn(s.name, "shell", int64(shellKey+i))
	target.Tty = tty
	req := client.ExecRequest{Cluster: upstream, Target: target, Streams: client.Streams{Stdin: stdin, Stdout: stdout}}
	if !tty {
		req.Stderr = &stderr
	}
	var talked error
	var talking sync.WaitGroup
	talking.Go(func() {
		talked = s.converse(storm, i, keys, bufio.NewReader(screen))
		_ = errors.Join(keys.Close(), screen.CloseWithError(talked)) // which never fail
	})
	err := s.sdk.Exec(ctx, req)
	_ = errors.Join(stdin.Close(), stdout.CloseWithError(errors.New("the shell has ended"))) // which never fail
	talking.Wait()
	if err = errors.Join(err, talked); err != nil {
		return fmt.Errorf("%w; it said %q", err, &stderr)
	}
	return nil
}

// converse says line after line to a shell, and is answered each once by the same process.
func (s *storm) converse(storm context.Context, i int, keys io.Writer, screen *bufio.Reader) error {
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	var pid int
	hello, err := screen.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(hello, "ready %d\n", &pid)
	}
	if err != nil {
		return fmt.Errorf("its first words were %q: %w", hello, err)
	}
	n := uint64(0)
	expect := func(want string) error {
		got, err := screen.ReadString('\n')
		if err == nil && got != want {
			err = fmt.Errorf("it said %q after %d lines, want %q", got, n, want)
		}
		return err
	}
	for storm.Err() == nil {
		var said []byte
		heard := n
		for range 1 + random.IntN(5) {
			said = seeded.AppendLine(said, uint64(shellKey+i), heard)
			heard++
		}
		if _, err := keys.Write(said); err != nil {
			return err
		}
		for ; n < heard; n++ {
			if err := expect(fmt.Sprintf("did %d %d\n", n, pid)); err != nil {
				return err
			}
		}
		if pause(storm, time.Duration(random.IntN(40))*time.Millisecond) != nil {
			break
		}
	}
	s.count("lines to shells", int64(n))
	if _, err := io.WriteString(keys, "over\n"); err != nil {
		return err
	}
	return expect(fmt.Sprintf("over %d 0\n", n))
}

// poured is a stream that lasts as long as the storm, up to most bytes at once.
func poured(storm context.Context, key uint64, most int) *paced {
	return &paced{from: seeded.NewReader(key, math.MaxInt64), every: 5 * time.Millisecond, most: most, ctx: storm}
}

// echo pours bytes into a process that transforms them.
func (s *storm) echo(ctx, storm context.Context, i int) error {
	in, out := poured(storm, uint64(echoKey+i), 32<<10), twisted(uint64(echoKey+i), twistKey)
	if err := s.sdk.Exec(ctx, client.ExecRequest{
		Cluster: upstream, Target: s.execIn(s.name, "echo", twistKey), Streams: client.Streams{Stdin: in, Stdout: out},
	}); err != nil {
		return err
	}
	s.count("bytes through processes", out.Count())
	return out.Whole(in.count)
}

// forward pours bytes into a TCP connection that brings them back transformed, and ends for itself after its FIN.
func (s *storm) forward(ctx, storm context.Context, i int) error {
	f, err := s.sdk.PortForward(ctx, portOf(s.name+"-web", webPort))
	if err != nil {
		return err
	}
	defer f.Reset()
	if err := bound(ctx, f); err != nil {
		return err
	}
	back, err := tunnel(f, twistKey)
	if err != nil {
		return err
	}
	in, out := poured(storm, uint64(forwardKey+i), 8<<10), twisted(uint64(forwardKey+i), twistKey)
	var sent error
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, sent = io.Copy(f, in); sent == nil {
			sent = f.CloseWrite()
		}
	})
	_, err = io.Copy(out, back)
	if err != nil {
		f.Reset()
	}
	sending.Wait()
	s.count("bytes through ports", out.Count())
	return errors.Join(err, sent, out.Whole(in.count))
}

// count adds to what was checked.
func (s *storm) count(what string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passed == nil {
		s.passed = map[string]int64{}
	}
	s.passed[what] += n
}

// report fails unless one session was cut and resumed so often, and much has passed.
func (s *storm) report() {
	s.t.Helper()
	s.ses.mu.Lock()
	defer s.ses.mu.Unlock()
	if s.ses.begun != 1 || s.ses.resumed < s.cuts/2 || s.ses.anyEnds != nil {
		s.t.Errorf("%d cuts: %d sessions were begun and %d resumed, want 1 and about as many as cuts; %v", s.line.count(), s.ses.begun, s.ses.resumed, s.ses.anyEnds)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("%d cuts, %d links; checked: %v", s.line.count(), s.ses.begun+s.ses.resumed, s.passed)
}
