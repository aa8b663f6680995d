package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	clusterName = "kube"
	unavailable = sluicev1.Reason_REASON_ISSUER_UNAVAILABLE
)

// apiServer answers reviews as its fields say, which a test changes by set.
type apiServer struct {
	mu    sync.Mutex
	users map[string]auth.Review // by token; others are refused with refusal
	err   error
	delay time.Duration

	refusal string
	asked   []string // the tokens, in order
	meant   []string // the audiences of the last question
}

var errNoAnswer = errors.New("no answer")

// ReviewToken implements auth.Reviewer.
func (s *apiServer) ReviewToken(ctx context.Context, token auth.Secret, audiences []string) (auth.Review, error) {
	s.mu.Lock()
	s.asked, s.meant = append(s.asked, token.Reveal()), audiences
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return auth.Review{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return auth.Review{}, s.err
	}
	if review, known := s.users[token.Reveal()]; known {
		return review, nil
	}
	return auth.Review{Error: s.refusal}, nil
}

func (s *apiServer) set(change func(*apiServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *apiServer) reviews() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// user is a review that accepts.
func user(name string, groups ...string) auth.Review {
	return auth.Review{Authenticated: true, Username: name, UID: "uid-of-" + name, Groups: groups, Audiences: []string{audience}}
}

// newReviews returns an API server that knows alice by the token "alices", and
// the authenticator that asks it.
func newReviews(t testing.TB, change func(*auth.ReviewConfig), opts ...auth.Option) (*apiServer, *auth.Reviews) {
	t.Helper()
	s := &apiServer{users: map[string]auth.Review{"alices": user("alice", "dev")}}
	c := auth.ReviewConfig{Name: clusterName, Audiences: []string{audience}, Rate: 10_000, Burst: 100_000}
	if change != nil {
		change(&c)
	}
	r, err := auth.NewReviews(s, c, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return s, r
}

func TestWhoAReviewNames(t *testing.T) {
	s, r := newReviews(t, func(c *auth.ReviewConfig) { c.UsernamePrefix, c.GroupsPrefix = "u:", "g:" })
	s.set(func(s *apiServer) {
		review := user("system:serviceaccount:default:alice", "system:authenticated", "a b")
		review.Extra = map[string][]string{"Scopes": {"a", "b"}, "authentication.kubernetes.io/credential-id": {"JTI=1"}, "none": {}}
		s.users["opaque"] = review
	})
	p := mustAccept(t, r, "opaque")
	if p.Authenticator != "token_review" || p.Issuer != clusterName || p.Subject != "system:serviceaccount:default:alice" ||
		p.UID != "uid-of-system:serviceaccount:default:alice" || p.Username != "u:system:serviceaccount:default:alice" ||
		!slices.Equal(p.Groups, []string{"g:system:authenticated", "g:a b"}) || !slices.Equal(p.Audiences, []string{audience}) ||
		p.Credential().Reveal() != "opaque" {
		t.Errorf("the review names %+v", p)
	}
	if want := map[string][]string{"scopes": {"a", "b"}, "authentication.kubernetes.io/credential-id": {"JTI=1"}}; !maps.EqualFunc(p.Extra, want, slices.Equal) {
		t.Errorf("extra attributes %v", p.Extra)
	}
	if !p.ExpiresAt.IsZero() || !p.NotBefore.IsZero() || !p.IssuedAt.IsZero() || p.TokenID != "" || p.KeyID != "" || p.ExpiredAt(time.Now().AddDate(1000, 0, 0)) {
		t.Errorf("an opaque token says %+v", p)
	}
	if !slices.Equal(s.meant, []string{audience}) {
		t.Errorf("asked for the audiences %q", s.meant)
	}
}

func TestAReviewedJWTSaysItsTimesAndIDs(t *testing.T) {
	i, err := issuer.New("https://kubernetes.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	s, r := newReviews(t, nil)
	accept := func(token string) *auth.Principal {
		s.set(func(s *apiServer) { s.users[token] = user("alice") })
		return mustAccept(t, r, token)
	}
	now := time.Now().Truncate(time.Second)
	p := accept(sign(t, i, issuer.Claims{ID: "token-1", Issued: now.Add(-time.Minute), NotBefore: now.Add(-time.Second), Expiry: now.Add(time.Hour)}))
	if p.TokenID != "token-1" || p.KeyID != i.KeyID() || !p.ExpiresAt.Equal(now.Add(time.Hour)) || !p.NotBefore.Equal(now.Add(-time.Second)) ||
		!p.IssuedAt.Equal(now.Add(-time.Minute)) {
		t.Errorf("the token says %+v", p)
	}
	// What cannot be read is as if it were not there: the API server could do without.
	for _, token := range []string{
		mustSignPayload(t, i, `{"exp":1e10}`), mustSignPayload(t, i, `{"exp":"soon"}`), mustSignPayload(t, i, `{"exp":4102444800,"exp":1}`),
		"a.b.c", "..", "e30.e30.x", forge(t, `{"alg":"RS256"}`, `{"exp":4102444800`, nil) + "x", "x.x.x.x", "no=",
	} {
		if p := accept(token); !p.ExpiresAt.IsZero() || p.TokenID != "" {
			t.Errorf("%q says %+v", token, p)
		}
	}
	// The API server's leeway is not ours.
	over := sign(t, i, issuer.Claims{Extra: map[string]any{"exp": now.Add(-time.Second).Unix()}})
	s.set(func(s *apiServer) { s.users[over] = user("alice") })
	mustRefuse(t, r, over, expired)
}

func TestT_A2_AReviewForAnotherAudienceIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		asked, meant []string
		want         sluicev1.Reason
	}{
		"ours":                          {[]string{audience}, []string{audience}, accepted},
		"one of ours":                   {[]string{audience, "b"}, []string{"b"}, accepted},
		"none, from one who knows none": {[]string{audience}, nil, otherAudience},
		"another":                       {[]string{audience}, []string{"other"}, otherAudience},
		"in another case":               {[]string{audience}, []string{"Sluice"}, otherAudience},
		"the API server's own":          {nil, []string{"https://kubernetes.default.svc"}, accepted},
		"the API server has none":       {nil, nil, accepted},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := newReviews(t, func(c *auth.ReviewConfig) { c.Audiences = tc.asked })
			s.set(func(s *apiServer) {
				review := s.users["alices"]
				review.Audiences = tc.meant
				s.users["alices"] = review
			})
			if tc.want == accepted {
				mustAccept(t, r, "alices")
			} else {
				mustRefuse(t, r, "alices", tc.want)
			}
		})
	}
}

