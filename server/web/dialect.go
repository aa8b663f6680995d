package web

import (
	"encoding/binary"
	"mime"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// protocol is what a request is written in.
type protocol uint8

const (
	unknown protocol = iota
	nativeGRPC
	grpcWeb
	connectUnary
	connectStream
)

// kind is what a request's content type says: the protocol, and whether its messages are JSON instead of protobuf.
type kind struct {
	protocol protocol
	json     bool
}

const contentGRPCWeb = "application/grpc-web+proto"

var kinds = map[string]kind{
	"application/grpc":          {nativeGRPC, false},
	"application/grpc+proto":    {nativeGRPC, false},
	"application/grpc-web":      {grpcWeb, false},
	contentGRPCWeb:              {grpcWeb, false},
	"application/proto":         {connectUnary, false},
	"application/json":          {connectUnary, true},
	"application/connect+proto": {connectStream, false},
	"application/connect+json":  {connectStream, true},
}

// kindOf is what the request is written in. A charset of UTF-8 is what JSON has anyway; no other parameter means anything here.
func kindOf(h http.Header) kind {
	types := h["Content-Type"]
	if len(types) != 1 {
		return kind{}
	}
	t, params, err := mime.ParseMediaType(types[0])
	if err != nil || len(params) > 1 || (len(params) == 1 && !strings.EqualFold(params["charset"], "utf-8")) {
		return kind{}
	}
	return kinds[t]
}

// contentType is how a kind is written in a response.
func (k kind) contentType() string {
	codec := "proto"
	if k.json {
		codec = "json"
	}
	switch k.protocol {
	case grpcWeb:
		return contentGRPCWeb
	case connectStream:
		return "application/connect+" + codec
	default:
		return "application/" + codec
	}
}

// Flags of a message's envelope.
const (
	compressed   = 1 << 0
	connectEnd   = 1 << 1 // the rest is how a Connect stream ended
	grpcTrailers = 1 << 7 // the rest is the trailers of gRPC-Web
)

// envelopeBytes is the length of what precedes a message: its flags, and its length in four bytes.
const envelopeBytes = 5

// envelope is what precedes a message of n bytes.
func envelope(flags byte, n int) [envelopeBytes]byte {
	e := [envelopeBytes]byte{flags}
	binary.BigEndian.PutUint32(e[1:], uint32(n))
	return e
}

// open takes the one message of a body out of its envelope.
func open(body []byte) (message []byte, flags byte, err *status.Error) {
	if len(body) == 0 {
		return nil, 0, notOne("none")
	}
	if len(body) < envelopeBytes {
		return nil, 0, status.Violation("the body ends within an envelope")
	}
	flags, n, message := body[0], binary.BigEndian.Uint32(body[1:]), body[envelopeBytes:]
	switch {
	case flags&^compressed != 0:
		return nil, 0, status.Violation("the message has unknown flags")
	case uint64(len(message)) < uint64(n):
		return nil, 0, status.Violation("the body ends within its message")
	case uint64(len(message)) > uint64(n):
		return nil, 0, notOne("more")
	}
	return message, flags, nil
}

// notOne is what gRPC says of a call with too many messages, or too few.
func notOne(there string) *status.Error {
	return status.New(codes.Unimplemented, sluicev1.Reason_REASON_PROTOCOL_VIOLATION, "the method takes one message, and there is %s", there)
}
