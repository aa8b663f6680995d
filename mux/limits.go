package mux

import "time"

// Constants of the protocol (proto/SPEC.md).
const (
	// FrameCost is what a sequenced frame costs of the window beside its payload: one-byte frames are not free.
	FrameCost = 64
	// MinWindow is the credit that each direction of a channel begins with.
	MinWindow = 64 << 10
	// SmallPiece is the largest payload of a Data frame while the window is below LargeWindow.
	SmallPiece = 16 << 10
	// LargePiece is the largest payload of a Data frame.
	LargePiece = 64 << 10
	// LargeWindow is the window from which on pieces may be large.
	LargeWindow = 256 << 10
	// MaxBare is how many frames without payload may be unacknowledged in a channel and direction.
	MaxBare = 16
	// MaxOverhead is how long a client's sequenced frame may be beside its payload, Open excepted: it costs FrameCost, whatever is in it.
	MaxOverhead = 1 << 10
	// MaxChannels is how many channels a session can have open: a resume names them all in one batch.
	MaxChannels = 4096
	// MaxBatch is the largest batch, in bytes.
	MaxBatch = 256 << 10
)

// Times of the protocol.
const (
	// PingAfter is the time without sending after which a server asks for a sign of life.
	PingAfter = 8 * time.Second
	// GiveUpAfter is the time without receiving after which either side gives the link up.
	GiveUpAfter = 20 * time.Second
	// AckAfter is the longest that an acknowledgement waits for others.
	AckAfter = 100 * time.Millisecond
)

const (
	// batchTarget is the size at which a batch is sent: what grpc-go has queued before a control frame is bounded by two of these.
	batchTarget = 64 << 10
	// quantum is what a ready channel may send in its turn.
	quantum = 16 << 10
)
