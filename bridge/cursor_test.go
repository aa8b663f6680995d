package bridge

import (
	"encoding/base64"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func TestCursorBelongsToItsTargetAndCluster(t *testing.T) {
	here := watchCursors("cluster-a", pods())
	cursor := here.at("4711")
	if v, err := here.version(cursor); v != "4711" || err != nil {
		t.Fatalf("%q, %v", v, err)
	}
	later := pods()
	later.ChangesOnly = true
	if _, err := watchCursors("cluster-a", later).version(cursor); err != nil {
		t.Errorf("changes_only: %v", err)
	}
	named, moved := pods(), pods()
	named.Name, moved.Namespace = "web", "other"
	shifted := &sluicev1.WatchTarget{Version: "v1", Resource: "configmap", Namespace: "sdefault"}
	for name, there := range map[string]*cursors{
		"another cluster":   watchCursors("cluster-b", pods()),
		"another name":      watchCursors("cluster-a", named),
		"another namespace": watchCursors("cluster-a", moved),
		"shifted fields":    watchCursors("cluster-a", shifted),
	} {
		_, err := there.version(cursor)
		if status.Code(err) != codes.InvalidArgument || status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCursorIsStrict(t *testing.T) {
	here := watchCursors("cluster-a", pods())
	good := here.at("4711")
	raw, _ := base64.RawURLEncoding.DecodeString(good)
	encode := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	format, kind := append([]byte(nil), raw...), append([]byte(nil), raw...)
	format[0], kind[1] = 2, 'l'
	for name, cursor := range map[string]string{
		"padding":         good + "=",
		"newline":         good[:4] + "\n" + good[4:],
		"other alphabet":  strings.Repeat("+", 40),
		"trailing bits":   good[:len(good)-1] + "x",
		"no version":      encode(raw[:cursorHeader]),
		"cut":             encode(raw[:7]),
		"control":         encode(append(raw[:cursorHeader:cursorHeader], 0)),
		"space":           encode(append(raw[:cursorHeader:cursorHeader], " 1"...)),
		"unknown format":  encode(format),
		"cursor of a log": encode(kind),
		"long":            strings.Repeat("A", 513),
	} {
		if v, err := here.version(cursor); status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR {
			t.Errorf("%s: %q, %v", name, v, err)
		}
	}
	if here.at("") != "" || here.at(strings.Repeat("1", 257)) != "" || here.at("1\n") != "" {
		t.Error("a version that cannot be named has a cursor")
	}
	if n := len(here.at(strings.Repeat("1", 256))); n > maxCursor {
		t.Errorf("the longest cursor has %d characters", n)
	}
}

// TestHL_F2_ResourceVersionsAreOpaque: Headlamp's frontend compares resource versions with parseInt. Here they are names.
func TestHL_F2_ResourceVersionsAreOpaque(t *testing.T) {
	here := watchCursors("cluster-a", pods())
	for _, version := range []string{"0", "007", "18446744073709551616", "v1:abc/def", "~", "-1"} {
		if v, err := here.version(here.at(version)); v != version || err != nil {
			t.Errorf("%q comes back as %q, %v", version, v, err)
		}
		event := `{"type":"ADDED","object":{"metadata":{"resourceVersion":"` + version + `"}}}`
		if v := resourceVersion([]byte(event)); v != version {
			t.Errorf("%q is found as %q", version, v)
		}
	}
}

// FuzzCursor checks that what is accepted is exactly what was made.
func FuzzCursor(f *testing.F) {
	here := watchCursors("cluster-a", pods())
	f.Add(here.at("4711"))
	f.Add("")
	f.Add(watchCursors("cluster-b", pods()).at("1"))
	f.Fuzz(func(t *testing.T, cursor string) {
		version, err := here.version(cursor)
		switch {
		case err != nil && status.Reason(err) != sluicev1.Reason_REASON_INVALID_CURSOR:
			t.Fatalf("%v", err)
		case err == nil && here.at(version) != cursor:
			t.Fatalf("%q is read as %q, whose cursor is %q", cursor, version, here.at(version))
		}
	})
}
