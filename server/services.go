package server

import (
	"errors"
	"fmt"

	"google.golang.org/grpc"
)

// Service is a service of gRPC that is served beside Sluice's own, through the same doors and interceptors: for who embeds a gateway, and for
// the suites that hold one to the protocols it speaks.
type Service struct {
	// Register registers the service, or several. It is called once, by New.
	Register func(grpc.ServiceRegistrar)
	// Access is who may call what Register registers.
	Access Access
}

// Access is who may call the methods of a service. The zero Access lets nobody in, and a server with such a service does not start.
type Access uint8

const (
	// Authenticated lets in whom Config.Authenticator knows; auth.FromContext then has the principal.
	Authenticated = Access(authenticated)
	// Public lets anybody in.
	Public = Access(public)
)

// registrar registers services and keeps who may call them.
type registrar struct {
	grpc.ServiceRegistrar
	access   access
	accessOf map[string]access
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.accessOf[desc.ServiceName] = r.access
	r.ServiceRegistrar.RegisterService(desc, impl)
}

// registerOthers registers the services of the configuration.
func (s *Server) registerOthers() (accessOf map[string]access) {
	accessOf = map[string]access{}
	for _, other := range s.cfg.Services {
		other.Register(registrar{s.grpc, access(other.Access), accessOf})
	}
	return accessOf
}

// validate reports all that is wrong.
func (s Service) validate(i int) error {
	var errs []error
	if s.Register == nil {
		errs = append(errs, fmt.Errorf("services[%d] has no Register", i))
	}
	if s.Access > Public {
		errs = append(errs, fmt.Errorf("services[%d] has an unknown access, %d", i, s.Access))
	}
	return errors.Join(errs...)
}
