package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// forwardFlags are the flags of `sluice port-forward`.
type forwardFlags struct {
	*podFlags

	addresses []string
}

func newPortForward(sys system) *cobra.Command {
	f := &forwardFlags{}
	cmd := &cobra.Command{
		Use:   "port-forward POD|TYPE/NAME [LOCAL:]REMOTE...",
		Short: "Forward ports of this machine to a pod",
		Long: `Listen on ports of this machine, and forward each TCP connection to a port of a pod, until Ctrl-C.

REMOTE is a port's number; LOCAL is the same if it is left out, and a free one if it is empty or 0. Each TCP connection has a way of its own: one
that fails is told on the standard error and is reset, and the others go on. A lost link to the gateway is waited for. A pod that is gone does not
end the command: one that comes back by the same name is reached again.`,
		Example: `  sluice port-forward web 8080:80                       # then: curl http://127.0.0.1:8080
  sluice port-forward web :80                           # a free port, which is printed
  sluice port-forward pod/web 8081:80 8443:443          # several ports
  sluice port-forward web 8082:80 --address 127.0.0.2   # another address than localhost`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage(cmd, "POD or a port is missing: sluice port-forward POD 8080:80")
			}
			return nil
		},
		RunE: f.run,
	}
	f.podFlags = newPodFlags(cmd, sys)
	cmd.Flags().StringSliceVar(&f.addresses, "address", []string{"localhost"}, "listen on this `ADDRESS`, or several with commas; localhost is 127.0.0.1 and ::1")
	cmd.ValidArgsFunction = f.access.asking(forwardWords)
	return cmd
}

// ports are a local port and the one of the pod that it leads to.
type ports struct{ local, remote uint16 }

// parsePorts reads [LOCAL:]REMOTE. A local port 0 is a free one.
func parsePorts(text string) (ports, error) {
	local, remote, both := strings.Cut(text, ":")
	if !both {
		remote = local
	}
	if both && local == "" {
		local = "0"
	}
	l, err := strconv.ParseUint(local, 10, 16)
	if err != nil {
		return ports{}, fmt.Errorf("%q is no [LOCAL:]REMOTE, two port numbers such as 8080:80", text)
	}
	r, err := strconv.ParseUint(remote, 10, 16)
	if err != nil || r == 0 {
		return ports{}, fmt.Errorf("%q is no [LOCAL:]REMOTE, two port numbers such as 8080:80", text)
	}
	return ports{uint16(l), uint16(r)}, nil
}

func (f *forwardFlags) run(cmd *cobra.Command, args []string) error {
	var wanted []ports
	for _, text := range args[1:] {
		one, err := parsePorts(text)
		if err != nil {
			return usage(cmd, "%w", err)
		}
		wanted = append(wanted, one)
	}
	p, err := f.named(cmd, args[0])
	if err != nil {
		return err
	}
	defer p.client.Close()
	if err := p.mustBeThere(cmd.Context()); err != nil {
		return ended(cmd.Context(), err)
	}
	var open forwards
	defer func() { open.close() }()
	for _, one := range wanted {
		if open, err = open.listen(cmd.Context(), f.addresses, one); err != nil {
			return ended(cmd.Context(), err)
		}
	}
	for _, one := range open {
		fmt.Fprintf(f.sys.stdout, "Forwarding from %s -> %d\n", one.listener.Addr(), one.remote)
	}
	return open.serve(cmd.Context(), p)
}

// mustBeThere refuses a pod that there is not, before somebody finds out by a connection that fails. A pod that may not be seen may be there.
func (p *podTarget) mustBeThere(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer p.n.waiting(p.access.Server + " to show pod " + p.name).Stop()
	found, err := p.pods(ctx, &sluicev1.WatchTarget{Name: p.name})
	switch {
	case forbidden(err):
	case err != nil:
		return err
	case len(found) == 0:
		return fmt.Errorf("there is no pod %q in namespace %s", p.name, p.access.Namespace)
	case found[0].Status.Phase != "Running":
		p.n.sayf("pod %s is %s; what connects fails until it runs", p.name, found[0].Status.Phase)
	}
	return nil
}

// forward is a listener, and the port of the pod that what it accepts is led to.
type forward struct {
	listener net.Listener
	remote   uint16
}

type forwards []forward

func (fs forwards) close() {
	for _, one := range fs {
		_ = one.listener.Close() // its only error is that it is closed already
	}
}

// listen listens on each address too. Of localhost one of its two is enough.
func (fs forwards) listen(ctx context.Context, addresses []string, p ports) (forwards, error) {
	for _, address := range addresses {
		hosts := []string{address}
		if address == "localhost" {
			hosts = []string{"127.0.0.1", "::1"}
		}
		var errs []error
		port := p.local
		for _, host := range hosts {
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(port))))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			fs = append(fs, forward{l, p.remote})
			port = uint16(l.Addr().(*net.TCPAddr).Port) // a free one is the same for both
		}
		if len(errs) == len(hosts) {
			return fs, hinted{fmt.Errorf("listen: %w", errs[0]), fmt.Sprintf("give another local port before the colon, or none for a free one, :%d", p.remote)}
		}
	}
	return fs, nil
}

// serve forwards what connects until ctx ends, which is how it ends well.
func (fs forwards) serve(ctx context.Context, p *podTarget) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, len(fs))
	for i, one := range fs {
		all.Go(func() {
			defer cancel()
			errs[i] = p.client.ForwardListener(inner, one.listener, client.PortForwardRequest{
				Cluster: p.access.Cluster,
				Target:  &sluicev1.PortForwardTarget{Namespace: p.access.Namespace, Pod: p.name, Port: uint32(one.remote)},
			}, func(remote net.Addr, err error) {
				if err != nil && inner.Err() == nil {
					p.n.sayf("a connection of %s to port %d of pod %s failed: %s", remote, one.remote, p.name, brief(err))
				}
			})
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	return errors.Join(errs...)
}
