package kube

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The subprotocols of a log over WebSocket (k8s.io/streaming, wsstream).
const (
	logBinary = "binary.k8s.io"
	logBase64 = "base64.binary.k8s.io"
)

func logAnswers() []answer {
	rows := []answer{
		{"a log is an empty message, chunks, and close 1000", logsInChunks},
		{"no subprotocol is as binary", logsWithoutSubprotocol},
		{"base64 comes in text messages", logsInBase64},
		{"of two subprotocols the first known one is taken", logsPreferFirst},
		{"an unknown subprotocol is refused without a body", logsRefuseUnknown},
		{"a followed log goes on", logsFollow},
		{"a followed log ends with its container", logsFollowToEnd},
		{"a silent log is one empty message", logsSilence},
		{"tailLines counts from the end", logsTail},
		{"tailLines=0 with follow begins with what comes", logsFollowFromNow},
		{"limitBytes cuts", logsLimit},
		{"timestamps have nine digits", logsTimestamps},
		{"sinceTime takes a line of that very second", logsSince},
		{"what the client sends is ignored, a ping is answered", logsIgnoreClient},
		{"a plain GET is text", logsPlain},
	}
	for _, r := range logRefusals {
		rows = append(rows,
			answer{r.name, func(a *asker) { r.check(a, a.get(r.token(a.Tokens), r.path(a))) }},
			answer{r.name + " over WebSocket", func(a *asker) {
				_, answer := a.dial(handshake{token: r.token(a.Tokens), protocols: []string{logBinary}}, r.path(a))
				r.check(a, answer)
			}})
	}
	return rows
}

// ofPod is a subresource of one of the pods, with its query.
func ofPod(pod, subresource, q string) func(*asker) string {
	return func(a *asker) string { return a.podPath(pod, subresource, q) }
}

func (a *asker) podPath(pod, subresource, q string) string {
	return "/api/v1/namespaces/" + a.Namespace + "/pods/" + pod + "/" + subresource + "?" + q
}

const (
	reasonBadRequest = metav1.StatusReasonBadRequest
	reasonNotFound   = metav1.StatusReasonNotFound
	reasonInvalid    = metav1.StatusReasonInvalid
)

var logRefusals = []refusal{
	{name: "a log without a token", token: noToken, path: ofPod(DonePod, "log", ""), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a log by a user without permission", token: unpermitted, path: ofPod(DonePod, "log", ""), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "a log of a pod that does not exist", token: permitted, path: ofPod("nobody", "log", ""), code: notFound, reason: reasonNotFound},
	{name: "a log of a container that does not exist", token: permitted, path: ofPod(DonePod, "log", "container=nobody"), code: badRequest, reason: reasonBadRequest},
	{name: "a log of one of two containers", token: permitted, path: ofPod(TalkerPod, "log", ""), code: badRequest, reason: reasonBadRequest},
	{name: "a previous log where there is none", token: permitted, path: ofPod(DonePod, "log", "previous=true"), code: badRequest, reason: reasonBadRequest},
	{name: "a log with tailLines below zero", token: permitted, path: ofPod(DonePod, "log", "tailLines=-1"), code: http.StatusUnprocessableEntity, reason: reasonInvalid},
	{name: "a log with limitBytes=0", token: permitted, path: ofPod(DonePod, "log", "limitBytes=0"), code: http.StatusUnprocessableEntity, reason: reasonInvalid},
	{name: "a log with sinceSeconds=0", token: permitted, path: ofPod(DonePod, "log", "sinceSeconds=0"), code: http.StatusUnprocessableEntity, reason: reasonInvalid},
	{name: "a log with sinceTime and sinceSeconds", token: permitted, path: ofPod(DonePod, "log", "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z"), code: http.StatusUnprocessableEntity, reason: reasonInvalid},
	{name: "a log with a tailLines that is no number", token: permitted, path: ofPod(DonePod, "log", "tailLines=some"), code: badRequest, reason: reasonBadRequest},
}

// numbered is what the pods print from one line to another.
func numbered(from, to int) []byte {
	var text []byte
	for n := from; n <= to; n++ {
		text = fmt.Appendf(text, "line %d\n", n)
	}
	return text
}

// log opens a log over WebSocket.
func (a *asker) log(pod, q string, protocols ...string) *websocket.Conn {
	a.Helper()
	socket, answer := a.dial(handshake{token: a.Tokens.Permitted, protocols: protocols}, a.podPath(pod, "log", q))
	if socket == nil {
		a.Fatalf("log of %s %s: %d %s", pod, q, answer.code, answer.body)
	}
	var offered string
	if len(protocols) > 0 {
		offered = protocols[0]
	}
	if socket.Subprotocol() != offered {
		a.Errorf("subprotocol %q, want %q", socket.Subprotocol(), offered)
	}
	return socket
}

// message reads a message of the kind.
func (a *asker) message(socket *websocket.Conn, want int) []byte {
	a.Helper()
	kind, text, err := socket.ReadMessage()
	a.must(err)
	if kind != want {
		a.Fatalf("a message of kind %d: %q", kind, text)
	}
	return text
}

func (a *asker) wantFirstEmpty(socket *websocket.Conn, kind int) {
	a.Helper()
	if first := a.message(socket, kind); len(first) != 0 {
		a.Errorf("the first message is %q, want nothing", first)
	}
}

// messages reads up to a close of 1000.
func (a *asker) messages(socket *websocket.Conn, want int) [][]byte {
	a.Helper()
	var all [][]byte
	for {
		kind, text, err := socket.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			return all
		}
		a.must(err)
		if kind != want {
			a.Fatalf("a message of kind %d: %q", kind, text)
		}
		all = append(all, text)
	}
}

