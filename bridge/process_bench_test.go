package bridge

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// processSink is a channel that copies what it takes, as a mux does, and whose client types when it is told to.
type processSink struct {
	*testChannel
	copied []byte
	typed  chan data.Input
	taken  func(bytes int)
}

func (*processSink) Credit() int                            { return 1 << 20 }
func (*processSink) MaxPiece() int                          { return 64 << 10 }
func (*processSink) AwaitCredit(context.Context, int) error { return nil }
func (*processSink) Used()                                  {}

func (s *processSink) Offer(pieces []data.Piece) int {
	n := 0
	for _, p := range pieces {
		n += copy(s.copied, p.Bytes)
		for _, rest := range p.Rest {
			n += copy(s.copied, rest)
		}
	}
	s.taken(n)
	return len(pieces)
}

func (s *processSink) Next(ctx context.Context) (data.Input, error) {
	select {
	case in := <-s.typed:
		return in, nil
	case <-ctx.Done():
		return data.Input{}, ctx.Err()
	}
}

// beside runs a process's channel beside a benchmark, which it ends with.
func beside(b *testing.B, script func(*processPeer), taken func(int)) *processSink {
	s := &processServer{script: script}
	ch := &processSink{testChannel: newTestChannel(b, ""), copied: make([]byte, 64<<10), typed: make(chan data.Input), taken: taken}
	up := s.reach(b, "tcp")
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		Run(ctx, up, execOf(shellTarget()), ch, WithDefaults(Options{}))
	}()
	b.Cleanup(func() {
		stop()
		<-over
	})
	return ch
}

// directly is the WebSocket that a bridge would have.
func directly(b *testing.B, script func(*processPeer)) *websocket.Conn {
	s := &processServer{script: script}
	conn, _, err := s.reach(b, "tcp").Dial(b.Context(), "/", nil, v5)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(websocket.CodeNormal) })
	return conn
}

// echo answers what is typed as a shell in raw mode does, without an allocation for a few bytes.
func echo(p *processPeer) {
	b := make([]byte, 0, 64)
	for {
		head, err := p.r.Peek(6)
		if err != nil {
			return
		}
		n := 6 + int(head[1]&0x7f)
		message, err := p.r.Peek(n)
		if err != nil {
			return
		}
		b = append(b[:0], 0x82, byte(n-6), 1)
		for i, x := range message[7:n] {
			b = append(b, x^message[2+(1+i)&3])
		}
		if _, err := p.nc.Write(b); err != nil {
			return
		}
		_, _ = p.r.Discard(n) // they are there
	}
}

// flood says the same for ever, in messages as large as an API server's.
func flood(p *processPeer) {
	block := bytes.Repeat(wsMessage(1, string(seeded(1, 32<<10))), 8)
	for {
		if _, err := p.nc.Write(block); err != nil {
			return
		}
	}
}

// BenchmarkProcessEcho is a key's way to the process and back: an operation is one round trip.
func BenchmarkProcessEcho(b *testing.B) {
	key := []byte("x")
	b.Run("bridge", func(b *testing.B) {
		back := make(chan struct{}, 1)
		ch := beside(b, echo, func(int) { back <- struct{}{} })
		b.ReportAllocs()
		for b.Loop() {
			ch.typed <- data.Input{Kind: data.InputData, Bytes: key}
			<-back
		}
	})
	b.Run("direct", func(b *testing.B) {
		conn := directly(b, echo)
		message := append([]byte{0}, key...)
		b.ReportAllocs()
		for b.Loop() {
			if err := conn.WriteMessage(websocket.Binary, message); err != nil {
				b.Fatal(err)
			}
			batch, err := conn.Read(64<<10, 32<<10)
			if err != nil {
				b.Fatal(err)
			}
			batch.Release()
		}
	})
}

// BenchmarkProcessOutput is what a process says without a pause: an operation is a MiB.
func BenchmarkProcessOutput(b *testing.B) {
	const size = 1 << 20
	b.Run("bridge", func(b *testing.B) {
		more, over, have := make(chan struct{}), make(chan struct{}), 0
		beside(b, flood, func(n int) {
			for have += n; have >= size; have -= size {
				select {
				case more <- struct{}{}:
				case <-over:
				}
			}
		})
		defer close(over)
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			<-more
		}
	})
	b.Run("direct", func(b *testing.B) {
		conn, copied := directly(b, flood), make([]byte, 64<<10)
		conn.Configure(websocket.Options{FragmentCost: pieceCost})
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			for left := size; left > 0; {
				batch, err := conn.Read(websocket.MaxRead+pieceCost, 64<<10)
				if err != nil {
					b.Fatal(err)
				}
				for _, f := range batch.Fragments {
					left -= copy(copied, f.Bytes)
				}
				batch.Release()
			}
		}
	})
}
