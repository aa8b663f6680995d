package conformance

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// message is a message whose type is known at run time alone. A name that its type does not have is a mistake in this package, and panics.
type message struct{ protoreflect.Message }

func (m message) descriptor(field protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(field)
}

func (m message) value(field protoreflect.Name) protoreflect.Value { return m.Get(m.descriptor(field)) }

func (m message) has(field protoreflect.Name) bool { return m.Has(m.descriptor(field)) }

// sub is the message in a field, an empty one when the field is not set.
func (m message) sub(field protoreflect.Name) message { return message{m.value(field).Message()} }

// each calls f with every message of a repeated field.
func (m message) each(field protoreflect.Name, f func(message)) {
	list := m.value(field).List()
	for i := range list.Len() {
		f(message{list.Get(i).Message()})
	}
}

// set sets a field that is not repeated.
func (m message) set(field protoreflect.Name, v any) {
	m.Set(m.descriptor(field), protoreflect.ValueOf(v))
}

// mutable is the message in a field, which is set to an empty one when it is not set.
func (m message) mutable(field protoreflect.Name) message {
	return message{m.Mutable(m.descriptor(field)).Message()}
}

// add appends an empty message to a repeated field.
func (m message) add(field protoreflect.Name) message {
	return message{m.Mutable(m.descriptor(field)).List().AppendMutable().Message()}
}

// addAny appends a to a repeated field of Any, which m knows as a type of its own.
func (m message) addAny(field protoreflect.Name, a *anypb.Any) {
	to := m.add(field)
	to.set("type_url", a.GetTypeUrl())
	to.set("value", a.GetValue())
}

// asAny is m in an Any.
func (m message) asAny() (*anypb.Any, error) {
	a := &anypb.Any{}
	return a, anypb.MarshalFrom(a, m.Interface(), proto.MarshalOptions{Deterministic: true})
}
