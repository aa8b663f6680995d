package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// initialEventsEnd marks the bookmark after the last initial event
// (KEP-3157, watch list).
const initialEventsEnd = "k8s.io/initial-events-end"

var watchAnswers = []answer{
	{"an event is one text frame of JSON that ends in a newline", framesEvents},
	{"without a resourceVersion what exists is ADDED first", watchesWhatExists},
	{"from a resourceVersion only what came later, in order", watchesFromVersion},
	{"a field selector picks by name", watchesSelected},
	{"initial events end with a marked bookmark", watchesInitialEvents},
	{"a single subprotocol is echoed, whatever it is", echoesSubprotocol},
	{"no subprotocol and no extension unless offered", negotiatesNothing},
	{"timeoutSeconds ends it with close 1000", endsNormally},
	{"from a future resourceVersion it is silent", silentInFuture},
	{"of an object that does not exist it is silent", silentForNothing},
	{"a ping is answered", answersPing},
	{"a close is answered", answersClose},
}

// event is a watch event as it comes over the wire.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
	object object
}

// watch opens a watch of the collection, properly.
func (a *asker) watch(q string) *websocket.Conn {
	a.Helper()
	socket, answer := a.dial(a.properly(), a.collection()+"?watch=1&"+q)
	if socket == nil {
		a.Fatalf("watch %s: %d %s", q, answer.code, answer.body)
	}
	return socket
}

// next reads one event.
func (a *asker) next(socket *websocket.Conn) event {
	a.Helper()
	_, frame, err := socket.ReadMessage()
	a.must(err)
	return a.decode(frame)
}

func (a *asker) decode(frame []byte) event {
	a.Helper()
	var e event
	strict := json.NewDecoder(bytes.NewReader(frame))
	strict.DisallowUnknownFields()
	a.must(strict.Decode(&e))
	a.must(json.Unmarshal(e.Object, &e.object))
	return e
}

// want reads one event and checks its type and the name of its object.
func (a *asker) want(socket *websocket.Conn, kind, name string) event {
	a.Helper()
	e := a.next(socket)
	if e.Type != kind || e.object.Name != name {
		a.Fatalf("%s of %q, want %s of %q", e.Type, e.object.Name, kind, name)
	}
	return e
}

// wantEnd reads up to the end, which must be a close frame of 1000, and returns
// what came before.
func (a *asker) wantEnd(socket *websocket.Conn) []event {
	a.Helper()
	var events []event
	for {
		_, frame, err := socket.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			return events
		}
		a.must(err)
		events = append(events, a.decode(frame))
	}
}

func framesEvents(a *asker) {
	socket := a.watch("resourceVersion=" + a.now())
	a.put("framed", "1")
	defer a.delete("framed")
	kind, frame, err := socket.ReadMessage()
	a.must(err)
	if kind != websocket.TextMessage {
		a.Errorf("a frame of kind %d, want text", kind)
	}
	if !bytes.HasPrefix(frame, []byte(`{"type":"ADDED","object":{"kind":`)) || !bytes.HasSuffix(frame, []byte("}}\n")) {
		a.Errorf("the frame %q", frame)
	}
	if e := a.decode(frame); e.object.APIVersion != "v1" || e.object.Name != "framed" || e.object.ResourceVersion == "" {
		a.Errorf("the object %s", e.Object)
	}
}

func watchesWhatExists(a *asker) {
	a.put("existing", "1")
	defer a.delete("existing")
	socket := a.watch("")
	for {
		if e := a.next(socket); e.Type != "ADDED" {
			a.Fatalf("%s of %q among what exists", e.Type, e.object.Name)
		} else if e.object.Name == "existing" {
			break
		}
	}
}

func watchesFromVersion(a *asker) {
	a.put("older", "1")
	defer a.delete("older")
	socket := a.watch("resourceVersion=" + a.now())
	a.put("newer", "1")
	a.put("newer", "2")
	a.delete("newer")
	added := a.want(socket, "ADDED", "newer")
	modified := a.want(socket, "MODIFIED", "newer")
	deleted := a.want(socket, "DELETED", "newer")
	if !ascending(added, modified, deleted) {
		a.Errorf("resourceVersions %s, %s, %s do not ascend", added.object.ResourceVersion,
			modified.object.ResourceVersion, deleted.object.ResourceVersion)
	}
	again := a.watch("resourceVersion=" + added.object.ResourceVersion)
	a.want(again, "MODIFIED", "newer")
	a.want(again, "DELETED", "newer")
}

// ascending tells whether the events' resourceVersions do, which are numbers
// that a client may compare (KEP-5504).
func ascending(events ...event) bool {
	last := uint64(0)
	for _, e := range events {
		version, err := strconv.ParseUint(e.object.ResourceVersion, 10, 64)
		if err != nil || version <= last {
			return false
		}
		last = version
	}
	return true
}

func watchesSelected(a *asker) {
	socket := a.watch("fieldSelector=metadata.name%3Dselected&resourceVersion=" + a.now())
	deleteAll := a.putAll("selected-not", "selected")
	defer deleteAll()
	a.want(socket, "ADDED", "selected")
}

