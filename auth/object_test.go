package auth

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	strictjson "github.com/go-jose/go-jose/v4/json"
	"pgregory.net/rapid"
)

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Fatalf(format string, args ...any)
}

// agree compares decodeMembers with an independent decoder of the same
// strictness: exact names, no repeats.
func agree(t failer, doc []byte) {
	got, ok := decodeMembers(doc)
	var want map[string]strictjson.RawMessage
	err := strictjson.Unmarshal(doc, &want)
	if ok != (err == nil) {
		t.Fatalf("decodeMembers(%q) ok = %v, the other decoder says %v", doc, ok, err)
	}
	if !ok {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("decodeMembers(%q) has %d members, want %d", doc, len(got), len(want))
	}
	for name, value := range want {
		if !bytes.Equal(got[name], value) {
			t.Fatalf("member %q of %q is %q, want %q", name, doc, got[name], value)
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, ` { "a" : 1 , "b" : [ {"a":"}"} , "]" ] } `, `{"a":"\"","a\u0062":true,"ab":null}`, `{"a":1,"a":2}`,
		`{"a":-1.5e9,"b":"\\","c":{}}`, `[1]`, `"a"`, `{"a":1}}`, `{"a"`, strings.Repeat(`{"a":`, 40), "{\"a\":\"\xff\"}", `{"\ud800":1,"\udfff":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if !isObject(doc) {
			return
		}
		if !json.Valid(doc) || nesting(doc) > maxNesting {
			t.Fatalf("isObject(%q)", doc)
		}
		agree(t, doc)
	})
}

func TestObjectsReadAsOtherDecodersReadThem(t *testing.T) {
	name := rapid.StringOf(rapid.SampledFrom([]rune("ab\"\\{}[],: \u00e4\u20ac\U0001F600")))
	leaf := rapid.OneOf(
		rapid.Map(name, func(s string) any { return s }), rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.Int(), func(i int) any { return i }), rapid.Just(any(nil)), rapid.Just(any(true)))
	value := rapid.OneOf(leaf,
		rapid.Map(rapid.SliceOfN(leaf, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(name, leaf, 0, 4), func(m map[string]any) any { return m }))
	rapid.Check(t, func(t *rapid.T) {
		doc, err := json.Marshal(rapid.MapOfN(name, value, 0, 6).Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, doc, "\r", "\t "); err != nil {
			t.Fatal(err)
		}
		for _, doc := range [][]byte{doc, spaced.Bytes()} {
			if !isObject(doc) {
				t.Fatalf("%q is an object", doc)
			}
			agree(t, doc)
		}
	})
}

func TestObjectsThatNobodyShouldSendAreRefused(t *testing.T) {
	deepest := strings.Repeat(`{"a":`, maxNesting-1) + "{}" + strings.Repeat("}", maxNesting-1)
	if !isObject([]byte(deepest)) {
		t.Errorf("%d levels were refused", maxNesting)
	}
	for _, doc := range []string{
		"", " ", "1", `"a"`, "[]", "null", "{", "}", "{}{}", `{"a":1,}`, `{a:1}`, `{"a":01}`, `{"a":NaN}`, "{\"a\":\"\n\"}",
		"{\"a\":\"\x00\"}", "{\"a\":\"\xc3\x28\"}", `{"a":` + deepest + "}", strings.Repeat("[", 8000),
	} {
		if isObject([]byte(doc)) {
			t.Errorf("isObject(%.60q)", doc)
		}
	}
}
