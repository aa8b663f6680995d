package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

const logsPath = "/sluice.v1.GatewayService/Logs"

// A page follows a log in every way to speak, whatever its bytes are, from the moment when it is open, and is told how it ends.
func TestAPageFollowsALog(t *testing.T) {
	r := rig.New(t, rig.Options{})
	p := openPage(t, r, "alice")
	for _, s := range speeches {
		runPod(t, r, "p", nil)
		target := targets("p")["logs"].GetTarget().GetLogs()
		stream := p.stream(within(t), s, logsPath, &sluicev1.LogsRequest{Logs: target})
		next := func() (*sluicev1.LogsResponse, error) {
			b, err := stream.next()
			if err != nil {
				return nil, err
			}
			res := new(sluicev1.LogsResponse)
			return res, s.decode(b, res)
		}
		if res, err := next(); err != nil || res.GetState().GetKind() != sluicev1.ChannelState_KIND_CONNECTED {
			t.Fatalf("%s: the first response is %v, %v", s.name, res, err)
		}
		for _, line := range []string{"text ☃\n", "\xff\x00\n"} {
			if err := r.Kube.WriteLog("default", "p", "main", line); err != nil {
				t.Fatal(err)
			}
			res, err := next()
			if err != nil || res.GetText()+string(res.GetBinary()) != line || res.GetCursor() == "" {
				t.Fatalf("%s: came %v, %v, want %q", s.name, res, err, line)
			}
		}
		if err := r.Kube.Delete("", "pods", "default", "p"); err != nil {
			t.Fatal(err)
		}
		_, err := next()
		for err == nil {
			_, err = next()
		}
		if status.Code(err) != codes.NotFound || status.Reason(err) != sluicev1.Reason_REASON_TARGET_GONE {
			t.Errorf("%s: it ended with %v", s.name, err)
		}
	}
}

// A log that ends is a call that ends well.
func TestALogThatEndsIsACallThatEndsWell(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", kubetest.Script("echo all there is"))
	p := openPage(t, r, "alice")
	for _, s := range speeches {
		stream := p.stream(within(t), s, logsPath, &sluicev1.LogsRequest{Logs: targets("p")["logs"].GetTarget().GetLogs()})
		var got strings.Builder
		for {
			b, err := stream.next()
			if errors.Is(err, io.EOF) {
				break
			}
			res := new(sluicev1.LogsResponse)
			if err := errors.Join(err, s.decode(b, res)); err != nil {
				t.Fatal(s.name, err)
			}
			got.WriteString(res.GetText())
		}
		if got.String() != "all there is\n" {
			t.Errorf("%s: came %q", s.name, got.String())
		}
	}
}
