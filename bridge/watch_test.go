package bridge

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	connected    = sluicev1.ChannelState_KIND_CONNECTED
	reconnecting = sluicev1.ChannelState_KIND_RECONNECTING
	resyncBegin  = sluicev1.ChannelState_KIND_RESYNC_BEGIN
	resyncEnd    = sluicev1.ChannelState_KIND_RESYNC_END
)

// summary is what a client heard, briefly.
func summary(all []told) string {
	var b strings.Builder
	for _, x := range all {
		if x.state != nil {
			fmt.Fprintf(&b, "%s ", strings.TrimPrefix(x.state.GetKind().String(), "KIND_"))
			continue
		}
		fmt.Fprintf(&b, "%s:%s ", x.event.Type, x.event.Name)
	}
	return strings.TrimSpace(b.String())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatchBeginsWithTheObjects, whether the API server streams its lists or not.
func TestWatchBeginsWithTheObjects(t *testing.T) {
	for name, o := range map[string]kubetest.Options{"streamed": {}, "in pages": {WithoutWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			c := overTLS(t, o)
			c.put(t, "a", "1")
			c.put(t, "b", "1")
			r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{PageSize: 1})
			must(t, r.awaitState(within(t), resyncEnd, 1))
			must(t, r.awaitEvent(within(t), "a", c.put(t, "a", "2")))
			must(t, r.awaitEvent(within(t), "b", c.remove(t, "b")))
			if got, want := summary(r.told()), "ADDED:a ADDED:b RESYNC_END MODIFIED:a DELETED:b"; got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
			if !r.opened.GetCapabilities().GetResumable() {
				t.Errorf("opened as %v", r.opened)
			}
			r.halt()
		})
	}
}

func TestChangesOnlyLeavesTheObjectsOut(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.put(t, "a", "1")
	target := pods()
	target.ChangesOnly = true
	r := start(t, c.up, openOf(target, ""), newTestChannel(t, ""), Options{})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	must(t, r.awaitEvent(within(t), "b", c.put(t, "b", "1")))
	if got, want := summary(r.told()), "RESYNC_END ADDED:b"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
	cursor := r.states(resyncEnd)[0].GetCursor()
	r.halt()
	again := start(t, c.up, openOf(target, cursor), newTestChannel(t, cursor), Options{})
	must(t, again.awaitEvent(within(t), "b", c.put(t, "b", "2")))
	if got, want := summary(again.told()), "ADDED:b MODIFIED:b"; got != want {
		t.Errorf("from the first cursor: %s, want %s", got, want)
	}
}

// TestHL_D9_EndOfUpstreamIsInvisible: in Headlamp the end of an upstream is the end of the watch, and nobody learns of it. API servers end
// watches every half hour to an hour. Here the next one continues, and the client sees nothing of it.
func TestHL_D9_EndOfUpstreamIsInvisible(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{Steady: 1})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	want := "RESYNC_END"
	var told strings.Builder
	for i := range 5 {
		name := fmt.Sprint("a", i)
		must(t, r.awaitEvent(within(t), name, c.put(t, name, "1")))
		told.WriteString(" ADDED:" + name)
		watches := c.Counts().Watches
		c.EndWatches()
		must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Watches > watches }))
	}
	want += told.String()
	must(t, r.awaitEvent(within(t), "z", c.put(t, "z", "1")))
	if got := summary(r.told()); got != want+" ADDED:z" {
		t.Errorf("heard %s, want %s ADDED:z", got, want)
	}
}

// TestHL_D11_NewUpstreamIsRead: Headlamp's reconnect starts no reader. Here what comes by the new upstream arrives, also after a crash of
// the API server, which is announced.
func TestHL_D11_NewUpstreamIsRead(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	addr := c.Addr()
	r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{FirstBackoff: 1})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	c.Sever()
	must(t, r.awaitState(within(t), reconnecting, 2))
	version := c.put(t, "a", "1")
	must(t, c.Listen(context.Background(), addr))
	must(t, r.awaitEvent(within(t), "a", version))
	states := r.states(reconnecting)
	for i, s := range states {
		if int(s.GetAttempt()) != i+1 {
			t.Errorf("attempt %d is numbered %d", i+1, s.GetAttempt())
		}
	}
	if n := len(r.states(connected)); n != 1 {
		t.Errorf("CONNECTED %d times", n)
	}
	if n := len(r.states(resyncBegin)); n != 0 {
		t.Errorf("%d resyncs without a 410", n)
	}
}

// TestHL_D13_OneUpstreamAtATime: in Headlamp the old reader's cleanup removes the new upstream, which leaks. Here an upstream is gone before the
// next is dialled, and after Run none is left.
func TestHL_D13_OneUpstreamAtATime(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{FirstBackoff: 1})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	for i := range 5 {
		c.ResetWatches()
		must(t, r.awaitEvent(within(t), "a", c.put(t, "a", fmt.Sprint(i))))
		must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 1 }))
	}
	r.halt()
	must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 0 }))
}

