package prometheus

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// interval is between two scrapes, and between two evaluations of an alert.
const interval = time.Minute

// series are scraped series. They implement storage.Queryable and storage.Querier.
type series []promql.Series

// scraped reads series in the notation of promtool, `name{label="value"} 0+1x10`, a value for each scrape.
func scraped(t *testing.T, notation ...string) (all series, scrapes int) {
	t.Helper()
	for _, n := range notation {
		l, values, err := promQL.ParseSeriesDesc(n)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		s := promql.Series{Metric: l}
		for i, v := range values {
			if !v.Omitted {
				s.Floats = append(s.Floats, promql.FPoint{T: (time.Duration(i) * interval).Milliseconds(), F: v.Value})
			}
		}
		all = append(all, s)
		scrapes = max(scrapes, len(values))
	}
	return all, scrapes
}

// Querier implements storage.Queryable.
func (all series) Querier(int64, int64) (storage.Querier, error) { return all, nil }

// Select implements storage.Querier.
func (all series) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &selected{}
	for _, s := range all {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Metric.Get(m.Name)) }) {
			set.left = append(set.left, s)
		}
	}
	slices.SortFunc(set.left, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return set
}

// LabelValues implements storage.Querier. The engine does not ask.
func (all series) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// LabelNames implements storage.Querier. The engine does not ask.
func (all series) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

// Close implements storage.Querier.
func (all series) Close() error { return nil }

// selected implements storage.SeriesSet.
type selected struct {
	left []promql.Series
	at   promql.Series
}

// Next implements storage.SeriesSet.
func (s *selected) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

// At implements storage.SeriesSet.
func (s *selected) At() storage.Series { return promql.NewStorageSeries(s.at) }

// Err implements storage.SeriesSet.
func (s *selected) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *selected) Warnings() annotations.Annotations { return nil }
