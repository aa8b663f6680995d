package client

import (
	"context"
	"io"
	"sync"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/mux"
)

// transferBytes is the most that is read at once from what a channel carries.
const transferBytes = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, transferBytes); return &b }}

// leastCredit is the credit from which on a source is read: below it the pieces would not be worth their frames. The smallest window has it
// again as soon as a part of it is acknowledged.
const leastCredit = 4 << 10

// credited waits until something can be sent and returns how many bytes of it, at most transferBytes.
func credited(ctx context.Context, ch *mux.Channel) (int, error) {
	if err := ch.AwaitCredit(ctx, leastCredit+mux.FrameCost); err != nil {
		return 0, err
	}
	const frames = transferBytes / mux.SmallPiece
	return max(1, min(transferBytes, ch.Credit()-frames*mux.FrameCost)), nil
}

// sender sends bytes in pieces. One goroutine uses it at a time.
type sender struct {
	ch     *mux.Channel
	stream sluicev1.Stream
	pieces []data.Piece // used again
}

func newSender(ch *mux.Channel, stream sluicev1.Stream) *sender {
	return &sender{ch: ch, stream: stream, pieces: make([]data.Piece, 0, transferBytes/mux.SmallPiece)}
}

// send sends all of b, waiting for credit. It returns how much of it was taken: that is sure to be sent for as long as the session lives.
func (s *sender) send(ctx context.Context, b []byte) (sent int, err error) {
	for sent < len(b) {
		s.pieces = s.pieces[:0]
		for rest, most := b[sent:], s.ch.MaxPiece(); len(rest) > 0 && len(s.pieces) < cap(s.pieces); {
			n := min(len(rest), most)
			s.pieces = append(s.pieces, data.Piece{Bytes: rest[:n], Stream: s.stream})
			rest = rest[n:]
		}
		taken := s.ch.Offer(s.pieces)
		for _, p := range s.pieces[:taken] {
			sent += len(p.Bytes)
		}
		if taken == len(s.pieces) {
			continue
		}
		if err := s.ch.AwaitCredit(ctx, len(s.pieces[taken].Bytes)+mux.FrameCost); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// writeAll is w.Write that never takes a part without an error.
func writeAll(w io.Writer, b []byte) (int, error) {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}
