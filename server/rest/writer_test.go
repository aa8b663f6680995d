package rest

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

func TestSilentEventsAreKeptAliveByComments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := httptest.NewRecorder()
		w := newWriter(rec, eventStream)
		written := func(want string) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if got := rec.Body.String(); got != want {
				t.Fatalf("after %q came %q", want, got)
			}
			if want != "" && !rec.Flushed {
				t.Fatal("it was not flushed")
			}
			rec.Body.Reset()
			rec.Flushed = false
		}
		wait := func(d time.Duration) { <-time.After(d) }

		wait(heartbeat - 1)
		written("")
		wait(1)
		written(":\n\n")
		wait(heartbeat - 1)
		if err := w.response(&sluicev1.WatchResponse{Event: "{}", Cursor: "c1"}); err != nil {
			t.Fatal(err)
		}
		written("id: c1\ndata: {\"event\":\"{}\",\"cursor\":\"c1\"}\n\n")
		wait(heartbeat - 1)
		written("")
		wait(1)
		written(":\n\n")
		wait(2 * heartbeat)
		written(":\n\n:\n\n")
		w.end()
		w.comment() // a timer that had fired already
		wait(2 * heartbeat)
		written("")
	})
}

// A comment commits to 200: what fails after it is an event, never a second answer.
func TestAnErrorAfterACommentIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := httptest.NewRecorder()
		w := newWriter(rec, eventStream)
		<-time.After(heartbeat)
		synctest.Wait()
		w.fail(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), errNoPath)
		w.end()
		if got := rec.Body.String(); rec.Code != http.StatusOK || !strings.HasPrefix(got, ":\n\nevent: error\ndata: {\"code\":5,") {
			t.Errorf("%d %q", rec.Code, got)
		}
	})
}

func TestLinesAreNeverBroken(t *testing.T) {
	rec := httptest.NewRecorder()
	w := newWriter(rec, ndjson)
	defer w.end()
	if err := w.response(&sluicev1.WatchResponse{Event: "a\nb\r\n\u2028"}); err != nil {
		t.Fatal(err)
	}
	if got := rec.Body.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\r") || !strings.HasSuffix(got, "\n") || !rec.Flushed {
		t.Errorf("got %q", got)
	}
	if err := w.response(&sluicev1.WatchResponse{Event: "\xff"}); err == nil {
		t.Error("a response that is no JSON was written")
	}
}

// unwilling is a client that has left.
type unwilling struct{ http.ResponseWriter }

func (unwilling) Write([]byte) (int, error) { return 0, errGone }

var errGone = errors.New("gone")

func TestAClientThatHasLeftEndsTheWriting(t *testing.T) {
	w := newWriter(unwilling{httptest.NewRecorder()}, ndjson)
	defer w.end()
	if err := w.response(&sluicev1.WatchResponse{Event: "{}"}); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
}
