package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/auth"
)

var epoch = time.Unix(2_000_000_000, 0).UTC()

// alice's principal, with a token issued at that time.
func aliceSince(issued time.Time) *auth.Principal {
	return &auth.Principal{Authenticator: "oidc", Issuer: firstURL, Subject: "alice", TokenID: "token-1", KeyID: "key-1", IssuedAt: issued}
}

func newRevocations(t testing.TB, file string, opts ...auth.Option) *auth.Revocations {
	t.Helper()
	r, err := auth.NewRevocations(auth.RevocationConfig{File: file}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func mustAdd(t testing.TB, r *auth.Revocations, revocation auth.Revocation) {
	t.Helper()
	if added, err := r.Add(revocation); !added || err != nil {
		t.Fatalf("Add(%+v) = %v, %v", revocation, added, err)
	}
}

func TestWhatARevocationRefuses(t *testing.T) {
	alice := aliceSince(epoch)
	for name, tc := range map[string]struct {
		revocation auth.Revocation
		session    string
		p          func(*auth.Principal)
		refused    bool
	}{
		"the session":                    {auth.Revocation{Scope: auth.ScopeSession, ID: "s1"}, "s1", nil, true},
		"another session":                {auth.Revocation{Scope: auth.ScopeSession, ID: "s1"}, "s2", nil, false},
		"the session, issued later":      {auth.Revocation{Scope: auth.ScopeSession, ID: "s1", IssuedBefore: epoch.Add(-time.Hour)}, "s1", nil, true},
		"no session":                     {auth.Revocation{Scope: auth.ScopeSession, ID: "s1"}, "", nil, false},
		"the principal":                  {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key()}, "s2", nil, true},
		"another principal":              {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key()}, "s2", func(p *auth.Principal) { p.Subject = "bob" }, false},
		"the principal, another token":   {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key()}, "", func(p *auth.Principal) { p.TokenID = "2" }, true},
		"what was issued before":         {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key(), IssuedBefore: epoch.Add(1)}, "", nil, true},
		"what was issued then":           {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key(), IssuedBefore: epoch}, "", nil, false},
		"what does not say when":         {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key(), IssuedBefore: epoch}, "", func(p *auth.Principal) { p.IssuedAt = time.Time{} }, true},
		"the token":                      {auth.Revocation{Scope: auth.ScopeToken, ID: auth.IssuedID(firstURL, "token-1")}, "", nil, true},
		"the token of another issuer":    {auth.Revocation{Scope: auth.ScopeToken, ID: auth.IssuedID(secondURL, "token-1")}, "", nil, false},
		"another token":                  {auth.Revocation{Scope: auth.ScopeToken, ID: auth.IssuedID(firstURL, "token-1")}, "", func(p *auth.Principal) { p.TokenID = "token-2" }, false},
		"a token without an id":          {auth.Revocation{Scope: auth.ScopeToken, ID: auth.IssuedID(firstURL, "token-1")}, "", func(p *auth.Principal) { p.TokenID = "" }, false},
		"the key":                        {auth.Revocation{Scope: auth.ScopeKey, ID: auth.IssuedID(firstURL, "key-1")}, "", nil, true},
		"another key":                    {auth.Revocation{Scope: auth.ScopeKey, ID: auth.IssuedID(firstURL, "key-1")}, "", func(p *auth.Principal) { p.KeyID = "key-2" }, false},
		"a token called like the key":    {auth.Revocation{Scope: auth.ScopeKey, ID: auth.IssuedID(firstURL, "token-1")}, "", nil, false},
		"until it expires":               {auth.Revocation{Scope: auth.ScopePrincipal, ID: alice.Key(), Expires: epoch.Add(1)}, "", nil, true},
		"a session called like a caller": {auth.Revocation{Scope: auth.ScopeSession, ID: alice.Key()}, "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			now := epoch
			r := newRevocations(t, "", auth.WithClock(func() time.Time { return now }))
			if _, refused := r.Refuses("s1", alice); refused {
				t.Fatal("an empty set refuses")
			}
			mustAdd(t, r, tc.revocation)
			p := *alice
			if tc.p != nil {
				tc.p(&p)
			}
			found, refused := r.Refuses(tc.session, &p)
			if refused != tc.refused || refused && found != tc.revocation {
				t.Errorf("refused %v, by %+v", refused, found)
			}
			if tc.revocation.Expires.IsZero() {
				return
			}
			now = tc.revocation.Expires
			if _, refused := r.Refuses(tc.session, &p); refused {
				t.Error("refused after it expired")
			}
			if len(r.List()) != 0 {
				t.Error("listed after it expired")
			}
		})
	}
}

