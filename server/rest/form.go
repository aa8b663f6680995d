package rest

import (
	"bytes"
	"fmt"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// form is how a stream is written in one media type.
type form interface {
	// contentType is the answer's header.
	contentType() string
	// response is one response as it is written. An error ends the stream: that is what remains to be told.
	response(response) ([]byte, error)
	// failure is what ends a stream that failed with a Status, given as JSON. Where nothing can be written to say so, it is false, and the
	// answer is cut off, so that nobody takes it for whole.
	failure(status []byte) (last []byte, ok bool)
}

// forms are all of them, by media type.
var forms = map[string]form{ndjson: jsonLines{}, eventStream: serverSent{}, plainText: logText{}}

// jsonLines are responses as JSON, one a line.
type jsonLines struct{}

func (jsonLines) contentType() string { return ndjson }

func (jsonLines) response(m response) ([]byte, error) {
	b, err := compact(m)
	return append(b, '\n'), err
}

func (jsonLines) failure(s []byte) ([]byte, bool) {
	return append(append([]byte(`{"error":`), s...), "}\n"...), true
}

// serverSent are responses as server-sent events (WHATWG HTML, 9.2), with their cursors as ids.
type serverSent struct{}

func (serverSent) contentType() string { return eventStream }

func (serverSent) response(m response) ([]byte, error) {
	b, err := compact(m)
	return event("", m.GetCursor(), b), err
}

func (serverSent) failure(s []byte) ([]byte, bool) { return event("error", "", s), true }

// event is one server-sent event. JSON has no line breaks in it, and neither has a cursor.
func event(kind, id string, data []byte) []byte {
	var b bytes.Buffer
	if kind != "" {
		fmt.Fprintf(&b, "event: %s\n", kind)
	}
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return b.Bytes()
}

// logText is a log itself, byte for byte. It has no room for anything else: a part that is missing ends it like any other failure.
type logText struct{}

func (logText) contentType() string { return plainText + "; charset=utf-8" }

func (logText) response(m response) ([]byte, error) {
	l, ok := m.(*sluicev1.LogsResponse)
	if !ok {
		return nil, status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "%T is no part of a log", m)
	}
	switch l.GetState().GetKind() {
	case sluicev1.ChannelState_KIND_UNSPECIFIED: // there is no state
		return append([]byte(l.GetText()), l.GetBinary()...), nil
	case sluicev1.ChannelState_KIND_CONNECTED, sluicev1.ChannelState_KIND_RECONNECTING, sluicev1.ChannelState_KIND_RESTARTED:
		return nil, nil // nothing is missing
	}
	if e := status.FromProto(l.GetState().GetStatus()); e != nil {
		return nil, e
	}
	return nil, status.New(codes.DataLoss, sluicev1.Reason_REASON_UNSPECIFIED, "a part of the log is missing")
}

func (logText) failure([]byte) ([]byte, bool) { return nil, false }
