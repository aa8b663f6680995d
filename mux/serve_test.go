package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

var errGone = errors.New("the link is gone")

// pipe is one end of a link in memory, which holds depth batches each way. It ends well, as a call whose handler returns: what was sent still
// arrives; or it is cut.
type pipe struct {
	in, out chan []byte
	gone    chan struct{}
	end     func()
	lossy   *atomic.Bool
	broken  atomic.Bool // Send fails
}

func (l *pipe) cut() {
	l.lossy.Store(true)
	l.end()
}

func newPipe(depth int) (client, server *pipe) {
	up, down, gone := make(chan []byte, depth), make(chan []byte, depth), make(chan struct{})
	end, lossy := sync.OnceFunc(func() { close(gone) }), new(atomic.Bool)
	return &pipe{in: down, out: up, gone: gone, end: end, lossy: lossy}, &pipe{in: up, out: down, gone: gone, end: end, lossy: lossy}
}

func (l *pipe) Recv() ([]byte, error) {
	select {
	case b, ok := <-l.in:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-l.gone:
	}
	select {
	case b := <-l.in:
		if !l.lossy.Load() && b != nil {
			return b, nil
		}
	default:
	}
	return nil, errGone
}

func (l *pipe) Send(b Batch) error {
	var all []byte
	for _, p := range b {
		all = append(all, p.Bytes()...)
	}
	b.Free()
	if l.broken.Load() {
		return errGone
	}
	select {
	case l.out <- all:
		return nil
	case <-l.gone:
		return errGone
	}
}

// Idle implements Prompt.
func (l *pipe) Idle() bool { return cap(l.out) > 0 && len(l.out) == 0 }

// say sends frames as the peer of a session under test.
func (l *pipe) say(frames ...[]byte) {
	for _, f := range frames {
		l.out <- f
	}
}

// hear receives until a frame of kind k comes, and returns it.
func (l *pipe) hear(t *testing.T, from Role, k kind) frame {
	t.Helper()
	for {
		b, err := l.Recv()
		if err != nil {
			t.Fatalf("waiting for %v: %v", k, err)
		}
		for len(b) > 0 {
			var f frame
			if b, err = nextFrame(b, from, &f); err != nil {
				t.Fatal(err)
			}
			if f.kind == k {
				return f
			}
		}
	}
}

// served is a session that is carried over a link, as an RPC's handler does.
type served struct {
	err  error
	done chan struct{}
}

func serveServer(ctx context.Context, s *Session, l *pipe) *served {
	v := &served{done: make(chan struct{})}
	go func() {
		defer close(v.done)
		defer l.end()
		g, err := Greet(ctx, l)
		if err == nil {
			err = s.ServeServer(ctx, l, g)
		}
		v.err = err
	}()
	return v
}

func serveClient(ctx context.Context, s *Session, l *pipe) *served {
	v := &served{done: make(chan struct{})}
	go func() {
		defer close(v.done)
		defer l.end()
		v.err = s.ServeClient(ctx, l, &sluicev1.Hello{Client: "test"})
	}()
	return v
}

// running reports whether the session is still carried, once nothing moves any more.
func (v *served) running() bool {
	synctest.Wait()
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

var hello = clientFrame(0, 0, &sluicev1.Hello{Protocol: 1})

// echo accepts channels, opens them and gives them on.
type echo struct{ chans chan *Channel }

func (e echo) Accept(c *Channel, _ *sluicev1.Open) {
	c.Opened(&sluicev1.Opened{})
	e.chans <- c
}

// joined is a client and a server session over a link, both carried.
func joined(ctx context.Context) (client, server *Session, accepted chan *Channel, cut func(), vs [2]*served) {
	a := echo{make(chan *Channel, 10)}
	server = NewServer(Config{}, false, a)
	server.Identify("s", []byte("secret"))
	client = NewClient(Config{}, nil)
	cl, sl := newPipe(1)
	vs = [2]*served{serveServer(ctx, server, sl), serveClient(ctx, client, cl)}
	return client, server, a.chans, cl.cut, vs
}

// [HRT-1] [HRT-2].
func TestSPEC_AnIdleLinkLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, cut, vs := joined(t.Context())
		<-time.After(time.Hour)
		if !vs[0].running() || !vs[1].running() {
			t.Fatalf("after an hour: %v, %v", vs[0].err, vs[1].err)
		}
		cut()
		client.Wait()
		server.Wait()
		if vs[0].running() || vs[1].running() {
			t.Error("a cut link is still served")
		}
	})
}

