package upstream_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/event"
	"github.com/sluice-gateway/sluice/bench/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves until the test ends.
func start(t *testing.T) (*upstream.Server, string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := upstream.New(ctx)
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		cancel()
		h.Close()
	})
	return s, "ws" + strings.TrimPrefix(h.URL, "http") + "/api/v1/namespaces/a/pods?watch=true&"
}

func open(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), url, http.Header{"Origin": {"http://127.0.0.1"}})
	if err != nil {
		t.Fatalf("%v (%v)", err, res)
	}
	t.Cleanup(func() { _ = ws.Close() })
	if err := ws.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return ws
}

// next is the number of the next event; 0 for a bookmark.
func next(t *testing.T, ws *websocket.Conn) uint64 {
	t.Helper()
	_, ev, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if event.IsBookmark(ev) {
		return 0
	}
	mark, ok := event.Read(ev)
	if late := event.Now() - mark.Due; !ok || late < 0 || late > int64(time.Minute) {
		t.Fatalf("%d ns late: %s", late, ev)
	}
	return mark.Seq
}

func TestAWatchBeginsWithAListItsBookmarkAndThenEventsInARow(t *testing.T) {
	for _, selector := range []string{upstream.Selector(500, 200), upstream.Selector(2048, upstream.FlatOut)} {
		_, url := start(t)
		ws := open(t, url+"sendInitialEvents=true&labelSelector="+selector)
		for i, want := range []uint64{1, 0, 2, 3, 4, 5, 6} {
			if got := next(t, ws); got != want {
				t.Fatalf("%s: event %d has number %d, want %d", selector, i, got, want)
			}
		}
	}
}

func TestAWatchFromAVersionGoesOnBehindIt(t *testing.T) {
	_, url := start(t)
	ws := open(t, url+"resourceVersion="+event.Version(41)+"&labelSelector="+upstream.Selector(500, 100))
	for want := uint64(42); want < 45; want++ {
		if got := next(t, ws); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
}

func TestStopSaysWhatWasSentAndSendsNoMore(t *testing.T) {
	s, url := start(t)
	ws := open(t, url+"sendInitialEvents=true&labelSelector="+upstream.Selector(500, 500))
	for next(t, ws) < 10 {
	}
	sent := s.Stop(t.Context(), nil)["a"]
	if sent < 10 {
		t.Fatalf("%d were sent, 10 have come", sent)
	}
	for last := uint64(10); last < sent; {
		last = next(t, ws)
	}
	if err := ws.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, ev, err := ws.ReadMessage(); err == nil {
		t.Errorf("after the last one came %s", ev)
	}
}

func TestStopDoesNotWaitForAWatchThatIsIgnored(t *testing.T) {
	s, url := start(t)
	stuck := open(t, url+"sendInitialEvents=true&labelSelector="+upstream.Selector(8192, upstream.FlatOut))
	next(t, stuck) // and never again
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.Stop(ctx, []string{"a"})
	if ctx.Err() != nil {
		t.Error("it has waited")
	}
}

func TestWhatNoAPIServerWouldAnswerIsRefused(t *testing.T) {
	_, url := start(t)
	url = "http" + strings.TrimPrefix(url, "ws")
	transport := &http.Transport{DisableKeepAlives: true}
	for _, c := range []struct {
		query, origin string
		want          int
	}{
		{"labelSelector=size=500,rate=1&sendInitialEvents=true", "", http.StatusForbidden},
		{"labelSelector=size=5,rate=1&sendInitialEvents=true", "http://a", http.StatusBadRequest},
		{"labelSelector=size=x&sendInitialEvents=true", "http://a", http.StatusBadRequest},
		{"labelSelector=size=500,rate=1&resourceVersion=7", "http://a", http.StatusBadRequest},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.query, res.Status, c.want)
		}
	}
}
