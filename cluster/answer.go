package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// maxAnswer is the longest answer to a refused request that is looked at.
const maxAnswer = 64 << 10

// refused is the error for an answer that is not the one that was asked for. It closes the answer.
func (u *Upstream) refused(res *http.Response) error {
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // what arrived of it is better than nothing
	return Refusal(u.Cluster(), res.StatusCode, res.Header, body)
}

// Refusal is the error for an API server's answer of another status than 2xx and 101: its code, its Status as received, its Retry-After.
func Refusal(cluster string, code int, header http.Header, body []byte) *status.Error {
	e := status.New(status.CodeOfHTTP(code), sluicev1.Reason_REASON_UPSTREAM_REFUSED, "cluster %q answered %d", cluster, code)
	if code/100 == 3 {
		e = status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_REFUSED,
			"cluster %q answered with a redirect (%d), which is never followed: check its address", cluster, code)
	}
	if e.Code == codes.OK { // 2xx to an upgrade
		e.Code = codes.Unavailable
	}
	e.HTTPCode = code
	e.Kubernetes = kubernetesStatus(body)
	if m := e.Kubernetes.GetMessage(); m != "" {
		e.Message += ": " + m
	}
	e.RetryAfter = retryAfter(header, e.Kubernetes)
	return e
}

// retryAfter is what the answer suggests: the header (RFC 9110 section 10.2.3, in seconds as API servers send it) or the Status's details.
func retryAfter(h http.Header, k *sluicev1.KubernetesStatus) time.Duration {
	const most = time.Hour
	if s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		return min(time.Duration(s)*time.Second, most)
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

// StatusOf is a metav1.Status as data of ours.
func StatusOf(s *metav1.Status) *sluicev1.KubernetesStatus {
	k := &sluicev1.KubernetesStatus{Status: s.Status, Message: s.Message, Reason: string(s.Reason), Code: uint32(max(s.Code, 0))}
	if d := s.Details; d != nil {
		k.Details = &sluicev1.KubernetesStatusDetails{
			Name: d.Name, Group: d.Group, Kind: d.Kind, Uid: string(d.UID), RetryAfterSeconds: uint32(max(d.RetryAfterSeconds, 0)),
		}
		for _, c := range d.Causes {
			k.Details.Causes = append(k.Details.Causes, &sluicev1.KubernetesStatusCause{
				Reason: string(c.Type), Message: c.Message, Field: c.Field,
			})
		}
	}
	return k
}

// failed is the error for a request that got no answer. The cause, with its addresses, is for the log.
func (u *Upstream) failed(ctx context.Context, err error) error {
	if e := context.Cause(ctx); e != nil {
		return e
	}
	if own, ok := errors.AsType[*status.Error](err); ok {
		return own
	}
	var certificate *tls.CertificateVerificationError
	var broken *websocket.HandshakeError
	switch {
	case errors.As(err, &certificate):
		return unreachable("cluster %q shows a certificate that does not verify: check the certificate authority in its configuration",
			u.Cluster()).Wrap(err)
	case errors.As(err, &broken):
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
			"cluster %q answered the upgrade with something that is no WebSocket: %s", u.Cluster(), broken.Message).Wrap(err)
	}
	return unreachable("cluster %q cannot be reached", u.Cluster()).Wrap(err)
}

func unreachable(format string, args ...any) *status.Error {
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE, format, args...)
}