// B4: nobody is let in under a name that means something else in a header or a log line, nor without one.
func TestT_B4_AReviewWithNamesThatMeanSomethingElseElsewhereIsRefused(t *testing.T) {
	s, r := newReviews(t, nil)
	n := 0
	check := func(what string, good bool, change func(*auth.Review)) {
		t.Helper()
		n++
		token, review := fmt.Sprint("token", n), user("alice", "dev")
		change(&review)
		s.set(func(s *apiServer) { s.users[token] = review })
		if p, err := authenticate(t, r, token); (err == nil) != good || err != nil && status.Reason(err) != invalid {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	check("as it is", true, func(*auth.Review) {})
	check("not authenticated", false, func(r *auth.Review) { r.Authenticated = false })
	check("no uid", true, func(r *auth.Review) { r.UID = "" })
	for _, bad := range []string{
		"", " ", "a\x00b", "a\nb", "a\r\nImpersonate-Group: system:masters", "a\tb", "a\x7f", "a\u2028b", "a\u202eb", "a\u200bb", "a\ufffdb", "a\xffb", " a", "a ",
	} {
		quoted := fmt.Sprintf("%q", bad)
		check("user "+quoted, false, func(r *auth.Review) { r.Username = bad })
		check("uid "+quoted, bad == "", func(r *auth.Review) { r.UID = bad })
		check("group "+quoted, false, func(r *auth.Review) { r.Groups = []string{"dev", bad} })
		check("extra "+quoted, false, func(r *auth.Review) { r.Extra = map[string][]string{"a": {"b", bad}} })
		check("extra key "+quoted, false, func(r *auth.Review) { r.Extra = map[string][]string{bad: {"b"}} })
	}
	for _, bad := range []string{"a%2f", "\u00e4", strings.Repeat("a", 254)} {
		check("extra key "+bad, false, func(r *auth.Review) { r.Extra = map[string][]string{bad: {"b"}} })
	}
	check("one key in two cases", false, func(r *auth.Review) { r.Extra = map[string][]string{"a": {"1"}, "A": {"2"}} })
}

func TestT_A9_AnAcceptedTokenIsReviewedAgainAfter10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		mustAccept(t, r, "alices")
		s.set(func(s *apiServer) { delete(s.users, "alices") })
		deleted := time.Now()
		every(100*time.Millisecond, func() bool {
			_, err := authenticate(t, r, "alices")
			return err == nil && time.Since(deleted) < time.Minute
		})
		if took := time.Since(deleted); took != 10*time.Second {
			t.Errorf("a deleted token was accepted for %v", took)
		}
		if n := s.reviews(); n != 2 {
			t.Errorf("%d reviews", n)
		}
	})
}

