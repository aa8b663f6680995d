package mux

import (
	"testing"
	"testing/synctest"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// opened is a server's session over a link whose client's end is played by the test, with one channel, and a writer that waits.
func opened(t *testing.T) (s *Session, c *Channel, l, sl *pipe, v *served) {
	a := echo{make(chan *Channel, 1)}
	s = NewServer(Config{}, false, a)
	s.Identify("s", []byte("secret"))
	l, sl = newPipe(1)
	v = serveServer(t.Context(), s, sl)
	l.say(hello)
	l.hear(t, Server, kindWelcome)
	l.say(clientFrame(1, 1, &sluicev1.Open{Window: 256 << 10}))
	c = <-a.chans
	l.hear(t, Server, kindOpened)
	synctest.Wait()
	return s, c, l, sl, v
}

// TestWhoBringsALittleSendsItHimself over a link that has nothing else to do. Nobody waits for a link that has: it is left to the writer.
func TestWhoBringsALittleSendsItHimself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, l, sl, v := opened(t)
		c.Offer(piece(1000))
		if len(sl.out) != 1 || len(s.woken) != 0 {
			t.Errorf("%d batches are sent and the writer was woken %d times", len(sl.out), len(s.woken))
		}
		c.Offer(piece(1001)) // the link takes no more: the writer waits for it, not we
		synctest.Wait()
		c.Offer(piece(1002))
		for _, want := range []int{1000, 1001, 1002} {
			if f := l.hear(t, Server, kindData); len(f.payload) != want {
				t.Errorf("%d bytes come in place of %d", len(f.payload), want)
			}
		}
		l.cut()
		<-v.done
		s.End(nil)
		s.Wait()
	})
}

// TestALinkThatDoesNotSendEnds also when it is not the writer who finds out.
func TestALinkThatDoesNotSendEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, _, sl, v := opened(t)
		sl.broken.Store(true)
		c.Offer(piece(1000))
		c.Offer(piece(1000)) // who comes second finds the news told
		<-time.After(2 * time.Second)
		if v.running() {
			t.Error("a link that does not send is still served")
		}
		s.End(nil)
		s.Wait()
	})
}
