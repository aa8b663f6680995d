package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// scrape is what Prometheus gets.
func (m *metrics) scrape(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// has fails unless the lines are in the scrape.
func (m *metrics) has(t *testing.T, lines ...string) {
	t.Helper()
	text := m.scrape(t)
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the scrape has no line %q; it has\n%s", line, like(text, line))
		}
	}
}

// like is the lines of the same metric.
func like(text, line string) string {
	name, _, _ := strings.Cut(line, "{")
	var out []string
	for l := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(l, name) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// sending is an open channel on which n bytes were sent.
func sending(t *testing.T, n int) *mux.Channel {
	t.Helper()
	s := mux.NewClient(mux.Config{}, nil)
	t.Cleanup(func() { s.End(nil) })
	c, err := s.Open(&sluicev1.Open{Cluster: "c", Target: &sluicev1.Target{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if taken := c.Offer([]data.Piece{{Bytes: make([]byte, n)}}); taken != 1 {
		t.Fatalf("%d pieces were taken", taken)
	}
	return c
}

func TestBytesAreCountedWhileTheyFlowAndStayWhenTheirChannelEnds(t *testing.T) {
	m := newMetrics(func() int { return 0 })
	c := sending(t, 100)
	m.channelOpened("watch", c)
	m.has(t, `sluice_channel_bytes_total{direction="out",kind="watch"} 100`, `sluice_channels{kind="watch"} 1`)
	c.Offer([]data.Piece{{Bytes: make([]byte, 11)}})
	m.has(t, `sluice_channel_bytes_total{direction="out",kind="watch"} 111`)
	m.channelClosed("watch", c, true, nil)
	c.Offer([]data.Piece{{Bytes: make([]byte, 1000)}})
	m.has(t, `sluice_channel_bytes_total{direction="out",kind="watch"} 111`, `sluice_channels{kind="watch"} 0`,
		`sluice_channels_closed_total{code="OK",kind="watch"} 1`)
	other := sending(t, 9)
	m.channelOpened("watch", other)
	m.has(t, `sluice_channel_bytes_total{direction="out",kind="watch"} 120`)
}

func TestEveryKindIsCountedFromTheBeginning(t *testing.T) {
	m := newMetrics(func() int { return 0 })
	for _, kind := range []string{"watch", "logs", "exec", "attach", "port-forward"} {
		m.has(t, fmt.Sprintf("sluice_channels{kind=%q} 0", kind), fmt.Sprintf("sluice_channels_opened_total{kind=%q} 0", kind),
			fmt.Sprintf(`sluice_channels_closed_total{code="OK",kind=%q} 0`, kind), fmt.Sprintf(`sluice_channel_states_total{kind=%q,state="GAP"} 0`, kind),
			fmt.Sprintf(`sluice_channel_bytes_total{direction="in",kind=%q} 0`, kind))
	}
}

func TestARefusalIsWhatEndedBeforeItStood(t *testing.T) {
	m := newMetrics(func() int { return 0 })
	refused := status.New(codes.PermissionDenied, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "no")
	left := status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "left")
	for _, end := range []struct {
		stood bool
		err   *status.Error
	}{{false, refused}, {true, refused}, {false, left}, {true, nil}, {false, nil}} {
		c := sending(t, 1)
		m.channelOpened("watch", c)
		m.channelClosed("watch", c, end.stood, end.err)
	}
	m.has(t, `sluice_channels_refused_total{reason="UPSTREAM_REFUSED"} 1`, `sluice_channels_refused_total{reason="CLOSED_BY_PEER"} 0`,
		`sluice_channels_refused_total{reason="UNSPECIFIED"} 0`, `sluice_channels_closed_total{code="PermissionDenied",kind="watch"} 2`)
	m.openRefused(status.Limit("limits.channels", "full"))
	m.has(t, `sluice_channels_refused_total{reason="LIMIT"} 1`)
}

func TestDialsAreCountedByTheirEnd(t *testing.T) {
	m := newMetrics(func() int { return 0 })
	done := m.dial("own")
	m.has(t, `sluice_upstream_dials{cluster="own"} 1`)
	done(nil)
	m.dial("own")(status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE, "no"))
	m.has(t, `sluice_upstream_dials{cluster="own"} 0`, `sluice_upstream_dials_total{cluster="own",code="OK"} 1`,
		`sluice_upstream_dials_total{cluster="own",code="Unavailable"} 1`, `sluice_upstream_dial_seconds_count{cluster="own"} 2`)
}

func TestStatesAndEndsAreCounted(t *testing.T) {
	m := newMetrics(func() int { return 0 })
	m.has(t, `sluice_channel_states_total{kind="watch",state="RESYNC_BEGIN"} 0`, `sluice_sessions_ended_total{reason="DETACH_EXPIRED"} 0`)
	m.channelState("watch", &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESYNC_BEGIN})
	m.channelState("watch", &sluicev1.ChannelState{Kind: 99}) // of a later version
	m.sessionEnded(errDetachExpired)
	m.sessionEnded(nil)
	m.resumption(true, nil)
	m.resumption(false, nil)
	m.resumption(false, errors.New("of another principal"))
	m.has(t, `sluice_channel_states_total{kind="watch",state="RESYNC_BEGIN"} 1`, `sluice_channel_states_total{kind="watch",state="99"} 1`,
		`sluice_sessions_ended_total{reason="DETACH_EXPIRED"} 1`, `sluice_sessions_ended_total{reason="UNSPECIFIED"} 1`,
		`sluice_session_resumes_total{result="resumed"} 1`, `sluice_session_resumes_total{result="not_found"} 1`,
		`sluice_session_resumes_total{result="refused"} 1`)
}

// TestTheExpiryIsThatOfTheCertificateThatIsShown, the first to expire of its chain.
func TestTheExpiryIsThatOfTheCertificateThatIsShown(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	want := server.Certificate().NotAfter
	shown := server.TLS.Certificates[0]
	for name, c := range map[string]*tls.Config{
		"fixed":      {Certificates: []tls.Certificate{shown}},
		"read again": {GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &shown, nil }},
	} {
		if got := expiry(c); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := expiry(&tls.Config{}); !got.Equal(time.Time{}) {
		t.Errorf("no certificate expires at %v", got)
	}
}
