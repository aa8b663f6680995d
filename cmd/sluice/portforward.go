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

REMOTE is a port's number, or the name that the pod gives it; of service/NAME it is a port of the service, which leads to the pod's port that the
service says. LOCAL is the same number if it is left out, and a free one if it is empty or 0. Each TCP connection has a way of its own: one that
fails is told on the standard error and is reset, and the others go on. A lost link to the gateway is waited for. A pod that is gone does not end
the command: one that comes back by the same name is reached again.

TYPE/NAME is one of the pods of a deployment, service, or whatever else selects pods.`,
		Example: `  sluice port-forward web 8080:80                       # then: curl http://127.0.0.1:8080
  sluice port-forward web :80                           # a free port, which is printed
  sluice port-forward pod/web 8081:80 8443:443          # several ports
  sluice port-forward web 8082:80 --address 127.0.0.2   # another address than localhost
  sluice port-forward -n shop service/web 8083:main     # a service's port, by its name
  sluice port-forward -n shop deploy/cart :9000         # one of the pods of a deployment`,
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
	cmd.ValidArgsFunction = f.access.askingWith(forwardWords)
	return cmd
}

func (f *forwardFlags) run(cmd *cobra.Command, args []string) error {
	var wanted []wantedPorts
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
	resolved, err := p.resolve(cmd.Context(), wanted)
	if err != nil {
		return ended(cmd.Context(), err)
	}
	var open forwards
	defer func() { open.close() }()
	for _, one := range resolved {
		if open, err = open.listen(cmd.Context(), f.addresses, one); err != nil {
			return ended(cmd.Context(), err)
		}
	}
	for _, one := range open {
		fmt.Fprintf(f.sys.stdout, "Forwarding from %s -> %d\n", one.listener.Addr(), one.remote)
	}
	return open.serve(cmd.Context(), p)
}

// resolve finds the pod's ports. It refuses a pod that there is not, before somebody finds out by a connection that fails. A pod that may not
// be seen may be there, but nobody knows what it calls its ports.
func (p *podTarget) resolve(ctx context.Context, wanted []wantedPorts) (all []ports, err error) {
	pod, unseen := p.see(ctx)
	if unseen != nil && !forbidden(unseen) {
		return nil, unseen
	}
	for _, w := range wanted {
		var one ports
		switch {
		case unseen != nil && w.number() == 0:
			return nil, hinted{unseen, fmt.Sprintf("ask for the permission to watch pods in namespace %s, or give the number of port %s", p.access.Namespace, w.remote)}
		case p.service != nil:
			one, err = w.toService(p.service, pod)
		default:
			one, err = w.toPod(pod)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// see is the pod, which there must be.
func (p *podTarget) see(ctx context.Context) (podObject, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer p.n.waiting(p.access.Server + " to show pod " + p.name).Stop()
	found, err := p.pods(ctx, &sluicev1.WatchTarget{Name: p.name})
	switch {
	case err != nil:
		return podObject{}, err
	case len(found) == 0:
		return podObject{}, fmt.Errorf("there is no pod %q in namespace %s", p.name, p.access.Namespace)
	case found[0].Status.Phase != "Running":
		p.n.sayf("pod %s is %s; what connects fails until it runs", p.name, found[0].Status.Phase)
	}
	return found[0], nil
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
				if err == nil || inner.Err() != nil {
					return
				}
				p.n.sayf("a connection of %s to port %d of pod %s failed: %s", remote, one.remote, p.name, brief(err))
				if p.of != "" && gone(err) {
					p.n.sayf("the pod is gone; the command, given again, finds another of %s", p.of)
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
