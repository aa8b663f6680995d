package auth_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
)

// documents serves a discovery document and a key set made by hand.
func documents(issuerURL, keysURL string, keys any) http.Handler {
	m := http.NewServeMux()
	answer := func(path string, document any) {
		m.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if text, ok := document.(string); ok {
				_, _ = w.Write([]byte(text))
				return
			}
			_ = json.NewEncoder(w).Encode(document)
		})
	}
	answer("/.well-known/openid-configuration", map[string]string{"issuer": issuerURL, "jwks_uri": keysURL})
	answer("/keys", keys)
	return m
}

// every calls do at each interval of the bubble's time until do says stop.
func every(interval time.Duration, do func() (goOn bool)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for do() {
		<-ticker.C
	}
}

func unknownKey(t testing.TB, id string) string {
	t.Helper()
	return forge(t, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, id), `{"iss":"`+firstURL+`"}`, make([]byte, 64))
}

// flood sends tokens with ever new key ids until stopped, and counts them.
func flood(t *testing.T, o *auth.OIDC, senders int, stop <-chan struct{}) (sent *atomic.Int64, wait func()) {
	t.Helper()
	sent = new(atomic.Int64)
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			every(50*time.Millisecond, func() bool {
				token := unknownKey(t, fmt.Sprint("unknown-", sent.Add(1)))
				_, err := o.Authenticate(context.Background(), auth.NewSecret(token))
				if status.Reason(err) != sluicev1.Reason_REASON_INVALID_TOKEN {
					t.Errorf("an unknown key id gave %v", err)
				}
				select {
				case <-stop:
					return false
				default:
					return true
				}
			})
		})
	}
	return sent, group.Wait
}

func TestT_A4_UnknownKeysCannotMakeTheGatewayFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		s.web.set(func(w *web) { w.delay = 100 * time.Millisecond })
		good := s.sign(t, issuer.Claims{})
		mustAccept(t, s.oidc, good)

		stop := make(chan struct{})
		sent, wait := flood(t, s.oidc, 50, stop)
		start := time.Now()
		every(100*time.Millisecond, func() bool {
			began := time.Now()
			mustAccept(t, s.oidc, good)
			if waited := time.Since(began); waited != 0 {
				t.Errorf("a good token waited %v", waited)
			}
			return time.Since(start) < 29*time.Second
		})
		close(stop)
		wait()
		if n := s.web.fetchesFrom("one.example"); n < 2 || n > 4 {
			t.Errorf("%d unknown key ids in 30 s made the gateway fetch %d times", sent.Load(), n)
		}
		if sent.Load() < 10_000 {
			t.Errorf("only %d unknown key ids were sent", sent.Load())
		}
	})
}

func TestT_A5_ANewKeyIsUsableWithin10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		before := s.sign(t, issuer.Claims{})
		mustAccept(t, s.oidc, before)
		stop := make(chan struct{})
		_, wait := flood(t, s.oidc, 5, stop) // takes every fetch that is allowed
		for range 5 {
			if err := s.issuer.Rotate(); err != nil {
				t.Fatal(err)
			}
			rotated := time.Now()
			after := s.sign(t, issuer.Claims{})
			every(100*time.Millisecond, func() bool {
				mustAccept(t, s.oidc, before)
				_, err := authenticate(t, s.oidc, after)
				return err != nil && time.Since(rotated) < time.Minute
			})
			if took := time.Since(rotated); took > 10*time.Second {
				t.Errorf("the new key was usable after %v", took)
			}
		}
		close(stop)
		wait()
	})
}

func TestT_A5_KnownKeysOutliveTheirIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		known := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})
		mustAccept(t, s.oidc, known)
		s.web.set(func(w *web) { w.down = true })
		if err := s.issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
		unknown := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})
		<-time.After(10 * time.Second) // until another fetch is allowed, and fails

		died := time.Now()
		every(time.Second, func() bool {
			began := time.Now()
			mustAccept(t, s.oidc, known)
			if waited := time.Since(began); waited != 0 {
				t.Errorf("a known key waited %v", waited)
			}
			_, err := authenticate(t, s.oidc, unknown)
			wantRefusal(t, nil, err, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
			if retry := status.From(err).RetryAfter; retry < time.Second || retry > 10*time.Second {
				t.Errorf("retry after %v", retry)
			}
			return time.Since(died) < 10*time.Minute
		})

		s.web.set(func(w *web) { w.down = false })
		back := time.Now()
		every(100*time.Millisecond, func() bool {
			_, err := authenticate(t, s.oidc, unknown)
			return err != nil && time.Since(back) < time.Minute
		})
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("the new key was usable %v after the issuer came back", took)
		}
	})
}

