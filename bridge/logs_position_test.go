package bridge

import (
	"encoding/base64"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// FuzzReadStamp checks that what is read as a time is one, and read right, and that a beginning of one is known as such.
func FuzzReadStamp(f *testing.F) {
	f.Add([]byte("2026-11-23T12:00:00.123456789Z line"))
	f.Add([]byte("2016-10-06T00:17:09.669794202+02:00 "))
	f.Add([]byte("2024-02-30T24:60:60Z "))
	f.Add([]byte("1999-12-31T23:59:59-23:59 x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, size, v := readStamp(b)
		switch v {
		case stampRead:
			if size > maxStamp || b[size-1] != ' ' {
				t.Fatalf("%q has a time of %d bytes", b, size)
			}
			want, err := time.Parse(time.RFC3339Nano, string(b[:size-1]))
			if err != nil || want.UnixNano() != at {
				t.Fatalf("%q is %d, want %v, %v", b[:size], at, want, err)
			}
			for i := range size {
				if _, _, v := readStamp(b[:i]); v != stampCut {
					t.Fatalf("the beginning %q is %v", b[:i], v)
				}
			}
		case stampCut:
			if len(b) >= maxStamp {
				t.Fatalf("%d bytes may still become a time: %q", len(b), b)
			}
		case stampNone:
			for i := len(b); i <= len(b)+2; i++ { // no more will make one of it
				if _, _, v := readStamp(append(slices.Clip(b), strings.Repeat("0", i-len(b))...)); v != stampNone {
					t.Fatalf("%q was none", b)
				}
			}
		}
	})
}

// TestEveryTimeOfAKubeletIsRead, in the forms that kubelets have had.
func TestEveryTimeOfAKubeletIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(0, rapid.Int64Range(int64(2*365*24*time.Hour), math.MaxInt64-int64(365*24*time.Hour)).Draw(t, "at"))
		at = at.In(time.FixedZone("", 60*rapid.IntRange(-14*60, 14*60).Draw(t, "zone")))
		layout := rapid.SampledFrom([]string{time.RFC3339, time.RFC3339Nano, "2006-01-02T15:04:05.000000000Z07:00"}).Draw(t, "layout")
		text := at.Format(layout)
		want, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		if got, size, v := readStamp([]byte(text + " x")); v != stampRead || got != want.UnixNano() || size != len(text)+1 {
			t.Fatalf("%q is read as %d, %d, %v", text, got, size, v)
		}
	})
}

func logTarget() *sluicev1.LogTarget { return logOf(nil).GetTarget().GetLogs() }

// TestLogCursorIsStrict: it belongs to its log at its cluster, and is what was made.
func TestLogCursorIsStrict(t *testing.T) {
	here := logCursors("cluster-a", logTarget())
	p := position{newest: 1e18, at: 3, after: 1, offset: 5, line: 1e18 - 7, part: 9, anchor: 11}
	p.instance.pod[0], p.instance.container[7], p.instance.restarts = 1, 2, 3
	good := here.atPosition(&p)
	if got, err := here.position(good); err != nil || got != p {
		t.Fatalf("%+v comes back as %+v, %v", p, got, err)
	}
	if here.atPosition(&position{instance: p.instance}) != "" {
		t.Error("the beginning of a log has a cursor")
	}
	raw, _ := base64.RawURLEncoding.DecodeString(good)
	encode := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	others := map[string]*sluicev1.LogTarget{}
	for name, change := range map[string]func(*sluicev1.LogTarget){
		"pod": func(l *sluicev1.LogTarget) { l.Pod = "q" }, "namespace": func(l *sluicev1.LogTarget) { l.Namespace = "other" },
		"container": func(l *sluicev1.LogTarget) { l.Container = "" }, "earlier": func(l *sluicev1.LogTarget) { l.Previous = true },
		"timestamps": func(l *sluicev1.LogTarget) { l.Timestamps = true },
	} {
		others[name] = logOf(change).GetTarget().GetLogs()
	}
	for name, target := range others {
		if _, err := logCursors("cluster-a", target).position(good); status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for name, cursor := range map[string]string{
		"another cluster": logCursors("cluster-b", logTarget()).atPosition(&p), "a watch's": watchCursors("cluster-a", pods()).at("1"),
		"cut": encode(raw[:len(raw)-1]...), "more": encode(append(slices.Clip(raw), 0)...), "header only": encode(raw[:cursorHeader]...),
		"no numbers":        encode(raw[:cursorHeader+2*hashBytes]...),
		"a number too long": encode(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]|0x80, 0)...),
	} {
		if got, err := here.position(cursor); status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	follow := logOf(func(l *sluicev1.LogTarget) { l.Follow = false })
	if _, err := logCursors("cluster-a", follow.GetTarget().GetLogs()).position(good); err != nil {
		t.Errorf("not followed: %v", err)
	}
}

