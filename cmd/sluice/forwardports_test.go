package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPortsAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]wantedPorts{
		"80": {0, true, "80"}, "8080:80": {8080, false, "80"}, ":80": {0, false, "80"}, "0:80": {0, false, "80"}, "65535:1": {65535, false, "1"},
		"http": {0, true, "http"}, "8080:http": {8080, false, "http"}, ":http-2": {0, false, "http-2"}, "443:8443-tls": {443, false, "8443-tls"},
	} {
		if got, err := parsePorts(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", ":", "80:", "8080:0", "0", "65536", "-1:80", "http:80", "1:2:3", " 80", "+80", "8080:65536", "Http", "-http", "http-", "a--b", "a-name-of-16-ch-",
		"a-name-of-16-chr",
	} {
		if got, err := parsePorts(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

const podOfPorts = `{"metadata":{"name":"web-1"},"spec":{
	"containers":[
		{"name":"web","ports":[{"name":"http","containerPort":8080},{"name":"dns","containerPort":53,"protocol":"UDP"},{"name":"both","containerPort":54,"protocol":"UDP"}]},
		{"name":"side","ports":[{"name":"admin","containerPort":9090,"protocol":"TCP"},{"name":"both-tcp","containerPort":54,"protocol":"TCP"}]}],
	"initContainers":[{"name":"mesh","ports":[{"name":"mesh","containerPort":15000}]}]}}`

const serviceOfPorts = `{"metadata":{"name":"web"},"spec":{"clusterIP":"10.0.0.1","ports":[
	{"name":"main","port":80,"targetPort":8080},{"name":"named","port":81,"targetPort":"admin"},{"name":"same","port":82},{"name":"zero","port":83,"targetPort":0},
	{"name":"udp","port":84,"protocol":"UDP"},{"name":"broken","port":85,"targetPort":"dns"},{"name":"nowhere","port":86,"targetPort":"nothing"}]}}`

func TestNamedPortsLeadWhereThePodOrTheServiceSays(t *testing.T) {
	pod, err := decode[podObject](json.RawMessage(podOfPorts))
	if err != nil {
		t.Fatal(err)
	}
	service, err := decode[serviceObject](json.RawMessage(serviceOfPorts))
	if err != nil {
		t.Fatal(err)
	}
	headless := service
	headless.Spec.ClusterIP = "None"
	for _, tc := range []struct {
		of    *serviceObject // nil: the pod
		text  string
		want  ports
		wrong string
	}{
		{nil, "8080", ports{8080, 8080}, ""},
		{nil, "7:http", ports{7, 8080}, ""},
		{nil, "http", ports{8080, 8080}, ""},
		{nil, ":admin", ports{0, 9090}, ""},
		{nil, "mesh", ports{15000, 15000}, ""},
		{nil, "1234", ports{1234, 1234}, ""}, // a container may listen where it does not say so
		{nil, "54", ports{54, 54}, ""},       // for both protocols
		{nil, "53", ports{}, "port 53 of pod web-1 is for UDP, and only TCP is forwarded"},
		{nil, "dns", ports{}, "port dns of pod web-1 is for UDP"},
		{nil, "https", ports{}, `pod web-1 has no port "https"; it declares http (8080), admin (9090), both-tcp (54), mesh (15000)`},
		{&service, "80", ports{80, 8080}, ""},
		{&service, "9:80", ports{9, 8080}, ""},
		{&service, "main", ports{80, 8080}, ""},
		{&service, ":named", ports{0, 9090}, ""},
		{&service, "same", ports{82, 82}, ""},
		{&service, "83", ports{83, 83}, ""},
		{&service, "udp", ports{}, "service web has no port udp for TCP; it has main (80), named (81), same (82), zero (83), broken (85), nowhere (86)"},
		{&service, "8080", ports{}, "service web has no port 8080 for TCP"}, // that is the pod's
		{&service, "http", ports{}, "service web has no port http for TCP"}, // that too
		{&service, "broken", ports{}, "port dns of pod web-1 is for UDP"},
		{&service, "nowhere", ports{}, `pod web-1 has no port "nothing"`},
		{&headless, "80", ports{80, 80}, ""},
		{&headless, "named", ports{81, 81}, ""},
	} {
		w, err := parsePorts(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		var got ports
		if tc.of == nil {
			got, err = w.toPod(pod)
		} else {
			got, err = w.toService(tc.of, pod)
		}
		switch {
		case tc.wrong == "" && (err != nil || got != tc.want):
			t.Errorf("%q of %v: %+v, %v; want %+v", tc.text, tc.of != nil, got, err, tc.want)
		case tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)):
			t.Errorf("%q of %v: %+v, %v; want %s", tc.text, tc.of != nil, got, err, tc.wrong)
		}
	}
}
