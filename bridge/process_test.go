package bridge

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestExecCarriesAProcess: all streams both ways, the size of the terminal, the end of the input, the exit code.
func TestExecCarriesAProcess(t *testing.T) {
	for _, transport := range processTransports {
		t.Run(transport, func(t *testing.T) {
			heard := make(chan string, 10)
			s := &processServer{script: func(p *processPeer) {
				defer close(heard)
				_ = p.say(1, "")
				_ = p.say(1, "out")
				_ = p.say(2, "err")
				for {
					b, err := p.nextMessage()
					if err != nil {
						return
					}
					heard <- string(b)
					if string(b) == "\xff\x00" {
						p.finish(exit(7))
						return
					}
				}
			}}
			target := shellTarget()
			e := execute(t, s.reach(t, transport), execOf(target), Options{})
			e.input("in")
			e.send(data.Input{Kind: data.InputResize, Width: 133, Height: 44}) // nobody's: there is no terminal
			e.input("")
			e.input("more")
			e.send(data.Input{Kind: data.InputCloseSend})
			if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 7 {
				t.Errorf("the outcome is %+v", o)
			}
			if e.stdout() != "out" || e.stderr() != "err" {
				t.Errorf("heard %q and %q", e.stdout(), e.stderr())
			}
			var got []string
			for h := range heard {
				got = append(got, h)
			}
			if want := []string{"\x00in", "\x00more", "\xff\x00"}; !reflect.DeepEqual(got, want) {
				t.Errorf("the process heard %q, want %q", got, want)
			}
			if e.uses != 5 {
				t.Errorf("%d of 5 inputs are acknowledged", e.uses)
			}
			want := &sluicev1.Opened{Subprotocol: v5, Capabilities: &sluicev1.Capabilities{HalfClose: true}}
			if e.opened.String() != want.String() {
				t.Errorf("opened as %v", e.opened)
			}
		})
	}
}

// TestExecAsksForWhatItsTargetSays, and every character of the command arrives: a semicolon that is not escaped makes Go's parser of URLs drop
// the whole argument.
func TestExecAsksForWhatItsTargetSays(t *testing.T) {
	s := &processServer{script: func(p *processPeer) { p.finish(exit(0)) }}
	up := s.reach(t, "tcp")
	command := []string{"sh", "-c", "echo a; echo 'b&c=d+e%3B' # ü ?\n", "", "--stdin=true"}
	target := shellTarget()
	target.Command = command
	if o := execute(t, up, execOf(target), Options{}).outcome(); o.Err != nil || o.Exit == nil || o.Exit.GetCode() != 0 {
		t.Fatalf("the outcome is %+v", o)
	}
	terminal := shellTarget()
	terminal.Container, terminal.Stdin, terminal.Stderr, terminal.Tty = "", false, false, true
	execute(t, up, execOf(terminal), Options{}).outcome()
	attach := &sluicev1.AttachTarget{Namespace: "default", Pod: "term", Container: "main", Stdin: true, Stdout: true, Tty: true}
	e := execute(t, up, attachOf(attach), Options{})
	if o := e.outcome(); o.Err != nil || o.Exit != nil {
		t.Errorf("an attach ends with %+v: success does not tell how the process has ended", o)
	}
	if !e.opened.GetCapabilities().GetResize() {
		t.Errorf("a terminal is opened as %v", e.opened)
	}
	asked, _ := s.asked()
	for i, want := range []struct {
		path  string
		query map[string][]string
	}{
		{"/api/v1/namespaces/default/pods/shell/exec", map[string][]string{
			"command": command, "container": {"main"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}, "tty": {"false"},
		}},
		{"/api/v1/namespaces/default/pods/shell/exec", map[string][]string{
			"command": {"sh", "-c", "true"}, "stdin": {"false"}, "stdout": {"true"}, "stderr": {"false"}, "tty": {"true"},
		}},
		{"/api/v1/namespaces/default/pods/term/attach", map[string][]string{
			"container": {"main"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"false"}, "tty": {"true"},
		}},
	} {
		if asked[i].Path != want.path || !reflect.DeepEqual(map[string][]string(asked[i].Query()), want.query) {
			t.Errorf("asked for %s %q", asked[i].Path, asked[i].Query())
		}
	}
}

