// Package spdy is as much of SPDY/3.1 as the client of a Kubernetes port-forward needs
// (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/): frames, written and read, and nothing of what they are for.
//
// It differs from a whole implementation on purpose. Nothing is ever inflated: the client opens the streams, so no header that a peer sends
// says anything, and all of them are passed over; a peer cannot make this end allocate. What this end sends of headers is stored, not
// deflated, which is as valid and needs no compressor of a megabyte. There is no flow control: the only peer there is, spdystream below every
// kubelet and container runtime, sends no WINDOW_UPDATE and heeds none, so that what holds up a sender is the TCP connection beneath.
//
// Functions that append frames may be called by anybody; a [Decoder] belongs to one goroutine. None of them does I/O.
package spdy
