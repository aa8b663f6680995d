package rest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

const logOfTalker = "/v1/clusters/dev/logs/default/talker?container=main"

// logging runs the pod p of the namespace default, whose log is what the test writes to it.
func (d *door) logging() {
	d.t.Helper()
	if err := d.Kube.RunPod(kubetest.Pod{Name: "p", Containers: []kubetest.Container{{}}}); err != nil {
		d.t.Fatal(err)
	}
}

const logOfP = "/v1/clusters/dev/logs/default/p"

func (d *door) log(text string) {
	d.t.Helper()
	if err := d.Kube.WriteLog("default", "p", "main", text); err != nil {
		d.t.Fatal(err)
	}
}

// reads takes exactly what is wanted of an answer.
func (d *door) reads(res *http.Response, want string) {
	d.t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(res.Body, b); err != nil || string(b) != want {
		d.t.Fatalf("%d: read %q, %v, want %q", res.StatusCode, b[:n], err, want)
	}
}

// What curl prints of a log is the log.
func TestALogIsPrintedAsItIs(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.logging()
	var want bytes.Buffer
	want.WriteString("one\n\n\tthree ☃\r\n\xff\xfe\x00 no text\n")
	for i := range 30_000 {
		fmt.Fprintln(&want, i)
	}
	d.log(want.String())
	for _, accept := range []string{"*/*", "text/plain"} {
		res, body := d.do(http.MethodGet, logOfP, "", header("Accept", accept))
		if res.StatusCode != http.StatusOK || body != want.String() {
			t.Errorf("Accept %s: %d, %d bytes, want %d", accept, res.StatusCode, len(body), want.Len())
		}
	}
	if _, body := d.do(http.MethodGet, logOfP+"?tailLines=2", ""); body != "29998\n29999\n" {
		t.Errorf("its last two lines are %q", body)
	}
	if _, body := d.do(http.MethodGet, logOfP+"?tailLines=1&timestamps=true", ""); !strings.HasPrefix(body, "20") || !strings.HasSuffix(body, "Z 29999\n") {
		t.Errorf("with its time the last line is %q", body)
	}
}

// A log that is followed is printed as it comes, over either version of HTTP. When it cannot be told to its end, it does not end like one that is whole.
func TestALogThatBreaksOffDoesNotEndLikeAWholeOne(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for name, breakOff := range map[string]func(d *door) error{
			"the gateway leaves": func(d *door) error { d.Stop(); return nil },
			"the pod is deleted": func(d *door) error { return d.Kube.Delete("", "pods", "default", "p") },
		} {
			d := open(t, kubetest.Options{})
			d.logging()
			client := d.Web()
			if proto == "HTTP/1.1" {
				client = d.WebHTTP1()
			}
			r := d.request(http.MethodGet, logOfP+"?follow=true", "")
			r.URL.Host = d.Server.WebAddr().String()
			r.Host = ""
			res, err := client.Do(r) // is answered, though there is nothing to read
			if err != nil {
				t.Fatal(err)
			}
			d.log("first\n")
			d.reads(res, "first\n")
			d.log("second\n")
			d.reads(res, "second\n")
			if res.Proto != proto {
				t.Errorf("over %s", res.Proto)
			}
			if err := breakOff(d); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(res.Body); err == nil || len(rest) > 0 {
				t.Errorf("%s, %s: after %q it ended with %v", proto, name, rest, err)
			}
			_ = res.Body.Close() // it was read to its end
		}
	}
}

// logResponse is the next line as a response of a log.
func (l *lines) logResponse() (*sluicev1.LogsResponse, error) {
	l.t.Helper()
	line, ok := l.next()
	if !ok {
		return nil, io.EOF
	}
	var r sluicev1.LogsResponse
	if err := protojson.Unmarshal([]byte(line), &r); err != nil {
		l.t.Fatalf("no response: %q, %v", line, err)
	}
	return &r, nil
}

// open takes the first response of a log.
func (l *lines) open() {
	l.t.Helper()
	if r, err := l.logResponse(); err != nil || r.GetState().GetKind() != sluicev1.ChannelState_KIND_CONNECTED {
		l.t.Fatalf("the first response is %v, %v", r, err)
	}
}

