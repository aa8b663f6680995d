// Package websocket is the client side of the WebSocket protocol, RFC 6455, towards an upstream.
//
// It is made for many connections of which most are idle and some are busy: while it waits a [Conn] holds no buffer, a read takes
// what the socket has in one system call, and messages are handed over in place. It negotiates no extension, so there is no
// compression and nothing that could be inflated. It knows frames and messages and nothing of what they mean.
package websocket
