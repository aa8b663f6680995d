package web

import (
	"encoding/base64"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// refusal is a request that nothing of ours has run for.
type refusal struct {
	code int // of HTTP
	err  *status.Error
}

func refuse(code int, err *status.Error) *refusal { return &refusal{code, err} }

func notFound() *refusal {
	return refuse(http.StatusNotFound, status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "nothing is served at this path"))
}

// write answers in the protocol of the request, so that its client finds the Status where it looks for it, with the code that HTTP has
// for the refusal.
func (f *refusal) write(w http.ResponseWriter, r *http.Request) {
	s := f.err.GRPCStatus()
	protocol := kindOf(r.Header).protocol
	if protocol == unknown && r.Header.Get("Connect-Protocol-Version") != "" {
		protocol = connectUnary
	}
	switch protocol {
	case grpcWeb:
		for name, values := range grpcFields(s) {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
		w.Header().Set("Content-Type", contentGRPCWeb)
		w.WriteHeader(f.code)
	case connectStream:
		if f.code == http.StatusOK {
			(&connectStreamAnswer{writer{w: w, kind: kindOf(r.Header)}}).end(s, nil)
			return
		}
		writeJSON(w, f.code, asJSON(newConnectError(s)))
	case connectUnary:
		writeJSON(w, f.code, asJSON(newConnectError(s)))
	default:
		b, err := protojson.Marshal(f.err.Proto())
		if err != nil {
			b = []byte("{}") // a text of ours that is not UTF-8: the code says the most
		}
		writeJSON(w, f.code, b)
	}
}

func writeJSON(w http.ResponseWriter, code int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(code)
	_, _ = w.Write(b) // a client that has left is told nothing
}

// grpcFields is a status as gRPC's trailers tell it.
func grpcFields(s *grpcstatus.Status) map[string][]string {
	out := map[string][]string{"grpc-status": {strconv.Itoa(int(s.Code()))}}
	if m := s.Message(); m != "" {
		out["grpc-message"] = []string{percentEncode(m)}
	}
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		if b, err := proto.Marshal(p); err == nil {
			out["grpc-status-details-bin"] = []string{base64.RawStdEncoding.EncodeToString(b)}
		}
	}
	return out
}

// percentEncode is a grpc-message: printable ASCII, everything else as %XX.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(out)
}