// TestHL_D15_EventIsOneMessage: Headlamp sends a COMPLETE frame of its own before every event. Here an event is a piece, and nothing else is
// sent for it.
func TestHL_D15_EventIsOneMessage(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	last := ""
	for i := range 100 {
		last = c.put(t, fmt.Sprint("a", i), "1")
	}
	must(t, r.awaitEvent(within(t), "a99", last))
	if r.pieces != 100 || len(r.told()) != 101 {
		t.Errorf("100 events are %d pieces and %d other frames", r.pieces, len(r.told())-100)
	}
}

// TestHL_D17_NothingIsWrittenToAWatch: Headlamp writes the client's data, usually none, to the watch upstream. Here the upstream hears the
// handshake and the close.
func TestHL_D17_NothingIsWrittenToAWatch(t *testing.T) {
	up := newRawUpstream(t, sent(`{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7"}}}`))
	cursor := watchCursors(up.Identity(), pods()).at("1")
	r := start(t, up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
	must(t, r.awaitEvent(within(t), "a", "7"))
	r.halt()
	if got := up.heard(); len(got) != 1 || got[0] != 0x88 {
		t.Errorf("the upstream heard frames %#x, want one close frame", got)
	}
}

// TestHL_D22_TwoWatchesAreTwoUpstreams: in Headlamp two requests at once race for one entry of a map, and one of them leaks. Here a channel
// has its own upstream, whatever the others have.
func TestHL_D22_TwoWatchesAreTwoUpstreams(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	var all []*running
	for range 8 {
		all = append(all, start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{}))
	}
	for _, r := range all {
		must(t, r.awaitState(within(t), resyncEnd, 1))
	}
	version := c.put(t, "a", "1")
	for _, r := range all {
		must(t, r.awaitEvent(within(t), "a", version))
		r.halt()
	}
	must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 0 }))
}

// TestHL_F1_ErrorEventIsNotDelivered: Headlamp applies the ERROR event of a 410 to its list and loses its version, and with it all changes until
// the next watch. Here it is never delivered; the client is told that a fresh list follows.
func TestHL_F1_ErrorEventIsNotDelivered(t *testing.T) {
	for name, o := range map[string]kubetest.Options{"streamed": {}, "in pages": {WithoutWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			c := overTLS(t, o)
			c.put(t, "a", "1")
			c.put(t, "b", "1")
			first := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
			must(t, first.awaitState(within(t), resyncEnd, 1))
			cursor := first.states(resyncEnd)[0].GetCursor()
			first.halt()
			c.remove(t, "a")
			c.put(t, "c", "1")
			c.Compact(c.Version())
			r := start(t, c.up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
			must(t, r.awaitState(within(t), resyncEnd, 1))
			must(t, r.awaitEvent(within(t), "d", c.put(t, "d", "1")))
			if got, want := summary(r.told()), "RESYNC_BEGIN ADDED:b ADDED:c RESYNC_END ADDED:d"; got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
		})
	}
}

// TestRefusalsAreTheAPIServersOwn: what another attempt would not change ends the watch at once, with what the API server said.
func TestRefusalsAreTheAPIServersOwn(t *testing.T) {
	for code, want := range map[int]codes.Code{
		400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound, 422: codes.InvalidArgument,
	} {
		said := kubetest.Respond(code, http.Header{"Content-Type": {"application/json"}},
			fmt.Sprintf(`{"kind":"Status","status":"Failure","message":"no","reason":"Because","code":%d}`, code))
		c := overTLS(t, kubetest.Options{})
		c.Faults.Add(kubetest.Fault{Action: said})
		ch := newTestChannel(t, "")
		err := start(t, c.up, openOf(pods(), ""), ch, Options{}).wait()
		e := status.From(err)
		if e.Code != want || e.HTTPCode != code || e.Kubernetes.GetReason() != "Because" {
			t.Errorf("%d ends the watch with %+v", code, e)
		}
		if len(ch.told()) > 0 || ch.opened != nil {
			t.Errorf("%d: the client heard %s", code, summary(ch.told()))
		}
	}
}

func errorEvent(code int, reason string) string {
	return fmt.Sprintf(`{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"no","reason":%q,"code":%d}}`, reason, code)
}

