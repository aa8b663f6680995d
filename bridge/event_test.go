package bridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestLongEventComesInPieces within the credit, whole in the end, with its cursor on the last piece; as text cut between runes.
func TestLongEventComesInPieces(t *testing.T) {
	const unit = "0123456789ä☃🙂\x01"
	for name, o := range map[string]kubetest.Options{"streamed": {}, "in pages": {WithoutWatchList: true}} {
		for _, text := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s text=%v", name, text), func(t *testing.T) {
				c := overTLS(t, o)
				n := 5_000
				if text && !o.WithoutWatchList {
					n = 100_000 // about 2 MiB
				} else {
					c.Faults.Add(kubetest.Fault{Action: kubetest.Fragment(1013), Match: kubetest.Watches})
				}
				content := strings.Repeat(unit, n)
				listed := c.put(t, "listed", content)
				open := openOf(pods(), "")
				open.Text = text
				r := start(t, c.up, open, newTestChannel(t, ""), Options{})
				must(t, r.awaitState(within(t), resyncEnd, 1))
				must(t, r.awaitEvent(within(t), "small", c.put(t, "small", "ä")))
				must(t, r.awaitEvent(within(t), "changed", c.put(t, "changed", content)))
				if got, want := summary(r.told()), "ADDED:listed RESYNC_END ADDED:small ADDED:changed"; got != want {
					t.Fatalf("heard %s, want %s", got, want)
				}
				for _, e := range r.events() {
					if e.Text != text || e.Name == "listed" && e.Version != listed {
						t.Errorf("%s: text %v, version %s", e.Name, e.Text, e.Version)
					}
					if e.Name != "small" && !bytes.Contains(e.Bytes, []byte(strings.Repeat(strings.Replace(unit, "\x01", "\\u0001", 1), n))) {
						t.Errorf("%s has lost something: %d bytes", e.Name, len(e.Bytes))
					}
				}
			})
		}
	}
}

// TestTextThatIsNotUTF8 goes as bytes when it is seen in time, and ends the channel when it is not.
func TestTextThatIsNotUTF8(t *testing.T) {
	event := func(name, content string) string {
		return fmt.Sprintf(`{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":%q,"resourceVersion":"7"},"data":%q}}`, name, "") + content
	}
	long := strings.Repeat(" ", 100_000)
	for name, c := range map[string]struct {
		message string
		text    bool // the channel asked for it
		reason  sluicev1.Reason
		asText  bool
	}{
		"short":                {event("a", "\n"), true, 0, true},
		"short, invalid":       {strings.Replace(event("a", ""), "ConfigMap", "Config\xffMap", 1), true, 0, false},
		"short, invalid bytes": {strings.Replace(event("a", ""), "ConfigMap", "Config\xffMap", 1), false, 0, false},
		"long":                 {event("a", long), true, 0, true},
		"long, invalid":        {event("a", long+"\xff"), true, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, false},
		"long, invalid bytes":  {strings.Replace(event("a", long), "ConfigMap", "Config\xffMap", 1), false, 0, false},
		"cut rune":             {event("a", long+"\xe2\x98"), true, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, false},
	} {
		t.Run(name, func(t *testing.T) {
			up := newRawUpstream(t, sent(c.message))
			cursor := watchCursors(up.Identity(), pods()).at("1")
			open := openOf(pods(), cursor)
			open.Text = c.text
			r := start(t, up, open, newTestChannel(t, cursor), Options{})
			if c.reason != 0 {
				if err := r.wait(); status.Reason(err) != c.reason {
					t.Errorf("Run ends with %v", err)
				}
				return
			}
			must(t, r.awaitEvent(within(t), "a", "7"))
			e := r.events()[0]
			if e.Text != c.asText || string(e.Bytes) != c.message {
				t.Errorf("text is %v, %d of %d bytes", e.Text, len(e.Bytes), len(c.message))
			}
		})
	}
}