func TestT_A5_AWithdrawnKeyIsForgottenAndAStaleOneDistrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		old := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})
		mustAccept(t, s.oidc, old)
		if err := s.issuer.Rotate(); err != nil {
			t.Fatal(err)
		}
		s.issuer.Forget()
		current := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})

		withdrawn := time.Now()
		every(time.Second, func() bool {
			_, err := authenticate(t, s.oidc, old)
			return err == nil && time.Since(withdrawn) < time.Hour
		})
		if took := time.Since(withdrawn); took > 6*time.Minute {
			t.Errorf("a withdrawn key was accepted for %v", took)
		}

		mustAccept(t, s.oidc, current)
		s.web.set(func(w *web) { w.down = true })
		died := time.Now()
		every(time.Hour, func() bool {
			_, err := authenticate(t, s.oidc, current)
			if err != nil {
				wantRefusal(t, nil, err, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
			}
			return err == nil && time.Since(died) < 48*time.Hour
		})
		if lasted := time.Since(died); lasted < time.Hour || lasted > 25*time.Hour {
			t.Errorf("keys of a dead issuer were trusted for %v", lasted)
		}
	})
}

// A key that is withdrawn while nobody comes is not accepted from whoever comes next, not even from those who come while
// the keys are being fetched.
func TestT_A5_AKeyWithdrawnWhileNobodyCameServesNotEvenOnce(t *testing.T) {
	for name, lastFetchFailed := range map[string]bool{"the last fetch went well": false, "the last fetch failed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSingle(t)
				old := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})
				mustAccept(t, s.oidc, old)
				if err := s.issuer.Rotate(); err != nil {
					t.Fatal(err)
				}
				s.issuer.Forget()
				<-time.After(3 * time.Hour)
				if lastFetchFailed {
					s.web.set(func(w *web) { w.down = true })
					mustAccept(t, s.oidc, old) // as nobody can say otherwise
					s.web.set(func(w *web) { w.down = false })
					<-time.After(3 * time.Hour)
				}
				s.web.set(func(w *web) { w.delay = time.Second })
				var group sync.WaitGroup
				for range 10 {
					group.Go(func() {
						if p, err := authenticate(t, s.oidc, old); status.Reason(err) != sluicev1.Reason_REASON_INVALID_TOKEN {
							t.Errorf("got %v, %v", p, err)
						}
					})
					<-time.After(50 * time.Millisecond)
				}
				group.Wait()
			})
		})
	}
}

func TestT_A5_AnIssuerThatHangsDelaysNobodyWhoseKeyIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		known := s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)})
		mustAccept(t, s.oidc, known)
		s.web.set(func(w *web) { w.delay = time.Hour })
		began := time.Now()
		every(time.Second, func() bool {
			asked := time.Now()
			mustAccept(t, s.oidc, known)
			if waited := time.Since(asked); waited != 0 {
				t.Errorf("after %v a known key waited %v", asked.Sub(began), waited)
			}
			return time.Since(began) < 30*time.Minute
		})
	})
}

func TestT_A5_WhoWaitsForFreshKeysMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		token := auth.NewSecret(s.sign(t, issuer.Claims{Expiry: time.Now().Add(72 * time.Hour)}))
		mustAccept(t, s.oidc, token.Reveal())
		<-time.After(time.Hour)
		s.web.set(func(w *web) { w.delay = time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if p, err := s.oidc.Authenticate(ctx, token); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v, %v", p, err)
		}
	})
}

func TestT_A5_AnIssuerThatIsDownDelaysOnlyItsOwnUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb()
		first, second := w.newIssuer(t, firstURL), w.newIssuer(t, secondURL)
		w.set(func(w *web) { delete(w.hosts, "one.example") })
		o := w.newOIDC(t, config(firstURL), config(secondURL))

		token := sign(t, first, issuer.Claims{})
		mustRefuse(t, o, token, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
		mustAccept(t, o, sign(t, second, issuer.Claims{}))

		w.set(func(w *web) { w.hosts["one.example"] = first.Handler() })
		back := time.Now()
		every(time.Second, func() bool {
			_, err := authenticate(t, o, token)
			return err != nil && time.Since(back) < time.Minute
		})
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("the issuer was usable %v after it came up", took)
		}
	})
}

