package bridge

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	// quietRead is what is read at once while the pod sends nothing, in bytes: before the data stream stands, when it may be all that comes without
	// credit, and after the pod's end.
	quietRead = 256
	// maxErrorText is how much of what the node says of an error is told, in bytes.
	maxErrorText = 1 << 10
	// finGrace is how long a node may take to say that the FIN it has passed on was none.
	finGrace = 25 * time.Millisecond
	// maxForwardWrite is the most that is written to a tunnel at once, in bytes of payload.
	maxForwardWrite = 64 << 10
)

// read moves what the tunnel brings until the forward has ended. It returns nil when that is well.
func (f *forward) read() (err error) {
	defer func() {
		if e := panicked(recover()); e != nil {
			err = e
		}
	}()
	for {
		limit, part, err := f.room()
		if err != nil {
			return err
		}
		b, err := f.conn.Read(limit, part)
		if err != nil {
			return f.tunnelEnded(err)
		}
		err = f.take(b)
		f.pieces = nil
		b.Release()
		if err != nil {
			return err
		}
		if over, err := f.verdict(); over {
			return err
		}
	}
}

// room waits until there is credit that is worth a read, and returns what to read. A channel on which nothing more is sent has no credit.
func (f *forward) room() (limit, part int, err error) {
	if !f.opened || f.received {
		return quietRead + pieceCost, quietRead, nil
	}
	quantum := f.ch.MaxPiece() + pieceCost
	for {
		if credit := f.ch.Credit(); credit >= quantum {
			return min(credit, websocket.MaxRead+pieceCost), quantum - pieceCost, nil
		}
		if err := f.ch.AwaitCredit(f.ctx, quantum); err != nil {
			return 0, 0, err
		}
	}
}

// take delivers what a read has brought.
func (f *forward) take(b *websocket.Batch) error {
	for i := range b.Fragments {
		if err := f.fragment(&b.Fragments[i]); err != nil {
			return errors.Join(f.offer(), err)
		}
	}
	return f.offer()
}

// fragment takes a fragment apart. Data in it is moved together, into one piece: what was read within credit is so delivered within it, however
// small the node's frames are.
func (f *forward) fragment(frag *websocket.Fragment) error {
	if frag.Text {
		return brokenTunnel("a text message")
	}
	var run []byte
	for b := frag.Bytes; len(b) > 0; {
		s, n, err := f.tunnel.next(b)
		b = b[n:]
		if err != nil {
			f.queue(run)
			return err
		}
		if s.stands {
			f.stand()
		}
		switch {
		case f.received || f.reset:
		case s.kind == signalData && run == nil:
			run = s.bytes
		case s.kind == signalData:
			run = append(run, s.bytes...) // in place: it lies further on in the same fragment
		}
		if s.kind == signalData && !s.fin {
			continue
		}
		if s.kind != signalNone {
			f.queue(run)
			run = nil
		}
		if err := f.heed(s); err != nil {
			return err
		}
	}
	f.queue(run)
	f.tunnel.fragment(frag.Last)
	return nil
}

// heed does what a signal says beside its data, which is queued.
func (f *forward) heed(s signal) error {
	switch s.kind {
	case signalText:
		f.text = append(f.text, s.bytes[:min(len(s.bytes), maxErrorText-len(f.text))]...)
		f.judged = f.judged || s.fin
		return nil
	case signalReset:
		f.reset = true
		return nil
	case signalPing:
		f.pings.heard(s.id)
		return nil
	}
	if !s.fin || f.received || f.reset {
		return nil
	}
	if err := f.offer(); err != nil {
		return err
	}
	f.received = true
	f.fin.hold(finGrace, func() {
		f.ch.CloseSend()
		f.directionEnded(false)
	})
	return nil
}

// held is the pod's FIN, which is held back for a moment: containerd tells a port that refuses by a FIN, and says only then, on the other stream, that
// it was none.
type held struct {
	mu    sync.Mutex
	timer *time.Timer // Guarded by mu.
	say   func()      // Guarded by mu. Nil once it was called or dropped.
}

// hold has say called after d, unless it is called or dropped before.
func (h *held) hold(d time.Duration, say func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.say = say
	h.timer = time.AfterFunc(d, h.tell)
}

// tell tells what is held, if anything is.
func (h *held) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.say != nil {
		h.say()
		h.say = nil
	}
}

// drop forgets what is held. When it returns nothing of it runs any more.
func (h *held) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.say = nil
	if h.timer != nil {
		h.timer.Stop()
	}
}