// wholeLog reads a log that ends.
func (a *asker) wholeLog(pod, q string) string {
	a.Helper()
	socket := a.log(pod, q, logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	return string(bytes.Join(a.messages(socket, websocket.BinaryMessage), nil))
}

func (a *asker) wantLog(pod, q string, want []byte) {
	a.Helper()
	if got := a.wholeLog(pod, q); got != string(want) {
		a.Errorf("log of %s %s: %q, want %q", pod, q, got, want)
	}
}

func logsInChunks(a *asker) { a.wantLog(DonePod, "", numbered(1, 100)) }

func logsWithoutSubprotocol(a *asker) {
	socket := a.log(DonePod, "container=main")
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	if got := bytes.Join(a.messages(socket, websocket.BinaryMessage), nil); !bytes.Equal(got, numbered(1, 100)) {
		a.Errorf("%q", got)
	}
}

func logsInBase64(a *asker) {
	socket := a.log(DonePod, "", logBase64)
	a.wantFirstEmpty(socket, websocket.TextMessage)
	var got []byte
	for _, message := range a.messages(socket, websocket.TextMessage) {
		chunk, err := base64.StdEncoding.DecodeString(string(message)) // each for itself
		a.must(err)
		got = append(got, chunk...)
	}
	if !bytes.Equal(got, numbered(1, 100)) {
		a.Errorf("%q", got)
	}
}

func logsPreferFirst(a *asker) {
	a.log(DonePod, "", logBinary, logBase64)
	a.log(DonePod, "", logBase64, logBinary)
}

func logsRefuseUnknown(a *asker) {
	_, answer := a.dial(handshake{token: a.Tokens.Permitted, protocols: []string{"unknown.example"}}, a.podPath(DonePod, "log", ""))
	refusal{code: forbidden, body: asNothing}.check(a, answer)
}

// lines returns what reads one line after another.
func (a *asker) lines(socket *websocket.Conn) (next func() string) {
	var rest string
	return func() string {
		a.Helper()
		for {
			if line, after, whole := strings.Cut(rest, "\n"); whole {
				rest = after
				return line + "\n"
			}
			rest += string(a.message(socket, websocket.BinaryMessage))
		}
	}
}

// wantConsecutive checks that some lines count up by one, from whatever number.
func (a *asker) wantConsecutive(next func() string) {
	a.Helper()
	var last int
	for range 10 {
		line := next()
		digits, numbered := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "line ")
		n, err := strconv.Atoi(digits)
		if !numbered || err != nil || last != 0 && n != last+1 {
			a.Fatalf("after line %d %q", last, line)
		}
		last = n
	}
}

