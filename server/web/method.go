package web

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// method is an RPC.
type method struct {
	path         string
	clientStream bool
	serverStream bool
	// request and answer are the messages, for JSON; nil when the process has no description of them.
	request, answer protoreflect.MessageType
}

// methods are the RPCs of those services of g, by path.
func methods(g *grpc.Server, services []string) map[string]*method {
	out := map[string]*method{}
	known := g.GetServiceInfo()
	for _, service := range services {
		for _, info := range known[service].Methods {
			m := &method{path: "/" + service + "/" + info.Name, clientStream: info.IsClientStream, serverStream: info.IsServerStream}
			m.request, m.answer = messagesOf(service, info.Name)
			out[m.path] = m
		}
	}
	return out
}

// messagesOf are the messages of a method, or nil and nil.
func messagesOf(service, name string) (request, answer protoreflect.MessageType) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service).Append(protoreflect.Name(name)))
	if err != nil {
		return nil, nil
	}
	described, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil
	}
	request, err = protoregistry.GlobalTypes.FindMessageByName(described.Input().FullName())
	if err != nil {
		return nil, nil
	}
	if answer, err = protoregistry.GlobalTypes.FindMessageByName(described.Output().FullName()); err != nil {
		return nil, nil
	}
	return request, answer
}
