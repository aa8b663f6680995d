package main

// manual is what the help of a command, and its page of the manual, say besides its description, its flags and its examples.
type manual struct {
	groups      []flagGroup
	environment []entry
	files       []entry
	exits       []entry
	see         []string // pages
}

// flagGroup is flags that belong together.
type flagGroup struct {
	title string
	flags []string
}

// entry is a name and what it means.
type entry struct{ name, meaning string }

// What several commands share.
var (
	gatewayFlags = flagGroup{"The gateway", []string{"server", "ca-file", "token", "token-file"}}

	gatewayEnvironment = []entry{
		{"SLUICE_SERVER", "the gateway, as --server"},
		{"SLUICE_CA_FILE", "certificates to trust, as --ca-file"},
		{"SLUICE_TOKEN", "the token, as --token; other users of this machine do not see it"},
		{"SLUICE_TOKEN_FILE", "a file with the token, as --token-file"},
	}

	gatewayFiles = []entry{{
		"$XDG_CONFIG_HOME/sluice/client.yaml",
		"server, ca_file, token_file, cluster and namespace for where neither a flag nor the environment says them; ~/.config without the variable",
	}}

	podEnvironment = append([]entry{
		{"SLUICE_CLUSTER", "the cluster, as --cluster"},
		{"SLUICE_NAMESPACE", "the namespace, as --namespace"},
	}, gatewayEnvironment...)

	processExits = []entry{
		{"0", "the process has ended with 0; of attach, also a process that tells no exit code"},
		{"N", "the process's own exit code, which is said on the standard error"},
		{"1", "also: it was refused, failed, or nobody knows how the process ended (exit status unknown)"},
		{"2", "also: the command line or a setting is wrong"},
		{"128+N", "the signal N has ended it: 130 after Ctrl-C, unless that is the process's key"},
	}

	clientExits = []entry{
		{"0", "it is done, or was ended by Ctrl-C"},
		{"1", "the gateway or a cluster refused it, cannot be reached, or failed"},
		{"2", "the command line or a setting is wrong"},
	}

	otherExits = []entry{{"0", "it is done"}, {"1", "it cannot be written"}, {"2", "the command line is wrong"}}
)