func logsFollow(a *asker) {
	socket := a.log(TalkerPod, "container=main&follow=true&tailLines=1", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	a.wantConsecutive(a.lines(socket))
}

func logsFollowToEnd(a *asker) { a.wantLog(DonePod, "follow=true", numbered(1, 100)) }

func logsSilence(a *asker) {
	a.wantLog(TalkerPod, "container=quiet", nil)
	socket := a.log(TalkerPod, "container=quiet&follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
}

func logsTail(a *asker) {
	a.wantLog(DonePod, "tailLines=2", numbered(99, 100))
	a.wantLog(DonePod, "tailLines=2&follow=true", numbered(99, 100))
	a.wantLog(DonePod, "tailLines=1000", numbered(1, 100))
	a.wantLog(DonePod, "tailLines=0", nil)
}

func logsFollowFromNow(a *asker) {
	before := a.wholeLog(TalkerPod, "container=main&tailLines=1")
	socket := a.log(TalkerPod, "container=main&tailLines=0&follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	next := a.lines(socket)
	if first := next(); first == before {
		a.Errorf("%q was there before", first)
	}
	a.wantConsecutive(next)
}

func logsLimit(a *asker) {
	a.wantLog(DonePod, "limitBytes=10", numbered(1, 2)[:10])
	a.wantLog(DonePod, "limitBytes=9&tailLines=2&follow=true", numbered(99, 100)[:9])
	stamped := a.wholeLog(DonePod, "limitBytes=40&timestamps=true")
	if len(stamped) != 40 {
		a.Errorf("with timestamps %d bytes: %q", len(stamped), stamped)
	}
}

var stampedLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d)) line (\d+)\n$`)

// stampOf splits a line with a timestamp.
func (a *asker) stampOf(line string) (at time.Time, number int) {
	a.Helper()
	match := stampedLine.FindStringSubmatch(line)
	if match == nil {
		a.Fatalf("a line with a timestamp: %q", line)
	}
	at, err := time.Parse(time.RFC3339Nano, match[1])
	a.must(err)
	number, err = strconv.Atoi(match[2])
	a.must(err)
	return at, number
}

func logsTimestamps(a *asker) {
	var last time.Time
	var lines int
	for line := range strings.Lines(a.wholeLog(DonePod, "timestamps=true")) {
		lines++
		at, number := a.stampOf(line)
		if number != lines || at.Before(last) {
			a.Errorf("line %d: %q after %s", lines, line, last)
		}
		last = at
	}
	if lines != 100 {
		a.Errorf("%d lines", lines)
	}
}

// logsSince needs a log of several seconds.
func logsSince(a *asker) {
	socket := a.log(TalkerPod, "container=main&follow=true&timestamps=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	next := a.lines(socket)
	begin, _ := a.stampOf(next())
	var second time.Time // the first one that begins within the log
	var first int        // line of it
	for second.IsZero() {
		if at, number := a.stampOf(next()); !at.Truncate(time.Second).Equal(begin.Truncate(time.Second)) {
			second, first = at.Truncate(time.Second), number
		}
	}
	// A fraction of a second is cut off: kube-apiserver passes whole seconds on.
	for _, fraction := range []time.Duration{0, 900 * time.Millisecond} {
		since := url.QueryEscape(second.Add(fraction).UTC().Format(time.RFC3339Nano))
		line, _, _ := strings.Cut(a.wholeLog(TalkerPod, "container=main&timestamps=true&sinceTime="+since), "\n")
		if _, number := a.stampOf(line + "\n"); number != first {
			a.Errorf("since %s from line %d, want %d", since, number, first)
		}
	}
	a.wantLog(DonePod, "sinceTime="+url.QueryEscape(time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), nil)
	a.wantLog(DonePod, "sinceSeconds=86400", numbered(1, 100))
}

func logsIgnoreClient(a *asker) {
	socket := a.log(TalkerPod, "container=quiet&follow=true", logBinary)
	a.wantFirstEmpty(socket, websocket.BinaryMessage)
	a.must(socket.WriteMessage(websocket.BinaryMessage, []byte("hello")))
	a.wantPong(socket)
}

func logsPlain(a *asker) {
	answer := a.get(a.Tokens.Permitted, a.podPath(DonePod, "log", ""))
	if kind := answer.header.Get("Content-Type"); answer.code != http.StatusOK || kind != "text/plain" {
		a.Errorf("%d %s", answer.code, kind)
	}
	if !bytes.Equal(answer.body, numbered(1, 100)) {
		a.Errorf("%q", answer.body)
	}
}
