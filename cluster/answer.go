package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	// maxAnswer is the longest answer to a refused request that is looked at.
	maxAnswer = 64 << 10
	// maxMessage, maxWord and maxCauses bound what is kept of it: a status also travels in gRPC's trailers, which are short.
	maxMessage = 1 << 10
	maxWord    = 253
	maxCauses  = 8
)

// refused is the error for an answer that is not the one that was asked for. It closes the answer.
func (u *Upstream) refused(res *http.Response) error {
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // what arrived of it is better than nothing
	if echoes(body, res.Request) {
		body = nil
	}
	e := Refusal(u.Cluster(), res.StatusCode, res.Header, body)
	if e.HTTPCode == http.StatusUnauthorized && u.Credential() == sluicev1.Credential_CREDENTIAL_KUBECONFIG {
		e.Code = codes.Unavailable // a new token of the caller's would not help: it is not the one that was refused
		e.Message = "the gateway's own credential was refused: " + e.Message
	}
	return e
}

// echoes says whether a body repeats the credential of the request that it answers, as some proxies' pages do.
func echoes(body []byte, req *http.Request) bool {
	if req == nil {
		return false
	}
	_, credential, ok := strings.Cut(req.Header.Get("Authorization"), " ")
	return ok && credential != "" && bytes.Contains(body, []byte(credential))
}

// Refusal is the error for an API server's answer of another status than was asked for: its code, its Status as received, its Retry-After.
func Refusal(cluster string, code int, header http.Header, body []byte) *status.Error {
	e := status.New(status.CodeOfHTTP(code), sluicev1.Reason_REASON_UPSTREAM_REFUSED, "cluster %q answered %d", cluster, code)
	switch {
	case code/100 == 3:
		e.Message += ", a redirect, which is never followed: check its address"
	case e.Code == codes.OK || code < http.StatusOK: // to an upgrade
		e.Code, e.Reason = codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
		e.Message += " to a request for a WebSocket: check its address, and proxies on the way"
	}
	e.HTTPCode = code
	e.Kubernetes = kubernetesStatus(body)
	if m := e.Kubernetes.GetMessage(); m != "" {
		e.Message += ": " + m
	} else if m := plain(header, body); m != "" {
		e.Message += ": " + m
	}
	e.RetryAfter = retryAfter(header, e.Kubernetes)
	return e
}

// plain is what a body says that is text for people, as an API server passes on what a kubelet says.
func plain(h http.Header, body []byte) string {
	if kind, _, _ := strings.Cut(h.Get("Content-Type"), ";"); kind != "text/plain" {
		return ""
	}
	return bounded(strings.TrimSpace(string(body)), maxWord)
}

// bounded is at most n bytes of s, as valid UTF-8.
func bounded(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// retryAfter is what the answer suggests: the header (RFC 9110 section 10.2.3) or the Status's details.
func retryAfter(h http.Header, k *sluicev1.KubernetesStatus) time.Duration {
	const most = time.Hour
	value := h.Get("Retry-After")
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, most)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), most)
	}
	return min(time.Duration(k.GetDetails().GetRetryAfterSeconds())*time.Second, most)
}

// kubernetesStatus is the metav1.Status in an answer's body; nil when it is something else.
func kubernetesStatus(body []byte) *sluicev1.KubernetesStatus {
	var s metav1.Status
	if json.Unmarshal(body, &s) != nil || s.Kind != "Status" {
		return nil
	}
	return StatusOf(&s)
}

// StatusOf is a metav1.Status as data of ours. Of texts that are too long for a status it keeps the beginning.
func StatusOf(s *metav1.Status) *sluicev1.KubernetesStatus {
	k := &sluicev1.KubernetesStatus{
		Status: bounded(s.Status, maxWord), Message: bounded(s.Message, maxMessage), Reason: bounded(string(s.Reason), maxWord),
		Code: uint32(max(s.Code, 0)),
	}
	d := s.Details
	if d == nil {
		return k
	}
	k.Details = &sluicev1.KubernetesStatusDetails{
		Name: bounded(d.Name, maxWord), Group: bounded(d.Group, maxWord), Kind: bounded(d.Kind, maxWord), Uid: bounded(string(d.UID), maxWord),
		RetryAfterSeconds: uint32(max(d.RetryAfterSeconds, 0)),
	}
	for _, c := range d.Causes[:min(len(d.Causes), maxCauses)] {
		k.Details.Causes = append(k.Details.Causes, &sluicev1.KubernetesStatusCause{
			Reason: bounded(string(c.Type), maxWord), Message: bounded(c.Message, maxWord), Field: bounded(c.Field, maxWord),
		})
	}
	return k
}

// linkError is a failure of what moves bytes. Any other is one of client-go's wrappers, which get the credential.
type linkError struct{ cause error }

// Error implements error.
func (e *linkError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *linkError) Unwrap() error { return e.cause }

// bottom is what client-go's wrappers are put around.
type bottom struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bottom) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, &linkError{err}
	}
	return res, nil
}

// failed is the error for a request that got no answer. The cause, with its addresses, is for the log.
func (u *Upstream) failed(ctx context.Context, err error) error {
	if e := context.Cause(ctx); e != nil {
		return e
	}
	if own, ok := errors.AsType[*status.Error](err); ok {
		return own
	}
	return failure(u.Cluster(), err)
}

// failure says why a cluster gave no answer.
func failure(cluster string, err error) *status.Error {
	var link *linkError
	var certificate *tls.CertificateVerificationError
	var broken *websocket.HandshakeError
	var slow net.Error
	switch {
	case !errors.As(err, &link):
		return unreachable("the gateway's credential for cluster %q cannot be had: its log tells why", cluster).Wrap(err)
	case errors.As(err, &certificate):
		return unreachable("cluster %q shows a certificate that does not verify: check the certificate authority and the server's name "+
			"in its configuration", cluster).Wrap(err)
	case errors.As(err, &broken):
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
			"cluster %q answered the upgrade with something that is no WebSocket: %s", cluster, broken.Message).Wrap(err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(link.cause, &slow) && slow.Timeout():
		return unreachable("cluster %q did not answer in time", cluster).Wrap(err)
	}
	return unreachable("cluster %q cannot be reached", cluster).Wrap(err)
}

func unreachable(format string, args ...any) *status.Error {
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE, format, args...)
}