// [HRT-1] [HRT-3].
func TestSPEC_AServerAsksAfter8sAndGivesUpAfter20s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{}, false, acceptAll{})
		l, sl := newPipe(9)
		v := serveServer(t.Context(), s, sl)
		l.say(hello)
		l.hear(t, Server, kindWelcome)
		begin := time.Now()
		for _, want := range []time.Duration{PingAfter, 2 * PingAfter} {
			l.hear(t, Server, kindPing)
			if d := time.Since(begin); d != want {
				t.Errorf("asked after %v instead of %v", d, want)
			}
		}
		<-v.done
		wantReason(t, v.err, sluicev1.Reason_REASON_HEARTBEAT_TIMEOUT)
		if d := time.Since(begin); d != GiveUpAfter {
			t.Errorf("given up after %v", d)
		}
		if s.Err() != nil || s.ended {
			t.Error("the session ended with its link")
		}
		s.Wait()
	})
}

// [HRT-3].
func TestSPEC_AClientGivesUpAfter20s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewClient(Config{}, nil)
		cl, l := newPipe(9)
		begin := time.Now()
		v := serveClient(t.Context(), s, cl)
		l.hear(t, Client, kindHello)
		<-time.After(10 * time.Second)
		l.say(serverFrame(0, 0, &sluicev1.Welcome{Session: "s", Link: 1}))
		<-v.done
		wantReason(t, v.err, sluicev1.Reason_REASON_HEARTBEAT_TIMEOUT)
		if d := time.Since(begin); d != 10*time.Second+GiveUpAfter {
			t.Errorf("given up after %v", d)
		}
		s.Wait()
	})
}

// [PLN-5] A plain session has no heartbeat, and lives on after its client's last frame until its channels have ended.
func TestSPEC_APlainSessionOutlivesItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := echo{make(chan *Channel, 1)}
		s := NewServer(Config{}, true, a)
		l, sl := newPipe(9)
		v := serveServer(t.Context(), s, sl)
		l.say(clientFrame(1, 0, &sluicev1.Open{}))
		close(l.out)
		c := <-a.chans
		<-time.After(time.Hour)
		if !v.running() {
			t.Fatalf("ended with its input: %v", v.err)
		}
		c.Offer(piece(5))
		if f := l.hear(t, Server, kindData); len(f.payload) != 5 {
			t.Errorf("came %+v", f)
		}
		c.Finish(nil, nil, false)
		l.hear(t, Server, kindClosed)
		<-v.done
		if v.err != nil {
			t.Errorf("a good end is %v", v.err)
		}
		s.Wait()
	})
}

// [FLOW-15].
func TestSPEC_AnAckLeavesWithin100ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, accepted, cut, _ := joined(t.Context())
		c, err := client.Open(&sluicev1.Open{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sc := <-accepted
		for range 3 {
			sc.Offer(piece(10))
			synctest.Wait()
			come(c)
			begin := time.Now()
			<-time.After(AckAfter - 1)
			synctest.Wait()
			if sc.Held() == 0 {
				t.Fatal("acknowledged at once")
			}
			<-time.After(1)
			synctest.Wait()
			if sc.Held() != 0 {
				t.Fatalf("not acknowledged after %v", time.Since(begin))
			}
		}
		cut()
		client.Wait()
		server.Wait()
	})
}

// TestAnAckIsNotForgottenWithItsLink proves that the timer of an Ack passes from a link to the next.
func TestAnAckIsNotForgottenWithItsLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, accepted, _, _ := joined(t.Context())
		c, err := client.Open(&sluicev1.Open{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sc := <-accepted
		var cut func()
		for range 50 {
			sc.Offer(piece(10))
			synctest.Wait()
			come(c)
			sc.Offer(piece(10))
			cl, sl := newPipe(1) // the link before is not cut: both ends are superseded
			serveServer(t.Context(), server, sl)
			serveClient(t.Context(), client, cl)
			cut = cl.cut
			synctest.Wait()
			come(c)
			<-time.After(AckAfter)
			synctest.Wait()
			if sc.Held() != 0 {
				t.Fatal("an Ack was forgotten")
			}
		}
		cut()
		client.Wait()
		server.Wait()
	})
}