// TestErrorEventsOfRefusalsEndTheWatch: the same refusals, after the 101.
func TestErrorEventsOfRefusalsEndTheWatch(t *testing.T) {
	for code, want := range map[int]codes.Code{401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.NotFound} {
		up := newRawUpstream(t, sent(errorEvent(code, "Because")))
		cursor := watchCursors(up.Identity(), pods()).at("1")
		ch := newTestChannel(t, cursor)
		err := start(t, up, openOf(pods(), cursor), ch, Options{}).wait()
		if e := status.From(err); e.Code != want || e.HTTPCode != code || e.Kubernetes.GetReason() != "Because" {
			t.Errorf("%d ends the watch with %+v", code, e)
		}
		if len(ch.told()) > 0 {
			t.Errorf("%d: the client heard %s", code, summary(ch.told()))
		}
	}
}

// TestNothingIsReadAfterAnErrorEvent: the version that a later event would bring is no place to go on from.
func TestNothingIsReadAfterAnErrorEvent(t *testing.T) {
	up := newRawUpstream(t, sent(errorEvent(403, "Forbidden"), `{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"a","resourceVersion":"7"}}}`))
	cursor := watchCursors(up.Identity(), pods()).at("1")
	ch := newTestChannel(t, cursor)
	err := start(t, up, openOf(pods(), cursor), ch, Options{}).wait()
	if status.Code(err) != codes.PermissionDenied || len(ch.told()) > 0 {
		t.Errorf("%v, and the client heard %s", err, summary(ch.told()))
	}
}

// TestServerErrorsAreRetried also before the channel has opened: a watch that is opened while the API server restarts recovers.
func TestServerErrorsAreRetried(t *testing.T) {
	body := http.Header{"Content-Type": {"application/json"}}
	for name, f := range map[string]kubetest.Action{
		"429":       kubetest.Respond(429, body, `{}`),
		"500":       kubetest.Respond(500, body, `{}`),
		"503":       kubetest.Respond(503, nil, "apiserver is shutting down"),
		"408":       kubetest.Respond(408, nil, ""),
		"reset":     kubetest.ResetRequest(),
		"garbage":   kubetest.Garbage([]byte("SSH-2.0-x\r\n")),
		"bare 101":  kubetest.BareSwitch(),
		"ended":     kubetest.EndAfter(0),
		"cut":       kubetest.CutAfter(1),
		"was reset": kubetest.ResetAfter(1),
		"masked":    kubetest.MaskedFrame(1),
		"huge":      kubetest.ReservedBits(0),
	} {
		t.Run(name, func(t *testing.T) {
			c := overTLS(t, kubetest.Options{})
			c.put(t, "a", "1")
			c.put(t, "b", "1")
			c.Faults.Add(kubetest.Fault{Action: f, Times: 2, Match: kubetest.Watches})
			r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{FirstBackoff: 1})
			must(t, r.awaitState(within(t), resyncEnd, 1))
			must(t, r.awaitEvent(within(t), "z", c.put(t, "z", "1")))
			if len(r.states(reconnecting)) == 0 || len(r.states(connected)) == 0 {
				t.Errorf("heard %s", summary(r.told()))
			}
			checkFold(t, r.told(), map[string]bool{"a": true, "b": true, "z": true})
		})
	}
}

// checkFold checks that a client that applies what it heard knows exactly these objects.
func checkFold(t testing.TB, all []told, want map[string]bool) {
	t.Helper()
	have, fresh := map[string]bool{}, map[string]bool(nil)
	for _, x := range all {
		switch {
		case x.state.GetKind() == resyncBegin:
			fresh = map[string]bool{}
		case x.state.GetKind() == resyncEnd && fresh != nil:
			have, fresh = fresh, nil
		case x.event == nil:
		case fresh != nil:
			fresh[x.event.Name] = true
		case x.event.Type == "DELETED":
			delete(have, x.event.Name)
		default:
			have[x.event.Name] = true
		}
	}
	if len(have) != len(want) {
		t.Errorf("the client knows %v, there are %v", have, want)
	}
	for name := range want {
		if !have[name] {
			t.Errorf("the client does not know %s", name)
		}
	}
}

// TestChannelMayTakeLessThanItSaid: a budget that many channels share shrinks at any time. No event is lost by that, none comes twice, and the
// next upstream goes on behind what was taken.
func TestChannelMayTakeLessThanItSaid(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	ch := newTestChannel(t, "")
	ch.stingy = true
	r := start(t, c.up, openOf(pods(), ""), ch, Options{FirstBackoff: 1})
	must(t, r.awaitState(within(t), resyncEnd, 1))
	var want []string
	last := ""
	for i := range 300 {
		name := fmt.Sprintf("a%03d", i)
		last = c.put(t, name, strings.Repeat("x", i*i))
		want = append(want, name)
		if i%40 == 0 {
			c.ResetWatches()
		}
	}
	must(t, r.awaitEvent(within(t), "a299", last))
	if got := names(r.events()); !slices.Equal(got, want) {
		t.Errorf("heard %v", got)
	}
}
