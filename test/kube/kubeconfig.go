package kube

import (
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig returns the path of a kubeconfig for [Cluster.Admin]'s user. The
// file is removed with the cluster.
func (c *Cluster) Kubeconfig() string { return c.state.path("admin.kubeconfig") }

// WriteKubeconfig writes, readable by its owner only, a kubeconfig with one
// context named name that leads to server, which has a certificate of this
// cluster's authority: its own [Cluster.URL] or a [Recorder]'s. With an empty
// token its user has no credential at all.
func (c *Cluster) WriteKubeconfig(file, name, server, token string) error {
	return c.writeKubeconfig(file, name, server, &api.AuthInfo{Token: token})
}

func (c *Cluster) writeAdminKubeconfig(admin pair) error {
	user := &api.AuthInfo{ClientCertificateData: admin.cert, ClientKeyData: admin.key}
	return c.writeKubeconfig(c.Kubeconfig(), "admin", c.URL(), user)
}

func (c *Cluster) writeKubeconfig(file, name, server string, user *api.AuthInfo) error {
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: server, CertificateAuthorityData: c.ca.pem}
	config.AuthInfos[name] = user
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, file)
}