// TestRunesAreNotCut however the text is.
func TestRunesAreNotCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(rapid.StringOf(rapid.RuneFrom([]rune("a\x00ä☃🙂\ufffd"))).Draw(t, "text"))
		if rapid.Bool().Draw(t, "broken") {
			text = append(text, rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "tail")...)
		}
		var r runes
		var got []byte
		ok := true
		for rest := text; ok; {
			n := rapid.IntRange(0, len(rest)).Draw(t, "size")
			last := n == len(rest)
			var first, next []byte
			first, next, ok = r.cut(rest[:n], last)
			if ok && (!utf8.Valid(first) || !utf8.Valid(next)) {
				t.Fatalf("%q is cut to %q and %q", text, first, next)
			}
			got = append(append(got, first...), next...)
			if rest = rest[n:]; last {
				break
			}
		}
		if ok != utf8.Valid(text) || ok && !bytes.Equal(got, text) {
			t.Fatalf("%q is %v and comes out as %q", text, ok, got)
		}
	})
}

// TestKindIsReadOffTheBeginning whatever the white space, and off the end if it must be.
func TestKindIsReadOffTheBeginning(t *testing.T) {
	for b, want := range map[string]eventKind{
		`{"type":"ADDED","object":{}}`:                  change,
		`{"type":"MODIFIED","object":{`:                 change,
		`{"type":"BOOKMARK","object":{}}`:               bookmark,
		`{"type":"ERROR","object":{}}`:                  failure,
		"\t{\n\"type\" : \"ERROR\" ,":                   failure,
		`{"object":{"type":"ERROR"},"type":"BOOKMARK"}`: bookmark,
		`{"object":{"type":"ERROR"},"type":"ADDED"}`:    change,
		`{"type":"BOOKMARKED","object":{}}`:             change,
		`{"type":"\u0045RROR","object":{}}`:             failure,
		`{"object":{"type":"ERROR"}}`:                   unread,
		`[{"type":"ERROR"}]`:                            unread,
		`{"type":7}`:                                    unread,
		`hello`:                                         unread,
		`{"type":"`:                                     unread,
	} {
		if got, ok := classify([]byte(b), true); got != want || ok != (want != unread) {
			t.Errorf("%s: %v %v, want %v", b, got, ok, want)
		}
	}
	late := `{"object":{"x":"` + strings.Repeat("x", 2000) + `"},"type":"ERROR"}`
	if _, ok := classify([]byte(late), false); ok {
		t.Error("the end of an event is needed to know it, though it has not come")
	}
}

// TestWhatIsNoWatchEndsTheChannel: another attempt would find the same.
func TestWhatIsNoWatchEndsTheChannel(t *testing.T) {
	for name, messages := range map[string][]string{
		"text":            {"hello"},
		"no type":         {`{"object":{}}`},
		"type at the end": {`{"object":"` + strings.Repeat("x", 20<<10) + `","type":"ADDED"}`},
		"long error":      {`{"type":"ERROR","object":{"message":"` + strings.Repeat("x", 65<<10) + `"}}`},
		"broken error":    {`{"type":"ERROR","object":{`},
		"broken bookmark": {`{"type":"BOOKMARK","object":7}`},
	} {
		up := newRawUpstream(t, sent(messages...))
		cursor := watchCursors(up.Identity(), pods()).at("1")
		ch := newTestChannel(t, cursor)
		err := start(t, up, openOf(pods(), cursor), ch, Options{}).wait()
		if status.Reason(err) != sluicev1.Reason_REASON_UPSTREAM_PROTOCOL || len(ch.told()) > 0 {
			t.Errorf("%s: %v, and the client heard %s", name, err, summary(ch.told()))
		}
	}
}

