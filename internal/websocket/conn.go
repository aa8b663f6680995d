package websocket

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxRead is the most that one Read takes from the socket, and the longest Fragment, in bytes.
	MaxRead = 64 << 10
	// minRead is the least that one Read takes when there is room for less: what it leads to is bounded when it is handed over.
	minRead = 512
	// minPart lets every part hold a rune.
	minPart = 4
	// scratchSize leaves minRead beside the longest carry: a fragment and a control frame.
	scratchSize = MaxRead + 2*minRead
)

// Options are what a bridge may choose. The zero value is fit for use.
type Options struct {
	// CheckText refuses text messages that are not UTF-8 (RFC 6455 section 8.1) and cuts long ones between runes.
	CheckText bool
	// FragmentCost is what a Fragment takes of Read's limit besides its bytes.
	FragmentCost int
	// WriteTimeout bounds the writing of 32 KiB of a message. 0 waits for as long as the Conn is open: a process that does not
	// read its input stops its upstream for as long as it likes.
	WriteTimeout time.Duration
}

// Conn is the client's end of a WebSocket. One goroutine at a time may call Read; everything else may be called at any time by any.
// Whoever has one must call Close.
type Conn struct {
	// Immutable after NewConn.
	nc          net.Conn
	socket      socket
	subprotocol string

	// Immutable after the first Read.
	writeTimeout time.Duration

	// Immutable after Detach.
	direct *detached
	wake   func()

	// Owned by the reader.
	frames  framer
	left    []byte // came with the 101
	failure error  // what every further Read returns
	reads   reads

	waiting atomic.Int64 // since when bytes are waited for, in nanoseconds since epoch; 0 while nobody reads
	written atomic.Int64 // messages, begun ones too; but probes that nothing is before
	taken   atomic.Int64 // messages that the peer has read: it has answered a ping that was sent after them
	passed  atomic.Int64 // messages that have left the peer
	broken  atomic.Bool  // timeout is set
	epoch   time.Time    // immutable

	// Guarded by mu, which is never held across I/O.
	mu       sync.Mutex
	closed   bool // by Close
	ending   bool // a close frame is being sent: the deadline for writing is its
	timeout  *TimeoutError
	ping     bool   // to be sent
	pong     []byte // to be sent, nil for none
	flushing bool
	alive    keepalive
	// running counts the timer and the flusher, which Close waits for.
	running sync.WaitGroup

	// Guarded by writing, which is held across writes.
	writing   turn
	saidClose bool
}

// NewConn makes a Conn of nc, on which a handshake has succeeded; left is what came with the answer. [Handshake] calls it. A nc
// that is a *net.TCPConn or comes from [Secure] holds no buffer while it waits, any other 4 KiB.
func NewConn(nc net.Conn, left []byte) *Conn {
	c := &Conn{nc: nc, left: left, epoch: time.Now(), writing: make(turn, 1)}
	c.frames.control = c.onControl
	c.socket = newSocket(nc, &c.reads)
	return c
}

// Configure sets the options. It must not be called after the first Read or Write.
func (c *Conn) Configure(o Options) {
	c.frames.utf8, c.frames.cost, c.writeTimeout = o.CheckText, max(o.FragmentCost, 0), o.WriteTimeout
}