// TestHL_D18_TheSubprotocolIsOfferedAndBytesStayBytes: Headlamp's multiplexer offers none and makes strings of what comes. Here the subprotocol
// that was chosen is told, and bytes that are no text pass both ways unchanged.
func TestHL_D18_TheSubprotocolIsOfferedAndBytesStayBytes(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	heard := make(chan []byte, 1)
	s := &processServer{script: func(p *processPeer) {
		b, _ := p.nextMessage()
		heard <- b
		_ = p.say(1, string(all)+"\xc3\x28\x00\xff")
		p.finish(exit(0))
	}}
	e := execute(t, s.reach(t, "tls"), execOf(shellTarget()), Options{})
	e.input(string(all))
	e.outcome()
	if got := <-heard; string(got) != "\x00"+string(all) {
		t.Errorf("the process heard %q", got)
	}
	if e.stdout() != string(all)+"\xc3\x28\x00\xff" {
		t.Errorf("the client heard %q", e.stdout())
	}
	if _, offers := s.asked(); !reflect.DeepEqual(offers, [][]string{{v5, v4}}) || e.opened.GetSubprotocol() != v5 {
		t.Errorf("offered %q, opened as %v", offers, e.opened)
	}
}

// TestT_E8_SubprotocolsOfAllServers: what servers, old ones and proxies make of the offer.
func TestT_E8_SubprotocolsOfAllServers(t *testing.T) {
	const statusBody = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Forbidden","code":403}`
	oneOnly := func(code int, body string) func([]string) (string, int, string) {
		return func(offered []string) (string, int, string) {
			if len(offered) > 1 {
				return "", code, body
			}
			return offered[0], 0, ""
		}
	}
	always := func(code int, body string) func([]string) (string, int, string) {
		return func([]string) (string, int, string) { return "", code, body }
	}
	refused := sluicev1.Reason_REASON_UPSTREAM_REFUSED
	for name, test := range map[string]struct {
		choose func([]string) (string, int, string)
		opened string
		code   codes.Code
		reason sluicev1.Reason
		dials  int
	}{
		"knows v5":                         {nil, v5, codes.OK, 0, 1},
		"picks v4 of both":                 {func([]string) (string, int, string) { return v4, 0, "" }, v4, codes.OK, 0, 1},
		"refuses two with a bare 403":      {oneOnly(403, ""), v4, codes.OK, 0, 2},
		"refuses two with a bare 400":      {oneOnly(400, "websocket: bad handshake"), v4, codes.OK, 0, 2},
		"refuses both with a bare 403":     {always(403, ""), "", codes.PermissionDenied, refused, 2},
		"forbids":                          {always(403, statusBody), "", codes.PermissionDenied, refused, 1},
		"has no such pod":                  {always(404, ""), "", codes.NotFound, refused, 1},
		"is overloaded":                    {always(429, ""), "", codes.ResourceExhausted, refused, 1},
		"fails":                            {always(500, "tty and stderr cannot both be true"), "", codes.Internal, refused, 1},
		"is behind what strips the header": {always(200, "<html>"), "", codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, 1},
		"picks none": {
			func([]string) (string, int, string) { return "", 0, "" }, "", codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &processServer{choose: test.choose, script: func(p *processPeer) { p.finish(exit(3)) }}
			e := execute(t, s.reach(t, "tcp"), execOf(shellTarget()), Options{})
			o := e.outcome()
			if got, reason := status.Code(o.Err), status.Reason(o.Err); got != test.code || reason != test.reason {
				t.Errorf("the outcome is %+v", o)
			}
			if o.Err == nil && o.Exit.GetCode() != 3 || o.Err != nil && o.Exit != nil {
				t.Errorf("the exit is %v with %v", o.Exit, o.Err)
			}
			if e.opened.GetSubprotocol() != test.opened || e.opened.GetCapabilities().GetHalfClose() != (test.opened == v5) {
				t.Errorf("opened as %v", e.opened)
			}
			asked, offers := s.asked()
			if len(asked) != test.dials || test.dials == 2 && !reflect.DeepEqual(offers[1], []string{v4}) {
				t.Errorf("offered %q", offers)
			}
		})
	}
}