// TestLongErrorIsReadWhole: it may be longer than a piece.
func TestLongErrorIsReadWhole(t *testing.T) {
	long := strings.Replace(errorEvent(403, "Forbidden"), `"message":"no"`, `"message":"`+strings.Repeat("no ", 15_000)+`"`, 1)
	up := newRawUpstream(t, sent("", long))
	cursor := watchCursors(up.Identity(), pods()).at("1")
	err := start(t, up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{}).wait()
	if e := status.From(err); e.HTTPCode != 403 || len(e.Kubernetes.GetMessage()) != 1024 {
		t.Errorf("Run ends with %.200v", err)
	}
}

// TestEventsWithoutVersion, of an API server that has none: nothing can be continued, so the next upstream begins with a list.
func TestEventsWithoutVersion(t *testing.T) {
	var f framer
	f.queue = new(queue)
	if _, err := f.add([]byte(`{"type":"ADDED","object":{"kind":"X","metadata":{"name":"a"}}}`), false, true); err != nil {
		t.Fatal(err)
	}
	if i, version := f.queue.last(1); i != 0 || version != "" {
		t.Errorf("%d %q", i, version)
	}
}

// TestQueueRunsFitTheCredit: what is marked as a run's end is what is taken.
func TestQueueRunsFitTheCredit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f framer
		f.queue = new(queue)
		sizes := rapid.SliceOfN(rapid.IntRange(1, 20<<10), 1, 50).Draw(t, "sizes")
		for i, n := range sizes {
			b := fmt.Appendf(nil, `{"type":"ADDED","object":{"metadata":{"resourceVersion":"%d"}},"x":"%s"}`, i, strings.Repeat("x", n))
			for len(b) > 16<<10 {
				if _, err := f.add(b[:16<<10], false, false); err != nil {
					t.Fatal(err)
				}
				b = b[16<<10:]
			}
			if _, err := f.add(b, false, true); err != nil {
				t.Fatal(err)
			}
		}
		credit := rapid.IntRange(-10, 200<<10).Draw(t, "credit")
		n := f.queue.fit(credit)
		cost, ends := 0, -1
		for i := range n {
			cost += len(f.queue.pieces[i].Bytes) + pieceCost
			if !f.queue.pieces[i].More {
				ends++
			}
		}
		if cost > max(credit, 0) || cost > maxRun && n > 1 {
			t.Fatalf("%d pieces of %d bytes within %d", n, cost, credit)
		}
		if n < len(f.queue.pieces) && cost+f.queue.need()+len(f.queue.pieces[n].Bytes)+pieceCost < min(credit, maxRun) {
			t.Fatalf("%d pieces of %d bytes leave room within %d", n, cost, credit)
		}
		want := ""
		if ends >= 0 {
			want = fmt.Sprint(ends)
		}
		if _, version := f.queue.last(n); version != want {
			t.Fatalf("the run's last event is %q, want %q", version, want)
		}
	})
}

