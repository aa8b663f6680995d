package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Media types of what is answered.
const (
	jsonType    = "application/json"
	ndjson      = "application/x-ndjson"
	eventStream = "text/event-stream"
	plainText   = "text/plain"
)

// deepest is how deep a body may be nested. A target has three levels.
const deepest = 16

// answers is the JSON of unary calls. An answer says its defaults, so that "allowed": false and an empty list can be read.
type answers struct{ runtime.JSONPb }

var _ runtime.Marshaler = (*answers)(nil)

func newAnswers() *answers {
	return &answers{runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{RecursionLimit: deepest},
	}}
}

// Marshal implements runtime.Marshaler: an answer is a line, as curl prints it best.
func (a *answers) Marshal(v any) ([]byte, error) {
	b, err := a.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	b, err = packed(b)
	return append(b, '\n'), err
}

// NewDecoder implements runtime.Marshaler: a body is one JSON value and nothing after it. An empty one is io.EOF, which grpc-gateway takes for an
// empty message.
func (a *answers) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		if len(b) == 0 {
			return io.EOF
		}
		if err := a.Unmarshal(b, v); err != nil {
			return fmt.Errorf("the body: %w", err)
		}
		if !json.Valid(b) { // Unmarshal reads one value and leaves the rest
			return errors.New("the body is more than one JSON value")
		}
		return nil
	})
}

// compact is m as a line of JSON. Lines of streams and errors leave out what is not set.
func compact(m proto.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	return packed(b)
}

// packed is JSON without spaces. protojson puts some in, at other places in each binary, so that nobody relies on its bytes; people read and
// compare these.
func packed(b []byte) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(b) + 1)
	if err := json.Compact(&out, b); err != nil {
		return nil, fmt.Errorf("pack JSON: %w", err)
	}
	return out.Bytes(), nil
}