// TestWithoutAnInputV4IsAskedFor: v5 says of a process whose node is lost that it has succeeded. But by v4 an attachment without an input ends
// at once, if the container has one.
func TestWithoutAnInputV4IsAskedFor(t *testing.T) {
	target := shellTarget()
	target.Stdin = false
	terminal := shellTarget()
	terminal.Tty, terminal.Stderr = true, false
	attach := &sluicev1.AttachTarget{Namespace: "default", Pod: "shell", Stdout: true}
	for name, c := range map[string]struct {
		open   *sluicev1.Open
		choose func([]string) (string, int, string)
		offers [][]string
	}{
		"exec":   {execOf(target), nil, [][]string{{v4}}},
		"attach": {attachOf(attach), nil, [][]string{{v5, v4}}},
		"where there is no v4": {execOf(target), func(offered []string) (string, int, string) {
			if offered[0] == v4 {
				return "", 403, ""
			}
			return v5, 0, ""
		}, [][]string{{v4}, {v5}}},
		"terminal": {execOf(terminal), nil, [][]string{{v4}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &processServer{choose: c.choose, script: func(p *processPeer) { p.finish(exit(3)) }}
			if o := execute(t, s.reach(t, "tcp"), c.open, Options{}).outcome(); o.Err != nil || o.Exit.GetCode() != 3 {
				t.Errorf("the outcome is %+v", o)
			}
			if _, offers := s.asked(); !reflect.DeepEqual(offers, c.offers) {
				t.Errorf("offered %q, want %q", offers, c.offers)
			}
		})
	}
}

// TestASuccessOfV5IsConfirmed: an API server that has lost the kubelet tells success.
func TestASuccessOfV5IsConfirmed(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  string
		kubelet int
		code    int32 // that is told; -1 for none
	}{
		{"kubelet answers", exit(0), 200, 0},
		{"kubelet is lost", exit(0), 500, -1},
		{"kubelet is lost behind a proxy", exit(0), 502, -1},
		{"pod is gone", exit(0), 404, 0},
		{"no logs for the caller", exit(0), 403, 0},
		{"not a success", exit(3), 500, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &processServer{kubelet: c.kubelet, script: func(p *processPeer) { p.finish(c.status) }}
			o := execute(t, s.reach(t, "tls"), execOf(shellTarget()), Options{}).outcome()
			switch {
			case c.code >= 0 && (o.Err != nil || o.Exit == nil || o.Exit.GetCode() != c.code):
				t.Errorf("the outcome is %+v, want exit %d", o, c.code)
			case c.code < 0 && (o.Exit != nil || status.Reason(o.Err) != sluicev1.Reason_REASON_UPSTREAM_LOST):
				t.Errorf("the outcome is %+v, want UPSTREAM_LOST", o)
			}
		})
	}
}

// TestAnIdleProcessIsStirred: API servers end a WebSocket on which no message comes for hours.
func TestAnIdleProcessIsStirred(t *testing.T) {
	heard := make(chan string)
	s := &processServer{script: func(p *processPeer) {
		for range 3 {
			b, err := p.nextMessage()
			if err != nil {
				t.Error(err)
			}
			heard <- string(b)
		}
		p.finish(exit(0))
	}}
	e := execute(t, s.reach(t, "tcp"), execOf(shellTarget()), Options{Stir: time.Millisecond})
	for range 3 {
		if b := <-heard; b != "\x00" {
			t.Errorf("an idle process hears %q", b)
		}
	}
	if o := e.outcome(); o.Err != nil {
		t.Errorf("the outcome is %+v", o)
	}
}