// [RES-4].
func TestSPEC_TheOlderCallEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{}, false, acceptAll{})
		l, sl := newPipe(9)
		old := serveServer(t.Context(), s, sl)
		l.say(hello)
		l.hear(t, Server, kindWelcome)
		begin := time.Now()
		l2, sl2 := newPipe(9)
		v := serveServer(t.Context(), s, sl2)
		l2.say(hello)
		l2.hear(t, Server, kindWelcome)
		<-old.done
		wantReason(t, old.err, sluicev1.Reason_REASON_SUPERSEDED)
		if time.Since(begin) != 0 {
			t.Errorf("the older call ended after %v", time.Since(begin))
		}
		if !v.running() {
			t.Errorf("the newer ended too: %v", v.err)
		}
		l2.cut()
		s.Wait()
	})
}

// [SES-10] The end is told before the link ends.
func TestSPEC_GoodbyeLeavesBeforeServeReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, accepted, _, vs := joined(t.Context())
		c, err := client.Open(&sluicev1.Open{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sc := <-accepted
		begin := time.Now()
		server.End(status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "over"))
		<-vs[0].done
		<-vs[1].done
		for _, err := range []error{vs[0].err, vs[1].err, client.Err(), context.Cause(c.Context()), context.Cause(sc.Context())} {
			wantReason(t, err, sluicev1.Reason_REASON_DRAINING)
		}
		if !client.Err().FromPeer || time.Since(begin) != 0 {
			t.Errorf("ended after %v with %v", time.Since(begin), client.Err())
		}
		<-client.Done()
		client.Wait()
		server.Wait()
	})
}

// TestAPeerThatDoesNotReadIsNotWaitedFor proves that a Goodbye which cannot leave costs a second (D2).
func TestAPeerThatDoesNotReadIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{}, false, acceptAll{})
		l, sl := newPipe(0)
		v := serveServer(t.Context(), s, sl)
		l.say(hello)
		synctest.Wait() // the writer hangs in Send with the Welcome
		begin := time.Now()
		s.End(nil)
		<-v.done
		if d := time.Since(begin); d > time.Second || v.err != nil {
			t.Errorf("waited for %v: %v", d, v.err)
		}
		s.Wait()
	})
}

// mute is a link on which nothing can be sent any more, while what was sent to it still arrives: a gRPC stream that its server has ended.
type mute struct{ *pipe }

func (mute) Send(b Batch) error {
	b.Free()
	return io.EOF
}

// TestWhyALinkEndedIsReadFromIt proves that a Send that fails does not hide the Goodbye or the status that the peer has sent, and is the
// reason where nothing else comes.
func TestWhyALinkEndedIsReadFromIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, last := range map[string]struct {
			frame []byte
			end   bool
			want  error
		}{
			"goodbye": {frame: serverFrame(0, 0, &sluicev1.Goodbye{Status: errFinished.Proto()}), want: errFinished},
			"status":  {end: true, want: errGone},
			"nothing": {want: io.EOF},
		} {
			s := NewClient(Config{}, nil)
			cl, l := newPipe(9)
			w := &served{done: make(chan struct{})}
			go func() {
				defer close(w.done)
				defer cl.end()
				w.err = s.ServeClient(t.Context(), mute{cl}, &sluicev1.Hello{})
			}()
			synctest.Wait()
			if last.end {
				l.end()
			} else if last.frame != nil {
				l.say(last.frame)
			}
			<-w.done
			if !errors.Is(w.err, last.want) {
				t.Errorf("%s: ended with %v instead of %v", name, w.err, last.want)
			}
			s.Wait()
		}
	})
}

// TestAClientSaysGoodbyeAfterWelcome proves that a session ended between Hello and Welcome does not stay behind at the server.
func TestAClientSaysGoodbyeAfterWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, welcomed := range []bool{true, false} {
			s := NewClient(Config{}, nil)
			cl, l := newPipe(9)
			v := serveClient(t.Context(), s, cl)
			l.hear(t, Client, kindHello)
			s.End(nil)
			synctest.Wait()
			begin := time.Now()
			if welcomed {
				l.say(serverFrame(0, 0, &sluicev1.Welcome{Session: "s", Link: 1}))
				l.hear(t, Client, kindGoodbye)
			}
			<-v.done
			if d := time.Since(begin); d > time.Second || v.err != nil || welcomed && d > 0 {
				t.Errorf("waited for %v: %v", d, v.err)
			}
			s.Wait()
		}
	})
}