// listed is an upstream without streamed lists, whose lists are this text.
func listed(t testing.TB, body string) *rawUpstream {
	up := newRawUpstream(t, sent(errorEvent(500, "InternalError")))
	up.get = func(context.Context, url.Values) (*http.Response, error) {
		return &http.Response{Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	return up
}

// TestListsInAnyShape that an API server gives them: keys sorted or not, kinds said by the list or by each object.
func TestListsInAnyShape(t *testing.T) {
	for body, want := range map[string]string{
		`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[{"metadata":{"name":"a"}}]}`:                                       `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}`,
		`{"kind":"PodList","apiVersion":"a/v1","metadata":{"resourceVersion":"5"},"items":[ { "metadata":{"name":"a"},"x":{"kind":"y"}}],"x":[1,{}]}`:       `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"a/v1","metadata":{"name":"a"},"x":{"kind":"y"}}}`,
		` {"apiVersion":"a/v1", "items":[{"apiVersion":"a/v1","kind":"Foo","metadata":{"name":"a"}}],"kind":"FooList","metadata":{"resourceVersion":"5"}} `: `{"type":"ADDED","object":{"apiVersion":"a/v1","kind":"Foo","metadata":{"name":"a"}}}`,
		`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":null}`:                                                              "",
	} {
		up := listed(t, body)
		ch := newTestChannel(t, "")
		r := start(t, up, openOf(pods(), ""), ch, Options{})
		must(t, ch.await(within(t), func() bool { return !ch.listing }))
		got := ""
		if events := ch.events(); len(events) > 0 {
			got = strings.TrimSpace(string(events[0].Bytes))
		}
		if got != want {
			t.Errorf("%s\nis sent as %s", body, got)
		}
		if v, err := watchCursors(up.Identity(), pods()).version(ch.states(resyncEnd)[0].GetCursor()); v != "5" {
			t.Errorf("%s: the list ends at %q, %v", body, v, err)
		}
		r.stop()
	}
	if got := string((&objects{kind: "XList", apiVersion: "v1"}).event([]byte(`{ }`))); got != `{"type":"ADDED","object":{"kind":"X","apiVersion":"v1"}}`+"\n" {
		t.Errorf("an empty object is sent as %s", got)
	}
}

// TestWhatIsNoList ends the channel; an object beyond the limit names it.
func TestWhatIsNoList(t *testing.T) {
	begin := `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":`
	for body, want := range map[string]sluicev1.Reason{
		`<html>`:         sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		`[]`:             sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		begin + `{}}`:    sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		begin + `["a"]}`: sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		begin + `[{]}`:   sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		`{"kind":7}`:     sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
		begin + `["` + strings.Repeat("x", 5<<20): sluicev1.Reason_REASON_LIMIT,
	} {
		err := start(t, listed(t, body), openOf(pods(), ""), newTestChannel(t, ""), Options{}).wait()
		if e := status.From(err); e.Reason != want || want == sluicev1.Reason_REASON_LIMIT && e.Limit != "limits.message_bytes" {
			t.Errorf("%.80s: %v", body, err)
		}
	}
}

// TestWatchIsWhereTheChannelIs: when a channel takes less of a run than it said, the watch stands behind what was taken, and the cursor of the
// rest is made anew.
func TestWatchIsWhereTheChannelIs(t *testing.T) {
	ch := newTestChannel(t, "x")
	ch.opened, ch.stingy = &sluicev1.Opened{}, true
	w := &watch{follower: follower{ch: ch, opts: WithDefaults(Options{}), queue: new(queue)}, cursors: watchCursors("c", pods())}
	w.events.queue = w.queue
	for i := range 4 {
		event := fmt.Appendf(nil, `{"type":"ADDED","object":{"kind":"X","metadata":{"name":"n","resourceVersion":"%d"}}}`, i)
		if _, err := w.events.add(event, true, true); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range []string{"2", "3"} {
		w.offerRun(4 - 3*at)
		if w.version != want {
			t.Fatalf("the watch is at %q, want %q", w.version, want)
		}
	}
	for i, e := range ch.events() {
		if want := map[int]string{3: w.cursors.at("3")}[i]; e.Cursor != want {
			t.Errorf("event %d carries %q, want %q", i, e.Cursor, want)
		}
	}
}

// TestListInPagesWhereStreamingFails, however the API server says so after its 101; but not where it refuses the caller.
func TestListInPagesWhereStreamingFails(t *testing.T) {
	const body = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`
	for _, code := range []int{400, 405, 422, 500, 501} {
		up := listed(t, body)
		up.serve = sent(errorEvent(code, "Because"))
		r := start(t, up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
		must(t, r.awaitState(within(t), resyncEnd, 1))
		r.stop()
	}
	for _, code := range []int{401, 403, 404} {
		up := listed(t, body)
		up.serve = sent(errorEvent(code, "Because"))
		err := start(t, up, openOf(pods(), ""), newTestChannel(t, ""), Options{}).wait()
		if e := status.From(err); e.HTTPCode != code {
			t.Errorf("%d: %v", code, err)
		}
	}
}
