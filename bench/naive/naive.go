// Package naive is the gateway that one would write first, in a hundred lines: for each watch a goroutine that reads one WebSocket message
// after the other and sends each at once, under a mutex, as a message of its own. It speaks enough of the protocol's plain sessions to be
// measured beside Sluice: no credit, no resume, no limits, no cursors; its callers are not verified; and one watch that is not read holds up
// all others.
package naive

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Gateway implements GatewayService.
type Gateway struct {
	sluicev1.UnimplementedGatewayServiceServer

	upstream *url.URL
	dialer   websocket.Dialer
	dialling chan struct{} // as many dials at a time as it has room
}

// New makes a gateway before an API server's URL; config is for https.
func New(upstream *url.URL, config *tls.Config) *Gateway {
	return &Gateway{upstream: upstream, dialer: websocket.Dialer{TLSClientConfig: config}, dialling: make(chan struct{}, 64)}
}

type sender = func(*sluicev1.ConnectResponse) error

// Connect implements GatewayService.
func (g *Gateway) Connect(stream grpc.BidiStreamingServer[sluicev1.ConnectRequest, sluicev1.ConnectResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	token := strings.Join(md.Get("authorization"), "")
	ctx, cancel := context.WithCancel(stream.Context())
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	var mu sync.Mutex
	send := func(r *sluicev1.ConnectResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(r)
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, f := range r.GetFrames() {
			if o := f.GetOpen(); o != nil {
				watches.Go(func() { g.watch(ctx, f.GetChannel(), o.GetTarget().GetWatch(), token, send) })
			}
		}
	}
}

// watch sends what one watch brings, and in the end why it ended.
func (g *Gateway) watch(ctx context.Context, channel uint32, t *sluicev1.WatchTarget, token string, send sender) {
	err := g.copy(ctx, channel, t, token, send)
	_ = send(&sluicev1.ConnectResponse{Frames: []*sluicev1.ServerFrame{{Channel: channel, Frame: &sluicev1.ServerFrame_Closed{
		Closed: &sluicev1.Closed{Status: &sluicev1.Status{Code: uint32(status.Code(err)), Message: err.Error()}},
	}}}}) // a client that has left is told nothing
}

func (g *Gateway) copy(ctx context.Context, channel uint32, t *sluicev1.WatchTarget, token string, send sender) error {
	ws, err := g.dial(ctx, t, token)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer ws.Close()
	stop := context.AfterFunc(ctx, func() { _ = ws.Close() }) // ends ReadMessage
	defer stop()
	for {
		_, event, err := ws.ReadMessage()
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		data := &sluicev1.Data{Payload: &sluicev1.Data_Binary{Binary: event}}
		frame := &sluicev1.ServerFrame{Channel: channel, Frame: &sluicev1.ServerFrame_Data{Data: data}}
		if err := send(&sluicev1.ConnectResponse{Frames: []*sluicev1.ServerFrame{frame}}); err != nil {
			return err
		}
	}
}

func (g *Gateway) dial(ctx context.Context, t *sluicev1.WatchTarget, token string) (*websocket.Conn, error) {
	g.dialling <- struct{}{}
	defer func() { <-g.dialling }()
	u := *g.upstream
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = "/api/" + t.GetVersion() + "/namespaces/" + t.GetNamespace() + "/" + t.GetResource()
	u.RawQuery = url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "labelSelector": {t.GetLabelSelector()},
		"sendInitialEvents": {"true"}, "resourceVersionMatch": {"NotOlderThan"},
	}.Encode()
	ws, _, err := g.dialer.DialContext(ctx, u.String(), http.Header{"Authorization": {token}, "Origin": {g.upstream.String()}}) //nolint:bodyclose // gorilla has read it
	return ws, err
}
