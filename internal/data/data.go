// Package data is what crosses between a bridge and the mux, so that neither has to know the other.
package data

import sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"

// Piece is a message of an upstream, or a part of one: what one Data frame carries.
type Piece struct {
	// Bytes is the payload. It is only borrowed: whoever keeps it copies it.
	Bytes []byte
	// Rest is what follows Bytes in the payload, where that lies in several places; borrowed like them.
	Rest [][]byte
	// Stream tells apart the streams within a channel.
	Stream sluicev1.Stream
	// Text says that the payload is valid UTF-8 and is to be sent as text.
	Text bool
	// More says that the message goes on in the next piece.
	More bool
	// Cursor is where the channel can be opened again after this piece; empty where it cannot.
	Cursor string
}

// Len is how long the payload is.
func (p *Piece) Len() int {
	n := len(p.Bytes)
	for _, b := range p.Rest {
		n += len(b)
	}
	return n
}

// InputKind is what a client sends on a channel.
type InputKind uint8

// The kinds of inputs.
const (
	// InputData is bytes for the upstream.
	InputData InputKind = iota
	// InputCloseSend says that no more bytes come: the end of standard input, TCP's FIN.
	InputCloseSend
	// InputResize is the size of the client's terminal.
	InputResize
)

// Input is what a client has sent: a message, or one of the frames beside them.
type Input struct {
	Kind InputKind
	// Bytes are those of InputData. They are the receiver's until it says that it has used them.
	Bytes []byte
	// Width and Height are those of InputResize, in columns and rows.
	Width, Height uint32
}
