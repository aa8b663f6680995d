package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// report tells why a command failed and what to do next, and returns the exit code.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	fmt.Fprintf(stderr, "error: %s\n", printableLines(err.Error()))
	if u, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(stderr, "hint: %s --help tells what it takes\n", u.command)
		return exitUsage
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return exitFailed
}

// hinted is an error whose command knows better than hintFor what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func hintOf(err error) string {
	if h, ok := errors.AsType[hinted](err); ok {
		return h.hint
	}
	if e, ok := errors.AsType[*status.Error](err); ok {
		return hintFor(e)
	}
	return ""
}

// hintFor is what to do about an error; empty when its own message says all there is.
func hintFor(e *status.Error) string {
	if hint := hints[e.Reason]; hint != "" {
		return hint
	}
	switch {
	case e.Reason == sluicev1.Reason_REASON_UPSTREAM_REFUSED && e.Code == codes.PermissionDenied:
		return "the cluster's API server said so; with -n NAMESPACE less permission is needed than for all"
	case e.Code == codes.Unavailable && !e.FromPeer && e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST: // which there was, once
		return "is a gateway listening there? Check --server and, if no public authority signed its certificate, --ca-file; " +
			"`sluice dev` starts a gateway and prints both"
	case e.Code == codes.DeadlineExceeded:
		return "the gateway or the cluster's API server is slow or away; try again, or ask whoever runs them"
	case e.Code == codes.Unimplemented:
		return "the gateway is of another version than this client; `sluice version` tells the client's"
	}
	return ""
}

// hints are what to do, where the reason alone tells.
var hints = map[sluicev1.Reason]string{
	sluicev1.Reason_REASON_MISSING_CREDENTIAL: "give a token: --token-file FILE, or SLUICE_TOKEN",
	sluicev1.Reason_REASON_INVALID_TOKEN:      "is it a token of an issuer that this gateway accepts? One of `sluice dev` dies with it",
	sluicev1.Reason_REASON_TOKEN_TOO_LARGE:    "ask the issuer for a token with fewer claims; groups are what makes most of them long",
	sluicev1.Reason_REASON_EXPIRED:            "get a new token; with --token-file a renewed one is picked up by itself",
	sluicev1.Reason_REASON_AUDIENCE:           "ask the issuer for a token that is meant for this gateway",
	sluicev1.Reason_REASON_UNKNOWN_CLUSTER:    "`sluice clusters` lists those there are",
	sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED: "this cluster takes tokens of other audiences, issuers or subjects; " +
		"`sluice clusters` lists those that take yours",
	sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE: "the gateway cannot reach that cluster's API server; others may work: `sluice clusters`",
	sluicev1.Reason_REASON_DRAINING:             "the gateway is going away; try again, another replica answers",
	sluicev1.Reason_REASON_TARGET_GONE:          "`sluice watch pods` shows those there are",
	sluicev1.Reason_REASON_DATA_LOSS:            "do not trust what was printed; run it again if that does no harm",
}

// printable is s without what would steer a terminal: a name or a message may come from anybody who can write to a cluster.
func printable(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// printableLines is printable, but leaves line ends.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// steers reports whether a terminal may obey a character instead of showing it: control characters, and those that reorder text.
func steers(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}