func TestT_A5_ASlowIssuerIsGivenUpAfter5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		s.web.set(func(w *web) { w.delay = time.Hour })
		began := time.Now()
		mustRefuse(t, s.oidc, s.sign(t, issuer.Claims{}), sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestACallerWhoLeavesDoesNotStopTheFetchForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		s.web.set(func(w *web) { w.delay = time.Second })
		token := auth.NewSecret(s.sign(t, issuer.Claims{}))
		hasty, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var hastyErr, patientErr error
		var group sync.WaitGroup
		group.Go(func() { _, hastyErr = s.oidc.Authenticate(hasty, token) })
		synctest.Wait() // so that the fetch began for the hasty one
		group.Go(func() { _, patientErr = s.oidc.Authenticate(t.Context(), token) })
		group.Wait()
		if status.Code(hastyErr) != codes.DeadlineExceeded || !errors.Is(hastyErr, context.DeadlineExceeded) {
			t.Errorf("the hasty caller got %v", hastyErr)
		}
		if patientErr != nil {
			t.Errorf("the patient caller got %v", patientErr)
		}
		if n := s.web.fetchesFrom("one.example"); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestAClockThatJumpsDoesNotDoubleTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb()
		i := w.newIssuer(t, firstURL)
		var jump atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		o, err := auth.NewOIDC([]auth.IssuerConfig{config(firstURL)}, auth.WithTransport(w), auth.WithClock(clock))
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		w.set(func(w *web) { w.delay = time.Second })
		token := sign(t, i, issuer.Claims{})
		var group sync.WaitGroup
		var errs [2]error
		for n := range errs {
			group.Go(func() { _, errs[n] = authenticate(t, o, token) })
			synctest.Wait()
			jump.Add(int64(20 * time.Minute))
		}
		group.Wait()
		if errs[0] != nil || errs[1] != nil || w.fetchesFrom("one.example") != 1 {
			t.Errorf("%d fetches, errors %v", w.fetchesFrom("one.example"), errs)
		}

		// Set back, the clock must not forbid fetching for longer than the interval.
		jump.Store(int64(-24 * time.Hour))
		if err := i.Rotate(); err != nil {
			t.Fatal(err)
		}
		token = sign(t, i, issuer.Claims{Issued: clock(), Expiry: clock().Add(time.Hour)})
		back := time.Now()
		every(time.Second, func() bool {
			_, err := authenticate(t, o, token)
			return err != nil && time.Since(back) < time.Hour
		})
		if took := time.Since(back); took > 12*time.Second {
			t.Errorf("after the clock was set back a new key was usable after %v", took)
		}
	})
}

func TestCloseEndsTheFetchUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t)
		s.web.set(func(w *web) { w.delay = time.Hour })
		began := time.Now()
		var group sync.WaitGroup
		token, waiting := s.sign(t, issuer.Claims{}), error(nil)
		group.Go(func() { _, waiting = authenticate(t, s.oidc, token) })
		synctest.Wait()
		s.oidc.Close()
		group.Wait()
		wantRefusal(t, nil, waiting, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
		mustRefuse(t, s.oidc, token, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Close waited %v", waited)
		}
	})
}

func TestT_A5_ABadDocumentNeverDisplacesGoodKeys(t *testing.T) {
	a := newAttacker(t)
	keysURL := firstURL + "/keys"
	attackers := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.curves["256"].Public(), KeyID: "attacker"}}}
	encoded, err := json.Marshal(attackers)
	if err != nil {
		t.Fatal(err)
	}
	many := jose.JSONWebKeySet{}
	for n := range 101 {
		many.Keys = append(many.Keys, jose.JSONWebKey{Key: a.curves["256"].Public(), KeyID: fmt.Sprint(n)})
	}
	for name, handler := range map[string]http.Handler{
		"not found":               http.NotFoundHandler(),
		"server error":            http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"not JSON":                documents(firstURL, keysURL, "<html>"),
		"empty":                   documents(firstURL, keysURL, ""),
		"no keys":                 documents(firstURL, keysURL, `{"keys":[]}`),
		"null":                    documents(firstURL, keysURL, `null`),
		"shared secrets":          documents(firstURL, keysURL, `{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"attacker"}]}`),
		"private key":             documents(firstURL, keysURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.curves["256"], KeyID: "attacker"}}}),
		"encryption keys":         documents(firstURL, keysURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.curves["256"].Public(), Use: "enc"}}}),
		"too many keys":           documents(firstURL, keysURL, many),
		"over 1 MiB":              documents(firstURL, keysURL, strings.Repeat(" ", 1<<20)+string(encoded)),
		"far over 1 MiB":          documents(firstURL, keysURL, strings.Repeat(" ", 8<<20)+string(encoded)),
		"another issuer's":        documents(secondURL, keysURL, attackers),
		"with slash":              documents(firstURL+"/", keysURL, attackers),
		"no issuer":               documents("", keysURL, attackers),
		"keys over http":          documents(firstURL, "http://one.example/keys", attackers),
		"keys on loopback":        documents(firstURL, "http://127.0.0.1/keys", attackers),
		"keys from a file":        documents(firstURL, "file:///keys", attackers),
		"keys with a user":        documents(firstURL, "https://user:pass@one.example/keys", attackers),
		"no keys URL":             documents(firstURL, "", attackers),
		"redirect to other host":  http.RedirectHandler("https://attacker.example/", http.StatusFound),
		"redirect to plain http":  http.RedirectHandler("http://one.example/", http.StatusFound),
		"redirect without an end": http.RedirectHandler("https://one.example/again", http.StatusFound),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSingle(t)
				good := s.sign(t, issuer.Claims{})
				mustAccept(t, s.oidc, good)
				s.web.set(func(w *web) { w.hosts["one.example"] = handler })
				<-time.After(10 * time.Second) // until another fetch is allowed
				_, err := authenticate(t, s.oidc, unknownKey(t, "attacker"))
				wantRefusal(t, nil, err, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
				mustAccept(t, s.oidc, good)
				if len(s.web.strays) > 0 {
					t.Errorf("the gateway asked %v", s.web.strays)
				}

				fresh := s.web.newOIDC(t, config(firstURL))
				mustRefuse(t, fresh, good, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
			})
		})
	}
}