// For programs a log comes in responses, whose cursors continue it; what is not text comes as what it is.
func TestALogAsLinesContinuesAtItsCursor(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.logging()
	asLines := header("Accept", "application/x-ndjson")
	l := d.lines(d.send(d.request(http.MethodGet, logOfP+"?follow=true", "", asLines)))
	l.open()
	d.log("text ☃\n")
	r, err := l.logResponse()
	if err != nil || r.GetText() != "text ☃\n" || r.GetCursor() == "" {
		t.Fatalf("came %v, %v", r, err)
	}
	d.log("\xff\n")
	if bin, err := l.logResponse(); err != nil || string(bin.GetBinary()) != "\xff\n" || bin.GetText() != "" {
		t.Fatalf("came %v, %v", bin, err)
	}
	again := d.lines(d.send(d.request(http.MethodGet, logOfP+"?cursor="+r.GetCursor(), "", asLines)))
	again.open()
	var rest []byte
	for {
		r, err := again.logResponse()
		if errors.Is(err, io.EOF) {
			break
		}
		rest = append(append(rest, r.GetText()...), r.GetBinary()...)
	}
	if string(rest) != "\xff\n" {
		t.Errorf("after the cursor came %q", rest)
	}
}

// An EventSource continues a log where it was.
func TestALogAsEventsContinuesWhereItWas(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.logging()
	events := header("Accept", "text/event-stream")
	l := d.lines(d.send(d.request(http.MethodGet, logOfP+"?follow=true", "", events)))
	if e, _ := l.sse(); !strings.Contains(e.data, "KIND_CONNECTED") || e.id != "" {
		t.Fatalf("the first event is %+v", e)
	}
	d.log("one\n")
	first, _ := l.sse()
	d.log("two\n")
	if second, _ := l.sse(); first.id == "" || !strings.Contains(first.data, `"text":"one\n"`) || !strings.Contains(second.data, `"text":"two\n"`) {
		t.Fatalf("came %+v, then %+v", first, second)
	}
	again := d.lines(d.send(d.request(http.MethodGet, logOfP+"?follow=true&tailLines=0", "", events, header("Last-Event-ID", first.id))))
	again.sse()
	if e, _ := again.sse(); !strings.Contains(e.data, `"text":"two\n"`) {
		t.Errorf("after the first event came %+v", e)
	}
}

func TestAClientThatLeavesFreesItsLog(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.run("talker")
	for _, accept := range []string{"text/plain", "application/x-ndjson", "text/event-stream"} {
		res := d.send(d.request(http.MethodGet, logOfTalker+"&follow=true", "", header("Accept", accept)))
		if _, ok := d.lines(res).next(); !ok {
			t.Fatal("nothing came")
		}
		if n := d.Kube.Counts().Streams; n != 1 {
			t.Errorf("%d logs are followed", n)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err := d.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Streams == 0 }); err != nil {
			t.Fatalf("%s: the upstream stays: %v", accept, err)
		}
	}
}

// TestCurlSaysThatALogWasCutOff, as docs/rest.md says it does.
func TestCurlSaysThatALogWasCutOff(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl: tools/setup.sh installs it")
	}
	for option, want := range map[string]string{"--http1.1": "first\nended with 18\n", "--http2": "first\nended with 92\n"} {
		d := open(t, kubetest.Options{})
		d.logging()
		d.log("first\n")
		printed := shell(t, fmt.Sprintf("curl -sN %s --cacert $CA -H \"Authorization: Bearer $TOKEN\" \"$URL\"; echo ended with $?", option), []string{
			"PATH=" + os.Getenv("PATH"), "CA=" + d.caFile(), "TOKEN=" + d.Token("alice"), "URL=" + d.WebURL(logOfP+"?follow=true"),
		})
		if err := printed.await(within(t), regexp.MustCompile("^first\n")); err != nil {
			t.Fatal(err)
		}
		if err := d.Kube.Delete("", "pods", "default", "p"); err != nil {
			t.Fatal(err)
		}
		if err := printed.await(within(t), regexp.MustCompile("^"+want+"$")); err != nil {
			t.Errorf("curl %s %v", option, err)
		}
		printed.stop()
	}
}
