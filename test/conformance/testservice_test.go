package conformance

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testv1 "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Metadata that the interoperability tests want echoed: the first as a header, the second as a trailer.
const (
	echoHeader  = "x-grpc-test-echo-initial"
	echoTrailer = "x-grpc-test-echo-trailing-bin"
)

// testService is the service that gRPC's interoperability tests call, as their description in the gRPC repository specifies it.
type testService struct {
	testv1.UnimplementedTestServiceServer
}

// EmptyCall implements TestServiceServer.
func (testService) EmptyCall(context.Context, *testv1.Empty) (*testv1.Empty, error) {
	return &testv1.Empty{}, nil
}

// UnaryCall implements TestServiceServer.
func (testService) UnaryCall(ctx context.Context, in *testv1.SimpleRequest) (*testv1.SimpleResponse, error) {
	if err := echoMetadata(ctx); err != nil {
		return nil, err
	}
	if err := asked(in.GetResponseStatus()); err != nil {
		return nil, err
	}
	payload, err := payloadOf(in.GetResponseType(), in.GetResponseSize())
	return &testv1.SimpleResponse{Payload: payload}, err
}

// StreamingInputCall implements TestServiceServer.
func (testService) StreamingInputCall(stream grpc.ClientStreamingServer[testv1.StreamingInputCallRequest, testv1.StreamingInputCallResponse]) error {
	total := 0
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&testv1.StreamingInputCallResponse{AggregatedPayloadSize: int32(total)})
		}
		if err != nil {
			return err
		}
		total += len(in.GetPayload().GetBody())
	}
}

// StreamingOutputCall implements TestServiceServer.
func (testService) StreamingOutputCall(
	in *testv1.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testv1.StreamingOutputCallResponse],
) error {
	return sendAsked(stream.Context(), in, stream.Send)
}

// FullDuplexCall implements TestServiceServer.
func (testService) FullDuplexCall(stream grpc.BidiStreamingServer[testv1.StreamingOutputCallRequest, testv1.StreamingOutputCallResponse]) error {
	if err := echoMetadata(stream.Context()); err != nil {
		return err
	}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := asked(in.GetResponseStatus()); err != nil {
			return err
		}
		if err := sendAsked(stream.Context(), in, stream.Send); err != nil {
			return err
		}
	}
}

// sendAsked sends the answers that a request asks for, each after the time that it names.
func sendAsked(ctx context.Context, in *testv1.StreamingOutputCallRequest, send func(*testv1.StreamingOutputCallResponse) error) error {
	for _, p := range in.GetResponseParameters() {
		if err := after(ctx, time.Duration(p.GetIntervalUs())*time.Microsecond); err != nil {
			return err
		}
		payload, err := payloadOf(in.GetResponseType(), p.GetSize())
		if err != nil {
			return err
		}
		if err := send(&testv1.StreamingOutputCallResponse{Payload: payload}); err != nil {
			return err
		}
	}
	return nil
}

// echoMetadata sends back the metadata that the tests want echoed.
func echoMetadata(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get(echoHeader); len(values) > 0 {
		if err := grpc.SetHeader(ctx, metadata.MD{echoHeader: values}); err != nil {
			return err
		}
	}
	if values := md.Get(echoTrailer); len(values) > 0 {
		return grpc.SetTrailer(ctx, metadata.MD{echoTrailer: values})
	}
	return nil
}

// asked is the status that a request asks for, as an error.
func asked(s *testv1.EchoStatus) error {
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

func payloadOf(kind testv1.PayloadType, size int32) (*testv1.Payload, error) {
	if kind != testv1.PayloadType_COMPRESSABLE || size < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "no payload of type %v and %d bytes", kind, size)
	}
	return &testv1.Payload{Type: kind, Body: make([]byte, size)}, nil
}

// after waits for d, or until ctx has ended.
func after(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