// manuals are the manuals of the commands, by their paths.
var manuals = map[string]manual{
	"sluice": {
		exits: []entry{{"0", "it is done"}, {"1", "it was refused, cannot be reached, or failed"}, {"2", "the command line or the configuration is wrong"}},
		see:   []string{"sluice-serve(1)", "sluice-dev(1)", "sluice-watch(1)", "sluice-logs(1)", "sluice-exec(1)", "sluice-attach(1)", "sluice-port-forward(1)", "sluice-clusters(1)", "sluice-completion(1)", "sluice-version(1)"},
	},
	"sluice serve": {
		groups: []flagGroup{
			{"The configuration", []string{"config", "check", "online"}},
			{"Addresses, which win over the configuration", []string{"grpc-addr", "web-addr", "admin-addr", "ready-file"}},
		},
		environment: []entry{
			{"GOMEMLIMIT", "the memory that the process may use; a quarter of it is limits.held_bytes unless that is configured"},
			{"HTTPS_PROXY, NO_PROXY", "the proxy to issuers and clusters, and what is reached without it"},
		},
		exits: []entry{
			{"0", "it was told to end, and every session has; with --check, all is well"},
			{"1", "it cannot listen, or failed while it served; with --online, an issuer or a cluster gave no answer that is of use"},
			{"2", "the command line or the configuration is wrong"},
		},
		see: []string{"sluice(1)", "sluice-dev(1)", "docs/configuration.md", "docs/operating.md"},
	},
	"sluice dev": {
		groups: []flagGroup{
			{"What is served", []string{"kubeconfig", "token-ttl"}},
			{"Addresses, on loopback", []string{"grpc-addr", "web-addr", "admin-addr", "ready-file"}},
			{"What is printed", []string{"grpcurl", "log-level"}},
		},
		environment: []entry{
			{"KUBECONFIG", "ignored; --kubeconfig names a file"},
			{"XDG_CACHE_HOME", "where the folder of a run lies; ~/.cache without it"},
		},
		files: []entry{{"$XDG_CACHE_HOME/sluice/dev/run-*/ca.crt", "the certificate to trust, for as long as it runs; open to its owner alone"}},
		exits: []entry{
			{"0", "it was told to end"}, {"1", "it cannot listen, read the kubeconfig, or write its files"}, {"2", "the command line is wrong"},
		},
		see: []string{"sluice(1)", "sluice-watch(1)", "sluice-serve(1)"},
	},
	"sluice watch": {
		groups: []flagGroup{
			{"What is watched", []string{"cluster", "namespace", "all-namespaces", "selector", "field-selector", "changes-only"}},
			{"What is printed", []string{"output"}},
			gatewayFlags,
		},
		environment: podEnvironment,
		files:       gatewayFiles,
		exits:       clientExits,
		see:         []string{"sluice(1)", "sluice-logs(1)", "sluice-clusters(1)"},
	},
	"sluice logs": {
		groups: []flagGroup{
			{"Whose logs", []string{"cluster", "namespace", "selector", "all-pods", "container", "all-containers", "previous"}},
			{"Which lines", []string{"follow", "since", "since-time", "tail"}},
			{"How they are printed", []string{"timestamps", "prefix", "max-log-requests"}},
			gatewayFlags,
		},
		environment: podEnvironment,
		files:       gatewayFiles,
		exits: []entry{
			{"0", "the logs were printed whole"},
			{"1", "the gateway or a cluster refused a log, cannot be reached, or failed; the other logs were printed"},
			{"2", "the command line or a setting is wrong"},
			{"3", "the logs have ended, but lines were missed; the standard error says which, and why"},
			{"130", "Ctrl-C has ended it"},
		},
		see: []string{"sluice(1)", "sluice-watch(1)", "sluice-attach(1)"},
	},
	"sluice exec": {
		groups: []flagGroup{
			{"Where", []string{"cluster", "namespace", "container"}},
			{"What the process gets", []string{"stdin", "tty"}},
			{"When the gateway is lost", []string{"on-detach-expiry"}},
			gatewayFlags,
		},
		environment: podEnvironment,
		files:       gatewayFiles,
		exits:       processExits,
		see:         []string{"sluice(1)", "sluice-attach(1)", "sluice-logs(1)"},
	},
	"sluice attach": {
		groups: []flagGroup{
			{"Where", []string{"cluster", "namespace", "container"}},
			{"What the process gets", []string{"stdin", "tty"}},
			{"When the gateway is lost", []string{"on-detach-expiry"}},
			gatewayFlags,
		},
		environment: podEnvironment,
		files:       gatewayFiles,
		exits:       processExits,
		see:         []string{"sluice(1)", "sluice-exec(1)", "sluice-logs(1)"},
	},
	"sluice port-forward": {
		groups: []flagGroup{
			{"Where", []string{"cluster", "namespace", "address"}},
			gatewayFlags,
		},
		environment: podEnvironment,
		files:       gatewayFiles,
		exits:       clientExits,
		see:         []string{"sluice(1)", "sluice-exec(1)"},
	},
	"sluice clusters": {
		groups:      []flagGroup{{"What is printed", []string{"output"}}, gatewayFlags},
		environment: gatewayEnvironment,
		files:       gatewayFiles,
		exits:       clientExits,
		see:         []string{"sluice(1)", "sluice-watch(1)"},
	},
	"sluice completion": {exits: otherExits, see: []string{"sluice(1)"}},
	"sluice man":        {exits: otherExits, see: []string{"sluice(1)"}},
	"sluice version": {
		groups: []flagGroup{{"What is printed", []string{"output"}}},
		exits:  otherExits,
		see:    []string{"sluice(1)"},
	},
}
