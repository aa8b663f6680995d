package bridge

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// The first byte of every message of v4.channel.k8s.io and v5.channel.k8s.io says what the rest is (KEP-4006).
const (
	streamStdin  = remotecommand.StreamStdIn
	streamStdout = remotecommand.StreamStdOut
	streamStderr = remotecommand.StreamStdErr
	streamStatus = remotecommand.StreamErr
	streamResize = remotecommand.StreamResize
	streamClose  = remotecommand.StreamClose // v5: the stream that the next byte names has ended
)

// maxStatus is how long the status of a process may be, in bytes.
const maxStatus = 64 << 10

// streams are those of a process that a channel has asked for.
type streams struct{ stdin, stdout, stderr, tty bool }

// demux takes the messages of a process apart. It is a state machine without I/O: how a message is cut into fragments makes no difference to
// the bytes.
type demux struct {
	streams        // Immutable.
	stream  byte   // whose the message is that has begun
	known   bool   // stream is: a first byte has come
	status  []byte // what has come of it
}

// add takes the next fragment and returns the piece that is in it, which refers to the fragment's bytes and may be empty.
func (d *demux) add(f websocket.Fragment) (p data.Piece, err error) {
	if f.Text {
		return p, brokenProcess("a text message has come, of a subprotocol that is binary")
	}
	b := f.Bytes
	if !d.known && len(b) > 0 {
		d.stream, d.known, b = b[0], true, b[1:]
	}
	if f.Last {
		defer func() { d.known = false }()
	}
	if !d.known {
		return p, nil // an empty message says nothing
	}
	switch {
	case d.stream > streamResize:
		return p, brokenProcess("a message is for stream %d, which there is not", d.stream)
	case len(b) == 0:
		return p, nil // as the first message of an API server, on whichever stream
	case d.stream == streamStdout && d.stdout:
		return data.Piece{Bytes: b, Stream: sluicev1.Stream_STREAM_STDOUT}, nil
	case d.stream == streamStderr && d.stderr:
		return data.Piece{Bytes: b, Stream: sluicev1.Stream_STREAM_STDERR}, nil
	case d.stream != streamStatus:
		return p, brokenProcess("bytes have come on stream %d, which was not asked for", d.stream)
	case len(d.status)+len(b) > maxStatus:
		return p, brokenProcess("the status is longer than %d bytes", maxStatus)
	}
	d.status = append(d.status, b...)
	return p, nil
}

// ended reports whether the status has come. It is a stream like the others, so it may come in several messages.
func (d *demux) ended() bool { return !d.known && len(d.status) > 0 && json.Valid(d.status) }

// outcome reads how a process has ended off its status, which is that of an upstream that was read to its end. One that exits says how; otherwise success is
// that its output has ended.
func outcome(clusterName string, said []byte, exits bool) Outcome {
	var s metav1.Status
	if err := json.Unmarshal(said, &s); err != nil {
		return Outcome{Err: brokenProcess("the status is no JSON").Wrap(err)}
	}
	switch {
	case s.Status == metav1.StatusSuccess && exits:
		return Outcome{Exit: &sluicev1.Exit{}}
	case s.Status == metav1.StatusSuccess:
		return Outcome{}
	case s.Status != metav1.StatusFailure:
		return Outcome{Err: brokenProcess("the status says neither success nor failure")}
	case s.Reason == remotecommand.NonZeroExitCodeReason:
		return exited(&s)
	}
	return Outcome{Err: failed(clusterName, &s), Whole: true}
}

// exited is how a process that has not exited with 0 did.
func exited(s *metav1.Status) Outcome {
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Type != remotecommand.ExitCodeCauseType {
				continue
			}
			if code, ok := exitCode(c.Message); ok {
				return Outcome{Exit: &sluicev1.Exit{Code: code}}
			}
			break
		}
	}
	return Outcome{Err: brokenProcess("the status holds no exit code")}
}

// exitCode reads a code that is not 0. Those of Windows have 32 bits and come without a sign.
func exitCode(s string) (int32, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n == 0 || n < math.MinInt32 || n > math.MaxUint32 {
		return 0, false
	}
	return int32(uint32(n)), true
}

// failed is what a cluster says why there was no process, or why it knows nothing of its end.
func failed(clusterName string, s *metav1.Status) *status.Error {
	code := int(s.Code)
	if code < http.StatusBadRequest || code > 599 {
		code = http.StatusInternalServerError
	}
	e := cluster.Refusal(clusterName, code, nil, nil)
	e.Kubernetes = cluster.StatusOf(s)
	if m := e.Kubernetes.GetMessage(); m != "" {
		e.Message += ": " + m
	}
	return e
}

func brokenProcess(format string, args ...any) *status.Error {
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, format, args...)
}
