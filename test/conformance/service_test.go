package conformance

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// conformanceService describes the service that the connectrpc conformance suite calls: each request says what the answer shall be, and is told
// back in it together with its headers and its time limit. The method Unimplemented is left out, as the suite asks for.
func conformanceService(schema protoreflect.ServiceDescriptor) *grpc.ServiceDesc {
	reply := func(method protoreflect.Name) protoreflect.MessageDescriptor {
		return schema.Methods().ByName(method).Output()
	}
	return &grpc.ServiceDesc{
		ServiceName: string(schema.FullName()),
		HandlerType: (*any)(nil),
		Metadata:    schema.ParentFile().Path(),
		Methods: []grpc.MethodDesc{
			unaryMethod(schema.Methods().ByName("Unary")),
			unaryMethod(schema.Methods().ByName("IdempotentUnary")),
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "ClientStream", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return clientStream(s, schema.Methods().ByName("ClientStream").Input(), reply("ClientStream"))
			}},
			{StreamName: "ServerStream", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return serverStream(s, schema.Methods().ByName("ServerStream").Input(), reply("ServerStream"))
			}},
			{StreamName: "BidiStream", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				return bidiStream(s, schema.Methods().ByName("BidiStream").Input(), reply("BidiStream"))
			}},
		},
	}
}

func unaryMethod(m protoreflect.MethodDescriptor) grpc.MethodDesc {
	answer := func(ctx context.Context, request any) (any, error) {
		in := message{request.(*dynamicpb.Message)}
		told, err := in.asAny()
		if err != nil {
			return nil, err
		}
		return single(ctx, in.sub("response_definition"), []*anypb.Any{told}, m.Output())
	}
	info := grpc.UnaryServerInfo{FullMethod: fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())}
	handler := func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		request := dynamicpb.NewMessage(m.Input())
		if err := decode(request); err != nil {
			return nil, err
		}
		return interceptor(ctx, request, &info, answer)
	}
	return grpc.MethodDesc{MethodName: string(m.Name()), Handler: handler}
}

func clientStream(s grpc.ServerStream, request, reply protoreflect.MessageDescriptor) error {
	first, told, err := receiveAll(s, request)
	if err != nil {
		return err
	}
	out, err := single(s.Context(), first.sub("response_definition"), told, reply)
	if err != nil {
		return err
	}
	return s.SendMsg(out)
}

// receive receives the next request, and returns it as it is told back, too. The error is io.EOF after the last.
func receive(s grpc.ServerStream, request protoreflect.MessageDescriptor) (message, *anypb.Any, error) {
	in := message{dynamicpb.NewMessage(request)}
	if err := s.RecvMsg(in.Interface()); err != nil {
		return message{}, nil, err
	}
	told, err := in.asAny()
	return in, told, err
}

// receiveAll receives all requests. The first one is empty if there was none.
func receiveAll(s grpc.ServerStream, request protoreflect.MessageDescriptor) (first message, told []*anypb.Any, err error) {
	first = message{dynamicpb.NewMessage(request)}
	for {
		in, as, err := receive(s, request)
		if errors.Is(err, io.EOF) {
			return first, told, nil
		}
		if err != nil {
			return message{}, nil, err
		}
		if told = append(told, as); len(told) == 1 {
			first = in
		}
	}
}

// single is the one answer to a unary or client-streaming call.
func single(ctx context.Context, definition message, told []*anypb.Any, reply protoreflect.MessageDescriptor) (proto.Message, error) {
	if err := grpc.SetHeader(ctx, pairs(definition, "response_headers")); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, pairs(definition, "response_trailers")); err != nil {
		return nil, err
	}
	if err := pause(ctx, definition); err != nil {
		return nil, err
	}
	out := message{dynamicpb.NewMessage(reply)}
	payload := out.mutable("payload")
	tellAll(ctx, payload.mutable("request_info"), told)
	if definition.has("error") {
		return nil, failure(definition.sub("error"), payload.sub("request_info"))
	}
	payload.set("data", definition.value("response_data").Bytes())
	return out.Interface(), nil
}

func serverStream(s grpc.ServerStream, request, reply protoreflect.MessageDescriptor) error {
	in, told, err := receive(s, request)
	if err != nil {
		return err
	}
	a := answers{stream: s, reply: reply}
	if err := a.begin(in); err != nil {
		return err
	}
	return a.finish([]*anypb.Any{told})
}

func bidiStream(s grpc.ServerStream, request, reply protoreflect.MessageDescriptor) error {
	in, told, err := receive(s, request)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	a := answers{stream: s, reply: reply}
	if in.value("full_duplex").Bool() {
		return a.inTurns(in, told, request)
	}
	_, rest, err := receiveAll(s, request)
	if err != nil {
		return err
	}
	if err := a.begin(in); err != nil {
		return err
	}
	return a.finish(append([]*anypb.Any{told}, rest...))
}

