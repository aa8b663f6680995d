package websocket

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	writeSize = 32 << 10    // of a message that is written at once
	closeTime = time.Second // for a close frame to be taken
)

// Opcode is the kind of a message.
type Opcode byte

// The kinds of messages.
const (
	Text   Opcode = opText
	Binary Opcode = opBinary
)

// turn is a lock that is held across I/O. It is a channel so that whoever waits for it counts as blocked in a bubble of testing/synctest.
type turn chan struct{}

func (t turn) lock()   { t <- struct{}{} }
func (t turn) unlock() { <-t }

var writeBuffers = sync.Pool{New: func() any { return new([maxHeader + writeSize]byte) }}

// WriteMessage writes a message and returns when the socket has taken all of it. Messages of several goroutines follow each other
// whole. An error is final: part of the message may have been sent.
func (c *Conn) WriteMessage(opcode Opcode, p []byte) error {
	c.writing.lock()
	defer c.writing.unlock()
	if c.saidClose {
		return net.ErrClosed
	}
	c.written.Add(1)
	return c.writeFrame(byte(opcode), p, c.writeTimeout)
}

// WriteProbe is WriteMessage for a few bytes that ask who is behind the peer for an answer. n is what to call Passed with when that has come. A probe
// finds room at a peer that has passed on all that came before it, and then does not excuse its silence, as another message would (Keepalive).
func (c *Conn) WriteProbe(opcode Opcode, p []byte) (n int64, err error) {
	c.writing.lock()
	defer c.writing.unlock()
	if c.saidClose {
		return 0, net.ErrClosed
	}
	if n = c.written.Load(); c.passed.Load() < n {
		n = c.written.Add(1)
	}
	return n, c.writeFrame(byte(opcode), p, c.writeTimeout)
}

// writeFrame writes a frame, masked by fresh random bytes: whoever chooses the payload must not be able to choose the bytes on
// the wire (RFC 6455 section 10.3). writing is held.
func (c *Conn) writeFrame(opcode byte, p []byte, timeout time.Duration) error {
	buf := writeBuffers.Get().(*[maxHeader + writeSize]byte)
	defer writeBuffers.Put(buf)
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // it never fails
	b := appendHeader(buf[:0], opcode, len(p), mask)
	for {
		n := min(len(p), writeSize)
		at := len(b)
		b = append(b, p[:n]...)
		applyMask(b[at:], mask)
		if err := c.send(b, timeout); err != nil {
			return fmt.Errorf("write to websocket: %w", err)
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		b = buf[:0] // writeSize is a multiple of the mask's length, so it goes on with its first byte
	}
}

// appendHeader appends the header of a whole message's only frame, section 5.2.
func appendHeader(b []byte, opcode byte, length int, mask [4]byte) []byte {
	b = append(b, 0x80|opcode)
	switch {
	case length < 126:
		b = append(b, 0x80|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(length))
	}
	return append(b, mask[:]...)
}

// applyMask masks b from the mask's first byte on, section 5.3.
func applyMask(b []byte, mask [4]byte) {
	k := uint64(binary.LittleEndian.Uint32(mask[:]))
	k |= k << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
}

// send writes b within the timeout, if there is one. A close frame has its own, which also ends what is written before it.
func (c *Conn) send(b []byte, timeout time.Duration) error {
	c.mu.Lock()
	if !c.ending {
		deadline := time.Time{}
		if timeout > 0 {
			deadline = time.Now().Add(timeout)
		}
		_ = c.nc.SetWriteDeadline(deadline) // fails on a closed connection, as will the write
	}
	c.mu.Unlock()
	_, err := c.nc.Write(b)
	if err != nil && c.isEnding() {
		return net.ErrClosed
	}
	return err
}

func (c *Conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// answerPing has a pong sent. The latest ping is answered (section 5.5.3), one at a time, and never by the reader, which therefore
// does not wait for a peer that takes nothing.
func (c *Conn) answerPing(payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pong = slices.Clone(payload)
	if c.pong == nil {
		c.pong = []byte{}
	}
	c.flush()
}

// Ping has a ping sent, as soon as the message that is being written allows. It does not wait.
func (c *Conn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ping = true
	c.flush()
}

// flush starts the flusher unless it runs. mu is held.
func (c *Conn) flush() {
	if c.flushing || c.closed {
		return
	}
	c.flushing = true
	c.running.Go(c.flushControl)
}

// flushControl writes pings and pongs until there are none. It ends as well when Close ends the socket, and Close waits for it.
func (c *Conn) flushControl() {
	c.writing.lock()
	defer c.writing.unlock()
	for {
		opcode, payload, ok := c.nextControl()
		if !ok {
			return
		}
		if c.saidClose || c.writeFrame(opcode, payload, 0) != nil {
			continue // a socket that fails in one direction fails the reader and the next writer, and they tell
		}
		if opcode == opPing {
			c.noteSent()
		}
	}
}

// nextControl is what the flusher writes next; without anything the flusher must end.
func (c *Conn) nextControl() (opcode byte, payload []byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.pong != nil:
		payload, c.pong = c.pong, nil
		return opPong, payload, true
	case c.ping:
		c.ping = false
		return opPing, c.pingPayload(), true
	}
	c.flushing = false
	return 0, nil, false
}

// sayClose sends the close frame, once, and waits at most closeTime for the socket to take it.
func (c *Conn) sayClose(code int) {
	c.mu.Lock()
	if !c.ending {
		c.ending = true
		_ = c.nc.SetWriteDeadline(time.Now().Add(closeTime)) // also for the writer that is to be waited for
	}
	c.mu.Unlock()
	c.writing.lock()
	defer c.writing.unlock()
	if c.saidClose {
		return
	}
	c.saidClose = true
	var payload []byte
	if code != CodeNone {
		payload = binary.BigEndian.AppendUint16(nil, uint16(code))
	}
	_ = c.writeFrame(opClose, payload, 0) // a courtesy: the end itself does not depend on it
}

// Close ends the WebSocket: it sends a close frame with the code, if none was sent yet and the socket takes it within a second,
// closes the connection, and waits for what the Conn runs. A Read that waits returns net.ErrClosed. It may be called by several
// goroutines and more than once.
func (c *Conn) Close(code int) {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if first && c.alive.stop() {
		c.running.Done()
	}
	c.mu.Unlock()
	if first {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // long ago: the reader need not wait for the close frame to be taken
		c.sayClose(code)
		_ = c.nc.Close() // nothing is lost that the close frame did not end
	}
	c.running.Wait()
}