// [SES-9].
func TestSPEC_ALinkThatIsCancelledOnlyDetaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		client, server, accepted, _, vs := joined(ctx)
		c, err := client.Open(&sluicev1.Open{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sc := <-accepted
		cancel(errGone)
		<-vs[0].done
		<-vs[1].done
		if !errors.Is(vs[0].err, errGone) || !errors.Is(vs[1].err, errGone) {
			t.Errorf("ended with %v and %v", vs[0].err, vs[1].err)
		}
		client.Wait()
		server.Wait()
		if c.Context().Err() != nil || sc.Context().Err() != nil || server.ended || client.ended {
			t.Error("more than the link ended")
		}
		sc.Offer(piece(10))
		cl, sl := newPipe(1)
		serveServer(t.Context(), server, sl)
		serveClient(t.Context(), client, cl)
		synctest.Wait()
		if got := come(c); len(got) != 2 {
			t.Errorf("after the resume came %d events", len(got))
		}
		cl.cut()
		client.Wait()
		server.Wait()
	})
}

// [FLOW-13] (D2, D3) A link that is not read stops the source at the window, in full and in plain sessions.
func TestSPEC_ALinkThatIsNotReadStopsTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, plain := range []bool{true, false} {
			a := echo{make(chan *Channel, 1)}
			s := NewServer(Config{}, plain, a)
			l, sl := newPipe(0)
			v := serveServer(t.Context(), s, sl)
			if !plain {
				l.say(hello)
				l.hear(t, Server, kindWelcome)
			}
			l.say(clientFrame(1, 1, &sluicev1.Open{}))
			c := <-a.chans
			sent := 0
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for c.AwaitCredit(t.Context(), 1000+FrameCost) == nil {
					sent += 1000 * c.Offer(piece(1000))
				}
			}()
			<-time.After(5 * time.Second)
			synctest.Wait()
			if sent > 2*MinWindow || sent < MinWindow/2 || s.Held() > MinWindow {
				t.Errorf("plain %v: %d bytes were asked of the source, %d are held", plain, sent, s.Held())
			}
			s.End(errFinished)
			<-ended
			<-v.done
			s.Wait()
		}
	})
}

// TestWaitsEndWithTheirContext proves that who waits is let go: by its context, by the channel's end and by the end of sending.
func TestWaitsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := NewClient(Config{}, nil)
		open := func() *Channel {
			c, err := client.Open(&sluicev1.Open{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			fill(c, 1000)
			return c
		}
		for name, end := range map[string]func(*Channel, context.CancelFunc){
			"context":    func(_ *Channel, cancel context.CancelFunc) { cancel() },
			"close":      func(c *Channel, _ context.CancelFunc) { c.Close("") },
			"abandon":    func(c *Channel, _ context.CancelFunc) { c.abandon(errFinished) },
			"close send": func(c *Channel, _ context.CancelFunc) { c.CloseSend() },
		} {
			c := open()
			ctx, cancel := context.WithCancel(t.Context())
			credit, next := make(chan error, 2), make(chan error, 1)
			for _, await := range waysToWait {
				go func() { credit <- await(c, ctx, 2000) }()
			}
			go func() { _, err := c.Next(ctx); next <- err }()
			synctest.Wait()
			end(c, cancel)
			for range waysToWait {
				if err := <-credit; err == nil {
					t.Errorf("%s: who waits for credit has it", name)
				}
			}
			cancel()
			if err := <-next; err == nil {
				t.Errorf("%s: Next returns nil", name)
			}
		}
		client.End(nil)
	})
}