func TestT_A9_AnAcceptedTokenIsNotKeptPastItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, err := issuer.New("https://kubernetes.default.svc")
		if err != nil {
			t.Fatal(err)
		}
		s, r := newReviews(t, nil)
		began := time.Now()
		token := sign(t, i, issuer.Claims{Expiry: began.Add(6 * time.Second)})
		s.set(func(s *apiServer) { s.users[token] = user("alice") }) // an API server with a leeway
		every(100*time.Millisecond, func() bool {
			_, err := authenticate(t, r, token)
			if err != nil {
				wantRefusal(t, nil, err, expired)
			}
			return err == nil && time.Since(began) < time.Minute
		})
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("a token of 6 s was accepted for %v", took)
		}
	})
}

func TestT_A9_ARefusalIsForgottenAfter1Second(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		mustRefuse(t, r, "bobs", invalid)
		s.set(func(s *apiServer) { s.users["bobs"] = user("bob") })
		created := time.Now()
		every(50*time.Millisecond, func() bool {
			_, err := authenticate(t, r, "bobs")
			return err != nil && time.Since(created) < time.Minute
		})
		if took := time.Since(created); took != time.Second {
			t.Errorf("a new token was refused for %v", took)
		}
		if n := s.reviews(); n != 2 {
			t.Errorf("%d reviews", n)
		}
	})
}

func TestT_A9_ErrorsAreNeverRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		for range 5 { // the API server flaps
			s.set(func(s *apiServer) { s.err = errNoAnswer })
			_, err := authenticate(t, r, "alices")
			wantRefusal(t, nil, err, unavailable)
			if !errors.Is(err, errNoAnswer) || status.From(err).RetryAfter != time.Second {
				t.Errorf("got %v, to be retried after %v", err, status.From(err).RetryAfter)
			}
			mustRefuse(t, r, "alices", unavailable)
			s.set(func(s *apiServer) { s.err = nil })
			mustAccept(t, r, "alices")
			s.set(func(s *apiServer) { s.err = errNoAnswer })
			mustAccept(t, r, "alices") // what is known stays known
			<-time.After(10 * time.Second)
		}
		s.set(func(s *apiServer) {
			s.err = status.New(codes.ResourceExhausted, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "too many requests").WithRetryAfter(7 * time.Second)
		})
		if _, err := authenticate(t, r, "alices"); status.Reason(err) != unavailable || status.From(err).RetryAfter != 7*time.Second {
			t.Errorf("got %v, to be retried after %v", err, status.From(err).RetryAfter)
		}
	})
}

func TestT_A9_ACrowdWithOneTokenIsOneReview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		s.set(func(s *apiServer) { s.delay = time.Second })
		hasty, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		var group sync.WaitGroup
		var hastyErr error
		group.Go(func() { _, hastyErr = r.Authenticate(hasty, auth.NewSecret("alices")) })
		synctest.Wait() // so that the review began for the one who leaves
		var accepted atomic.Int64
		for range 1000 {
			group.Go(func() {
				if p, err := r.Authenticate(t.Context(), auth.NewSecret("alices")); err == nil && p.Username == "alice" {
					accepted.Add(1)
				}
			})
		}
		group.Wait()
		if s.reviews() != 1 || accepted.Load() != 1000 {
			t.Errorf("%d reviews, %d accepted", s.reviews(), accepted.Load())
		}
		if status.Code(hastyErr) != codes.DeadlineExceeded || !errors.Is(hastyErr, context.DeadlineExceeded) {
			t.Errorf("who left got %v", hastyErr)
		}
	})
}

