package client_test

import (
	"io"
	"testing"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// BenchmarkForwardEcho is one byte to the gateway and back, through gRPC and TLS.
func BenchmarkForwardEcho(b *testing.B) {
	f := benchForward(b, echoing)
	buf := []byte{1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := f.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForwardBulk is a MiB each way: up from a Reader, and down to a Writer.
func BenchmarkForwardBulk(b *testing.B) {
	const size = 1 << 20
	b.Run("down", func(b *testing.B) {
		f := benchForward(b, flooding)
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.WriteTo(&limited{left: size}); err == nil {
				b.Fatal("the flood has ended")
			}
		}
	})
	b.Run("up", func(b *testing.B) {
		f := benchForward(b, keeping)
		zero := make([]byte, 64<<10)
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			left := size
			_, err := f.ReadFrom(reads(func(p []byte) (int, error) {
				if left == 0 {
					return 0, io.EOF
				}
				n := copy(p[:min(len(p), left)], zero)
				left -= n
				return n, nil
			}))
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// limited is a Writer that fails once it has its bytes.
type limited struct{ left int }

func (w *limited) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left <= 0 {
		return len(b), io.ErrShortBuffer
	}
	return len(b), nil
}

func benchForward(b *testing.B, n uint32) *client.Forward {
	b.Helper()
	g := newGateway(b, mux.Config{}, pod(nil))
	f, err := g.client(b, g.addr()).PortForward(b.Context(), port(n))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(f.Reset)
	return f
}

// BenchmarkExecBulk is a MiB of a process's output.
func BenchmarkExecBulk(b *testing.B) {
	out := make([]byte, 1<<20)
	g := newGateway(b, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		if ch.send(stdout, "", out) {
			ch.exit(0)
		}
	})
	c := g.client(b, g.addr())
	b.SetBytes(int64(len(out)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Exec(b.Context(), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}}); err != nil {
			b.Fatal(err)
		}
	}
}
