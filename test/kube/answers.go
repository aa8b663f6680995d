package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answerTimeout bounds one question; the answers come within milliseconds.
const answerTimeout = 30 * time.Second

// AnswersTarget is an API server that [Answers] puts its questions to.
type AnswersTarget struct {
	URL   string         // https, without a trailing slash
	Roots *x509.CertPool // verifies the server's certificate

	// Namespace exists. The objects in it that Resource names are changed by
	// nobody else meanwhile.
	Namespace string

	// Resource is the kind of object asked about: namespaced, of the core group,
	// "configmaps" or "pods".
	Resource string

	Objects AnswersObjects
	Tokens  AnswersTokens
}

// AnswersTokens are bearer tokens of four kinds.
type AnswersTokens struct {
	// Permitted is of a user who may get, list and watch Resource and
	// [UnknownResource] (also of an API group that does not exist).
	Permitted string

	// Unpermitted is of an authenticated user who may do none of that.
	Unpermitted string

	Expired       string // would be Permitted, but has expired
	WrongAudience string // would be Permitted, but is made out to somebody else

	// Admin is of a user who may do everything; [AccessAnswers] alone asks for it.
	Admin string
}

// AnswersObjects changes the objects of an [AnswersTarget].
type AnswersObjects interface {
	// Put creates the object, or changes it in some way that depends on value.
	Put(ctx context.Context, name, value string) error

	// Delete deletes the object at once.
	Delete(ctx context.Context, name string) error

	// Expire makes every resourceVersion given out so far too old to resume from.
	// It returns when the server answers again.
	Expire(ctx context.Context) error
}

// Answers checks, a subtest for each, what an API server answers to the requests
// a gateway makes: to watches over WebSocket, to lists, discovery and refused
// requests. Every expectation was first measured on kube-apiserver 1.37; the
// table runs against that and against every stand-in, which so cannot drift into
// fiction.
func Answers(t *testing.T, target AnswersTarget) {
	putQuestions(t, target, []answerGroup{
		{"discovery", discoveryAnswers},
		{"refusal", refusalAnswers()},
		{"list", listAnswers},
		{"watch", watchAnswers},
		{"expiry", expiryAnswers},
	})
}

// StreamAnswers is [Answers] for what comes from a node: logs, exec, attach and
// port-forward. In the target's namespace are the pods of
// [Cluster.RunSamplePods], whose processes nobody else talks to meanwhile, and
// the permitted user may do all of it. Objects and Resource are not looked at.
func StreamAnswers(t *testing.T, target AnswersTarget) {
	putQuestions(t, target, []answerGroup{
		{"logs", logAnswers()},
		{"exec", execAnswers()},
		{"attach", attachAnswers()},
		{"port-forward", forwardAnswers()},
	})
}

// AccessAnswers is [Answers] for who somebody is and what they may do: service
// accounts and their tokens, roles and bindings, reviews of access and of tokens,
// and impersonation. It makes what it needs as the administrator; Objects and
// Resource are not looked at.
func AccessAnswers(t *testing.T, target AnswersTarget) {
	putQuestions(t, target, []answerGroup{
		{"access review", accessAnswers()},
		{"permission", permissionAnswers},
		{"token", tokenAnswers},
		{"impersonation", impersonationAnswers},
	})
}

// answerGroup is what is asked about one thing.
type answerGroup struct {
	name string
	rows []answer
}

func putQuestions(t *testing.T, target AnswersTarget, groups []answerGroup) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: target.Roots}}
	t.Cleanup(transport.CloseIdleConnections)
	for _, group := range groups {
		t.Run(group.name, func(t *testing.T) {
			for _, row := range group.rows {
				t.Run(row.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 4*answerTimeout)
					defer cancel()
					row.check(&asker{T: t, AnswersTarget: target, ctx: ctx, transport: transport})
				})
			}
		})
	}
}

// answer is one row of the table.
type answer struct {
	name  string
	check func(*asker)
}

// asker puts the questions of one row.
type asker struct {
	*testing.T
	AnswersTarget

	// Immutable after Answers made it.
	ctx       context.Context
	transport http.RoundTripper
}

