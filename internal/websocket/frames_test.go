package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	gorilla "github.com/gorilla/websocket"
	"pgregory.net/rapid"
)

// frame is a server's frame: not masked.
func frame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

const final = 0x80

// taken is what a byte stream amounts to, however it is cut.
type taken struct {
	Fragments []string // T or B for the kind, ! for the last and . for others, and the bytes
	Controls  []string
	Err       error
}

// bytes empties the carry.
func (c *carry) bytes() []byte {
	b := make([]byte, c.len())
	c.drain(b)
	return b
}

// cap is how many bytes the carry's buffer takes.
func (c *carry) cap() int {
	if c.b == nil {
		return 0
	}
	return cap(*c.b)
}

// take feeds the stream to a framer in pieces, at most limit of fragments at a time, as Read does.
func take(t testing.TB, f *framer, stream string, limit, part int, cut func(left int) int) taken {
	t.Helper()
	var got taken
	f.control = func(opcode byte, payload []byte) error {
		if opcode == opClose {
			return closeError(payload, f.open)
		}
		got.Controls = append(got.Controls, fmt.Sprintf("%x:%s", opcode, payload))
		return nil
	}
	for {
		d := f.carry.bytes()
		if !f.ready {
			if stream == "" {
				return got
			}
			n := min(max(cut(len(stream)), 1), len(stream))
			d, stream = append(d, stream[:n]...), stream[n:]
		}
		fragments, err := f.walk(d, limit, part, nil)
		spent := 0
		for _, x := range fragments {
			spent += len(x.Bytes) + f.cost
			got.Fragments = append(got.Fragments, describe(x))
		}
		if spent > limit {
			t.Fatalf("a walk with room for %d gave out %d", limit, spent)
		}
		if f.ready && len(fragments) == 0 {
			t.Fatalf("a walk with room for %d (part %d) made no progress", limit, part)
		}
		if err != nil {
			got.Err = err
			return got
		}
	}
}

func describe(f Fragment) string {
	kind := "B"
	if f.Text {
		kind = "T"
	}
	end := "."
	if f.Last {
		end = "!"
	}
	return kind + end + string(f.Bytes)
}

func whole(left int) int { return left }