// TestNoWakeUpOfABudgetIsLost lets many channels of two sessions fight for budgets that hold a fraction of what they have, and a receiver
// that takes whatever comes: if a wake-up were lost, one of them would wait for ever.
func TestNoWakeUpOfABudgetIsLost(t *testing.T) {
	process := NewBudget(64<<10, nil)
	var producers sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range 2 {
		s := NewServer(Config{SessionBytes: 48 << 10, Budget: process}, true, &catch{})
		gen, err := s.attachServer(nil)
		if err != nil {
			t.Fatal(err)
		}
		for id := range uint32(8) {
			if err := s.receive(gen, clientFrame(id+1, 1, &sluicev1.Open{})); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range s.acceptor.(*catch).chans {
			await := (*Channel).AwaitCredit
			if i%2 == 1 {
				await = notified
			}
			producers.Go(func() {
				for range 300 {
					if err := await(c, ctx, 4000+FrameCost); err != nil {
						t.Errorf("channel %d waits for ever: %v", c.id, err)
						return
					}
					c.Offer(piece(4000))
				}
				c.Finish(nil, nil, false)
			})
		}
		producers.Go(func() { drainAll(ctx, s, gen) })
	}
	producers.Wait()
	if process.Held() != 0 {
		t.Errorf("%d bytes are held", process.Held())
	}
}

// drainAll takes whatever a plain session sends, until all its channels have ended.
func drainAll(ctx context.Context, s *Session, gen uint64) {
	for s.Channels() > 0 || s.Held() > 0 {
		b := s.collect(gen)
		b.Free()
		if len(b) > 0 {
			continue
		}
		select {
		case <-s.woken:
		case <-ctx.Done():
			return
		}
	}
}

// TestLoadOverLinksThatAreCut sends numbered messages both ways over ten channels while the link is cut every few milliseconds: each comes
// once and in order (H1, I1).
func TestLoadOverLinksThatAreCut(t *testing.T) {
	const channels, messages = 10, 600
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a := echo{make(chan *Channel, channels)}
	up := make(welcomes, 1)
	server, client := NewServer(Config{}, false, a), NewClient(Config{}, up)
	server.Identify("s", []byte("secret"))
	var flows, links sync.WaitGroup
	stop := make(chan struct{})
	links.Go(func() { reconnect(ctx, client, server, up, stop) })
	for range channels {
		c, err := client.Open(&sluicev1.Open{Window: 256 << 10}, nil)
		if err != nil {
			t.Fatal(err)
		}
		sc := <-a.chans
		for _, ch := range []*Channel{c, sc} {
			flows.Go(func() { produce(ctx, t, ch, messages) })
			flows.Go(func() { consume(ctx, t, ch, messages) })
		}
	}
	flows.Wait()
	close(stop)
	links.Wait()
	if server.link < 10 {
		t.Errorf("only %d links were made", server.link)
	}
	client.End(nil)
	server.End(nil)
	client.Wait()
	server.Wait()
	if client.Held()+server.Held() != 0 {
		t.Errorf("%d bytes are held", client.Held()+server.Held())
	}
}

// welcomes tells of each Welcome.
type welcomes chan struct{}

func (w welcomes) Welcomed(*sluicev1.Welcome) {
	select {
	case w <- struct{}{}:
	default:
	}
}

func (welcomes) AuthState(*sluicev1.AuthState) {}

func (welcomes) Draining(*sluicev1.Drain) {}

// reconnect carries both sessions over one link after another, each cut a few milliseconds after it stands, and in the end one that is not.
func reconnect(ctx context.Context, client, server *Session, up welcomes, stop chan struct{}) {
	for {
		cl, sl := newPipe(2)
		v, w := serveServer(ctx, server, sl), serveClient(ctx, client, cl)
		select {
		case <-stop:
		case <-up: // a busy machine takes longer for that than for anything else
		case <-ctx.Done():
		}
		select {
		case <-stop:
		case <-time.After(3 * time.Millisecond):
		}
		cl.cut()
		<-v.done
		<-w.done
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
	}
}

// produce sends messages with their number, of many sizes; the largest go in pieces.
func produce(ctx context.Context, t *testing.T, c *Channel, messages int) {
	for n := range messages {
		b := binary.BigEndian.AppendUint32(nil, uint32(n))
		b = append(b, noise[:(n*7919)%3000]...)
		if n%500 == 499 {
			b = append(b, noise[:300<<10]...)
		}
		for len(b) > 0 {
			k := min(len(b), SmallPiece)
			if err := c.AwaitCredit(ctx, k+FrameCost); err != nil {
				t.Errorf("channel %d, message %d: %v", c.id, n, err)
				return
			}
			if c.Offer([]data.Piece{{Bytes: b[:k], More: k < len(b)}}) == 1 {
				b = b[k:]
			}
		}
	}
}

// consume checks that messages come with their number.
func consume(ctx context.Context, t *testing.T, c *Channel, messages int) {
	for n := 0; n < messages; {
		ev, err := c.Next(ctx)
		if err != nil {
			t.Errorf("channel %d, message %d: %v", c.id, n, err)
			return
		}
		c.Used(&ev)
		if ev.Kind != EventData {
			continue
		}
		want := 4 + (n*7919)%3000
		if n%500 == 499 {
			want += 300 << 10
		}
		if len(ev.Data) != want || binary.BigEndian.Uint32(ev.Data) != uint32(n) {
			t.Errorf("channel %d: message %d of %d bytes comes in place of %d", c.id, binary.BigEndian.Uint32(ev.Data), len(ev.Data), n)
			return
		}
		n++
	}
}
