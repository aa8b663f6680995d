package websocket

import "net"

// socket reads without holding a Batch while there is nothing to read.
type socket interface {
	// read waits for bytes and reads once, at most want bytes to the scratch's offset at. It returns a Batch exactly if it
	// has bytes, possibly together with an error.
	read(at, want int) (*Batch, int, error)
}

// reads are the parameters and results of a read in progress. They are a Conn's, so that a read allocates nothing.
type reads struct {
	at, want int
	batch    *Batch
	n        int
	err      error
}

// take returns the results and forgets them.
func (r *reads) take(err error) (*Batch, int, error) {
	b, n := r.batch, r.n
	if err == nil {
		err = r.err
	}
	*r = reads{}
	return b, n, err
}

// smallRead is what a connection of an unknown kind keeps for waiting, in bytes.
const smallRead = 4 << 10

// anySocket waits in the connection's own Read, with a small buffer.
type anySocket struct {
	nc  net.Conn
	buf []byte
}

func (s *anySocket) read(at, want int) (*Batch, int, error) {
	for {
		n, err := s.nc.Read(s.buf[:min(want, len(s.buf))])
		if n > 0 {
			b := batches.Get().(*Batch)
			return b, copy(b.scratch[at:], s.buf[:n]), err
		}
		if err != nil {
			return nil, 0, err
		}
	}
}
