package rig

import (
	"net/http"
)

// WebURL is a path of the web port.
func (r *Rig) WebURL(path string) string { return "https://" + r.Server.WebAddr().String() + path }

// Web is a client of the web port over HTTP/2.
func (r *Rig) Web() *http.Client {
	var p http.Protocols
	p.SetHTTP2(true)
	return r.web(&p)
}

// WebHTTP1 is a client of the web port over HTTP/1.1.
func (r *Rig) WebHTTP1() *http.Client {
	var p http.Protocols
	p.SetHTTP1(true)
	return r.web(&p)
}

func (r *Rig) web(p *http.Protocols) *http.Client {
	r.tb.Helper()
	t := &http.Transport{TLSClientConfig: r.ClientTLS(), Protocols: p, DisableCompression: true}
	r.tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}
