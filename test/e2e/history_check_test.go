package e2e

import (
	"slices"
	"strings"
	"testing"
)

// a, b and c are objects of the test below.
var (
	objectA = object{"pods", "ns", "a"}
	objectB = object{"pods", "ns", "b"}
	objectC = object{"pods", "other", "c"}
)

// TestJudgeFindsPlantedFaults breaks a faithful account in every way that a gateway could.
func TestJudgeFindsPlantedFaults(t *testing.T) {
	s := selection{resource: "pods", namespace: "ns", shards: []int{1}}
	changes := []change{
		{objectA, version{}, version{1, 1}},
		{objectC, version{}, version{2, 1}}, // in another namespace
		{objectB, version{}, version{3, 0}}, // of another shard
		{objectA, version{1, 1}, version{4, 1}},
		{objectB, version{3, 0}, version{5, 1}}, // comes in
		{objectA, version{4, 1}, version{6, 1}},
		{objectB, version{5, 1}, version{7, 0}}, // goes out
		{objectA, version{6, 1}, version{}},
		{objectA, version{}, version{8, 1}},
	}
	added, modified, deleted := "ADDED", "MODIFIED", "DELETED"
	faithful := []event{
		{added, objectA, 1},
		{kind: listEnds},
		{modified, objectA, 4},
		{added, objectB, 5},
		{kind: listBegins},
		{added, objectB, 5},
		{kind: listBegins},
		{added, objectB, 5},
		{added, objectA, 6},
		{kind: listEnds},
		{deleted, objectB, 5},
		{deleted, objectA, 6},
		{added, objectA, 8},
	}
	if resyncs, err := judge(s, changes, faithful); err != nil || resyncs != 1 {
		t.Fatalf("a faithful account: %d resyncs, %v", resyncs, err)
	}
	without := func(i int) []event { return slices.Delete(slices.Clone(faithful), i, i+1) }
	twice := func(i int) []event { return slices.Insert(slices.Clone(faithful), i, faithful[i]) }
	swapped := func(i int) []event {
		e := slices.Clone(faithful)
		e[i], e[i+1] = e[i+1], e[i]
		return e
	}
	// What is lost just before a list (3) is what the list is for; a list may be begun again (4 to 7).
	for _, i := range []int{0, 1, 2, 8, 9, 10, 11, 12} {
		if resyncs, err := judge(s, changes, without(i)); err == nil && resyncs == 1 {
			t.Errorf("nothing was found without event %d, %v", i, faithful[i])
		}
		if _, err := judge(s, changes, twice(i)); err == nil {
			t.Errorf("nothing was found with event %d, %v, twice", i, faithful[i])
		}
	}
	for _, i := range []int{2, 8, 10, 11} {
		if _, err := judge(s, changes, swapped(i)); err == nil {
			t.Errorf("nothing was found with events %d and %d swapped", i, i+1)
		}
	}
	backwards := []event{{added, objectA, 1}, {kind: listEnds}, {modified, objectA, 4}, {kind: listBegins}, {added, objectA, 1}, {kind: listEnds}}
	if _, err := judge(s, changes, backwards); err == nil || !strings.Contains(err.Error(), "shows no moment") {
		t.Errorf("a list of an earlier moment: %v", err)
	}
}
