package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// demuxed is what becomes of messages.
type demuxed struct {
	out, err, status []byte
	refused          bool
}

// oneByOne takes messages apart as their definition says, whole.
func oneByOne(messages [][]byte) (d demuxed) {
	for _, m := range messages {
		if len(m) == 0 {
			continue
		}
		switch payload := m[1:]; {
		case m[0] == 1:
			d.out = append(d.out, payload...)
		case m[0] == 2:
			d.err = append(d.err, payload...)
		case m[0] == 3 && len(d.status)+len(payload) <= 65536:
			d.status = append(d.status, payload...)
		case (m[0] == 0 || m[0] == 4) && len(payload) == 0:
		default:
			d.refused = true
			return d
		}
	}
	return d
}

// inParts takes messages apart by a demux, in fragments that cuts gives the lengths of.
func inParts(messages [][]byte, cuts []byte) (d demuxed) {
	state := demux{streams: streams{stdin: true, stdout: true, stderr: true}}
	next := func() int {
		if len(cuts) == 0 {
			return 1 << 20
		}
		n := int(cuts[0])
		cuts = cuts[1:]
		return n
	}
	for _, m := range messages {
		for last := false; !last; {
			n := min(next(), len(m))
			last = n == len(m)
			piece, err := state.add(websocket.Fragment{Bytes: m[:n], Last: last})
			if d.status = state.status; err != nil {
				d.refused = true
				return d
			}
			switch piece.Stream {
			case sluicev1.Stream_STREAM_STDOUT:
				d.out = append(d.out, piece.Bytes...)
			case sluicev1.Stream_STREAM_STDERR:
				d.err = append(d.err, piece.Bytes...)
			}
			m = m[n:]
		}
	}
	return d
}

// FuzzProcessMessages: T-E9. Whatever an API server says, how it is cut makes no difference, and every byte is where its first byte says.
func FuzzProcessMessages(f *testing.F) {
	f.Add([]byte("\x04\x01out\x03\x02er\x00\x01\x01"), []byte{1, 0, 2})
	f.Add([]byte("\x05\x03{\"a\"\x03\x03:1\x02\x05x"), []byte{0, 0, 1})
	f.Add([]byte("\x01\x04\x01\x00\x02\x00x"), []byte{})
	f.Fuzz(func(t *testing.T, said, cuts []byte) {
		var messages [][]byte
		for len(said) > 0 {
			n := min(int(said[0]), len(said)-1)
			messages = append(messages, said[1:1+n])
			said = said[1+n:]
		}
		want, got := oneByOne(messages), inParts(messages, cuts)
		if want.refused != got.refused {
			t.Fatalf("refused: %v, by definition %v", got.refused, want.refused)
		}
		if want.refused { // of a message that is refused nothing counts, of its beginning in parts neither
			return
		}
		if !bytes.Equal(want.out, got.out) || !bytes.Equal(want.err, got.err) || !bytes.Equal(want.status, got.status) {
			t.Fatalf("%+v, by definition %+v", got, want)
		}
	})
}

// FuzzProcessStatus: T-E9. Whatever a status says, a process has exited, or the channel says why that is not known; never both, and never with
// success unless it was said.
func FuzzProcessStatus(f *testing.F) {
	for _, s := range []string{
		exit(0), exit(7), `{"status":"Failure","message":"no such file","reason":"InternalError","code":500}`, `{}`, `null`, `[]`, `{"status":1}`,
		`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{},{"reason":"ExitCode","message":"-1"}]}}`,
		`{"status":"Failure","code":-5,"message":"\ud800"}`, `{"status":"Failure","code":99999999}`,
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, said []byte, exits bool) {
		o := outcome("test", said, exits)
		var s struct{ Status, Reason string }
		invalid := json.Unmarshal(said, &s) != nil
		switch {
		case o.Err != nil:
			e, ok := errors.AsType[*status.Error](o.Err)
			if !ok || o.Exit != nil || e.Code == codes.OK || e.Resumable || !utf8.ValidString(e.Message) {
				t.Fatalf("%+v", o)
			}
			if b, err := proto.Marshal(e.Proto()); err != nil || len(b) > 16<<10 {
				t.Fatalf("a status of %d bytes: %v", len(b), err)
			}
		case invalid:
			t.Fatalf("%+v of what is no status", o)
		case s.Status == "Success":
			if (o.Exit != nil) != exits || o.Exit.GetCode() != 0 {
				t.Fatalf("%+v", o)
			}
		case s.Status != "Failure" || s.Reason != "NonZeroExitCode" || o.Exit.GetCode() == 0:
			t.Fatalf("%+v", o)
		}
	})
}
