package bridge

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// ending is why an upstream ended, or was not had at all.
type ending struct {
	cause  *status.Error
	had    bool          // it stood
	stood  time.Duration // how long; 0 if it never did
	heard  bool          // it brought an event or a bookmark
	proper bool          // it ended as the API server ends a watch whose time is over
	said   bool          // cause was an event of the watch
	silent bool          // it was closed because it said nothing
	quiet  bool          // the client need not know of the wait that follows
}

// Error implements error.
func (e *ending) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *ending) Unwrap() error { return e.cause }

// refused is the ending of an upstream that was not had.
func refused(err error) *ending { return &ending{cause: status.From(err)} }

// lost is the ending of an upstream whose reading failed.
func lost(err error) *ending {
	var closed *websocket.CloseError
	reason := sluicev1.Reason_REASON_UPSTREAM_LOST
	if _, ok := errors.AsType[*websocket.ProtocolError](err); ok {
		reason = sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
	}
	return &ending{
		cause:  status.New(codes.Unavailable, reason, "the upstream ended").Wrap(err),
		proper: errors.As(err, &closed) && closed.Code == websocket.CodeNormal,
	}
}

// terminal reports whether another attempt is of no use: the API server refuses this request, or the gateway does.
func terminal(e *status.Error) bool {
	switch code := e.HTTPCode; {
	case code == http.StatusRequestTimeout, code == http.StatusGone, code == http.StatusTooManyRequests:
		return false
	case code >= 400 && code < 500:
		return true
	case code != 0:
		return false
	}
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.OutOfRange:
		return false
	}
	return true
}

// expired reports whether the API server no longer has, or does not have yet, the version that the watch should go on from.
func expired(e *status.Error) bool {
	return e.HTTPCode == http.StatusGone || e.Kubernetes.GetReason() == "Expired" || inFuture(e)
}

// inFuture reports whether the API server says that a version is newer than its store. It says so by a cause
// (k8s.io/apimachinery/pkg/apis/meta/v1, CauseTypeResourceVersionTooLarge) of a time-out.
func inFuture(e *status.Error) bool {
	for _, c := range e.Kubernetes.GetDetails().GetCauses() {
		if c.GetReason() == "ResourceVersionTooLarge" {
			return true
		}
	}
	return false
}

// said is what the ERROR event of a cluster says. One that holds no Status is an internal error of the API server.
func said(name string, object []byte) *status.Error {
	var s struct {
		Code uint16 `json:"code"`
	}
	if json.Unmarshal(object, &s) != nil || s.Code < http.StatusBadRequest {
		s.Code = http.StatusInternalServerError
	}
	return cluster.Refusal(name, int(s.Code), nil, object)
}