func TestARevocationOfNobodyIsAnError(t *testing.T) {
	r := newRevocations(t, "")
	for name, bad := range map[string]auth.Revocation{
		"no scope":            {ID: "a"},
		"another scope":       {Scope: "all", ID: "a"},
		"no session":          {Scope: auth.ScopeSession},
		"two sessions":        {Scope: auth.ScopeSession, ID: "a\nb"},
		"no principal":        {Scope: auth.ScopePrincipal},
		"a token of nobody's": {Scope: auth.ScopeToken, ID: auth.IssuedID("", "a")},
		"no token":            {Scope: auth.ScopeToken, ID: auth.IssuedID("a", "")},
		"a token's id alone":  {Scope: auth.ScopeToken, ID: "a"},
		"three lines":         {Scope: auth.ScopeKey, ID: "a\nb\nc"},
		"a long id":           {Scope: auth.ScopeSession, ID: strings.Repeat("a", 5000)},
		"a long reason":       {Scope: auth.ScopeSession, ID: "a", Reason: strings.Repeat("a", 5000)},
		"not text":            {Scope: auth.ScopeSession, ID: "a\xff"},
	} {
		if added, err := r.Add(bad); added || err == nil {
			t.Errorf("%s: %v, %v", name, added, err)
		}
	}
	if added, err := r.Add(auth.Revocation{Scope: auth.ScopeSession, ID: "a", Expires: time.Now()}); added || err != nil {
		t.Errorf("one that is over: %v, %v", added, err)
	}
}

// drawn are revocations of few things, so that they meet.
var drawn = rapid.Custom(func(t *rapid.T) auth.Revocation {
	at := func(label string) time.Time {
		n := rapid.IntRange(0, 4).Draw(t, label)
		if n == 0 {
			return time.Time{}
		}
		return epoch.Add(time.Duration(n) * time.Hour)
	}
	r := auth.Revocation{IssuedBefore: at("issued before"), Expires: at("expires"), By: rapid.SampledFrom([]string{"", "ops"}).Draw(t, "by")}
	switch rapid.IntRange(0, 3).Draw(t, "scope") {
	case 0:
		r.Scope, r.ID = auth.ScopeSession, rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "session")
	case 1:
		r.Scope, r.ID = auth.ScopePrincipal, aliceSince(epoch).Key()
	case 2:
		r.Scope, r.ID = auth.ScopeToken, auth.IssuedID(firstURL, rapid.SampledFrom([]string{"token-1", "token-2"}).Draw(t, "token"))
	default:
		r.Scope, r.ID = auth.ScopeKey, auth.IssuedID(firstURL, rapid.SampledFrom([]string{"key-1", "key-2"}).Draw(t, "key"))
	}
	return r
})

// refusals are which of a number of sessions and tokens a set refuses, at several times.
func refusals(r *auth.Revocations, now *time.Time) []bool {
	var all []bool
	for hour := range 6 {
		*now = epoch.Add(time.Duration(hour) * time.Hour)
		for issued := -1; issued < 6; issued++ {
			for _, session := range []string{"s1", "s2", "s3"} {
				p := aliceSince(epoch.Add(time.Duration(issued) * time.Hour))
				if issued < 0 {
					p.IssuedAt = time.Time{}
				}
				for _, id := range []string{"1", "2", "3"} {
					p.TokenID, p.KeyID, p.Subject = "token-"+id, "key-"+id, map[string]string{"1": "alice", "2": "bob", "3": "carol"}[id]
					_, refused := r.Refuses(session, p)
					all = append(all, refused)
				}
			}
		}
	}
	*now = epoch
	return all
}

