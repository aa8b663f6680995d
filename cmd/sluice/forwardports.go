package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// wantedPorts are a local port and one of a pod or service, as somebody has written them.
type wantedPorts struct {
	local  uint16 // 0 is a free one
	same   bool   // the local port is the remote one's number
	remote string // a number or a name
}

// parsePorts reads [LOCAL:]REMOTE.
func parsePorts(text string) (wantedPorts, error) {
	local, remote, both := strings.Cut(text, ":")
	if !both {
		remote = local
	}
	w := wantedPorts{same: !both, remote: remote}
	wrong := fmt.Errorf("%q is no [LOCAL:]REMOTE, such as 8080:80 or 8080:http", text)
	if both && local != "" {
		l, err := strconv.ParseUint(local, 10, 16)
		if err != nil {
			return wantedPorts{}, wrong
		}
		w.local = uint16(l)
	}
	if n, err := strconv.ParseUint(remote, 10, 16); (err != nil || n == 0) && !isPortName(remote) {
		return wantedPorts{}, wrong
	}
	return w, nil
}

var portName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// isPortName reports whether text has the form of a port's name (RFC 6335, 5.1).
func isPortName(text string) bool {
	return len(text) <= 15 && portName.MatchString(text) && strings.ContainsAny(text, "abcdefghijklmnopqrstuvwxyz")
}

// number is the remote port's number; 0 if it is a name.
func (w wantedPorts) number() uint16 {
	n, err := strconv.ParseUint(w.remote, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// ports are a local port and the one of the pod that it leads to.
type ports struct{ local, remote uint16 }

// toPod are the ports where somebody has named a pod's port.
func (w wantedPorts) toPod(o podObject) (ports, error) {
	remote, err := o.port(w.remote)
	return w.to(remote, remote), err
}

// toService are the ports where somebody has named a service's port, which leads to one of a pod.
func (w wantedPorts) toService(s *serviceObject, o podObject) (ports, error) {
	one, err := s.port(w)
	if err != nil {
		return ports{}, err
	}
	remote, err := s.target(one, o)
	return w.to(one.Port, remote), err
}

// to are the ports that lead to remote; named is the number of the one that somebody has named.
func (w wantedPorts) to(named, remote uint16) ports {
	if w.same {
		return ports{named, remote}
	}
	return ports{w.local, remote}
}

// port is the number of a port of the pod's, by its name or number. A number need not be declared, but if it is then for TCP.
func (o podObject) port(text string) (uint16, error) {
	number := wantedPorts{remote: text}.number()
	var declared []podPort
	for _, p := range o.ports() {
		if number != 0 && p.ContainerPort == number || number == 0 && p.Name == text {
			declared = append(declared, p)
		}
	}
	tcp := slices.IndexFunc(declared, func(p podPort) bool { return isTCP(p.Protocol) })
	switch {
	case tcp >= 0:
		return declared[tcp].ContainerPort, nil
	case len(declared) > 0:
		return 0, fmt.Errorf("port %s of pod %s is for %s, and only TCP is forwarded", text, o.Metadata.Name, declared[0].Protocol)
	case number != 0:
		return number, nil
	}
	return 0, fmt.Errorf("pod %s has no port %q; it declares %s", o.Metadata.Name, text, o.declaredPorts())
}

// declaredPorts are the pod's ports for TCP, for people.
func (o podObject) declaredPorts() string {
	var all []string
	for _, p := range o.ports() {
		if isTCP(p.Protocol) {
			all = append(all, portText(p.ContainerPort, p.Name))
		}
	}
	return orNone(listed(all))
}

func isTCP(protocol string) bool { return protocol == "" || protocol == "TCP" }

// portText is a port for people: 80, or http (80).
func portText(number uint16, name string) string {
	if name == "" {
		return strconv.Itoa(int(number))
	}
	return fmt.Sprintf("%s (%d)", name, number)
}

// serviceObject is a service as far as finding its pods' ports needs it.
type serviceObject struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		ClusterIP string        `json:"clusterIP"`
		Ports     []servicePort `json:"ports"`
	} `json:"spec"`
}

type servicePort struct {
	Name       string          `json:"name"`
	Protocol   string          `json:"protocol"`
	Port       uint16          `json:"port"`
	TargetPort json.RawMessage `json:"targetPort"` // a number, or the name of a port of the pods'
}

// port is the one of the service's ports that is meant.
func (s *serviceObject) port(w wantedPorts) (servicePort, error) {
	var all []string
	number := w.number()
	for _, p := range s.Spec.Ports {
		switch {
		case !isTCP(p.Protocol):
		case number != 0 && p.Port == number, number == 0 && p.Name == w.remote:
			return p, nil
		default:
			all = append(all, portText(p.Port, p.Name))
		}
	}
	return servicePort{}, fmt.Errorf("service %s has no port %s for TCP; it has %s", s.Metadata.Name, w.remote, orNone(listed(all)))
}

// target is the port of a pod that one of the service leads to. Who asks for a headless service's name is told the pods' addresses, and uses the
// service's port there.
func (s *serviceObject) target(p servicePort, o podObject) (uint16, error) {
	if s.Spec.ClusterIP == "None" || len(p.TargetPort) == 0 {
		return p.Port, nil
	}
	var name string
	if json.Unmarshal(p.TargetPort, &name) == nil {
		return o.port(name)
	}
	number, err := decode[uint16](p.TargetPort)
	if number == 0 {
		number = p.Port
	}
	return number, err
}
