package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/status"
)

// listMeta is what a bridge needs of metav1.ListMeta.
type listMeta struct {
	ResourceVersion string `json:"resourceVersion"`
	Continue        string `json:"continue"`
}

// beginNow finds the version from which on there are only changes, and gives it to the client as the end of a list that it did not ask for:
// so it has a cursor even before the first change.
func (w *watch) beginNow(ctx context.Context) error {
	q := selection(w.target)
	q.Set("limit", "1")
	meta, err := w.readPage(ctx, q, func() {}, func(*objects, json.RawMessage) error { return nil })
	if err != nil {
		return err
	}
	w.stands("")
	w.endList(meta.ResourceVersion)
	return nil
}

// listPages sends the objects there are as ADDED events, page by page, for API servers that do not stream lists.
func (w *watch) listPages(ctx context.Context) error {
	w.queue = queues.Get().(*queue)
	w.events.queue = w.queue
	defer func() { w.queue.release(); w.queue = nil }()
	q := selection(w.target)
	q.Set("limit", strconv.Itoa(w.opts.PageSize))
	begun := func() {
		w.stands("")
		w.beginList()
	}
	version := ""
	for {
		p := pageWriter{watch: w, ctx: ctx}
		meta, err := w.readPage(ctx, q, begun, p.add)
		if err == nil {
			err = p.flush()
		}
		if err != nil {
			return err
		}
		if version == "" {
			version = meta.ResourceVersion // pages of one list are of one version
		}
		if meta.Continue == "" {
			w.endList(version)
			return nil
		}
		q.Set("continue", meta.Continue)
		begun = func() { w.stands("") }
	}
}

// pageWriter makes events of objects and hands them over, several at a time.
type pageWriter struct {
	*watch
	ctx  context.Context
	size int // bytes that are queued
}

// add queues one object as an event.
func (p *pageWriter) add(o *objects, object json.RawMessage) error {
	event := o.event(object)
	text := utf8.Valid(event)
	for size := p.ch.MaxPiece(); ; event = event[size:] {
		last := len(event) <= size
		if last {
			size = len(event)
		}
		if _, err := p.events.add(event[:size], text, last); err != nil {
			return err
		}
		if last {
			break
		}
	}
	if p.size += len(object); p.size >= maxRun/2 {
		return p.flush()
	}
	return nil
}

// flush hands over what is queued, waiting for credit as it must.
func (p *pageWriter) flush() error {
	for {
		need := p.offer()
		if need == 0 {
			break
		}
		if err := p.await(p.ctx, need); err != nil {
			return err
		}
	}
	p.queue.reset()
	p.size = 0
	return nil
}

// objects is what of a list was read before its items.
type objects struct {
	kind, apiVersion string
}

// event is an object as the event that a watch would begin with. In the lists of built-in kinds the objects lack what the list says for all.
func (o *objects) event(object json.RawMessage) []byte {
	b := make([]byte, 0, len(object)+len(o.kind)+len(o.apiVersion)+64)
	b = append(b, `{"type":"ADDED","object":`...)
	var own struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if kind, isList := strings.CutSuffix(o.kind, "List"); isList && json.Unmarshal(object, &own) == nil && own.Kind == "" && own.APIVersion == "" {
		b = append(b, '{')
		b = appendMember(b, "kind", kind)
		b = appendMember(b, "apiVersion", o.apiVersion)
		object = bytes.TrimLeft(object[1:], " \t\r\n")
		if object[0] == '}' {
			b = b[:len(b)-1] // the comma
		}
	}
	b = append(b, object...)
	return append(b, "}\n"...)
}

// appendMember appends a member of an object, and a comma.
func appendMember(b []byte, name, value string) []byte {
	quoted, err := json.Marshal(value)
	if err != nil {
		panic("a string cannot be marshalled: " + err.Error()) // there is none
	}
	b = append(append(append(b, '"'), name...), `":`...)
	return append(append(b, quoted...), ',')
}

// readPage asks for one page, calls begun once the API server has granted it, and then each for every object, which is valid until each
// returns. It holds one object at a time.
func (w *watch) readPage(ctx context.Context, q url.Values, begun func(), each func(*objects, json.RawMessage) error) (*listMeta, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := w.up.Get(ctx, watchPath(w.target), q)
	if err != nil {
		return nil, refused(err)
	}
	begun()
	body := &body{Reader: res.Body, timeout: w.opts.BodyTimeout, limit: w.opts.ObjectBytes}
	body.timer = time.AfterFunc(body.timeout, cancel)
	defer func() {
		body.timer.Stop()
		_ = res.Body.Close() // everything of interest was read
	}()
	r := listReader{body: body, json: json.NewDecoder(body), each: each}
	return &r.meta, r.read()
}

// body reads an answer: never for long without a byte, and no more at once than an object may have.
type body struct {
	io.Reader
	timeout time.Duration
	limit   int
	timer   *time.Timer // ends the answer
	left    int         // bytes until limit
}

var (
	errTooLarge = errors.New("the object is too large")
	errNotList  = errors.New("not a list")
)

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	b.timer.Reset(b.timeout)
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.timer.Stop()
	b.left -= n
	return n, err
}

// renew allows one object more.
func (b *body) renew() { b.left = b.limit }

// explain is a failure to read the list as the end of an upstream, or of the watch if another attempt would find the same.
func (b *body) explain(err error) error {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errTooLarge):
		return status.Limit("limits.message_bytes", "an object of the list is larger than %d bytes", b.limit)
	case errors.As(err, &syntax), errors.As(err, &mismatch), errors.Is(err, errNotList):
		return brokenEvent("what came is not a list").Wrap(err)
	}
	return lost(err)
}

// listReader takes a list apart as it arrives
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#collections).
type listReader struct {
	*body
	json *json.Decoder
	each func(*objects, json.RawMessage) error
	said objects
	meta listMeta
}

// read reads the whole list.
func (r *listReader) read() error {
	r.renew()
	if err := r.expect('{'); err != nil {
		return err
	}
	for r.json.More() {
		r.renew()
		name, err := r.json.Token()
		if err != nil {
			return r.explain(err)
		}
		if err := r.member(name); err != nil {
			return err
		}
	}
	return r.expect('}')
}

// member reads the value of a member of the list.
func (r *listReader) member(name json.Token) error {
	var into any = new(json.RawMessage)
	switch name {
	case "kind":
		into = &r.said.kind
	case "apiVersion":
		into = &r.said.apiVersion
	case "metadata":
		into = &r.meta
	case "items":
		return r.items()
	}
	if err := r.json.Decode(into); err != nil {
		return r.explain(err)
	}
	return nil
}

func (r *listReader) items() error {
	begin, err := r.json.Token()
	switch {
	case err != nil:
		return r.explain(err)
	case begin == nil: // null
		return nil
	case begin != json.Delim('['):
		return r.explain(errNotList)
	}
	var object json.RawMessage
	for r.json.More() {
		r.renew()
		if err := r.json.Decode(&object); err != nil {
			return r.explain(err)
		}
		if len(object) == 0 || object[0] != '{' {
			return r.explain(errNotList)
		}
		if err := r.each(&r.said, object); err != nil {
			return err
		}
	}
	return r.expect(']')
}

func (r *listReader) expect(d json.Delim) error {
	t, err := r.json.Token()
	if err == nil && t != d {
		err = errNotList
	}
	if err != nil {
		return r.explain(err)
	}
	return nil
}
