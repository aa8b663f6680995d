package bridge

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain ignores what a kubelet leaks: k8s.io/streaming does not look at the error of SendReply, and who closes a stream whose reply could not be
// sent, because the peer had left, waits for that reply for ever.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/moby/spdystream.(*Stream).waitWriteReply"))
}