// collection is the path of the objects asked about.
func (a *asker) collection() string {
	return "/api/v1/namespaces/" + a.Namespace + "/" + a.Resource
}

// got is an answer that is not a stream.
type got struct {
	code   int
	header http.Header
	body   []byte
}

// get asks for path, with its query, as the bearer of token; it follows no
// redirects.
func (a *asker) get(token, path string) got {
	a.Helper()
	return a.send(http.MethodGet, path, "", bearer(token))
}

// send sends a request with a body, unless that is empty, in JSON.
func (a *asker) send(method, path, body string, header http.Header) got {
	a.Helper()
	request, err := http.NewRequestWithContext(a.ctx, method, a.URL+path, strings.NewReader(body))
	a.must(err)
	request.Header = header
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Transport: a.transport, Timeout: answerTimeout}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	a.must(err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	a.must(err)
	return got{response.StatusCode, response.Header, answer}
}

// getInto asks as the permitted user and decodes the JSON answer, which must be
// a 200.
func (a *asker) getInto(path string, into any) {
	a.Helper()
	answer := a.get(a.Tokens.Permitted, path)
	if answer.code != http.StatusOK {
		a.Fatalf("GET %s: %d %s", path, answer.code, answer.body)
	}
	if kind := answer.header.Get("Content-Type"); kind != "application/json" {
		a.Errorf("GET %s: Content-Type %q", path, kind)
	}
	a.must(json.Unmarshal(answer.body, into))
}

// handshake is what is said in a WebSocket handshake besides the path.
type handshake struct {
	token     string
	origin    string
	protocols []string
	header    http.Header // further fields
	frame     int         // longest payload of a frame; messages that are longer go in several
}

// longFrame is more than any message of a row has.
const longFrame = 64 << 10

// properly is the handshake of a permitted watch.
func (a *asker) properly() handshake {
	return handshake{token: a.Tokens.Permitted, origin: a.URL}
}

// dial opens a WebSocket at path. With 101 the socket is not nil and is closed
// with the test; otherwise the answer tells why not.
func (a *asker) dial(say handshake, path string) (*websocket.Conn, got) {
	a.Helper()
	header := bearer(say.token)
	maps.Copy(header, say.header)
	if say.origin != "" {
		header.Set("Origin", say.origin)
	}
	dialer := websocket.Dialer{
		TLSClientConfig:  &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Roots},
		HandshakeTimeout: answerTimeout, Subprotocols: say.protocols,
		WriteBufferSize: cmp.Or(say.frame, longFrame),
	}
	socket, response, err := dialer.DialContext(a.ctx, "wss"+strings.TrimPrefix(a.URL, "https")+path, header)
	if response == nil {
		a.Fatalf("dial %s: %v", path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body) // gorilla keeps the first kilobyte
	a.must(err)
	if socket != nil {
		a.Cleanup(func() { socket.Close() })
		a.must(socket.SetReadDeadline(time.Now().Add(answerTimeout)))
	}
	return socket, got{response.StatusCode, response.Header, body}
}

func bearer(token string) http.Header {
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// status decodes the metav1.Status of a refusal.
func (a *asker) status(answer got) metav1.Status {
	a.Helper()
	var status metav1.Status
	if err := json.Unmarshal(answer.body, &status); err != nil {
		a.Fatalf("%d with a body that is no JSON: %v: %q", answer.code, err, answer.body)
	}
	return status
}

func (a *asker) must(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

func (a *asker) put(name, value string) {
	a.Helper()
	a.must(a.Objects.Put(a.ctx, name, value))
}

func (a *asker) delete(name string) {
	a.Helper()
	a.must(a.Objects.Delete(a.ctx, name))
}

// putAll puts several and returns what deletes them.
func (a *asker) putAll(names ...string) (deleteAll func()) {
	a.Helper()
	for _, name := range names {
		a.put(name, "1")
	}
	return func() {
		for _, name := range names {
			a.delete(name)
		}
	}
}
