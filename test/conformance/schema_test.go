package conformance

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// schema is the suite's ConformanceService as the pinned module declares it: nothing of the suite is copied or generated here.
func schema(t *testing.T) protoreflect.ServiceDescriptor {
	t.Helper()
	sources := filepath.Join(moduleDir(t, "connectconformance", "connectrpc.com/conformance"), "proto")
	compiled := run(t, exec.CommandContext(t.Context(), tool(t, "buf"), "build", sources, "--as-file-descriptor-set", "-o", "-"))
	if err := register(compiled); err != nil {
		t.Fatal(err)
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName("connectrpc.conformance.v1.ConformanceService")
	if err != nil {
		t.Fatal(err)
	}
	service, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		t.Fatalf("%s is a %T", found.FullName(), found)
	}
	return service
}

var registering sync.Mutex

// register makes the files of a set known to the process, where reflection and the web port look for what they do not know. Files that are
// known already, as those of protobuf's own types, stay as they are.
func register(set []byte) error {
	registering.Lock()
	defer registering.Unlock()
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(set, &files); err != nil {
		return fmt.Errorf("decode the file descriptors: %w", err)
	}
	for _, f := range files.GetFile() { // each after those it imports
		if _, err := protoregistry.GlobalFiles.FindFileByPath(f.GetName()); err == nil {
			continue
		}
		file, err := protodesc.NewFile(f, protoregistry.GlobalFiles)
		if err != nil {
			return fmt.Errorf("build %s: %w", f.GetName(), err)
		}
		if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
			return fmt.Errorf("register %s: %w", f.GetName(), err)
		}
		if err := registerMessages(file.Messages()); err != nil {
			return fmt.Errorf("register the messages of %s: %w", f.GetName(), err)
		}
	}
	return nil
}

func registerMessages(messages protoreflect.MessageDescriptors) error {
	for i := range messages.Len() {
		m := messages.Get(i)
		if m.IsMapEntry() {
			continue
		}
		if err := protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(m)); err != nil {
			return err
		}
		if err := registerMessages(m.Messages()); err != nil {
			return err
		}
	}
	return nil
}
