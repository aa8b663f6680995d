package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluice-gateway/sluice/internal/status"
)

// nesting is how deep the messages of a JSON body may lie in each other. Ours need less than ten.
const nesting = 64

// fromJSON is a JSON message as protobuf encodes it. A field that the message does not have is an error: it is a misspelt one.
func fromJSON(b []byte, t protoreflect.MessageType) ([]byte, *status.Error) {
	m := t.New().Interface()
	if err := (protojson.UnmarshalOptions{RecursionLimit: nesting}).Unmarshal(b, m); err != nil {
		return nil, status.Violation("the body is no %s: %s", t.Descriptor().Name(), wrong(b, t.Descriptor()))
	}
	out, err := proto.Marshal(m)
	if err != nil {
		return nil, status.Violation("the body is no %s: it cannot be encoded", t.Descriptor().Name())
	}
	return out, nil
}

// wrong says what is wrong with a message that protojson does not take. protojson says it as well, and quotes values: a body may hold a
// credential.
func wrong(b []byte, d protoreflect.MessageDescriptor) string {
	var v any
	err := json.Unmarshal(b, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("it is no JSON, at byte %d", syntax.Offset)
	}
	if path := unknownField(v, d, nesting); path != "" {
		return fmt.Sprintf("there is no field %.100q", path)
	}
	return "a field has a value that is not of its type, or twice, or they lie too deep"
}

// unknownField is the path of a field that a message does not have, "" when all are known.
func unknownField(v any, d protoreflect.MessageDescriptor, depth int) string {
	fields, ok := v.(map[string]any)
	if !ok || depth == 0 || strings.HasPrefix(string(d.FullName()), "google.protobuf.") {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := d.Fields().ByJSONName(name)
		if f == nil {
			f = d.Fields().ByTextName(name)
		}
		if f == nil {
			return name
		}
		if below := unknownBelow(fields[name], f, depth-1); below != "" {
			return name + "." + below
		}
	}
	return ""
}

// unknownBelow is unknownField for the value of one field.
func unknownBelow(v any, f protoreflect.FieldDescriptor, depth int) string {
	element := f
	if f.IsMap() {
		element = f.MapValue()
	}
	if element.Message() == nil {
		return ""
	}
	var values []any
	switch {
	case f.IsMap():
		m, _ := v.(map[string]any)
		values = slices.Collect(maps.Values(m))
	case f.IsList():
		values, _ = v.([]any)
	default:
		values = []any{v}
	}
	for _, v := range values {
		if below := unknownField(v, element.Message(), depth); below != "" {
			return below
		}
	}
	return ""
}

// toJSON is an encoded message as JSON, without the fields that are empty.
func toJSON(b []byte, t protoreflect.MessageType) ([]byte, error) {
	m := t.New().Interface()
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, err
	}
	return protojson.Marshal(m)
}