// Subprotocol is the one that the handshake agreed on, empty for none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// Batch is what one Read has brought.
type Batch struct {
	// Fragments are in the order of arrival. They and their bytes are valid until Release.
	Fragments []Fragment

	scratch [scratchSize]byte
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// Release gives the Batch back. It must be called once, and nothing of the Batch may be used afterwards.
func (b *Batch) Release() {
	const usual = 1024 // fragments, so that a flood of tiny messages leaves nothing behind
	if cap(b.Fragments) > usual {
		b.Fragments = nil
	}
	clear(b.Fragments)
	b.Fragments = b.Fragments[:0]
	batches.Put(b)
}

// Read waits for messages and returns at least one fragment, or an error.
//
// A message of at most part bytes comes whole; a longer one in fragments of part bytes each as they arrive, and a last one. The
// fragments take at most limit: each its bytes and the options' FragmentCost. What does not fit, and a message that is not yet
// whole, is kept for the next Read, which counts it against its own limit. part is at most 64 KiB and is lowered to what limit
// leaves room for, so any limit above FragmentCost+4 makes progress; limit >= part + FragmentCost + 14 keeps messages of part
// bytes whole and reads them without detours. part may change between Reads.
//
// Errors are final: *[CloseError] after everything that came before it, *[ProtocolError], *[TimeoutError], io.ErrUnexpectedEOF
// for an end without a close frame, net.ErrClosed after Close, or the network's own.
func (c *Conn) Read(limit, part int) (*Batch, error) {
	for {
		b, _, err := c.next(limit, part)
		if b != nil || err != nil {
			return b, err
		}
	}
}

// TryRead is Read for a Conn that was detached: it does not wait, and returns no Batch when there is nothing to return. drained says that
// there was no more to read at that moment, as far as bytes go: who is told that the peer has ended must read on, to learn how.
func (c *Conn) TryRead(limit, part int) (b *Batch, drained bool, err error) {
	c.waiting.Store(0)
	if c.failure == nil && c.broken.Load() {
		c.failure = c.cause(errTimeout)
	}
	for {
		b, drained, err = c.next(limit, part)
		if b != nil || err != nil || drained {
			return b, drained, err
		}
	}
}

// Expect says that bytes are waited for from now on, until the next TryRead: Keepalive draws its conclusions from that.
func (c *Conn) Expect() { c.waiting.Store(c.now()) }

// next reads once and returns what that has brought, perhaps nothing.
func (c *Conn) next(limit, part int) (b *Batch, drained bool, err error) {
	limit = max(limit, c.frames.cost+minPart)
	part = min(max(part, minPart), MaxRead, limit-c.frames.cost)
	b, n, drained, err := c.fill(limit)
	if b == nil {
		return nil, drained, err
	}
	b.Fragments, err = c.frames.walk(b.scratch[:n], limit, part, b.Fragments)
	if err != nil {
		c.answerEnd(err)
		c.failure = c.cause(err)
	}
	drained = drained && c.failure == nil && !c.frames.ready
	if len(b.Fragments) == 0 {
		b.Release()
		b = nil
	}
	return b, drained, nil
}

// fill returns a Batch that holds the carry and, unless that alone is worth a walk, what one read of the socket brings.
func (c *Conn) fill(limit int) (b *Batch, n int, drained bool, err error) {
	if c.frames.ready {
		b = batches.Get().(*Batch)
		return b, c.frames.carry.drain(b.scratch[:]), false, nil
	}
	if c.failure != nil {
		return nil, 0, false, c.failure
	}
	carry := c.frames.carry.len()
	b, n, drained, err = c.receive(carry, min(max(limit-carry, minRead), MaxRead, scratchSize-carry))
	if err != nil {
		c.failure = c.cause(err)
	}
	if b == nil {
		return nil, 0, drained, c.failure
	}
	c.frames.carry.drain(b.scratch[:])
	return b, carry + n, drained, nil
}

// receive reads once, at most want bytes to the scratch's offset at. It returns a Batch exactly if it has bytes.
func (c *Conn) receive(at, want int) (b *Batch, n int, drained bool, err error) {
	switch {
	case len(c.left) > 0:
		b = batches.Get().(*Batch)
		n = copy(b.scratch[at:at+want], c.left)
		if c.left = c.left[n:]; len(c.left) == 0 {
			c.left = nil
		}
		return b, n, false, nil
	case c.direct != nil:
		return c.direct.read(at, want)
	}
	c.waiting.Store(c.now())
	defer c.waiting.Store(0)
	b, n, err = c.socket.read(at, want)
	return b, n, false, err
}

// errTimeout stands for a read that a timeout has ended.
var errTimeout = errors.New("timeout")

// now is the time since epoch, never 0.
func (c *Conn) now() int64 { return int64(time.Since(c.epoch)) + 1 }

// cause is why reading ended, in the terms of Read.
func (c *Conn) cause(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timeout != nil:
		return c.timeout
	case c.closed:
		return net.ErrClosed
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// answerEnd answers a close frame, or tells the peer that it broke the protocol.
func (c *Conn) answerEnd(err error) {
	var closed *CloseError
	var broken *ProtocolError
	switch {
	case errors.As(err, &closed):
		c.sayClose(closed.Code)
	case errors.As(err, &broken):
		c.sayClose(broken.Code)
	}
}

// onControl handles a control frame. That bytes have arrived is noted where they were read.
func (c *Conn) onControl(opcode byte, payload []byte) error {
	switch opcode {
	case opClose:
		return closeError(payload, c.frames.open)
	case opPing:
		c.answerPing(payload)
	case opPong:
		c.noteTaken(payload)
	}
	return nil
}