// TestRevocationsJoinInAnyOrder: whatever order sets are joined in and how often, they refuse the same, which is what each
// of the revocations refuses alone; and none takes back what another refuses.
func TestRevocationsJoinInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := epoch
		clock := auth.WithClock(func() time.Time { return now })
		set := func(all ...auth.Revocation) *auth.Revocations {
			r, err := auth.NewRevocations(auth.RevocationConfig{}, clock)
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range all {
				if _, err := r.Add(one); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		all := rapid.SliceOfN(drawn, 0, 8).Draw(t, "revocations")
		shuffled := rapid.Permutation(append(slices.Clone(all), all...)).Draw(t, "order")
		want := make([]bool, len(refusals(set(), &now)))
		for _, one := range all {
			for n, refused := range refusals(set(one), &now) {
				want[n] = want[n] || refused
			}
		}
		joined := set(shuffled...)
		if got := refusals(joined, &now); !slices.Equal(got, want) {
			t.Fatalf("joined, %+v refuse otherwise than each alone", all)
		}
		if copied := set(joined.List()...); !slices.Equal(refusals(copied, &now), want) {
			t.Fatalf("what List returns refuses otherwise than %+v", all)
		}
	})
}

// TestRevocationsOutliveTheProcess: at any time the file holds all that was added, whatever was cut off behind it.
func TestRevocationsOutliveTheProcess(t *testing.T) {
	folder := t.TempDir()
	files := 0
	rapid.Check(t, func(t *rapid.T) {
		files++
		file := filepath.Join(folder, fmt.Sprint("revocations-", files))
		now := epoch
		clock := auth.WithClock(func() time.Time { return now })
		model, err := auth.NewRevocations(auth.RevocationConfig{}, clock)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "processes") {
			r, err := auth.NewRevocations(auth.RevocationConfig{File: file}, clock)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.List(), model.List()) {
				t.Fatalf("after a restart there are %+v, want %+v", r.List(), model.List())
			}
			for _, one := range rapid.SliceOfN(drawn, 0, 5).Draw(t, "added") {
				if _, err := r.Add(one); err != nil {
					t.Fatal(err)
				}
				_, _ = model.Add(one)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if cut := rapid.IntRange(0, 40).Draw(t, "half a line"); cut > 0 {
				appendText(t, file, `{"scope":"session","id":"never finished","by":"ops"}`[:cut])
			}
		}
	})
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface{ Fatal(...any) }

