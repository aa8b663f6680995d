package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// protocols are what the web port speaks to pages.
var protocols = []string{"grpc-web", "connect"}

// cells are a row of the page's table.
type cells struct{ Namespace, Name, Note string }

// note is a text that any layer could spoil: umlauts, Japanese, signs beyond the BMP alone and joined, a line separator, what HTML and JSON
// would read as something else.
const note = "Grüße – \u65e5\u672c\u8a9e \U0001f680 \U0001f469\u200d\U0001f467 \u2028 <b>&amp;</b> \\u0041"

// TestAPageFollowsPods in the real cluster: those that were there, one that comes, and one that goes; and when the page aborts the watch,
// it ends at the API server.
func TestAPageFollowsPods(t *testing.T) {
	s := newSetup(t)
	for _, protocol := range protocols {
		before, after := "before-"+protocol, "after-"+protocol
		s.createPod(before, note)
		page := s.page("console.example")
		s.api.Reset()
		page.call(nil, "watch", s.watching("pods", speaking(protocol)))
		s.shows(page, cells{kube.Namespace, before, note})
		s.createPod(after, "created during the watch")
		s.shows(page, cells{kube.Namespace, after, "created during the watch"})
		s.deletePod(before)
		page.call(nil, "gone", before)
		s.shows(page, cells{kube.Namespace, after, "created during the watch"})

		if running := s.watches(false); running != 1 {
			t.Errorf("%s: %d watches run at the API server", protocol, running)
		}
		page.call(nil, "abort")
		var end end
		page.call(&end, "ended")
		if end.Code != "Canceled" {
			t.Errorf("%s: the page's watch ended with %v", protocol, end)
		}
		s.untilNothingIsLeft()
		s.deletePod(after)
	}
}

// TestAPageFollowsTheEmbeddedCluster as it does a real one.
func TestAPageFollowsTheEmbeddedCluster(t *testing.T) {
	s := newSetup(t)
	s.apply("before", note)
	page := s.page("console.example")
	page.call(nil, "watch", s.watching("pods", s.embedded))
	s.shows(page, cells{"default", "before", note})
	s.apply("after", "created during the watch")
	s.shows(page, cells{"default", "after", "created during the watch"})
	if err := s.Kube.Delete("", "pods", "default", "before"); err != nil {
		t.Fatal(err)
	}
	page.call(nil, "gone", "before")
}

// TestAMebibyteArrivesWhole, in an object as large as the API server takes.
func TestAMebibyteArrivesWhole(t *testing.T) {
	s := newSetup(t)
	ctx := within(t, time.Minute)
	text := strings.Repeat("0123456789abcde\n", 1<<20/16)
	maps := s.cluster.Admin().CoreV1().ConfigMaps(kube.Namespace)
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "large", Annotations: map[string]string{"note": note}}, Data: map[string]string{"text": text},
	}
	if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := maps.Delete(context.Background(), "large", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	for _, protocol := range protocols {
		page := s.page("console.example")
		page.call(nil, "watch", s.watching("configmaps", speaking(protocol)))
		s.shows(page, cells{kube.Namespace, "large", note})
		var got corev1.ConfigMap
		page.call(&got, "object", "large")
		if got.Data["text"] != text {
			t.Errorf("%s: the object came with %d of %d bytes, or others", protocol, len(got.Data["text"]), len(text))
		}
	}
}

// TestTenThousandEventsArrive, each once and in order, over the list and the changes after it.
func TestTenThousandEventsArrive(t *testing.T) {
	const objects, events = 1000, 10_000
	s := newSetup(t, func(o *rig.Options) { o.Kube.WatchQueue, o.Kube.History = events, events })
	name := func(i int) string { return fmt.Sprintf("pod-%04d", i%objects) } // a list is ordered by name
	var want []string
	for i := range events {
		want = append(want, fmt.Sprintf("event %d", i))
	}
	for _, protocol := range protocols {
		for i := range objects {
			s.apply(name(i), want[i])
		}
		page := s.page("console.example")
		page.call(nil, "watch", s.watching("pods", s.embedded, speaking(protocol)))
		page.call(nil, "events", 1)
		for i := objects; i < events; i++ {
			s.apply(name(i), want[i])
		}
		page.call(nil, "events", events)
		var got []string
		page.call(&got, "notes")
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d events came, not the %d that were, in their order", protocol, len(got), len(want))
		}
		page.close()
	}
}

// shows waits until the page shows a row, as it is.
func (s *setup) shows(page *tab, want cells) {
	s.t.Helper()
	var got cells
	page.call(&got, "shown", want.Name)
	if got != want {
		s.t.Errorf("the page shows %+q, want %+q", got, want)
	}
}

// watches counts those of the recorder's requests that were upgraded, and have ended or not.
func (s *setup) watches(ended bool) (n int) { return countWatches(s.api.Requests(), ended) }

func countWatches(all []kube.Request, ended bool) (n int) {
	for _, r := range all {
		if strings.HasPrefix(r.Path, "/api/v1/") && r.Ended == ended {
			n++
		}
	}
	return n
}

// untilNothingIsLeft waits until every watch has ended at the API servers, and its session in the gateway.
func (s *setup) untilNothingIsLeft() {
	s.t.Helper()
	ctx := within(s.t, 10*time.Second) // less than any silence that could end it otherwise
	if err := s.api.Await(ctx, func(all []kube.Request) bool { return countWatches(all, false) == 0 }); err != nil {
		s.t.Errorf("%d watches are left at the API server: %v", s.watches(false), err)
	}
	if err := s.untilLive(ctx, 0); err != nil {
		s.t.Error(err)
	}
	for _, name := range []string{"sluice_sessions", "sluice_channels", "sluice_held_bytes"} {
		if err := s.untilMetric(ctx, name, 0); err != nil {
			s.t.Error(err)
		}
	}
}

// createPod makes a pod with a note in the real cluster.
func (s *setup) createPod(name, note string) {
	s.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"note": note}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.invalid/main"}}},
	}
	if _, err := s.cluster.Admin().CoreV1().Pods(kube.Namespace).Create(within(s.t, time.Minute), pod, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setup) deletePod(name string) {
	s.t.Helper()
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // it may be a cleanup's
	defer cancel()
	if err := s.cluster.Admin().CoreV1().Pods(kube.Namespace).Delete(ctx, name, now); err != nil {
		s.t.Fatal(err)
	}
}

// apply makes or changes a pod in the embedded cluster.
func (s *setup) apply(name, note string) {
	s.t.Helper()
	if _, err := s.Kube.Apply(rig.Pod("default", name, note)); err != nil {
		s.t.Fatal(err)
	}
}

// end is how a watch ended, as the page tells it.
type end struct {
	Code       string
	Message    string
	Reason     string
	HTTPCode   int
	Kubernetes *struct {
		Status, Message, Reason string
		Code                    int
	}
}

// String is for the messages of tests.
func (e end) String() string {
	b, err := json.Marshal(e)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
