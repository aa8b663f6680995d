package kubetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// The values of resourceVersionMatch.
const (
	exactly      = "Exact"
	notOlderThan = "NotOlderThan"
)

// listOptions are metav1.ListOptions as the query of a list or watch gives them.
type listOptions struct {
	kind      *Kind
	selector  selector
	watch     bool
	bookmarks bool
	version   string
	match     string
	timeout   time.Duration // 0: the server's choice
	limit     int
	resume    string // the query's continue
	initial   *bool  // the query's sendInitialEvents
}

// parseListOptions reads and validates a query as the API server does, which
// answers 400 for what it cannot read and 422 for what does not fit together.
func parseListOptions(k *Kind, namespace string, q url.Values, watchList bool) (*listOptions, error) {
	o := &listOptions{
		kind: k, watch: truthy(q, "watch"), bookmarks: truthy(q, "allowWatchBookmarks"),
		version: q.Get("resourceVersion"), match: q.Get("resourceVersionMatch"), resume: q.Get("continue"),
	}
	if err := o.parseNumbers(q); err != nil {
		return nil, err
	}
	if q.Has("sendInitialEvents") {
		on := truthy(q, "sendInitialEvents")
		o.initial = &on
	}
	if err := o.validate(watchList); err != nil {
		return nil, err
	}
	if err := o.parseSelectors(namespace, q); err != nil {
		return nil, err
	}
	return o, nil
}

// truthy reads a boolean parameter: present is true unless it says false or 0.
func truthy(q url.Values, name string) bool {
	switch v := q.Get(name); strings.ToLower(v) {
	case "false", "0":
		return false
	default:
		return q.Has(name)
	}
}

func (o *listOptions) parseNumbers(q url.Values) error {
	number := func(name string) (int, error) {
		if q.Get(name) == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil {
			return 0, badRequest("strconv.ParseInt: parsing %q: invalid syntax", q.Get(name))
		}
		return int(n), nil
	}
	seconds, err := number("timeoutSeconds")
	if err != nil {
		return err
	}
	o.timeout = time.Duration(seconds) * time.Second
	o.limit, err = number("limit")
	return err
}

func (o *listOptions) parseSelectors(namespace string, q url.Values) error {
	labels, err := parseLabels(q.Get("labelSelector"))
	if err != nil {
		return err
	}
	fields, err := parseFields(o.kind, q.Get("fieldSelector"))
	if err != nil {
		return err
	}
	o.selector = selector{namespace: namespace, labels: labels, fields: fields}
	return nil
}

// validate applies KEP-3157's defaulting (a watch from no version or from 0
// asks for initial events) and the rules of metav1.ListOptions.
func (o *listOptions) validate(watchList bool) error {
	if watchList && o.watch && o.initial == nil && o.match == "" && (o.version == "" || o.version == "0") {
		on := true
		o.initial, o.match = &on, notOlderThan
	}
	causes := o.listCauses()
	if o.watch {
		causes = o.watchCauses(watchList)
	}
	if len(causes) > 0 {
		return invalid("meta.k8s.io", "ListOptions", "", causes...)
	}
	return nil
}

