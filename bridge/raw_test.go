package bridge

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// rawUpstream serves watches by writing bytes, for what no API server says, and notes what it hears. It has no lists.
type rawUpstream struct {
	serve func(net.Conn)
	get   func(context.Context, url.Values) (*http.Response, error) // nil for none

	mu      sync.Mutex
	queries []url.Values
	frames  []byte // first bytes of what was heard
	readers sync.WaitGroup
}

// newRawUpstream serves every watch with serve, which returns when it has said what it has to say.
func newRawUpstream(t testing.TB, serve func(net.Conn)) *rawUpstream {
	u := &rawUpstream{serve: serve}
	t.Cleanup(u.readers.Wait)
	return u
}

func (u *rawUpstream) Cluster() string { return "raw" }

func (u *rawUpstream) Identity() string { return "uid-of-the-raw" }

func (u *rawUpstream) Sharing() string { return "principal" }

func (u *rawUpstream) Dial(_ context.Context, _ string, q url.Values, _ ...string) (*websocket.Conn, string, error) {
	here, there := net.Pipe()
	u.mu.Lock()
	u.queries = append(u.queries, q)
	u.mu.Unlock()
	u.readers.Add(2)
	go func() {
		defer u.readers.Done()
		u.serve(there)
	}()
	go func() {
		defer u.readers.Done()
		u.listen(there)
	}()
	return websocket.NewConn(here, nil), "", nil
}

// listen notes the frames of a client until it is gone: at most 125 bytes each, and masked.
func (u *rawUpstream) listen(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		u.mu.Lock()
		u.frames = append(u.frames, head[0])
		u.mu.Unlock()
		if _, err := r.Discard(4 + int(head[1]&0x7f)); err != nil {
			return
		}
	}
}

func (u *rawUpstream) heard() []byte {
	u.readers.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.frames
}

func (u *rawUpstream) asked() []url.Values {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]url.Values(nil), u.queries...)
}

func (u *rawUpstream) Get(ctx context.Context, _ string, q url.Values) (*http.Response, error) {
	if u.get == nil {
		return nil, status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "no lists")
	}
	return u.get(ctx, q)
}
