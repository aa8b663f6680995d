// Package status holds the one error type of Sluice.
//
// Every refusal, end and loss is a [Error]: a canonical code, a reason for programs, a text for people, and what the API server said, if
// it said anything. It travels as sluice.v1.Status: as the detail of a failed RPC, in Closed, Goodbye, ChannelState and AuthState.
// [From] reads it back on the other side, so that code decides by code and reason and never by text.
package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Error is why something was refused, ended or lost. It is immutable once returned; the With methods copy.
type Error struct {
	// Code is the canonical code. An Error never has OK.
	Code codes.Code
	// Reason is what exactly happened.
	Reason sluicev1.Reason
	// Message is for people: what happened, the limit or field, what to do next. Never a credential.
	Message string
	// HTTPCode is what the API server answered with, 0 when none did.
	HTTPCode int
	// Kubernetes is the API server's own Status, as received.
	Kubernetes *sluicev1.KubernetesStatus
	// RetryAfter is the earliest time for another attempt, 0 when nothing is known.
	RetryAfter time.Duration
	// Limit names the limit that was met.
	Limit string
	// Resumable says that a new channel at the last cursor continues what ended.
	Resumable bool
	// FromPeer says that the other side of the link said so; otherwise this side inferred it.
	FromPeer bool

	cause error
}

// New makes an Error.
func New(code codes.Code, reason sluicev1.Reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Limit makes a RESOURCE_EXHAUSTED that names the limit.
func Limit(limit, format string, args ...any) *Error {
	e := New(codes.ResourceExhausted, sluicev1.Reason_REASON_LIMIT, format, args...)
	e.Limit = limit
	return e
}

// Violation makes the error for a peer that broke the protocol.
func Violation(format string, args ...any) *Error {
	return New(codes.InvalidArgument, sluicev1.Reason_REASON_PROTOCOL_VIOLATION, format, args...)
}

// Unauthenticated makes the error for a credential that proves nobody.
func Unauthenticated(reason sluicev1.Reason, format string, args ...any) *Error {
	return New(codes.Unauthenticated, reason, format, args...)
}

// Wrap returns a copy that unwraps to cause. The cause's text is not sent to peers.
func (e *Error) Wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// WithRetryAfter returns a copy that names the earliest time for another attempt.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// WithResumable returns a copy that says whether the last cursor continues what ended.
func (e *Error) WithResumable(resumable bool) *Error {
	c := *e
	c.Resumable = resumable
	return &c
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Code.String()
	if e.Reason != sluicev1.Reason_REASON_UNSPECIFIED {
		s += " (" + ReasonName(e.Reason) + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// OrNil is e as an error, which is nil when e is: a nil *Error in an error is not.
func (e *Error) OrNil() error {
	if e == nil {
		return nil
	}
	return e
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error of the same code and reason.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code && t.Reason == e.Reason
}

// ReasonName is a reason without its enum prefix, such as "EXPIRED".
func ReasonName(r sluicev1.Reason) string {
	const prefix = len("REASON_")
	if s := r.String(); len(s) > prefix && s[:prefix] == "REASON_" {
		return s[prefix:]
	}
	return r.String()
}

// Proto is the Error as it travels.
func (e *Error) Proto() *sluicev1.Status {
	p := &sluicev1.Status{
		Code: uint32(e.Code), Reason: e.Reason, Message: e.Message, HttpCode: uint32(max(e.HTTPCode, 0)),
		Kubernetes: e.Kubernetes, Limit: e.Limit, Resumable: e.Resumable,
	}
	if e.RetryAfter > 0 {
		p.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return p
}

// FromProto is the Error in a received Status; nil for none and for success.
func FromProto(p *sluicev1.Status) *Error {
	if p.GetCode() == 0 {
		return nil
	}
	return &Error{
		Code: codes.Code(p.GetCode()), Reason: p.GetReason(), Message: p.GetMessage(), HTTPCode: int(p.GetHttpCode()),
		Kubernetes: p.GetKubernetes(), RetryAfter: max(p.GetRetryAfter().AsDuration(), 0), Limit: p.GetLimit(),
		Resumable: p.GetResumable(), FromPeer: true,
	}
}

// GRPCStatus makes grpc-go send the Error with its detail.
func (e *Error) GRPCStatus() *grpcstatus.Status {
	s := grpcstatus.New(e.Code, e.Message)
	if d, err := s.WithDetails(e.Proto()); err == nil {
		return d
	}
	return s
}

// From finds the Error in err: its own, the detail of a failed RPC, or one made of what else is known. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if s, ok := grpcstatus.FromError(err); ok {
		return fromGRPC(s, err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "cancelled").Wrap(err)
	case errors.Is(err, context.DeadlineExceeded):
		return New(codes.DeadlineExceeded, sluicev1.Reason_REASON_UNSPECIFIED, "out of time").Wrap(err)
	}
	return New(codes.Unknown, sluicev1.Reason_REASON_UNSPECIFIED, "unexpected error").Wrap(err)
}

func fromGRPC(s *grpcstatus.Status, err error) *Error {
	for _, d := range s.Details() {
		if p, ok := d.(*sluicev1.Status); ok {
			if e := FromProto(p); e != nil {
				return e.Wrap(nil)
			}
		}
	}
	return New(s.Code(), sluicev1.Reason_REASON_UNSPECIFIED, "%s", s.Message()).Wrap(nonStatus(err))
}

// nonStatus is err's cause below its gRPC status, so that its text is not repeated.
func nonStatus(err error) error { return errors.Unwrap(err) }

// Code is the canonical code of err: OK for nil, Unknown for what is no Error.
func Code(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return From(err).Code
}

// Reason is the reason of err.
func Reason(err error) sluicev1.Reason {
	if err == nil {
		return sluicev1.Reason_REASON_UNSPECIFIED
	}
	return From(err).Reason
}

// httpCodes maps canonical codes as google.rpc.Code documents them.
var httpCodes = map[codes.Code]int{
	codes.Canceled: 499, codes.InvalidArgument: http.StatusBadRequest, codes.DeadlineExceeded: http.StatusGatewayTimeout,
	codes.NotFound: http.StatusNotFound, codes.AlreadyExists: http.StatusConflict, codes.PermissionDenied: http.StatusForbidden,
	codes.ResourceExhausted: http.StatusTooManyRequests, codes.FailedPrecondition: http.StatusBadRequest, codes.Aborted: http.StatusConflict,
	codes.OutOfRange: http.StatusBadRequest, codes.Unimplemented: http.StatusNotImplemented, codes.Unavailable: http.StatusServiceUnavailable,
	codes.Unauthenticated: http.StatusUnauthorized,
}

// HTTP is the HTTP code that REST answers with.
func HTTP(code codes.Code) int {
	if code == codes.OK {
		return http.StatusOK
	}
	if c, ok := httpCodes[code]; ok {
		return c
	}
	return http.StatusInternalServerError
}

// CodeOfHTTP is the canonical code for an HTTP code that an API server answers a request with.
func CodeOfHTTP(code int) codes.Code {
	switch code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusNotAcceptable:
		return codes.InvalidArgument
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return codes.NotFound
	case http.StatusConflict:
		return codes.Aborted
	case http.StatusGone:
		return codes.OutOfRange
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	switch {
	case code >= 200 && code < 300:
		return codes.OK
	case code >= 300 && code < 400:
		return codes.Unavailable
	case code >= 400 && code < 500:
		return codes.FailedPrecondition
	}
	return codes.Internal
}