// TestT_C12_StreamsOfBothSubprotocols: v4 cannot end the input, which the client was told; nothing is sent in place of that.
func TestT_C12_StreamsOfBothSubprotocols(t *testing.T) {
	for _, c := range []struct {
		subprotocol string
		tty, stdin  bool
		want        []string
	}{
		{v5, false, true, []string{"\x00x", "\xff\x00"}},
		{v4, true, false, []string{"\x04{\"Width\":80,\"Height\":24}", "\x04{\"Width\":65535,\"Height\":1}"}},
		{v4, false, true, []string{"\x00x"}},
		{v4, true, true, []string{"\x00x", "\x04{\"Width\":80,\"Height\":24}", "\x04{\"Width\":65535,\"Height\":1}"}},
	} {
		t.Run(fmt.Sprintf("%s tty=%v stdin=%v", c.subprotocol, c.tty, c.stdin), func(t *testing.T) {
			heard, again := make(chan string, 10), make(chan struct{})
			s := &processServer{
				choose: func([]string) (string, int, string) { return c.subprotocol, 0, "" },
				script: func(p *processPeer) {
					_ = p.say(3, "") // as the real one says when there is no output
					<-again
					for range c.want {
						b, err := p.nextMessage()
						if err != nil {
							return
						}
						heard <- string(b)
					}
					_ = p.say(1, "after the end of the input")
					p.finish(exit(0))
				},
			}
			target := shellTarget()
			target.Tty, target.Stderr, target.Stdin = c.tty, !c.tty, c.stdin
			e := execute(t, s.reach(t, "tcp"), execOf(target), Options{})
			n := 4
			if c.stdin {
				e.input("x")
				n++
			}
			e.send(data.Input{Kind: data.InputResize, Width: 80, Height: 24})
			e.send(data.Input{Kind: data.InputResize, Width: 0, Height: 24})
			e.send(data.Input{Kind: data.InputResize, Width: 70000, Height: 1})
			e.send(data.Input{Kind: data.InputCloseSend})
			e.awaitUsed(t, n)
			close(again)
			if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 0 || e.stdout() != "after the end of the input" {
				t.Errorf("the outcome is %+v after %q", o, e.stdout())
			}
			close(heard)
			var got []string
			for h := range heard {
				got = append(got, h)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("the process heard %q, want %q", got, c.want)
			}
		})
	}
}

func TestDataWithoutStdinIsAViolation(t *testing.T) {
	s := &processServer{script: func(p *processPeer) { p.drain() }}
	target := shellTarget()
	target.Stdin = false
	e := execute(t, s.reach(t, "tcp"), execOf(target), Options{})
	e.input("x")
	if o := e.outcome(); status.Reason(o.Err) != sluicev1.Reason_REASON_PROTOCOL_VIOLATION || status.Code(o.Err) != codes.InvalidArgument {
		t.Errorf("the outcome is %+v", o)
	}
}

func TestTargetsOfProcessesAreChecked(t *testing.T) {
	attach := func(change func(*sluicev1.AttachTarget)) *sluicev1.Open {
		target := &sluicev1.AttachTarget{Namespace: "default", Pod: "shell", Stdout: true}
		change(target)
		return attachOf(target)
	}
	exec := func(change func(*sluicev1.ExecTarget)) *sluicev1.Open {
		target := shellTarget()
		change(target)
		return execOf(target)
	}
	fits := strings.Repeat("x", maxCommand-1)
	for name, c := range map[string]struct {
		open  *sluicev1.Open
		field string // empty for none
	}{
		"exec":                  {exec(func(*sluicev1.ExecTarget) {}), ""},
		"exec as long as can":   {exec(func(t *sluicev1.ExecTarget) { t.Command = []string{fits} }), ""},
		"exec too long":         {exec(func(t *sluicev1.ExecTarget) { t.Command = []string{fits, ""} }), "exec.command"},
		"exec of nothing":       {exec(func(t *sluicev1.ExecTarget) { t.Command = nil }), "exec.command"},
		"exec of no name":       {exec(func(t *sluicev1.ExecTarget) { t.Command = []string{"", "x"} }), "exec.command"},
		"exec with NUL":         {exec(func(t *sluicev1.ExecTarget) { t.Command = []string{"a", "b\x00c"} }), "exec.command"},
		"exec namespace":        {exec(func(t *sluicev1.ExecTarget) { t.Namespace = "" }), "exec.namespace"},
		"exec pod":              {exec(func(t *sluicev1.ExecTarget) { t.Pod = "../x" }), "exec.pod"},
		"exec container":        {exec(func(t *sluicev1.ExecTarget) { t.Container = "a.b" }), "exec.container"},
		"exec without streams":  {exec(func(t *sluicev1.ExecTarget) { t.Stdin, t.Stdout, t.Stderr = false, false, false }), "exec.stdout"},
		"exec of stdin alone":   {exec(func(t *sluicev1.ExecTarget) { t.Stdout, t.Stderr = false, false }), ""},
		"exec tty and stderr":   {exec(func(t *sluicev1.ExecTarget) { t.Tty = true }), "exec.stderr"},
		"attach":                {attach(func(*sluicev1.AttachTarget) {}), ""},
		"attach namespace":      {attach(func(t *sluicev1.AttachTarget) { t.Namespace = "A" }), "attach.namespace"},
		"attach pod":            {attach(func(t *sluicev1.AttachTarget) { t.Pod = "" }), "attach.pod"},
		"attach without any":    {attach(func(t *sluicev1.AttachTarget) { t.Stdout = false }), "attach.stdout"},
		"attach tty and stderr": {attach(func(t *sluicev1.AttachTarget) { t.Tty, t.Stderr = true, true }), "attach.stderr"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Validate(c.open.GetTarget())
			if c.field == "" {
				must(t, err)
				return
			}
			e := status.From(err)
			if e == nil || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, c.field+": ") {
				t.Errorf("got %v, want %s to be named", err, c.field)
			}
		})
	}
}