func (o *listOptions) listCauses() (causes []StatusCause) {
	const field = "resourceVersionMatch"
	if o.match != "" {
		if o.version == "" {
			causes = append(causes, forbiddenField(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
		}
		if o.resume != "" {
			causes = append(causes, forbiddenField(field, "resourceVersionMatch is forbidden when continue is provided"))
		}
		if o.match != exactly && o.match != notOlderThan {
			causes = append(causes, unsupportedValue(field, o.match, exactly, notOlderThan, ""))
		}
		if o.match == exactly && o.version == "0" {
			causes = append(causes, forbiddenField(field, `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`))
		}
	}
	if o.initial != nil {
		causes = append(causes, forbiddenField("sendInitialEvents", "sendInitialEvents is forbidden for list"))
	}
	return causes
}

func (o *listOptions) watchCauses(watchList bool) (causes []StatusCause) {
	const field = "resourceVersionMatch"
	if o.initial != nil {
		if o.match != notOlderThan {
			causes = append(causes, forbiddenField(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
		}
		if !watchList {
			causes = append(causes, forbiddenField("sendInitialEvents", "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"))
		}
	}
	if o.match == "" {
		return causes
	}
	if o.initial == nil {
		causes = append(causes, forbiddenField(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
	}
	if o.match != notOlderThan {
		causes = append(causes, unsupportedValue(field, o.match, notOlderThan))
	}
	if o.resume != "" {
		causes = append(causes, forbiddenField(field, "resourceVersionMatch is forbidden when continue is provided"))
	}
	return causes
}

// parseVersion reads a resource version; "" is 0. The error's text is the API server's.
func parseVersion(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion: Invalid value: %q: %w", text, err)
	}
	return v, nil
}

// continueToken is where a paginated list goes on: after key Start, at the
// version the first page showed, or at the present if that is negative.
type continueToken struct {
	APIVersion string `json:"v"`
	Version    int64  `json:"rv"`
	Start      string `json:"start"`
}

func (c continueToken) encode() string {
	data, err := json.Marshal(c)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func decodeContinue(text string) (continueToken, error) {
	const invalid = "continue key is not valid"
	var c continueToken
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return c, fmt.Errorf("%s: %w", invalid, err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", invalid, err)
	}
	switch {
	case c.APIVersion != "meta.k8s.io/v1":
		return c, fmt.Errorf("%s: server does not recognize this encoded version %s", invalid, c.APIVersion)
	case c.Version == 0:
		return c, fmt.Errorf("%s: incorrect encoded start resourceVersion (version meta.k8s.io/v1)", invalid)
	case c.Start == "":
		return c, fmt.Errorf("%s: encoded start key empty (version meta.k8s.io/v1)", invalid)
	case path.Clean("/"+c.Start) != "/"+c.Start:
		return c, fmt.Errorf("%s: %s", invalid, c.Start)
	}
	return c, nil
}

// page is what a list asks of the store, once its versions are understood.
type page struct {
	version uint64 // show this version; 0 for now
	minimum uint64 // and refuse if the store is older than this
	after   string // begin after this key
	limit   int    // 0 for no limit
	resumed bool
}

// page resolves resourceVersion, resourceVersionMatch, continue and limit
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list).
func (o *listOptions) page() (page, error) {
	p := page{limit: o.limit}
	if o.resume != "" {
		c, err := decodeContinue(o.resume)
		if err != nil {
			return p, badRequest("invalid continue token: %v", err)
		}
		if o.version != "" && o.version != "0" {
			return p, badRequest("specifying resource version is not allowed when using continue")
		}
		p.after, p.resumed, p.version = c.Start, true, uint64(max(c.Version, 0))
		return p, nil
	}
	version, err := parseVersion(o.version)
	if err != nil {
		return p, badRequest("invalid resource version: %v", err)
	}
	p.minimum = version
	switch {
	case o.match == exactly, o.match == "" && o.limit > 0 && version > 0:
		p.version = version
	case o.version == "0":
		p.limit = 0 // answered from the watch cache, which knows no pages
	}
	return p, nil
}

func (s *Server) serveList(w http.ResponseWriter, r *http.Request, o *listOptions) error {
	p, err := o.page()
	if err != nil {
		return err
	}
	if current := s.store.current(); max(p.minimum, p.version) > current {
		return futureVersion(max(p.minimum, p.version), current)
	}
	objects, version, ok := s.store.snapshot(o.kind, p.version)
	if !ok {
		return expiredList(p)
	}
	writeJSON(w, r, http.StatusOK, encodeList(o, p, objects, version))
	return nil
}

// expiredList is the answer to a list at a version that history has lost.
func expiredList(p page) *Status {
	if !p.resumed {
		return expired("The resourceVersion for the provided list is too old.")
	}
	s := expired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response " +
		"to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - " +
		"objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	s.Metadata.Continue = continueToken{APIVersion: "meta.k8s.io/v1", Version: -1, Start: p.after}.encode()
	return s
}

// listMeta is metav1.ListMeta.
type listMeta struct {
	ResourceVersion    string `json:"resourceVersion"`
	Continue           string `json:"continue,omitempty"`
	RemainingItemCount *int   `json:"remainingItemCount,omitempty"`
}

// encodeList prints one page of the sorted objects.
func encodeList(o *listOptions, p page, objects []*revision, version uint64) []byte {
	items, rest := cutPage(o, p, objects)
	meta := listMeta{ResourceVersion: strconv.FormatUint(version, 10)}
	if len(rest) > 0 {
		last := items[len(items)-1].path
		meta.Continue = continueToken{APIVersion: "meta.k8s.io/v1", Version: int64(version), Start: last + "\x00"}.encode()
		if o.selector.everything() {
			n := len(rest)
			meta.RemainingItemCount = &n
		}
	}
	return assembleList(o.kind, meta, items)
}

// cutPage selects the objects of this page, and those of the pages to come if
// there is at least one more.
func cutPage(o *listOptions, p page, objects []*revision) (items, rest []*revision) {
	var selected []*revision
	for _, r := range objects {
		if o.selector.matches(r) && (p.after == "" || r.path+"\x00" > p.after) {
			selected = append(selected, r)
		}
	}
	if p.limit <= 0 || len(selected) <= p.limit {
		return selected, nil
	}
	return selected[:p.limit], selected[p.limit:]
}

func assembleList(k *Kind, meta listMeta, items []*revision) []byte {
	head, err := json.Marshal(meta)
	if err != nil {
		return nil
	}
	size := 256 + len(head)
	for _, r := range items {
		size += len(r.item) + 1
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	if k.builtin {
		fmt.Fprintf(b, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, k.Kind+"List", k.groupVersion(), head)
	} else {
		fmt.Fprintf(b, `{"apiVersion":%q,"items":[`, k.groupVersion())
	}
	for i, r := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.item)
	}
	b.WriteByte(']')
	if !k.builtin {
		fmt.Fprintf(b, `,"kind":%q,"metadata":%s`, k.Kind+"List", head)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func (s *Server) serveGet(w http.ResponseWriter, r *http.Request, k *Kind, at key) error {
	version, err := parseVersion(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return badRequest("invalid resource version: %v", err)
	}
	if current := s.store.current(); version > current {
		return futureVersion(version, current)
	}
	found, err := s.store.get(k, at)
	if err != nil {
		return err
	}
	writeJSON(w, r, http.StatusOK, found.encoded)
	return nil
}
