package mux

import (
	"context"
	"errors"
	"io"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Link carries batches of encoded frames, in order and both ways: a gRPC stream, a browser's pair of calls, a WebSocket. One goroutine calls
// Recv and one at a time Send. Both return once the link is gone; on a server's gRPC stream that is when its handler has returned.
type Link interface {
	// Recv waits for the next batch: the encoded ConnectRequest at a server, ConnectResponse at a client. It is valid until the next call.
	// io.EOF says that the peer sends no more.
	Recv() ([]byte, error)
	// Send sends a batch as one message. It owns one reference of each part and frees it once the bytes are written, also when it fails.
	Send(b Batch) error
}

// Prompt is a Link that can tell when sending is a matter of a moment. Whoever has brought something then sends it himself, which spares a
// switch to the writer.
type Prompt interface {
	Link
	// Idle reports that nothing sent before is still to be written, and therefore that Send would not wait for the peer. It may be called
	// by any goroutine; the answer holds until somebody sends.
	Idle() bool
}

// Greeting is the first batch of a link at a server, which tells a full session from a plain one.
type Greeting struct {
	first []byte
	hello *sluicev1.Hello
	err   error
}

// Hello is the frame that begins or resumes a full session; nil for a plain one.
func (g *Greeting) Hello() *sluicev1.Hello { return g.hello }

// Greet receives a link's first batch, until ctx ends. The goroutine that waits for it ends with the link.
func Greet(ctx context.Context, l Link) (*Greeting, error) {
	got := make(chan *Greeting, 1)
	go func() { got <- greet(l) }()
	select {
	case g := <-got:
		return g, g.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// greet reads until there is a frame.
func greet(l Link) *Greeting {
	var f frame
	for {
		b, err := l.Recv()
		if errors.Is(err, io.EOF) {
			return &Greeting{} // a plain session of no channels
		}
		if err != nil {
			return &Greeting{err: err}
		}
		if len(b) > MaxBatch {
			return &Greeting{err: status.Limit("limits.batch_bytes", "a batch of %d bytes is longer than %d", len(b), MaxBatch)}
		}
		rest, err := nextFrame(b, Client, &f)
		switch {
		case err != nil:
			return &Greeting{err: err}
		case f.kind == kindNone:
			continue
		case f.kind != kindHello:
			return &Greeting{first: append([]byte(nil), b...)}
		case f.channel != 0:
			return &Greeting{err: status.Violation("Hello on channel %d", f.channel)}
		}
		h, _ := f.body.(*sluicev1.Hello)
		if h.GetProtocol() != 1 {
			return &Greeting{err: status.Violation("Hello with protocol %d: this gateway speaks 1", h.GetProtocol())}
		}
		return &Greeting{first: append([]byte(nil), rest...), hello: h}
	}
}
