package bridge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestResourceVersionIsFoundInItsPlaceOnly(t *testing.T) {
	for event, want := range map[string]string{
		`{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"12"}}}`: "12",
		`{"object":{"apiVersion":"x","metadata":{"annotations":{"resourceVersion":"1","metadata":"x"},"labels":{"object":"{"},` +
			`"managedFields":[{"resourceVersion":"2","metadata":{"resourceVersion":"3"}}],"resourceVersion":"4"}},"type":"ADDED"}`: "4",
		`{"type":"ADDED","metadata":{"resourceVersion":"1"},"object":{"resourceVersion":"2","spec":{"metadata":{"resourceVersion":"3"}}}}`: "",
		`{"type":"ADDED","object":{"metadata":{"name":"} \"resourceVersion\":\"9\" \\","resourceVersion":"5"}}}`:                           "5",
		` { "type" : "ADDED" , "object" : { "metadata" : { "resourceVersion" : "6" } } } `:                                                 "6",
		`{"object":{"metadata":{"resource\u0056ersion":"7\/\u0037"}}}`:                                                                     "7/7",
		`{"object":{"metadata":{"resourceVersion":8}}}`:                                                                                    "",
		`{"object":{"metadata":{"resourceVersion":{"a":"8"},"x":"y"}}}`:                                                                    "",
		`{"object":{"metadata":{"x":"resourceVersion","y":"8"}}}`:                                                                          "",
		`{"object":[{"metadata":{"resourceVersion":"8"}}]}`:                                                                                "",
		`[{"object":{"metadata":{"resourceVersion":"8"}}}]`:                                                                                "",
		`{"object":null,"x":{"metadata":{"resourceVersion":"8"}}}`:                                                                         "",
		`{"x":{"object":{"metadata":{"resourceVersion":"8"}}}}`:                                                                            "",
		`{"object":{"metadata":{"resourceVersion":""}}}`:                                                                                   "",
		`"object"`: "",
		`}}}{"a"`:  "",
		`{"object`: "",
		"":         "",
	} {
		if got := resourceVersion([]byte(event)); got != want {
			t.Errorf("%s: %q, want %q", event, got, want)
		}
		if got := scanInPieces(event, 1); got != want {
			t.Errorf("%s: byte by byte %q, want %q", event, got, want)
		}
	}
}

// TestHL_D16_EventsAreNotParsed: Headlamp decodes every message to find its version. The scan allocates the version and nothing else, and
// ends where it found it.
func TestHL_D16_EventsAreNotParsed(t *testing.T) {
	event := []byte(`{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"123"},"data":"` + strings.Repeat("x", 1<<20) + `"}}`)
	if n := testing.AllocsPerRun(100, func() { resourceVersion(event) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
	s := scanner{path: versionPath}
	if !s.feed(event[:100]) || s.found != "123" {
		t.Error("the version is not found before the event has come whole")
	}
}

func scanInPieces(event string, size int) string {
	s := scanner{path: versionPath}
	for rest := []byte(event); len(rest) > 0; {
		n := min(size, len(rest))
		s.feed(bytes.Clone(rest[:n])) // what is kept must be a copy
		clear(rest[:n])
		rest = rest[n:]
	}
	return s.found
}

// decoded is the version by encoding/json; not ok when a key comes twice, which decoders resolve differently, or the text is not JSON.
func decoded(event string) (version string, ok bool) {
	if !json.Valid([]byte(event)) || repeats(json.NewDecoder(strings.NewReader(event))) {
		return "", false
	}
	var e map[string]any
	if json.Unmarshal([]byte(event), &e) != nil {
		return "", true
	}
	object, _ := e["object"].(map[string]any)
	metadata, _ := object["metadata"].(map[string]any)
	version, _ = metadata["resourceVersion"].(string)
	return version, true
}

// repeats reports whether an object of a JSON text has a key twice.
func repeats(d *json.Decoder) bool {
	t, err := d.Token()
	if err != nil {
		return err != io.EOF
	}
	switch t {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			k, err := d.Token()
			key, _ := k.(string)
			if err != nil || seen[key] || repeats(d) {
				return true
			}
			seen[key] = true
		}
		_, err = d.Token()
	case json.Delim('['):
		for d.More() {
			if repeats(d) {
				return true
			}
		}
		_, err = d.Token()
	}
	return err != nil
}

// FuzzResourceVersion compares the scan with encoding/json, and the scan of pieces with the scan of the whole.
func FuzzResourceVersion(f *testing.F) {
	f.Add(`{"type":"ADDED","object":{"metadata":{"resourceVersion":"1"}}}`, uint8(3))
	f.Add(`{"object":{"metadata":{"annotations":{"resourceVersion":"\"}{"},"resourceVersion":"\u0031"}}}`, uint8(1))
	f.Add(`{"a":[{"object":{}}],"object":{"metadata":{}}`, uint8(7))
	f.Fuzz(func(t *testing.T, event string, size uint8) {
		got := resourceVersion([]byte(event))
		if pieces := scanInPieces(event, int(size)+1); pieces != got {
			t.Fatalf("whole %q, in pieces of %d %q", got, int(size)+1, pieces)
		}
		if want, ok := decoded(event); ok && got != want && nameable(want) {
			t.Fatalf("%q, encoding/json finds %q", got, want)
		}
	})
}

// TestResourceVersionAgreesWithDecoder draws nested objects whose keys are mostly the ones that are looked for.
func TestResourceVersionAgreesWithDecoder(t *testing.T) {
	key := rapid.SampledFrom([]string{"object", "metadata", "resourceVersion", "type", "a", `q"`, `b\`, "{", "ä"})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaf := rapid.OneOf(rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.IntRange(0, 99), func(i int) any { return fmt.Sprint(i) }),
			rapid.Map(key, func(s string) any { return s }), rapid.Map(rapid.Int(), func(i int) any { return i }))
		if depth == 0 {
			return leaf
		}
		return rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(value(depth-1), 0, 3), func(v []any) any { return v }),
			rapid.Map(rapid.MapOfN(key, value(depth-1), 0, 5), func(v map[string]any) any { return v }))
	}
	rapid.Check(t, func(t *rapid.T) {
		event := map[string]any{"type": "ADDED", "object": map[string]any{"metadata": value(2).Draw(t, "metadata"), "spec": value(3).Draw(t, "spec")}}
		if rapid.Bool().Draw(t, "no metadata") {
			event["object"] = value(3).Draw(t, "object")
		}
		b, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := decoded(string(b))
		if got := scanInPieces(string(b), rapid.IntRange(1, 40).Draw(t, "size")); got != want && nameable(want) {
			t.Fatalf("%s: %q, want %q", b, got, want)
		}
	})
}