func TestT_A9_ASilentAPIServerIsGivenUpAfter5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		s.set(func(s *apiServer) { s.delay = time.Hour })
		began := time.Now()
		mustRefuse(t, r, "alices", unavailable)
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// TestT_A9_ModelOfTheCache plays random histories against a model of three
// lines: an answer younger than its time is used again, and nothing else is.
func TestT_A9_ModelOfTheCache(t *testing.T) {
	tokens := []string{"alices", "bobs", "carols"}
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(2_000_000_000, 0)
		s := &apiServer{users: map[string]auth.Review{}}
		r, err := auth.NewReviews(s, auth.ReviewConfig{Name: clusterName, Audiences: []string{audience}, Rate: 10_000, Burst: 100_000},
			auth.WithClock(func() time.Time { return now }))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		type known struct {
			accepted bool
			until    time.Time
		}
		model := map[string]known{}
		// expect asks, and returns what the model says of whether that is a review and of how it ends.
		expect := func(token string, again bool) (asked bool, code codes.Code) {
			k, has := model[token]
			if asked = again || !has || !now.Before(k.until); asked && s.err != nil {
				return true, codes.Unavailable
			} else if asked {
				_, k.accepted = s.users[token]
				k.until = now.Add(map[bool]time.Duration{true: 10 * time.Second, false: time.Second}[k.accepted])
				model[token] = k
			}
			if !k.accepted {
				return asked, codes.Unauthenticated
			}
			return asked, codes.OK
		}
		ask := func(t *rapid.T, again bool) {
			token := rapid.SampledFrom(tokens).Draw(t, "token")
			before := s.reviews()
			asked, code := expect(token, again)
			var p *auth.Principal
			var err error
			if again {
				old := &auth.Principal{Authenticator: "token_review", Issuer: clusterName, Subject: token, UID: "uid-of-" + token}
				p, err = r.Recheck(context.Background(), old.WithCredential(auth.NewSecret(token)))
			} else {
				p, err = r.Authenticate(context.Background(), auth.NewSecret(token))
			}
			if got := s.reviews() > before; got != asked || status.Code(err) != code {
				t.Fatalf("reviewed %v, ended with %v; want %v, %v", got, err, asked, code)
			}
			if err == nil && (p.Subject != token || p.Credential().Reveal() != token) {
				t.Fatalf("%s made %+v", token, p)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"authenticate": func(t *rapid.T) { ask(t, false) },
			"recheck":      func(t *rapid.T) { ask(t, true) },
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(6*time.Second)).Draw(t, "elapsed")))
			},
			"create": func(t *rapid.T) { token := rapid.SampledFrom(tokens).Draw(t, "token"); s.users[token] = user(token) },
			"delete": func(t *rapid.T) { delete(s.users, rapid.SampledFrom(tokens).Draw(t, "token")) },
			"fail":   func(*rapid.T) { s.err = errNoAnswer },
			"answer": func(*rapid.T) { s.err = nil },
		})
	})
}

func TestRecheckGoesPastWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		p := mustAccept(t, r, "alices")

		s.set(func(s *apiServer) { s.users["alices"] = user("alice", "ops") })
		newest, err := r.Recheck(t.Context(), p)
		if err != nil || !slices.Equal(newest.Groups, []string{"ops"}) || newest.Credential().Reveal() != "alices" {
			t.Errorf("the recheck says %+v, %v", newest, err)
		}
		if q := mustAccept(t, r, "alices"); !slices.Equal(q.Groups, []string{"ops"}) {
			t.Errorf("who comes next is in %q", q.Groups)
		}

		s.set(func(s *apiServer) { s.err = errNoAnswer })
		_, err = r.Recheck(t.Context(), p)
		wantRefusal(t, nil, err, unavailable)

		s.set(func(s *apiServer) { s.err = nil; delete(s.users, "alices") })
		_, err = r.Recheck(t.Context(), p)
		wantRefusal(t, nil, err, invalid)
		mustRefuse(t, r, "alices", invalid) // though it was accepted less than 10 s ago
		if n := s.reviews(); n != 4 {
			t.Errorf("%d reviews", n)
		}

		<-time.After(time.Second)
		again := user("alice", "dev")
		again.UID = "of another account under that name"
		s.set(func(s *apiServer) { s.users["alices"] = again })
		if _, err = r.Recheck(t.Context(), p); status.Reason(err) != sluicev1.Reason_REASON_PRINCIPAL_MISMATCH || status.Code(err) != codes.PermissionDenied {
			t.Errorf("somebody else under that name: %v", err)
		}
		_, err = r.Recheck(t.Context(), &auth.Principal{Authenticator: "token_review"})
		wantRefusal(t, nil, err, invalid)
	})
}

func TestT_A9_AFloodOfTokensIsReviewedAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, func(c *auth.ReviewConfig) { c.Rate, c.Burst = 10, 20 })
		p := mustAccept(t, r, "alices")
		began := time.Now()
		refused := 0
		every(time.Millisecond, func() bool {
			mustAccept(t, r, "alices") // known for as long as the flood lasts
			token := fmt.Sprint("forged-", time.Since(began).Milliseconds())
			_, err := authenticate(t, r, token)
			switch status.Code(err) {
			case codes.Unauthenticated:
			case codes.ResourceExhausted:
				e := status.From(err)
				if e.Reason != sluicev1.Reason_REASON_LIMIT || e.Limit != "limits.token_reviews" || e.RetryAfter < time.Second {
					t.Errorf("refused with %v of limit %q, to be retried after %v", e, e.Limit, e.RetryAfter)
				}
				refused++
			default:
				t.Errorf("a forged token gave %v", err)
			}
			return time.Since(began) < 9900*time.Millisecond
		})
		if n := s.reviews(); n < 110 || n > 121 || refused < 9000 {
			t.Errorf("in 10 s at 10 a second: %d reviews, %d refused", n, refused)
		}
		// Who is known does not stand in that queue, and who is rechecked stands in another.
		mustAccept(t, r, "alices")
		for n := range 20 {
			if _, err := r.Recheck(t.Context(), p); err != nil {
				t.Errorf("recheck %d during the flood: %v", n, err)
			}
		}
		if _, err := r.Recheck(t.Context(), p); status.From(err).Limit != auth.LimitTokenReviews {
			t.Errorf("a recheck beyond the burst: %v", err)
		}
	})
}

func TestCloseEndsTheReviewUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newReviews(t, nil)
		mustAccept(t, r, "alices")
		s.set(func(s *apiServer) { s.delay = time.Hour })
		var group sync.WaitGroup
		var waiting error
		began := time.Now()
		group.Go(func() { _, waiting = authenticate(t, r, "bobs") })
		synctest.Wait()
		r.Close()
		group.Wait()
		wantRefusal(t, nil, waiting, unavailable)
		mustRefuse(t, r, "bobs", unavailable)
		mustAccept(t, r, "alices")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Close waited %v", waited)
		}
	})
}

// A14: whatever happens at the same time, a token makes its own user and nobody else.
func TestT_A14_NoTokenEverMakesAnotherUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users, rounds = 40, 200
		s, r := newReviews(t, nil)
		s.set(func(s *apiServer) {
			s.delay = 3 * time.Millisecond
			for n := range users {
				s.users[fmt.Sprint("token-", n)] = user(fmt.Sprint("user-", n), fmt.Sprint("group-", n))
			}
		})
		var group sync.WaitGroup
		for worker := range 50 {
			group.Go(func() {
				for round := range rounds {
					n := (worker*31 + round*17) % (users + 5) // the last five are nobody's
					token := fmt.Sprint("token-", n)
					p, err := r.Authenticate(t.Context(), auth.NewSecret(token))
					if err == nil && round%3 == 0 {
						p, err = r.Recheck(t.Context(), p)
					}
					if known := n < users; known != (err == nil) {
						t.Errorf("%s: %v", token, err)
					} else if known && (p.Username != fmt.Sprint("user-", n) || !slices.Equal(p.Groups, []string{fmt.Sprint("group-", n)}) || p.Credential().Reveal() != token) {
						t.Errorf("%s made %+v", token, p)
					}
				}
			})
		}
		group.Wait()
	})
}