// answers are the answers of one stream.
type answers struct {
	stream     grpc.ServerStream
	reply      protoreflect.MessageDescriptor
	definition message // of the first request
	data       protoreflect.List
	sent       int
}

// begin takes the definition of the first request, and sends the headers.
func (a *answers) begin(first message) error {
	a.definition = first.sub("response_definition")
	a.data = a.definition.value("response_data").List()
	a.stream.SetTrailer(pairs(a.definition, "response_trailers"))
	return a.stream.SendHeader(pairs(a.definition, "response_headers"))
}

// inTurns answers each request before it receives the next, until there is no answer left for one.
func (a *answers) inTurns(in message, told *anypb.Any, request protoreflect.MessageDescriptor) error {
	if err := a.begin(in); err != nil {
		return err
	}
	for {
		if a.sent == a.data.Len() {
			return a.finish([]*anypb.Any{told})
		}
		if err := a.send([]*anypb.Any{told}); err != nil {
			return err
		}
		var err error
		if _, told, err = receive(a.stream, request); errors.Is(err, io.EOF) {
			return a.finish(nil)
		} else if err != nil {
			return err
		}
	}
}

// send sends the next answer. The first one tells headers, time limit and the requests; later ones the requests since.
func (a *answers) send(told []*anypb.Any) error {
	if err := pause(a.stream.Context(), a.definition); err != nil {
		return err
	}
	out := message{dynamicpb.NewMessage(a.reply)}
	payload := out.mutable("payload")
	payload.set("data", a.data.Get(a.sent).Bytes())
	if a.sent == 0 {
		tellAll(a.stream.Context(), payload.mutable("request_info"), told)
	} else if len(told) > 0 {
		tell(payload.mutable("request_info"), told)
	}
	a.sent++
	return a.stream.SendMsg(out.Interface())
}

// finish sends the answers that are left, and then the error, if there is to be one.
func (a *answers) finish(told []*anypb.Any) error {
	for a.sent < a.data.Len() {
		if err := a.send(told); err != nil {
			return err
		}
		told = nil
	}
	if !a.definition.has("error") {
		return nil
	}
	if a.sent > 0 {
		return failure(a.definition.sub("error"))
	}
	info := message{dynamicpb.NewMessage(a.reply)}.mutable("payload").mutable("request_info")
	tellAll(a.stream.Context(), info, told)
	return failure(a.definition.sub("error"), info)
}

// tellAll tells a call's headers, time limit and requests in info.
func tellAll(ctx context.Context, info message, requests []*anypb.Any) {
	md, _ := metadata.FromIncomingContext(ctx)
	for name, values := range md {
		header := info.add("request_headers")
		header.set("name", name)
		list := header.Mutable(header.descriptor("value")).List()
		for _, v := range values {
			if strings.HasSuffix(name, "-bin") {
				v = base64.RawStdEncoding.EncodeToString([]byte(v))
			}
			list.Append(protoreflect.ValueOfString(v))
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		info.set("timeout_ms", time.Until(deadline).Milliseconds())
	}
	tell(info, requests)
}

func tell(info message, requests []*anypb.Any) {
	for _, r := range requests {
		info.addAny("requests", r)
	}
}

// pairs are the headers or trailers of a definition.
func pairs(definition message, field protoreflect.Name) metadata.MD {
	md := metadata.MD{}
	definition.each(field, func(header message) {
		name, values := header.value("name").String(), header.value("value").List()
		for i := range values.Len() {
			v := values.Get(i).String()
			if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "=")); err == nil && strings.HasSuffix(name, "-bin") {
				v = string(raw)
			}
			md.Append(name, v)
		}
	})
	return md
}

// failure is the error of a definition, with more details after its own.
func failure(e message, more ...message) error {
	p := status.New(codes.Code(e.value("code").Enum()), e.value("message").String()).Proto()
	e.each("details", func(d message) {
		p.Details = append(p.Details, &anypb.Any{TypeUrl: d.value("type_url").String(), Value: d.value("value").Bytes()})
	})
	for _, m := range more {
		a, err := m.asAny()
		if err != nil {
			return err
		}
		p.Details = append(p.Details, a)
	}
	return status.ErrorProto(p)
}

// pause waits as long as a definition says, or until the call has ended.
func pause(ctx context.Context, definition message) error {
	return after(ctx, time.Duration(definition.value("response_delay_ms").Uint())*time.Millisecond)
}
