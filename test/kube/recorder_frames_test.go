package kube

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// frame encodes an unmasked frame (RFC 6455 section 5.2).
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < length16:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, length16), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, length64), uint64(n))
	}
	return append(b, payload...)
}

// message encodes the payload in one or more frames, with pings in between.
func message(t *rapid.T, opcode byte, payload []byte) []byte {
	var b []byte
	for {
		n := rapid.IntRange(0, len(payload)).Draw(t, "fragment")
		if n == len(payload) {
			return append(b, frame(finalFrame|opcode, payload)...)
		}
		b = append(b, frame(opcode, payload[:n])...)
		b = append(b, frame(finalFrame|0x9, []byte("ping"))...)
		payload, opcode = payload[n:], opContinue
	}
}

// TestFrameReaderFindsEveryText checks that, however messages are cut into
// frames and frames into reads, each text comes out once, in order.
func TestFrameReaderFindsEveryText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want []string
		for range rapid.IntRange(0, 6).Draw(t, "messages") {
			size := rapid.SampledFrom([]int{0, 1, 125, 126, 200, 1 << 16, keptText + 1}).Draw(t, "size")
			payload := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, size)
			opcode := rapid.SampledFrom([]byte{opText, 0x2}).Draw(t, "opcode")
			stream = append(stream, message(t, opcode, payload)...)
			if opcode == opText {
				want = append(want, string(payload[:min(size, keptText)]))
			}
		}
		var got []string
		reader := &frameReader{message: func(text []byte) { got = append(got, string(text)) }}
		for len(stream) > 0 {
			n := rapid.IntRange(1, min(len(stream), 5000)).Draw(t, "read")
			reader.write(stream[:n])
			stream = stream[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d texts, want %d", len(got), len(want))
		}
	})
}

func TestExpiredEventIsAnErrorOfCode410(t *testing.T) {
	for text, want := range map[string]bool{
		`{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}`: true,
		`{"type":"ERROR","object":{"kind":"Status","code":500,"message":"other"}}`:   false,
		`{"type":"ADDED","object":{"code":410}}`:                                     false,
		`{"type":"ERROR","object":{"code":410`:                                       false,
	} {
		if _, got := expiredEvent([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestFrameReaderSurvivesAnyBytes feeds what is no WebSocket stream at all, as
// after an upgrade to something else.
func TestFrameReaderSurvivesAnyBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := rapid.SliceOf(rapid.Byte()).Draw(t, "stream")
		total := 0
		reader := &frameReader{message: func(text []byte) { total += len(text) }}
		for b := range slices.Chunk(stream, 3) {
			reader.write(b)
		}
		if total > len(stream) {
			t.Fatalf("%d bytes of text out of %d", total, len(stream))
		}
	})
}
