package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object names one that the writer changes.
type object struct{ resource, namespace, name string }

// version is what the writer has made of an object. n is 0 while it does not exist.
type version struct{ n, shard int }

// change is one write that the API server took.
type change struct {
	object
	before, after version
}

// selection is what a watch is for. No two have the same selector, so that the recorder's log tells them apart.
type selection struct {
	index     int
	writer    string // whose objects
	resource  string
	namespace string // empty for all
	shards    []int  // empty for all
}

// writtenBy is the label with a writer's name: there are objects of other tests, and of the API server's own.
const writtenBy = "written-by"

func (s selection) labels() string {
	l := fmt.Sprintf("%s=%s,!w%d", writtenBy, s.writer, s.index)
	if len(s.shards) > 0 {
		l += fmt.Sprintf(",shard in (%s)", strings.Trim(strings.ReplaceAll(fmt.Sprint(s.shards), " ", ","), "[]"))
	}
	return l
}

func (s selection) path() string {
	if s.namespace == "" {
		return "/api/v1/" + s.resource
	}
	return "/api/v1/namespaces/" + s.namespace + "/" + s.resource
}

func (s selection) String() string { return s.path() + "?" + s.labels() }

// selects says whether an object of that version is one of the watch's.
func (s selection) selects(o object, v version) bool {
	return v.n > 0 && o.resource == s.resource && (s.namespace == "" || o.namespace == s.namespace) &&
		(len(s.shards) == 0 || slices.Contains(s.shards, v.shard))
}

// event is what a watch tells: a change, or the beginning or end of a list.
type event struct {
	kind string
	object
	n int
}

// Kinds of event beside ADDED, MODIFIED and DELETED.
const (
	listBegins = "RESYNC_BEGIN"
	listEnds   = "RESYNC_END"
)

// events is what the API server tells a watch of changes. An object that is not selected any more is DELETED, with what it was before.
func (s selection) events(changes []change) []event {
	var out []event
	for _, c := range changes {
		was, is := s.selects(c.object, c.before), s.selects(c.object, c.after)
		switch {
		case was && is:
			out = append(out, event{"MODIFIED", c.object, c.after.n})
		case is:
			out = append(out, event{"ADDED", c.object, c.after.n})
		case was:
			out = append(out, event{"DELETED", c.object, c.before.n})
		}
	}
	return out
}

// state is what there is: the number of each object's last change.
type state map[object]int

// fold applies an event. It fails if the event cannot follow what there is.
func (s state) fold(e event) error {
	n, known := s[e.object]
	switch e.kind {
	case "ADDED":
		if known {
			return fmt.Errorf("%v of an object that is there already, as %d", e, n)
		}
		s[e.object] = e.n
	case "MODIFIED":
		if !known {
			return fmt.Errorf("%v of an object that is not there", e)
		}
		s[e.object] = e.n
	case "DELETED":
		if !known {
			return fmt.Errorf("%v of an object that is not there", e)
		}
		delete(s, e.object)
	default:
		return fmt.Errorf("%v is no change", e)
	}
	return nil
}

// oracle follows what one watch tells and holds it against what the API server told all watches of its kind.
type oracle struct {
	said []event // what the API server said, from the beginning

	at      []int // how much of said may have been told: one number, but for a list that looks alike at several times
	listing state // the list that is being told; nil outside of one
	resyncs int   // lists that replaced what was known
}

// next takes the next event that the watch told, and fails if it is not the one that must follow.
func (o *oracle) next(e event) error {
	switch {
	case e.kind == listBegins:
		if o.listing == nil { // a list that is begun again was announced already
			o.resyncs++
		}
		o.listing = state{}
		return nil
	case e.kind == listEnds:
		return o.listed()
	case o.listing != nil:
		return o.listing.fold(e)
	}
	follows := o.at[:0:0]
	for _, k := range o.at {
		if k < len(o.said) && o.said[k] == e {
			follows = append(follows, k+1)
		}
	}
	if len(follows) == 0 {
		return fmt.Errorf("told %v after %d events; %s", e, o.at[0], o.around(o.at[0]))
	}
	o.at = follows
	return nil
}

// listed ends a list: it must show everything as it was at one moment, which is not before what was told already.
func (o *oracle) listed() error {
	if o.listing == nil {
		return errors.New("the end of a list that did not begin")
	}
	earliest := 0
	if len(o.at) > 0 {
		earliest = o.at[0]
	}
	o.at = nil
	moment := state{}
	for k := 0; k <= len(o.said); k++ {
		if k > 0 {
			if err := moment.fold(o.said[k-1]); err != nil {
				return fmt.Errorf("the history makes no sense: %w", err)
			}
		}
		if k >= earliest && maps.Equal(moment, o.listing) {
			o.at = append(o.at, k)
		}
	}
	if len(o.at) == 0 {
		return fmt.Errorf("a list that shows no moment from the %dth event on: %v", earliest, o.listing)
	}
	o.listing = nil
	return nil
}

// around shows what the API server said about there.
func (o *oracle) around(k int) string {
	return fmt.Sprintf("the API server said %v, then %v", o.said[max(0, k-3):min(k, len(o.said))], o.said[min(k, len(o.said)):min(k+4, len(o.said))])
}

// judge holds everything that a watch told, whose first list is not announced, against the history.
func judge(s selection, changes []change, told []event) (resyncs int, err error) {
	o := &oracle{said: s.events(changes), listing: state{}}
	for i, e := range told {
		if err := o.next(e); err != nil {
			return o.resyncs, fmt.Errorf("watch %v: event %d: %w", s, i, err)
		}
	}
	if o.listing != nil || !slices.Contains(o.at, len(o.said)) {
		return o.resyncs, fmt.Errorf("watch %v: it ended in a list or after %v of %d events", s, o.at, len(o.said))
	}
	return o.resyncs, nil
}
