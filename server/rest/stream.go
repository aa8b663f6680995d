package rest

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// response is one message of a stream.
type response interface {
	proto.Message
	GetCursor() string
}

// receiver is a stream of responses. Recv returns io.EOF at its end.
type receiver interface {
	recv() (response, error)
	Header() (metadata.MD, error)
}

// call begins a streaming method, whose request fill fills. The stream ends with ctx.
type call func(ctx context.Context, fill func(proto.Message) error) (receiver, error)

// streaming is a method of a client as a call.
func streaming[Q, R any](method func(context.Context, *Q, ...grpc.CallOption) (grpc.ServerStreamingClient[R], error)) call {
	return func(ctx context.Context, fill func(proto.Message) error) (receiver, error) {
		q := new(Q)
		if err := fill(any(q).(proto.Message)); err != nil {
			return nil, err
		}
		s, err := method(ctx, q)
		if err != nil {
			return nil, err
		}
		return typed[R]{s}, nil
	}
}

// typed is a stream of one type of responses.
type typed[R any] struct{ grpc.ServerStreamingClient[R] }

func (t typed[R]) recv() (response, error) {
	m, err := t.Recv()
	if err != nil {
		return nil, err
	}
	return any(m).(response), nil
}

// stream forwards a streaming method's responses until either side ends. The call ends with the request's context, and so with this handler.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, rt *route, begin call, values []value, format string) {
	ctx, err := runtime.AnnotateContext(r.Context(), h.unary, rebuild(r, nil, nil), rt.operation)
	if err != nil {
		fail(w, r, err)
		return
	}
	if format == eventStream {
		values = rt.resumed(r.Header, values)
	}
	s, err := begin(ctx, func(m proto.Message) error { return rt.fill(m, r, values) })
	if err != nil {
		fail(w, r, err)
		return
	}
	out := newWriter(w, format)
	defer out.end()
	if err := forward(s, out); err != nil {
		out.fail(r, err)
	}
}

// forward writes the responses of s until it ends. What could not be written is nobody's error: the client has left.
func forward(s receiver, out *writer) error {
	for first := true; ; first = false {
		m, err := s.recv()
		if first {
			out.headers(s.Header())
		}
		if errors.Is(err, io.EOF) {
			out.begin()
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.response(m); err != nil {
			return err
		}
	}
}

// resumed are the values with the cursor of the last event that an EventSource has seen. It sends the URL it began with again, so that cursor is
// the older one.
func (rt *route) resumed(h http.Header, values []value) []value {
	cursor := h.Get("Last-Event-ID")
	if cursor == "" {
		return values
	}
	out := []value{{name: "Last-Event-ID", field: rt.queries["cursor"], text: cursor}}
	for _, v := range values {
		if v.name != "cursor" {
			out = append(out, v)
		}
	}
	return out
}
