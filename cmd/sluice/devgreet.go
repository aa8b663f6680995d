package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// greet prints where dev is reached and lines to paste, the token once. The lines work as they are printed, in any POSIX shell.
func (f *devFlags) greet(r ready, clusters []string, expires time.Time) {
	grpcurl, found := f.grpcurlCommand()
	of := "its embedded cluster"
	if f.kubeconfig != "" {
		of = "the contexts of " + f.kubeconfig
	}
	fmt.Fprintf(f.sys.stdout, `
Sluice serves %s, on this machine alone:

  clusters   %s
  gRPC       %s
%s  metrics    http://%s/metrics

Paste into another terminal:

  export SLUICE_TOKEN=%s SLUICE_SERVER=%s SLUICE_CA_FILE=%s

  %s
  %s
%s%s
The token lives until %s; Ctrl-C ends everything.
`, printable(of), strings.Join(clusters, ", "), r.GRPCAddr, webAddress(r), r.AdminAddr, r.Token, r.GRPCAddr, quoted(r.CAFile),
		grpcurlLine(grpcurl, r), watchLine(thisCommand(), clusters), f.streamLines(thisCommand()), curlLines(r), expires.Format("2006-01-02 15:04 MST"))
	if !found {
		fmt.Fprintf(f.sys.stdout, "grpcurl is not on your PATH; `go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest` puts it there.\n")
	}
	fmt.Fprintln(f.sys.stdout)
}

// grpcurlLine is a Watch by hand.
func grpcurlLine(grpcurl string, r ready) string {
	return fmt.Sprintf(`%s -cacert %s -H "Authorization: Bearer $SLUICE_TOKEN" -d '{"cluster":%q,"watch":{"version":"v1","resource":"pods"}}' %s sluice.v1.GatewayService/Watch`,
		grpcurl, quoted(r.CAFile), r.Cluster, r.GRPCAddr)
}

// webAddress is the line about the web port, if there is one.
func webAddress(r ready) string {
	if r.WebAddr == "" {
		return ""
	}
	return "  web        https://" + r.WebAddr + "\n"
}

// curlLines are what curl asks of the web port, if there is one: the clusters, and a watch.
func curlLines(r ready) string {
	if r.WebAddr == "" {
		return ""
	}
	curl := "curl --cacert " + quoted(r.CAFile) + ` -H "Authorization: Bearer $SLUICE_TOKEN" `
	return fmt.Sprintf("  %shttps://%s/v1/clusters\n  %s-N https://%s/v1/clusters/%s/watch/v1/pods\n",
		curl, r.WebAddr, curl, r.WebAddr, r.Cluster)
}

// watchLine is the same by this command.
func watchLine(sluice string, clusters []string) string {
	line := sluice + " watch pods"
	if len(clusters) > 1 {
		line += " --cluster " + clusters[0]
	}
	return line
}

// streamLines are what the embedded cluster has beside objects: a log that goes on, and a shell.
func (f *devFlags) streamLines(sluice string) string {
	if f.kubeconfig != "" {
		return ""
	}
	return fmt.Sprintf("  %[1]s logs -f talker\n  %[1]s exec -it shell -- sh\n", sluice)
}

// grpcurlCommand is how to call grpcurl, and whether it is there.
func (f *devFlags) grpcurlCommand() (command string, found bool) {
	if f.grpcurl != "" {
		return quoted(f.grpcurl), true
	}
	_, err := exec.LookPath("grpcurl")
	return "grpcurl", err == nil
}

// thisCommand is how to call the binary that runs: by its name if the PATH finds it so, else by its path.
func thisCommand() string {
	this, err := os.Executable()
	if err != nil {
		return "sluice"
	}
	if found, err := exec.LookPath("sluice"); err == nil && sameFile(found, this) {
		return "sluice"
	}
	return quoted(this)
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