// The case table of RFC 6455, numbered as the Autobahn test suite numbers its cases.
func TestFramesOfRFC6455(t *testing.T) {
	k125, k126, k65535, k65536 := strings.Repeat("*", 125), strings.Repeat("*", 126), strings.Repeat("*", 65535), strings.Repeat("*", 65536)
	long := func(n uint64) string { return string(binary.BigEndian.AppendUint64([]byte{0x82, 127}, n)) }
	protocol := &ProtocolError{Code: CodeProtocol}
	invalid := &ProtocolError{Code: CodeInvalidText}
	parts := func(kind, s string) (out []string) {
		for ; len(s) > MaxRead; s = s[MaxRead:] {
			out = append(out, kind+"."+s[:MaxRead])
		}
		return append(out, kind+"!"+s)
	}
	cases := []struct {
		name, stream string
		fragments    []string
		controls     []string
		err          error
	}{
		{"1.1.1 empty text", frame(final|1, ""), []string{"T!"}, nil, nil},
		{"1.1.2 text of 125", frame(final|1, k125), []string{"T!" + k125}, nil, nil},
		{"1.1.3 text of 126", frame(final|1, k126), []string{"T!" + k126}, nil, nil},
		{"1.2.1 empty binary", frame(final|2, ""), []string{"B!"}, nil, nil},
		{"1.2.6 binary of 65535", frame(final|2, k65535), []string{"B!" + k65535}, nil, nil},
		{"1.2.7 binary of 65536", frame(final|2, k65536), []string{"B!" + k65536}, nil, nil},
		{"1.2.8 binary longer than a fragment", frame(final|2, k65536+k126), parts("B", k65536+k126), nil, nil},
		{"1.3.1 length in a longer form than it needs", "\x82\x7e\x00\x01x", []string{"B!x"}, nil, nil},
		{"2.1 empty ping", frame(final|9, ""), nil, []string{"9:"}, nil},
		{"2.4 ping of 125", frame(final|9, k125), nil, []string{"9:" + k125}, nil},
		{"2.5 ping of 126", frame(final|9, k126), nil, nil, protocol},
		{"2.7 pong nobody asked for", frame(final|10, ""), nil, []string{"a:"}, nil},
		{"2.10 ten pings", strings.Repeat(frame(final|9, "p"), 10), nil, strings.Split(strings.Repeat("9:p ", 10), " ")[:10], nil},
		{"3.1 first reserved bit", frame(final|0x40|1, "x"), nil, nil, protocol},
		{"3.2 second reserved bit after a message", frame(final|1, "x") + frame(final|0x20|1, "x"), []string{"T!x"}, nil, protocol},
		{"3.5 third reserved bit on a control frame", frame(final|0x10|9, ""), nil, nil, protocol},
		{"4.1.1 opcode 3", frame(final|3, ""), nil, nil, protocol},
		{"4.1.5 opcode 7", frame(final|7, "x"), nil, nil, protocol},
		{"4.2.1 opcode 11", frame(final|11, ""), nil, nil, protocol},
		{"4.2.5 opcode 15", frame(final|15, ""), nil, nil, protocol},
		{"5.1 fragmented ping", frame(9, "a") + frame(final, "b"), nil, nil, protocol},
		{"5.2 fragmented pong", frame(10, "a") + frame(final, "b"), nil, nil, protocol},
		{"5.2b fragmented close", frame(8, "") + frame(final, "b"), nil, nil, protocol},
		{"5.3 text in two frames", frame(1, "a") + frame(final, "b"), []string{"T!ab"}, nil, nil},
		{"5.6 ping between the frames of a text", frame(1, "a") + frame(final|9, "p") + frame(final, "b"), []string{"T!ab"}, []string{"9:p"}, nil},
		{"5.9 continuation without a start", frame(final, "a") + frame(final|1, "b"), nil, nil, protocol},
		{"5.10 unfinished continuation without a start", frame(0, "a"), nil, nil, protocol},
		{"5.15 continuation after the end", frame(1, "a") + frame(final, "b") + frame(0, "c"), []string{"T!ab"}, nil, protocol},
		{"5.18 message within a message", frame(1, "a") + frame(final|1, "b"), nil, nil, protocol},
		{"5.19 five frames with pings between", frame(2, "a") + frame(0, "b") + frame(final|9, "1") + frame(0, "c") + frame(0, "") + frame(final|9, "2") + frame(final, "d"), []string{"B!abcd"}, []string{"9:1", "9:2"}, nil},
		{"6.1.2 three empty frames", frame(1, "") + frame(0, "") + frame(final, ""), []string{"T!"}, nil, nil},
		{"6.2.3 a rune over frames", frame(1, "\xce") + frame(0, "\xba\xe2\x82") + frame(final, "\xac"), []string{"T!κ€"}, nil, nil},
		{"6.3.1 text that is not UTF-8", frame(final|1, "\xce\xba\xed\xa0\x80edited"), nil, nil, invalid},
		{"6.3.2 text over frames that is not UTF-8", frame(1, "\xce") + frame(final, "\xce"), nil, nil, invalid},
		{"6.4 text that ends inside a rune", frame(final|1, "a\xe2\x82"), nil, nil, invalid},
		{"6.x binary need not be UTF-8", frame(final|2, "\xff\xfe"), []string{"B!\xff\xfe"}, nil, nil},
		{"7.1.1 message, then close", frame(final|1, "a") + frame(final|8, "\x03\xe8bye"), []string{"T!a"}, nil, &CloseError{Code: 1000, Reason: "bye"}},
		{"close within a message", frame(1, "a") + frame(final|8, "\x03\xe8"), nil, nil, &CloseError{Code: 1000, Cut: true}},
		{"7.1.5 message after close", frame(final|8, "\x03\xe8") + frame(final|1, "a"), nil, nil, &CloseError{Code: 1000}},
		{"7.3.1 close without a code", frame(final|8, ""), nil, nil, &CloseError{Code: CodeNone}},
		{"7.3.2 close of one byte", frame(final|8, "a"), nil, nil, protocol},
		{"7.3.5 reason of 123 bytes", frame(final|8, "\x03\xe8"+k125[:123]), nil, nil, &CloseError{Code: 1000, Reason: k125[:123]}},
		{"7.3.6 reason of 124 bytes", frame(final|8, "\x03\xe8"+k125[:124]), nil, nil, protocol},
		{"7.5.1 reason that is not UTF-8", frame(final|8, "\x03\xe8\xce"), nil, nil, invalid},
		{"7.7.13 registered code", frame(final|8, "\x0f\x9f"), nil, nil, &CloseError{Code: 3999}},
		{"7.9.1 code 0", frame(final|8, "\x00\x00"), nil, nil, protocol},
		{"7.9.3 code 1004", frame(final|8, "\x03\xec"), nil, nil, protocol},
		{"7.9.4 code 1005", frame(final|8, "\x03\xed"), nil, nil, protocol},
		{"7.9.10 code 2999", frame(final|8, "\x0b\xb7"), nil, nil, protocol},
		{"7.9.11 code 5000", frame(final|8, "\x13\x88"), nil, nil, protocol},
		{"5.1-masked a masked server frame", "\x82\x81aaaax", nil, nil, protocol},
		{"5.2-length top bit of the length", long(1 << 63), nil, nil, protocol},
		{"5.2-length all bits of the length", long(1<<64 - 1), nil, nil, protocol},
		{"5.2-length the longest length is only a promise", long(1<<63-1) + "abc", nil, nil, nil},
		{"5.2-cut half a header", "\x82\x7e\x01", nil, nil, nil},
	}
	cuts := map[string]func(int) int{"whole": whole, "bytewise": func(int) int { return 1 }, "in sevens": func(int) int { return 7 }}
	for _, c := range cases {
		for how, cut := range cuts {
			if how == "bytewise" && len(c.stream) > 2000 {
				continue
			}
			t.Run(c.name+"/"+how, func(t *testing.T) {
				got := take(t, &framer{utf8: true}, c.stream, 4*MaxRead, MaxRead, cut)
				var broken *ProtocolError
				if errors.As(got.Err, &broken) && broken.Message != "" {
					got.Err = &ProtocolError{Code: broken.Code}
				}
				if want := (taken{c.fragments, c.controls, c.err}); !reflect.DeepEqual(got, want) { //nolint:govet // errors of ours, compared field by field
					t.Errorf("got %.200v\nwant %.200v", got, want)
				}
			})
		}
	}
}

