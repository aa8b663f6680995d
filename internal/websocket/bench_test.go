package websocket

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// BenchmarkRead reads messages from a TCP socket that is never empty; one operation is one message.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{500, 2 << 10, 8 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				peer, err := l.Accept()
				if err != nil {
					return
				}
				defer peer.Close()
				flood := []byte(strings.Repeat(frame(final|opText, strings.Repeat("x", size)), 1<<20/size))
				for err == nil {
					_, err = peer.Write(flood)
				}
			}()
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c := NewConn(nc, nil)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				batch, err := c.Read(256<<10, 32<<10)
				if err != nil {
					b.Fatal(err)
				}
				n += len(batch.Fragments)
				batch.Release()
			}
			b.StopTimer()
			c.Close(CodeNormal)
			<-done
		})
	}
}
