package bridge

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// maxInput is how many bytes of input one message carries at most.
const maxInput = 32 << 10

// inputs are where messages are put together.
var inputs = sync.Pool{New: func() any { return new([1 + maxInput]byte) }}

// hangUpKeys are what somebody who leaves a terminal types: Ctrl-C ends what runs, Ctrl-D the shell.
var hangUpKeys = []byte{0x03, 0x04}

// write moves what the client says to the process, until ctx ends. Each input is written at most once, and acknowledged when the upstream has
// taken it. An upstream that takes nothing holds up this goroutine and nothing else. One that is broken is not write's business: a process may
// end without having read its input, and what it said is still to be read. Started by run, which ends it by ctx and waits for it.
func (p *process) write(ctx context.Context) (err error) {
	defer func() {
		if e := panicked(recover()); e != nil {
			err = e
		}
	}()
	for {
		in, err := p.next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err // the channel has ended
		}
		if in.Kind == data.InputData && !p.stdin {
			return status.Violation("Data on a channel without stdin")
		}
		if p.pass(in) != nil {
			return nil
		}
		p.ch.Used()
	}
}

// next waits for what the client says. Meanwhile it stirs the upstream from time to time: API servers and kubelets end one on which no message has
// come for four hours, and a ping is none. A message for the input without a byte says nothing to anybody.
func (p *process) next(ctx context.Context) (data.Input, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, p.opts.Stir)
		in, err := p.ch.Next(wait)
		silent := wait.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !silent {
			return in, err
		}
		if p.conn.WriteMessage(websocket.Binary, []byte{streamStdin}) != nil {
			<-ctx.Done() // what the upstream said until it broke decides how the process has ended
			return in, ctx.Err()
		}
	}
}

// pass writes an input and returns when the socket has taken it.
func (p *process) pass(in data.Input) error {
	switch in.Kind {
	case data.InputData:
		return p.input(in.Bytes)
	case data.InputCloseSend:
		return p.endInput()
	case data.InputResize:
		return p.resize(in.Width, in.Height)
	}
	return nil
}

// input writes bytes for the process to read.
func (p *process) input(b []byte) error {
	message := inputs.Get().(*[1 + maxInput]byte)
	defer inputs.Put(message)
	message[0] = streamStdin
	for len(b) > 0 {
		n := copy(message[1:], b)
		if err := p.conn.WriteMessage(websocket.Binary, message[:1+n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// endInput ends the process's input, where the subprotocol can. Where it cannot the client was told so, and nothing can be done: to close the
// upstream would cut the output.
func (p *process) endInput() error {
	if !p.stdin || !p.halfCloses {
		return nil
	}
	return p.conn.WriteMessage(websocket.Binary, []byte{streamClose, streamStdin})
}

// resize tells the terminal its size, if there is one. A size that does not fit in 16 bits would end all resizing at the API server.
func (p *process) resize(width, height uint32) error {
	if !p.tty || width == 0 || height == 0 {
		return nil
	}
	size := fmt.Appendf([]byte{streamResize}, `{"Width":%d,"Height":%d}`, min(width, math.MaxUint16), min(height, math.MaxUint16))
	return p.conn.WriteMessage(websocket.Binary, size)
}

// hangUp ends the process's input as somebody who leaves would. A terminal gets the keys, anything else the end of its input. Nothing can be done
// about an upstream that does not take it.
func (p *process) hangUp() {
	if p.tty {
		_ = p.input(hangUpKeys)
	} else {
		_ = p.endInput()
	}
}
