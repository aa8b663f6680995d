package load

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// arrive delivers the event with a number, and what makes it odd.
func arrive(t *testing.T, m *meter, i int, seq uint64, spoil func([]byte) []byte) {
	t.Helper()
	f, err := event.NewFrames("MODIFIED", m.watches[i].Namespace, m.watches[i].Size, 1)
	if err != nil {
		t.Fatal(err)
	}
	const header = 4 // of a frame of that size
	ev := f.Stamp(1, seq, event.Now())[header:]
	if spoil != nil {
		ev = spoil(ev)
	}
	m.deliver(i, ev)
}

func TestMeterFindsWhatIsLostDoubledAndDamaged(t *testing.T) {
	m := newMeter([]Watch{{Namespace: "a", Size: 600}, {Namespace: "b", Size: 600}})
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for _, seq := range []uint64{1, 2, 2, 5, 4} {
		arrive(t, m, 0, seq, nil)
	}
	arrive(t, m, 0, 6, cut)
	arrive(t, m, 0, 7, nil)
	if got, want := m.faults(), (Faults{Lost: 3, Duplicated: 2, Unmarked: 1}); got != want {
		t.Errorf("faults %+v, want %+v", got, want)
	}
	if c := m.count(); c.measured != 4 {
		t.Errorf("%d events, want 4", c.measured)
	}
	if missing := m.missing(map[string]uint64{"a": 9, "b": 1}); missing != 3 {
		t.Errorf("%d missing, want 3", missing)
	}
}

func TestBookmarksAreNeitherEventsNorFaults(t *testing.T) {
	m := newMeter([]Watch{{Namespace: "a", Size: 600}})
	const header = 4
	m.deliver(0, event.Bookmark(1)[header:])
	if f := m.faults(); !f.None() || m.count().measured != 0 {
		t.Errorf("a bookmark is counted: %+v", f)
	}
}

func TestOpenMeansAnEventOfEveryWatch(t *testing.T) {
	m := newMeter([]Watch{{Namespace: "a", Size: 600}, {Namespace: "b", Size: 600}})
	arrive(t, m, 0, 1, nil)
	arrive(t, m, 0, 2, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.await(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("open with an event of one watch of two: %v", err)
	}
	arrive(t, m, 1, 1, nil)
	if err := m.await(t.Context()); err != nil {
		t.Fatal(err)
	}
}
