package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// onlineWithin is how long an issuer or a cluster may take to answer a check.
const onlineWithin = 10 * time.Second

// answer is what somebody answered to a check.
type answer struct {
	asked string
	says  string
	err   error
	took  time.Duration
}

// askEverybody asks all issuers and clusters at once, as the gateway would, and prints their answers in the order of the configuration. It fails
// if one of them is of no use.
func (a *assembly) askEverybody(ctx context.Context, sys system) error {
	var answers []*answer
	var asking sync.WaitGroup
	ask := func(who string, question func(context.Context) (string, error)) {
		one := &answer{asked: who}
		answers = append(answers, one)
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, onlineWithin)
			defer cancel()
			began := time.Now()
			one.says, one.err = question(ctx)
			one.took = time.Since(began)
		})
	}
	for _, is := range a.config.Issuers {
		ask("issuer "+is.URL, func(ctx context.Context) (string, error) { return a.askIssuer(ctx, is) })
	}
	for _, c := range a.config.Clusters {
		ask("cluster "+c.Name, func(ctx context.Context) (string, error) { return a.askCluster(ctx, c) })
	}
	asking.Wait()
	return printAnswers(sys, answers)
}

// unansweredError is those who gave no answer that is of use. It hides what they are made of: the hints of a client's errors are for clients.
type unansweredError []string

// Error implements error.
func (u unansweredError) Error() string { return strings.Join(u, "\n") }

// printAnswers prints a table, and fails with those that failed.
func printAnswers(sys system, answers []*answer) error {
	widest := len("ASKED")
	for _, one := range answers {
		widest = max(widest, len(one.asked))
	}
	out := newTable(sys.stdout, widest, len("10000ms"))
	out.line("")
	out.line("ASKED", "TIME", "ANSWER")
	var failed unansweredError
	for _, one := range answers {
		if one.err != nil {
			one.says = "FAILED"
			failed = append(failed, one.asked+": "+one.err.Error())
		}
		out.line(one.asked, one.took.Round(time.Millisecond).String(), one.says)
	}
	if len(failed) > 0 {
		return failed
	}
	return out.err
}

// askIssuer has the gateway's own verifier judge a token that names the issuer and that nobody signed: to refuse it, it needs the issuer's
// keys.
func (a *assembly) askIssuer(ctx context.Context, is config.Issuer) (string, error) {
	algorithm := "RS256"
	if len(is.Algorithms) > 0 {
		algorithm = is.Algorithms[0]
	}
	token, err := unsigned(map[string]string{"alg": algorithm, "kid": "check"}, map[string]string{"iss": is.URL})
	if err != nil {
		return "", err
	}
	_, err = a.server.Authenticator.Authenticate(ctx, auth.NewSecret(token))
	if e := status.From(err); e != nil && e.Reason == sluicev1.Reason_REASON_INVALID_TOKEN {
		return "publishes its keys", nil
	}
	return "", err
}

// unsigned is a token whose signature is of nobody's.
func unsigned(header, claims map[string]string) (string, error) {
	var parts [2]string
	for i, part := range []map[string]string{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", fmt.Errorf("make a token: %w", err)
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(text)
	}
	return parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString([]byte("nobody")), nil
}

// askCluster asks for the version, with the gateway's own credential where the cluster sees that, and else with a token of nobody's: its refusal
// shows that an API server is there, with the right certificate.
func (a *assembly) askCluster(ctx context.Context, c config.Cluster) (string, error) {
	caller := (&auth.Principal{Audiences: c.Audiences}).WithCredential(auth.NewSecret("check"))
	if len(c.Issuers) > 0 {
		caller.Issuer = c.Issuers[0]
	}
	if len(c.Subjects) > 0 {
		caller.Username = c.Subjects[0]
	}
	upstream, err := a.server.Clusters.Resolve(c.Name, caller)
	if err != nil {
		return "", err
	}
	res, err := upstream.Get(ctx, "/version", nil)
	if e := status.From(err); e != nil {
		if c.Credential == config.Passthrough && slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden}, e.HTTPCode) {
			return "answers, and tells a stranger nothing", nil
		}
		return "", err
	}
	defer res.Body.Close()
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&version); err != nil || version.GitVersion == "" {
		return "", errors.New("what answers is no API server: it tells no version")
	}
	return "Kubernetes " + version.GitVersion, nil
}