func TestT_A10_ReviewsNeverShowTheToken(t *testing.T) {
	var log bytes.Buffer
	s, r := newReviews(t, nil, auth.WithLogger(slog.New(slog.NewJSONHandler(&log, nil))))
	s.set(func(s *apiServer) {
		s.refusal = "invalid bearer token " + canary + ", that is canaryHEADER and canaryPAYLOAD, " + strings.Repeat("\xff", 100_000)
	})
	check := func(err error) {
		t.Helper()
		if err == nil {
			t.Fatal("accepted")
		}
		shown := renderings(t, err)
		shown["log"] = log.String()
		if form := leaks(shown, canary); form != "" {
			t.Errorf("%q is shown", form)
		}
	}
	_, err := authenticate(t, r, canary)
	check(err)
	if !strings.Contains(log.String(), "invalid bearer token [redacted]") || log.Len() > 2000 {
		t.Errorf("the log says %.500s", log.String())
	}
	s.set(func(s *apiServer) { s.refusal = "no such token: a1b2c3.d4e5f6" })
	if _, err = authenticate(t, r, "a1b2c3.d4e5f6"); err == nil || strings.Contains(log.String(), "a1b2c3") {
		t.Errorf("%v, the log says %s", err, log.String())
	}
	s.set(func(s *apiServer) { s.err = errNoAnswer })
	_, err = r.Recheck(t.Context(), (&auth.Principal{}).WithCredential(auth.NewSecret(canary)))
	check(err)
	s.set(func(s *apiServer) { s.err, s.users[canary] = nil, user("alice\n") })
	_, err = r.Recheck(t.Context(), (&auth.Principal{}).WithCredential(auth.NewSecret(canary)))
	check(err)
}

func TestNothingButATokenIsReviewed(t *testing.T) {
	s, r := newReviews(t, nil)
	for _, bad := range []string{"", "a b", "a\r\nb", "a\x00", "\u00e4", "==", "a=b"} {
		mustRefuse(t, r, bad, invalid)
	}
	mustRefuse(t, r, strings.Repeat("a", auth.MaxTokenBytes+1), sluicev1.Reason_REASON_TOKEN_TOO_LARGE)
	if n := s.reviews(); n != 0 {
		t.Errorf("%d reviews", n)
	}
}

func TestAReviewConfigurationThatCannotBeSafeIsRefused(t *testing.T) {
	good := auth.ReviewConfig{Name: clusterName}
	r, err := auth.NewReviews(&apiServer{}, good)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for name, change := range map[string]func(*auth.ReviewConfig){
		"no name":         func(c *auth.ReviewConfig) { c.Name = "" },
		"line in name":    func(c *auth.ReviewConfig) { c.Name = "a\nb" },
		"empty audience":  func(c *auth.ReviewConfig) { c.Audiences = []string{""} },
		"negative rate":   func(c *auth.ReviewConfig) { c.Rate = -1 },
		"tiny rate":       func(c *auth.ReviewConfig) { c.Rate = 1e-9 },
		"huge rate":       func(c *auth.ReviewConfig) { c.Rate = 1e9 },
		"no number":       func(c *auth.ReviewConfig) { c.Rate = math.NaN() },
		"negative burst":  func(c *auth.ReviewConfig) { c.Burst = -1 },
		"huge burst":      func(c *auth.ReviewConfig) { c.Burst = math.MaxInt },
		"control in user": func(c *auth.ReviewConfig) { c.UsernamePrefix = "a\n" },
		"space in groups": func(c *auth.ReviewConfig) { c.GroupsPrefix = " a" },
	} {
		c := good
		change(&c)
		if _, err := auth.NewReviews(&apiServer{}, c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