func watchesInitialEvents(a *asker) {
	a.put("initial", "1")
	defer a.delete("initial")
	want := a.list("").names()
	socket := a.watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
	var got []string
	e := a.next(socket)
	for ; e.Type == "ADDED"; e = a.next(socket) {
		got = append(got, e.object.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		a.Errorf("initial events for %v, want %v", got, want)
	}
	if e.Type != "BOOKMARK" || e.object.Annotations[initialEventsEnd] != "true" || e.object.ResourceVersion == "" || e.object.Kind == "" {
		a.Fatalf("after the initial events %s %s", e.Type, e.Object)
	}
	a.put("initial", "2")
	a.want(socket, "MODIFIED", "initial")
}

func echoesSubprotocol(a *asker) {
	say := a.properly()
	say.protocols = []string{"anything.example"}
	socket, answer := a.dial(say, a.collection()+"?watch=1")
	if socket == nil || socket.Subprotocol() != "anything.example" {
		a.Errorf("%d %v", answer.code, answer.header)
	}
}

func negotiatesNothing(a *asker) {
	_, answer := a.dial(a.properly(), a.collection()+"?watch=1")
	if answer.code != http.StatusSwitchingProtocols {
		a.Fatalf("%d %s", answer.code, answer.body)
	}
	for name := range answer.header {
		if strings.HasPrefix(name, "Sec-Websocket-") && name != "Sec-Websocket-Accept" {
			a.Errorf("answered %s: %s", name, answer.header.Get(name))
		}
	}
}

func endsNormally(a *asker) {
	started := time.Now()
	a.wantEnd(a.watch("timeoutSeconds=1&resourceVersion=" + a.now()))
	if took := time.Since(started); took < 900*time.Millisecond {
		a.Errorf("ended after %s", took)
	}
}

func silentInFuture(a *asker) {
	socket := a.watch("timeoutSeconds=2&resourceVersion=999999999999")
	a.put("present", "1")
	defer a.delete("present")
	if events := a.wantEnd(socket); len(events) > 0 {
		a.Errorf("%s %s", events[0].Type, events[0].Object)
	}
}

func silentForNothing(a *asker) {
	a.put("something", "1")
	defer a.delete("something")
	socket := a.watch("timeoutSeconds=1&fieldSelector=metadata.name%3Dno-such-object")
	if events := a.wantEnd(socket); len(events) > 0 {
		a.Errorf("%s %s", events[0].Type, events[0].Object)
	}
}

func answersPing(a *asker) { a.wantPong(a.watch("resourceVersion=" + a.now())) }

// wantPong checks that a ping is answered before anything else comes.
func (a *asker) wantPong(socket *websocket.Conn) {
	a.Helper()
	errPong := errors.New("pong")
	socket.SetPongHandler(func(data string) error {
		if data != "are you there" {
			a.Errorf("a pong with %q", data)
		}
		return errPong
	})
	a.must(socket.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(answerTimeout)))
	if _, _, err := socket.ReadMessage(); !errors.Is(err, errPong) {
		a.Errorf("no pong: %v", err)
	}
}

func answersClose(a *asker) {
	socket := a.watch("resourceVersion=" + a.now())
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	a.must(socket.WriteControl(websocket.CloseMessage, bye, time.Now().Add(answerTimeout)))
	a.wantEnd(socket)
}

var expiryAnswers = []answer{
	{"an expired resourceVersion is 410 in the stream, an expired page 410 outside", tellsExpiry},
}

// tellsExpiry is one row because an expiry may cost a restart of the server.
func tellsExpiry(a *asker) {
	deleteAll := a.putAll("expiring-1", "expiring-2")
	defer deleteAll()
	page := a.list("limit=1")
	a.must(a.Objects.Expire(a.ctx))

	socket := a.watchAgain("resourceVersion=" + page.ResourceVersion)
	events := a.wantEnd(socket)
	if len(events) != 1 || events[0].Type != "ERROR" {
		a.Fatalf("%d events, want one ERROR: %+v", len(events), events)
	}
	checkExpired(a, events[0].Object)

	answer := a.get(a.Tokens.Permitted, a.collection()+"?limit=1&continue="+page.Continue)
	if answer.code != http.StatusGone {
		a.Fatalf("the next page: %d %s", answer.code, answer.body)
	}
	checkExpired(a, answer.body)

	if got := a.list("").names(); !slices.Contains(got, "expiring-1") || !slices.Contains(got, "expiring-2") {
		a.Errorf("a fresh list holds %v", got)
	}
}

func checkExpired(a *asker, text []byte) {
	a.Helper()
	var status metav1.Status
	a.must(json.Unmarshal(text, &status))
	if status.Kind != "Status" || status.Reason != metav1.StatusReasonExpired || status.Code != http.StatusGone {
		a.Errorf("%s, want a Status of reason Expired", text)
	}
}

// watchAgain opens a watch on a server that may still be filling its cache,
// which it says with 429 and Retry-After.
func (a *asker) watchAgain(q string) *websocket.Conn {
	a.Helper()
	for {
		socket, answer := a.dial(a.properly(), a.collection()+"?watch=1&"+q)
		if socket != nil {
			return socket
		}
		seconds, err := strconv.Atoi(answer.header.Get("Retry-After"))
		if answer.code != http.StatusTooManyRequests || err != nil {
			a.Fatalf("watch %s: %d %s", q, answer.code, answer.body)
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-a.ctx.Done():
			a.Fatal(a.ctx.Err())
		}
	}
}