func TestTextIsCutBetweenRunes(t *testing.T) {
	const text = "añ€𝄞añ€𝄞añ€𝄞añ€𝄞"
	for part := minPart; part < 20; part++ {
		got := take(t, &framer{utf8: true}, frame(1, text[:9])+frame(final, text[9:]), 100, part, whole)
		joined := ""
		var joinedSb193 strings.Builder
		for i, f := range got.Fragments {
			p := strings.TrimPrefix(f, "T!")
			if i < len(got.Fragments)-1 {
				p = strings.TrimPrefix(f, "T.")
			}
			if !utf8.ValidString(p) || len(p) > part {
				t.Errorf("part %d: fragment %q", part, f)
			}
			joinedSb193.WriteString(p)
		}
		joined += joinedSb193.String()
		if joined != text || got.Err != nil {
			t.Errorf("part %d: %q, %v", part, joined, got.Err)
		}
	}
}

// TestT_C7_LengthsAreNotTrusted proves that a frame header makes no room for what it promises.
func TestT_C7_LengthsAreNotTrusted(t *testing.T) {
	stream := string(binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<62)) + "abc"
	f := &framer{}
	if got := take(t, f, stream, MaxRead, MaxRead, whole); got.Err != nil || len(got.Fragments) > 0 {
		t.Fatalf("got %v", got)
	}
	if got := f.carry.cap(); got > 64 {
		t.Errorf("3 bytes are kept in %d", got)
	}
}

// drawStream draws a valid stream of a server.
func drawStream(t *rapid.T) string {
	var s strings.Builder
	for range rapid.IntRange(0, 6).Draw(t, "messages") {
		opcode := byte(rapid.SampledFrom([]int{opText, opBinary}).Draw(t, "opcode"))
		frames := rapid.SampledFrom([]int{1, 1, 1, 2, 5}).Draw(t, "frames")
		for i := range frames {
			first := opcode
			if i > 0 {
				first = opContinuation
			}
			if i == frames-1 {
				first |= final
			}
			n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 40), rapid.IntRange(100, 300), rapid.IntRange(65500, 67000)).Draw(t, "length")
			s.WriteString(frame(first, strings.Repeat(string(rune('a'+i)), n)))
			if rapid.IntRange(0, 4).Draw(t, "ping") == 0 {
				s.WriteString(frame(final|opPing, "p"))
			}
		}
	}
	return s.String()
}