// TestAProcessMaySpeakText: JSON cannot carry bytes, so who reads frames as JSON asks for text and gets what is text as such.
func TestAProcessMaySpeakText(t *testing.T) {
	s := &processServer{script: func(p *processPeer) {
		_ = p.write(wsMessage(1, "grüß"), wsMessage(1, "\xff\xfe"), wsMessage(2, "dich"))
		p.finish(exit(0))
	}}
	for _, asked := range []bool{false, true} {
		ch := newTestChannel(t, "")
		var pieces []data.Piece
		ch.bytes = func(p data.Piece) { pieces = appendOutput(pieces, p) }
		open := execOf(shellTarget())
		open.Text = asked
		o := Run(t.Context(), s.reach(t, "tcp"), open, ch, WithDefaults(Options{}))
		const out, errs = sluicev1.Stream_STREAM_STDOUT, sluicev1.Stream_STREAM_STDERR
		want := []data.Piece{{Bytes: []byte("grüß\xff\xfe"), Stream: out}, {Bytes: []byte("dich"), Stream: errs}}
		if asked {
			want = []data.Piece{
				{Bytes: []byte("grüß"), Stream: out, Text: true}, {Bytes: []byte("\xff\xfe"), Stream: out}, {Bytes: []byte("dich"), Stream: errs, Text: true},
			}
		}
		if o.Err != nil || !reflect.DeepEqual(pieces, want) {
			t.Errorf("asked for text: %v, told %v, want %v (%v)", asked, pieces, want, o.Err)
		}
	}
}

// appendOutput appends a piece to those that came before it, as part of the last one if nothing but how it was read tells them apart.
func appendOutput(pieces []data.Piece, p data.Piece) []data.Piece {
	b := bytes.Clone(p.Bytes)
	for _, rest := range p.Rest {
		b = append(b, rest...)
	}
	if n := len(pieces); n > 0 && pieces[n-1].Stream == p.Stream && pieces[n-1].Text == p.Text {
		pieces[n-1].Bytes = append(pieces[n-1].Bytes, b...)
		return pieces
	}
	return append(pieces, data.Piece{Bytes: b, Stream: p.Stream, Text: p.Text})
}

// TestOutputIsJoined into as few pieces as it fits into, and nothing of it is lost, moved, or told to be of another stream.
func TestOutputIsJoined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 100).Draw(t, "most")
		var said []data.Piece
		for i := range rapid.IntRange(0, 40).Draw(t, "messages") {
			said = append(said, data.Piece{
				Bytes:  bytes.Repeat([]byte{byte(i)}, rapid.IntRange(1, most).Draw(t, "length")),
				Stream: sluicev1.Stream(rapid.IntRange(2, 3).Draw(t, "stream")), Text: rapid.Bool().Draw(t, "text"),
			})
		}
		out := &output{}
		for range 2 { // it is used again
			for _, p := range said {
				out.add(p, most)
			}
			var got, want []data.Piece
			for i := range out.pieces {
				p := &out.pieces[i]
				if p.Len() > most {
					t.Fatalf("a piece of %d bytes, at most %d are allowed", p.Len(), most)
				}
				if i+1 < len(out.pieces) {
					next := out.pieces[i+1]
					if p.Stream == next.Stream && p.Text == next.Text && p.Len()+len(next.Bytes) <= most {
						t.Fatalf("pieces of %d and %d bytes are two, of at most %d", p.Len(), len(next.Bytes), most)
					}
				}
				got = appendOutput(got, *p)
			}
			for _, p := range said {
				want = appendOutput(want, p)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			out.reset()
		}
	})
}