// FuzzLogCursor checks that what is accepted is exactly what was made, and that no cursor makes trouble.
func FuzzLogCursor(f *testing.F) {
	here := logCursors("cluster-a", logTarget())
	f.Add(here.atPosition(&position{newest: 1e18, at: 1}), "2026-11-23T12:00:00Z a\n")
	f.Add(here.atPosition(&position{newest: math.MinInt64, at: math.MaxUint64, offset: math.MaxUint64, line: math.MaxInt64}), "")
	f.Fuzz(func(t *testing.T, cursor, log string) {
		p, err := here.position(cursor)
		if err != nil {
			if status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR {
				t.Fatalf("%v", err)
			}
			return
		}
		if here.atPosition(&p) != cursor {
			t.Fatalf("%q is read as %+v", cursor, p)
		}
		if _, err := time.Parse(time.RFC3339, p.since().Format(time.RFC3339)); err != nil {
			t.Fatalf("%+v begins at %v", p, err)
		}
		r := logReader{}
		r.begins(p)
		readAll(&r, log, 3)
	})
}

// readAll has a reader read a log in chunks of a size, and returns what the client gets of it, with a mark for each gap.
func readAll(r *logReader, log string, size int) string {
	var b strings.Builder
	for log != "" {
		q := new(queue)
		r.fill(q, 100)
		chunk := log[:min(size, len(log))]
		n := r.read([]byte(chunk))
		r.flush()
		gap := r.gap
		for _, p := range q.pieces {
			b.Write(p.Bytes)
		}
		said := len(q.pieces)
		if gap {
			b.WriteString("<GAP>")
			r.goOn()
			r.flush()
		}
		for _, p := range q.pieces[said:] {
			b.Write(p.Bytes)
		}
		r.release()
		log = log[n:]
	}
	return b.String()
}

// FuzzLogReader checks that however a log is cut into messages, the client gets the same, and that from every position it gets the rest.
func FuzzLogReader(f *testing.F) {
	f.Add("2026-11-23T12:00:00Z a\n2026-11-23T12:00:00Z \n2026-11-23T11:59:59.9Z b\nspoken\n2026-11-23T12:00:01Z c", true, true)
	f.Add("2026-11-23T12:00:00Z \xf0\x9f\x99\x82\n2026-1\n", false, true)
	f.Fuzz(func(t *testing.T, log string, stamps, text bool) {
		whole := readAll(&logReader{stamps: stamps, text: text}, log, len(log)+1)
		for _, size := range []int{1, 2, 7} {
			r := &logReader{stamps: stamps, text: text}
			if got := readAll(r, log, size); got != whole {
				t.Fatalf("in chunks of %d: %q, whole: %q", size, got, whole)
			}
			p := r.pos
			if p.part = r.last.part; r.spoken || !p.begun() || p.offset != r.last.offset {
				continue
			}
			again := &logReader{stamps: stamps, text: text}
			again.begins(p)
			if ordered(log, p.since().UnixNano()) {
				if got := readAll(again, log, size); got != "" || !again.found() && again.heldLen == 0 {
					t.Fatalf("from %+v on: %q", p, got)
				}
			}
		}
	})
}

// ordered reports whether no line of a log is older than a time, so that a kubelet would send all of them.
func ordered(log string, since int64) bool {
	for line := range strings.Lines(log) {
		if at, _, v := readStamp([]byte(line)); v == stampRead && at < since {
			return false
		}
	}
	return true
}

// TestEndOfALongLineIsNoLine: a kubelet that is asked for what is not older than a time begins in the middle of a line that was written in parts. Who
// goes on there has that line; who begins there gets what the API server gives; and nobody takes it for the kubelet's word that there is no more.
func TestEndOfALongLineIsNoLine(t *testing.T) {
	const rest, had, news = "end of a long line\n", "2026-11-23T12:00:00Z a\n", "2026-11-23T12:00:01Z b\n"
	for _, size := range []int{1, 3, 100} {
		resumed := logReader{}
		resumed.begins(position{newest: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixNano(), at: 1, anchor: crc32.Checksum([]byte("a\n"), castagnoli)})
		if got := readAll(&resumed, rest+had+news, size); got != "b\n" || resumed.spoken || !resumed.found() {
			t.Errorf("in chunks of %d who goes on gets %q, spoken %v", size, got, resumed.spoken)
		}
		begun := logReader{first: true}
		if got := readAll(&begun, rest+had, size); got != rest+"a\n" || begun.spoken {
			t.Errorf("in chunks of %d who begins gets %q, spoken %v", size, got, begun.spoken)
		}
		if got := readAll(&begun, "unable to retrieve", size); got != "unable to retrieve" || !begun.spoken {
			t.Errorf("in chunks of %d the kubelet says %q, spoken %v", size, got, begun.spoken)
		}
	}
}

// TestGapIsToldBeforeTheTimeOfItsLine, where the client wants the times.
func TestGapIsToldBeforeTheTimeOfItsLine(t *testing.T) {
	const line = "2026-11-23T12:00:05Z x\n"
	for _, size := range []int{1, 21, 100} {
		r := logReader{stamps: true}
		r.begins(position{newest: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixNano(), at: 1})
		if got := readAll(&r, line, size); got != "<GAP>"+line {
			t.Errorf("in chunks of %d: %q", size, got)
		}
	}
}