// TestFramesAgreeWithGorilla compares with the reader that the Kubernetes client itself uses.
func TestFramesAgreeWithGorilla(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		stream := drawStream(rt) + frame(final|opClose, "\x03\xe9")
		part := rapid.OneOf(rapid.IntRange(minPart, 300), rapid.IntRange(300, MaxRead)).Draw(rt, "part")
		limit := rapid.IntRange(part+64, part+64+MaxRead).Draw(rt, "limit")
		cut := 1 + len(stream)/rapid.IntRange(1, 60).Draw(rt, "pieces")
		got := take(t, &framer{cost: 64}, stream, limit, part, func(int) int { return cut })
		if want := withGorilla(t, stream); !reflect.DeepEqual(messages(got.Fragments), want) {
			rt.Fatalf("messages differ: got %.100q want %.100q", messages(got.Fragments), want)
		}
		var closed *CloseError
		if !errors.As(got.Err, &closed) || closed.Code != 1001 {
			rt.Fatalf("end: %v", got.Err)
		}
	})
}

// messages joins fragments.
func messages(fragments []string) []string {
	var out []string
	var open []byte
	for _, f := range fragments {
		if open == nil {
			open = []byte(f[:1])
		}
		open = append(open, f[2:]...)
		if f[1] == '!' {
			out, open = append(out, string(open)), nil
		}
	}
	return out
}

// stub is a net.Conn that reads from a string and swallows what is written.
type stub struct {
	net.Conn
	io.Reader
}

func (s stub) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s stub) Write(p []byte) (int, error) { return len(p), nil }
func (s stub) Close() error                { return nil }

// withGorilla reads the stream as gorilla does.
func withGorilla(t testing.TB, stream string) []string {
	t.Helper()
	c := gorillaConn(stream)
	var out []string
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			if !gorilla.IsCloseError(err, gorilla.CloseGoingAway) {
				t.Fatalf("gorilla refuses the stream: %v", err)
			}
			return out
		}
		out = append(out, map[int]string{gorilla.TextMessage: "T", gorilla.BinaryMessage: "B"}[kind]+string(p))
	}
}

// FuzzFrames proves that how a stream is cut makes no difference, that nothing panics, and that memory follows the bytes that
// came and not those that were promised.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame(final|1, "hello")+frame(final|9, "p")+frame(2, "a")+frame(final, "b")+frame(final|8, "\x03\xe8")), uint8(3), uint16(8), uint8(0), true)
	f.Add(binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63), uint8(1), uint16(100), uint8(64), false)
	f.Add([]byte(frame(final|1, "añ€𝄞añ€𝄞añ€𝄞")), uint8(2), uint16(5), uint8(1), true)
	f.Add([]byte(strings.Repeat(frame(final|2, ""), 300)), uint8(200), uint16(5), uint8(64), true)
	f.Fuzz(func(t *testing.T, stream []byte, cut uint8, part uint16, cost uint8, text bool) {
		size, price := max(int(part), minPart), int(cost)
		one, many := &framer{utf8: text, cost: price}, &framer{utf8: text, cost: price}
		a := take(t, one, string(stream), 1<<30, size, whole)
		b := take(t, many, string(stream), size+price, size, func(int) int { return int(cut) })
		if !reflect.DeepEqual(a, b) { //nolint:govet // errors of ours, compared field by field
			t.Fatalf("whole: %q\ncut:   %q", a, b)
		}
		if got := one.carry.cap(); got > max(2*len(stream), 64) {
			t.Fatalf("%d bytes are kept in %d", len(stream), got)
		}
		if a.Err == nil && len(stream) > 0 {
			compareWithGorilla(t, stream, a)
		}
	})
}

// compareWithGorilla compares the messages that are whole. Gorilla refuses what text must not be on reading, so it is not asked.
func compareWithGorilla(t *testing.T, stream []byte, got taken) {
	c := gorillaConn(string(stream))
	for i, want := range messages(got.Fragments) {
		_, p, err := c.ReadMessage()
		if err != nil || !bytes.Equal(p, []byte(want[1:])) {
			t.Fatalf("message %d: %.100q, gorilla %.100q, %v", i, want, p, err)
		}
	}
}