func appendText(t fataler, file, text string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLinesThatCannotBeReadAreToldAndPassedOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "revocations")
	bad := []string{
		"nonsense", `{"scope":"session"}`, `{"scope":"planet","id":"a"}`, `{"scope":"session","id":"a"}{"scope":"session","id":"b"}`, `[]`, `{"scope":1}`,
		`{"scope":"session","id":"` + strings.Repeat("x", 200<<10) + `"}`, "\x00", `{"scope":"session","id":"cut`,
	}
	good := []string{
		`{"scope":"session","id":"s1","added_by_a_later_version":true}`, `{"scope":"session","id":"s2","expires":"2033-05-18T03:33:20Z"}`, "",
	}
	var lines []string
	for n, line := range bad {
		lines = append(lines, good[n%len(good)], line)
	}
	appendText(t, file, strings.Join(lines, "\n"))
	var log bytes.Buffer
	r := newRevocations(t, file, auth.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if list := r.List(); len(list) != 2 || list[0].ID != "s1" || list[1].ID != "s2" {
		t.Errorf("read %+v", list)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != len(bad) || !strings.Contains(log.String(), "line=2 ") || !strings.Contains(log.String(), "line=18 ") {
		t.Errorf("%d of %d bad lines were logged:\n%s", n, len(bad), log.String())
	}
	mustAdd(t, r, auth.Revocation{Scope: auth.ScopeSession, ID: "s3"})
	log.Reset()
	again := newRevocations(t, file, auth.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if list := again.List(); len(list) != 3 {
		t.Errorf("after the bad end: %+v", list)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != len(bad) {
		t.Errorf("%d bad lines after another was added:\n%s", n, log.String())
	}
}

func TestTheFileOfRevocations(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "revocations")
	now := epoch
	clock := auth.WithClock(func() time.Time { return now })
	r := newRevocations(t, file, clock)
	kept := auth.Revocation{
		Scope: auth.ScopeToken, ID: auth.IssuedID(firstURL, "token-1"), IssuedBefore: epoch, Expires: epoch.Add(24 * time.Hour),
		By: "ops", At: epoch, Reason: "lost <laptop>\nin a train",
	}
	mustAdd(t, r, kept)
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	const short = 3000
	var lines strings.Builder
	for n := range short { // as if they had been added, each of which would wait for the disk
		fmt.Fprintf(&lines, `{"scope":"session","id":"s%d","expires":%q}`+"\n", n, epoch.Add(time.Hour).Format(time.RFC3339))
	}
	appendText(t, file, lines.String())
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if added, err := r.Add(auth.Revocation{Scope: auth.ScopeSession, ID: "late"}); !added || err == nil {
		t.Errorf("after Close: %v, %v", added, err)
	}
	if n := len(newRevocations(t, file, clock).List()); n != short+1 {
		t.Errorf("%d revocations after a restart", n)
	}
	now = epoch.Add(2 * time.Hour)
	r = newRevocations(t, file, clock)
	if list := r.List(); len(list) != 1 || !reflect.DeepEqual(list[0], kept) {
		t.Errorf("what is left: %+v", list)
	}
	text, err := os.ReadFile(file)
	if err != nil || bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("what is over stays in the file: %d lines, %v", bytes.Count(text, []byte("\n")), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the new file: %v, %v", info.Mode(), err)
	}
	mustAdd(t, r, auth.Revocation{Scope: auth.ScopeSession, ID: "next"})
	if n := len(newRevocations(t, file, clock).List()); n != 2 {
		t.Errorf("%d revocations after the file was made anew", n)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("files left behind: %v, %v", entries, err)
	}
	if _, err := auth.NewRevocations(auth.RevocationConfig{File: filepath.Join(folder, "none", "revocations")}); err == nil {
		t.Error("a file that cannot be made was accepted")
	}
}

// A revocation that could not be written counts all the same, is told, and is written by the next attempt.
func TestARevocationIsWrittenLateRatherThanNever(t *testing.T) {
	file := filepath.Join(t.TempDir(), "revocations")
	r := newRevocations(t, file)
	readOnly, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	before := auth.ReplaceFile(r, readOnly)
	first, second := auth.Revocation{Scope: auth.ScopeSession, ID: "s1"}, auth.Revocation{Scope: auth.ScopeSession, ID: "s2"}
	for _, added := range []bool{true, false} { // the second time it is known, and still not written
		if got, err := r.Add(first); got != added || err == nil {
			t.Errorf("on a disk that takes nothing: %v, %v", got, err)
		}
	}
	if got, err := r.Add(second); !got || err == nil {
		t.Errorf("on a disk that takes nothing: %v, %v", got, err)
	}
	if _, refused := r.Refuses("s1", aliceSince(epoch)); !refused {
		t.Error("what could not be written does not count")
	}
	writable, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	auth.ReplaceFile(r, writable)
	if got, err := r.Add(first); got || err != nil {
		t.Errorf("once the disk is well: %v, %v", got, err)
	}
	if err := errors.Join(r.Close(), readOnly.Close(), before.Close()); err != nil {
		t.Fatal(err)
	}
	if n := len(newRevocations(t, file).List()); n != 2 {
		t.Errorf("%d of 2 revocations were written", n)
	}
	for _, other := range []string{t.TempDir(), os.DevNull} {
		if _, err := auth.NewRevocations(auth.RevocationConfig{File: other}); err == nil {
			t.Errorf("%s was accepted as a file", other)
		}
	}
}

func TestWhoListensIsTold(t *testing.T) {
	r := newRevocations(t, "")
	var told []string
	stop := r.OnAdd(func(one auth.Revocation) {
		if _, refused := r.Refuses(one.ID, aliceSince(epoch)); !refused {
			t.Errorf("told of %s before it counts", one.ID)
		}
		told = append(told, one.ID)
	})
	for _, id := range []string{"s1", "s2", "s1"} {
		_, _ = r.Add(auth.Revocation{Scope: auth.ScopeSession, ID: id})
	}
	stop()
	mustAdd(t, r, auth.Revocation{Scope: auth.ScopeSession, ID: "s3"})
	if !slices.Equal(told, []string{"s1", "s2"}) {
		t.Errorf("told of %q", told)
	}
}

// TestNoSessionSlipsPastARevocation: a session that is first made known to who listens and then asked about is ended by
// one of them, whenever the revocation comes.
func TestNoSessionSlipsPastARevocation(t *testing.T) {
	for range 500 {
		r := newRevocations(t, "")
		var known, ended atomic.Bool
		r.OnAdd(func(auth.Revocation) {
			if known.Load() {
				ended.Store(true)
			}
		})
		var group sync.WaitGroup
		group.Go(func() { _, _ = r.Add(auth.Revocation{Scope: auth.ScopeSession, ID: "s1"}) })
		group.Go(func() {
			known.Store(true)
			if _, refused := r.Refuses("s1", aliceSince(epoch)); refused {
				ended.Store(true)
			}
		})
		group.Wait()
		if !ended.Load() {
			t.Fatal("the session lives on")
		}
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	now := epoch
	r := newRevocations(t, "", auth.WithClock(func() time.Time { return now }))
	for n := range 10_000 {
		now = now.Add(time.Second)
		mustAdd(t, r, auth.Revocation{Scope: auth.ScopeSession, ID: fmt.Sprint("s", n), Expires: now.Add(time.Minute)})
	}
	if n := auth.HeldRevocations(r); n > 2000 {
		t.Errorf("%d revocations are held, of which 60 count", n)
	}
	if n := len(r.List()); n != 60 {
		t.Errorf("%d revocations count", n)
	}
}

// FuzzRevocationFile opens any file at all.
func FuzzRevocationFile(f *testing.F) {
	for _, seed := range []string{
		"", "\n\n", `{"scope":"session","id":"a"}`, `{"scope":"session","id":"a"}` + "\n{", `{"scope":"token","id":"a\nb","expires":"2033-05-18T03:33:20Z"}` + "\n",
		`{"scope":"principal","id":"a","issued_before":"0000-00-00T00:00:00Z"}`, `{"scope":"key","id":"a\u000ab","at":"9999-12-31T23:59:59.999999999+14:00"}`,
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "revocations")
	f.Fuzz(func(t *testing.T, text []byte) {
		writeFile(t, file, text)
		r := newRevocations(t, file)
		before := r.List()
		last := auth.Revocation{Scope: auth.ScopeSession, ID: "the last"}
		added, err := r.Add(last)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		again := newRevocations(t, file)
		if _, refused := again.Refuses("the last", &auth.Principal{}); !refused {
			t.Fatalf("after %q a revocation was lost", text)
		}
		want := len(before)
		if added {
			want++
		}
		// One that is covered by the last is gone.
		if n := len(again.List()); n > want || n < 1 {
			t.Fatalf("%d revocations, want %d", n, want)
		}
	})
}

func BenchmarkRefuses(b *testing.B) {
	r := newRevocations(b, "")
	p := aliceSince(epoch)
	for _, size := range []int{0, 10_000} {
		for n := range size {
			mustAdd(b, r, auth.Revocation{Scope: auth.ScopeSession, ID: fmt.Sprint("s", n)})
			mustAdd(b, r, auth.Revocation{Scope: auth.ScopeToken, ID: auth.IssuedID(firstURL, fmt.Sprint("t", n))})
		}
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, refused := r.Refuses("session", p); refused {
					b.Fatal("refused")
				}
			}
		})
	}
}
