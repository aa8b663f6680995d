// Package mux turns one ordered link into many flow-controlled, resumable channels, fairly, on either end. proto/SPEC.md is its
// specification.
//
// At its centre is a state machine without goroutines, I/O or clock: [Session.receive] takes a batch, [Session.collect] gives the next one,
// [Session.tick] takes the time. What surrounds it ([Session.Serve]) are one reader and one writer per link.
//
//	link ── receive ──> receiver (one per channel) ──> Channel.Next ──> caller
//	link <── collect ── ready channels, in turns <── sender (one per channel) <── Channel.Offer <── caller
//
// What a channel sends is encoded once, into a [Segment] that is queue, message part and replay buffer at the same time: it waits to be
// sent, then to be acknowledged, and is sent again after a resume. Since nothing is taken from a source but within credit, there is no
// queue besides the window, and nothing to bound but the window.
//
// Locks: Session.recvMu (one batch at a time) → Session.mu (channels, ready, control) → Channel.mu. Channel.sendMu (one producer at a time)
// → Channel.mu, never with Session.mu held. None is held in Send, Recv or a caller's code, with one exception: [Sink].
package mux
