package event_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// payloads takes frames apart again.
func payloads(t *testing.T, b []byte) (out [][]byte) {
	t.Helper()
	for len(b) > 0 {
		if b[0] != 0x81 {
			t.Fatalf("a frame begins with %#x", b[0])
		}
		n, header := int(b[1]), 2
		if n == 126 {
			n, header = int(b[2])<<8|int(b[3]), 4
		}
		out = append(out, b[header:header+n])
		b = b[header+n:]
	}
	return out
}

func TestEventsAreWatchEventsOfTheirSizeWithTheirMark(t *testing.T) {
	for _, size := range []int{event.MinSize, 500, 2048, 8192, 60_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f, err := event.NewFrames("MODIFIED", "watch-12345", size, 3)
			if err != nil {
				t.Fatal(err)
			}
			for i, ev := range payloads(t, f.Stamp(3, 41, 1234567890123456789)) {
				var decoded struct {
					Type   string
					Object struct {
						Metadata struct{ ResourceVersion, Namespace string }
					}
				}
				if err := json.Unmarshal(ev, &decoded); err != nil {
					t.Fatalf("not JSON: %v in %s", err, ev)
				}
				mark, ok := event.Read(ev)
				want := event.Mark{Due: 1234567890123456789, Seq: uint64(41 + i)}
				if !ok || mark != want || len(ev) != size || decoded.Type != "MODIFIED" || decoded.Object.Metadata.Namespace != "watch-12345" {
					t.Errorf("mark %v %v, want %v; %d bytes: %s", mark, ok, want, len(ev), ev)
				}
				if seq, err := event.Seq(decoded.Object.Metadata.ResourceVersion); err != nil || seq != want.Seq {
					t.Errorf("the version %s is of %d (%v), want %d", decoded.Object.Metadata.ResourceVersion, seq, err, want.Seq)
				}
			}
		})
	}
}

func TestDamagedMarksAreNotRead(t *testing.T) {
	f, err := event.NewFrames("ADDED", "a", event.MinSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	good := string(payloads(t, f.Stamp(1, 7, 9))[0])
	at := len(good) - len(good[indexOf(t, good, "@@"):])
	for name, bad := range map[string]string{
		"none": `{"type":"ADDED"}`, "cut": good[:at+20],
		"no digit": good[:at+5] + "x" + good[at+6:], "no end": good[:at+35] + "x" + good[at+36:],
	} {
		if m, ok := event.Read([]byte(bad)); ok {
			t.Errorf("%s: read %v of %s", name, m, bad)
		}
	}
	if event.IsBookmark([]byte(good)) || !event.IsBookmark(payloads(t, event.Bookmark(1))[0]) {
		t.Error("a bookmark is not told from an event")
	}
}

func indexOf(t *testing.T, s, part string) int {
	t.Helper()
	for i := range len(s) - len(part) {
		if s[i:i+len(part)] == part {
			return i
		}
	}
	t.Fatalf("no %q in %s", part, s)
	return 0
}