func TestRedirectsAreFollowedOnlySoFar(t *testing.T) {
	s := newSingle(t)
	var asked atomic.Int64
	s.web.set(func(w *web) {
		w.hosts["one.example"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) > 100 {
				http.NotFound(w, r)
				return
			}
			http.Redirect(w, r, r.URL.Path+"again", http.StatusFound)
		})
	})
	mustRefuse(t, s.oidc, s.sign(t, issuer.Claims{}), sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
	if n := asked.Load(); n > 5 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestUnusableKeysAreSkipped(t *testing.T) {
	s := newSingle(t)
	recorder := httptest.NewRecorder()
	s.issuer.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/keys", nil))
	listed := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(recorder.Body.String()), `{"keys":[`), "]}")
	set := `{"keys":[{"kty":"new"},{"kty":"EC","crv":"secp256k1","alg":"ES256K"},{"kty":"oct","k":"AA"},7,{"kty":"RSA","n":"AQAB","e":"AQAB"},` + listed + `]}`
	s.web.set(func(w *web) { w.hosts["one.example"] = documents(firstURL, firstURL+"/keys", set) })
	mustAccept(t, s.oidc, s.sign(t, issuer.Claims{}))
}

func TestTokensWithoutKeyIDAreTriedAgainstAllKeys(t *testing.T) {
	a := newAttacker(t)
	w := newWeb()
	decoys := newAttacker(t)
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: decoys.rsa.Public(), KeyID: "one"}, {Key: decoys.curves["256"].Public(), KeyID: "two"}, {Key: a.curves["256"].Public(), KeyID: "three"},
	}}
	w.republish("one.example", firstURL, set)
	o := w.newOIDC(t, config(firstURL))
	payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":%d}`, firstURL, audience, time.Now().Add(time.Hour).Unix())
	unsigned := strings.TrimSuffix(forge(t, `{"alg":"ES256"}`, payload, nil), ".")
	signature := a.sign(t, "ES256", unsigned, nil)
	token := forge(t, `{"alg":"ES256"}`, payload, signature)
	if p := mustAccept(t, o, token); p.KeyID != "three" {
		t.Errorf("verified with key %q", p.KeyID)
	}
	signature[10] ^= 1
	mustRefuse(t, o, forge(t, `{"alg":"ES256"}`, payload, signature), sluicev1.Reason_REASON_INVALID_TOKEN)
}

func TestARealIssuerIsReachedOverTLSWithItsOwnCA(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	url := "https://" + server.Listener.Addr().String()
	i, err := issuer.New(url)
	if err != nil {
		t.Fatal(err)
	}
	// The first answer is a redirect within the origin, which is followed.
	handler := i.Handler()
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
			return
		}
		handler.ServeHTTP(w, r)
	})
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the refused handshake is expected
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})

	for _, tc := range []struct {
		ca      []byte
		trusted bool
	}{{ca, true}, {nil, false}} {
		o, err := auth.NewOIDC([]auth.IssuerConfig{{URL: url, Audiences: []string{audience}, CA: tc.ca}})
		if err != nil {
			t.Fatal(err)
		}
		if tc.trusted {
			mustAccept(t, o, sign(t, i, issuer.Claims{}))
		} else {
			mustRefuse(t, o, sign(t, i, issuer.Claims{}), sluicev1.Reason_REASON_ISSUER_UNAVAILABLE)
		}
		o.Close()
	}
}
