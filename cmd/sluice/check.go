package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

// endsSoon is how long before a certificate's end a check warns of it.
const endsSoon = 14 * 24 * time.Hour

// runCheck says what a configuration names and what is wrong with it. It serves nothing, and dials nothing unless it is asked to.
func (f *serveFlags) runCheck(cmd *cobra.Command, c *config.Config) (err error) {
	a := assemble(c, slog.New(slog.DiscardHandler)) // what a log would tell, the answers do
	defer func() { err = errors.Join(err, a.closers.close()) }()
	defer a.abandon()
	out := printEntries(f.sys, a.tell())
	notices := newNotices(f.sys.stderr)
	for _, field := range a.certificateFields() {
		for _, one := range a.certificates[field] {
			a.judge(notices, field, one, time.Now())
		}
	}
	if err := a.err(); err != nil {
		return usage(cmd, "configuration %s:\n%w", f.file, err)
	}
	out.line(fmt.Sprintf("%s is valid: issuers: %d, clusters: %d", f.file, len(c.Issuers), len(c.Clusters)))
	if out.err != nil || !f.online {
		return out.err
	}
	return a.askEverybody(cmd.Context(), f.sys)
}

// certificateFields are the fields that name certificates, sorted.
func (a *assembly) certificateFields() []string {
	fields := make([]string, 0, len(a.certificates))
	for field := range a.certificates {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return fields
}

// judge tells of a certificate that ends soon; one that nobody accepts now is wrong.
func (a *assembly) judge(n *notices, field string, c *x509.Certificate, now time.Time) {
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		a.problems.Addf(field, "the certificate of %s ended on %s; renew it", nameOf(c), day(c.NotAfter))
	case now.Before(c.NotBefore):
		a.problems.Addf(field, "the certificate of %s begins on %s only; is this machine's clock right?", nameOf(c), day(c.NotBefore))
	case left < endsSoon:
		n.sayf("warning: %s: the certificate of %s ends on %s, %s; renew it", field, nameOf(c), day(c.NotAfter), inDays(left))
	}
}

// printEntries prints a table whose first column is as wide as it must be.
func printEntries(sys system, entries []entry) *table {
	widest := 0
	for _, e := range entries {
		widest = max(widest, utf8.RuneCountInString(e.name))
	}
	t := newTable(sys.stdout, widest)
	for _, e := range entries {
		t.line(e.name, e.meaning)
	}
	return t
}

// said is what a configuration says, and its files hold, in the order of the file.
type said []entry

func (s *said) line(field, what string) { *s = append(*s, entry{field, what}) }

// tell is what each part of the configuration says and what its files hold; what is wrong with it is told elsewhere.
func (a *assembly) tell() said {
	c := a.config
	t := &said{{"FIELD", "WHAT IT SAYS"}}
	t.line("grpc_addr", c.GRPCAddr)
	t.line("web_addr", orNone(c.WebAddr))
	t.line("admin_addr", c.AdminAddr)
	if pair := a.certificates["tls.cert_file"]; len(pair) > 0 {
		t.line("tls.cert_file", c.TLS.CertFile+": "+describe(pair[0]))
		t.line("tls.key_file", c.TLS.KeyFile+": the key of that certificate")
	}
	if c.WebAddr != "" {
		t.line("web.origins", orNone(strings.Join(c.Web.Origins, ", ")))
		t.line("web.hosts", orNone(strings.Join(c.Web.Hosts, ", ")))
	}
	for i, is := range c.Issuers {
		field := fmt.Sprintf("issuers[%d]", i)
		t.line(field, is.URL+": tokens for "+strings.Join(is.Audiences, ", "))
		a.tellAuthorities(t, field+".ca_file", is.CAFile)
	}
	for i, one := range c.Clusters {
		a.tellCluster(t, fmt.Sprintf("clusters[%d]", i), one)
	}
	t.line("audit.destination", c.Audit.Destination)
	t.line("tracing.endpoint", orNone(c.Tracing.Endpoint))
	a.tellAuthorities(t, "tracing.ca_file", c.Tracing.CAFile)
	return *t
}

func (a *assembly) tellCluster(t *said, field string, c config.Cluster) {
	var at string
	switch {
	case c.Server != "":
		at = c.Server
	case c.InCluster:
		at = "the cluster that the gateway runs in"
	case c.Kubeconfig != nil:
		at = "kubeconfig " + c.Kubeconfig.File
	}
	whose := map[string]string{
		config.Passthrough:          "the caller's token" + list(", for ", c.Audiences) + list(", of ", c.Issuers),
		config.KubeconfigCredential: "the gateway's credential" + list(", for ", c.Subjects),
	}[c.Credential]
	t.line(field, fmt.Sprintf("%s: %s; sees %s", c.Name, at, orNone(whose)))
	if k := c.Kubeconfig; k != nil {
		if contexts := a.contexts[field+".kubeconfig.file"]; len(contexts) > 0 {
			t.line(field+".kubeconfig", contextNames(a, field+".kubeconfig.file", k.Context))
		}
	}
	a.tellAuthorities(t, field+".ca_file", c.CAFile)
}

// contextNames are the contexts of a kubeconfig; the one that is used is marked.
func contextNames(a *assembly, field, used string) string {
	var names []string
	for _, c := range a.contexts[field] {
		name := c.Context
		if name == used || used == "" && c.Current {
			name += " (used)"
		}
		names = append(names, name)
	}
	return "contexts " + strings.Join(names, ", ")
}

// tellAuthorities prints the certificates of a file, if one is named and holds some.
func (a *assembly) tellAuthorities(t *said, field, file string) {
	for i, c := range a.certificates[field] {
		if i == 0 {
			t.line(field, file+": "+describe(c))
		} else {
			t.line("", "and "+describe(c))
		}
	}
}

// describe is a certificate's names and end.
func describe(c *x509.Certificate) string {
	return fmt.Sprintf("%s, until %s (%s)", nameOf(c), day(c.NotAfter), inDays(time.Until(c.NotAfter)))
}

// nameOf is what a certificate is for: the names and addresses that it covers, or its subject.
func nameOf(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{c.Subject.String()}
	}
	return strings.Join(names, ", ")
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// inDays is a time from now in days, the unit in which certificates are renewed.
func inDays(left time.Duration) string {
	switch days := int(left / (24 * time.Hour)); {
	case left <= 0:
		return "it is over"
	case days == 0:
		return "today or tomorrow"
	case days == 1:
		return "in 1 day"
	default:
		return fmt.Sprintf("in %d days", days)
	}
}

// list is texts after what introduces them; nothing for none.
func list(intro string, texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	return intro + strings.Join(texts, ", ")
}