// stand tells the client that the streams stand, and lets its data through.
func (f *forward) stand() {
	if f.opened {
		return
	}
	f.opened = true
	f.reply.Stop()
	f.conn.Passed(1) // what opens the streams: the node has answered it
	f.ch.Opened(&sluicev1.Opened{Subprotocol: f.subprotocol, Capabilities: &sluicev1.Capabilities{HalfClose: f.tunnel.halfCloses()}})
	close(f.stands)
	if f.tunnel.halfCloses() {
		f.pings.start()
	}
}

// verdict reports whether the node has said how the forward ended, and how. All that came before it is delivered.
func (f *forward) verdict() (over bool, err error) {
	if len(f.text) > 0 && !f.failed {
		f.failed = true
		f.fin.drop()
		f.endAfter(lastWords, errSettled)
	}
	switch {
	case f.reset, f.judged && len(f.text) > 0:
		return true, f.wasReset()
	case f.judged && f.received:
		return true, nil
	}
	return false, nil
}

// wasReset is the end of a forward that the node reports as failed: the port refuses, or the connection broke.
func (f *forward) wasReset() error {
	said := readable(f.text)
	if said == "" {
		said = "the connection was reset"
	}
	return status.New(codes.Aborted, sluicev1.Reason_REASON_RESET, "%s", said)
}

// readable is what a node says as one line of ASCII.
func readable(text []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(text)))
}

// tunnelEnded is how a forward ends with its tunnel. Where directions do not end alone, the WebSocket's end is theirs.
func (f *forward) tunnelEnded(err error) error {
	closed, proper := errors.AsType[*websocket.CloseError](err)
	proper = proper && closed.Code == websocket.CodeNormal && !f.tunnel.halfCloses() && f.opened
	f.mu.Lock()
	settled := f.quiet == 2
	f.mu.Unlock()
	switch {
	case len(f.text) > 0:
		f.judged = true
		return f.wasReset()
	case proper:
		f.fin.hold(finGrace, f.ch.CloseSend)
		return nil
	case settled && f.ctx.Err() == nil:
		return nil
	}
	return lostTunnel(err)
}

// delivery is what was read and is not offered yet.
type delivery struct {
	pieces []data.Piece
	room   [8]data.Piece
}

// queue takes a piece. It lies where it was read.
func (d *delivery) queue(b []byte) {
	if len(b) == 0 {
		return
	}
	if d.pieces == nil {
		d.pieces = d.room[:0]
	}
	d.pieces = append(d.pieces, data.Piece{Bytes: b})
}

// offer hands over what is queued. It waits only where the channel has less credit than it had before the read.
func (f *forward) offer() error {
	for len(f.pieces) > 0 {
		n, credit := 0, f.ch.Credit()
		for n < len(f.pieces) && credit >= len(f.pieces[n].Bytes)+pieceCost {
			credit -= len(f.pieces[n].Bytes) + pieceCost
			n++
		}
		if n > 0 {
			n = f.ch.Offer(f.pieces[:n])
		}
		if n == 0 {
			if err := f.ch.AwaitCredit(f.ctx, len(f.pieces[0].Bytes)+pieceCost); err != nil {
				return err
			}
		}
		f.pieces = f.pieces[n:]
	}
	f.pieces = nil
	return nil
}

// sendAll is the writer: it sends what the client brings, until the forward or the channel ends.
func (f *forward) sendAll() {
	defer func() {
		if e := panicked(recover()); e != nil {
			f.end(e)
		}
	}()
	if err := f.write(f.tunnel.open(nil)); err != nil {
		f.unwritable(err)
		return
	}
	select {
	case <-f.stands:
	case <-f.ctx.Done():
		return
	}
	for {
		in, err := f.ch.Next(f.ctx)
		if err != nil {
			f.end(err) // of the channel, unless the forward has ended already
			return
		}
		if err := f.send(in); err != nil {
			f.unwritable(err)
			return
		}
		f.ch.Used()
	}
}

// writes are buffers for what is written to a tunnel.
var writes = sync.Pool{New: func() any {
	b := make([]byte, 0, maxForwardWrite+pieceCost)
	return &b
}}

// send writes an input and returns when the tunnel has taken it. A window's size means nothing to a port.
func (f *forward) send(in data.Input) error {
	switch in.Kind {
	case data.InputCloseSend:
		err := f.write(f.tunnel.fin(nil))
		f.directionEnded(true)
		return err
	case data.InputData:
		buf := writes.Get().(*[]byte)
		defer writes.Put(buf)
		for p := range slices.Chunk(in.Bytes, maxForwardWrite) {
			if err := f.write(f.tunnel.data((*buf)[:0], p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// write sends a message, if there is anything to say.
func (f *forward) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return f.conn.WriteMessage(websocket.Binary, b)
}
