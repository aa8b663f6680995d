//go:build !unix

package websocket

import (
	"context"
	"crypto/tls"
	"net"
)

func newSocket(nc net.Conn, _ *reads) socket {
	return &anySocket{nc: nc, buf: make([]byte, smallRead)}
}

// Secure runs TLS as the client over nc. It is over when the handshake is; ctx bounds that. On an error nc is left to the caller.
func Secure(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	t := tls.Client(nc, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Detach does nothing here.
func (*Conn) Detach(func()) (fd int, ok bool) { return 0, false }

// detached is a socket that is read without waiting, which there is none of here.
type detached struct{}

func (*detached) read(int, int) (*Batch, int, bool, error) { panic("a socket was detached") }
