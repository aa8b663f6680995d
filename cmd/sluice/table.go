package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints lines in columns as they come: a column widens when it must and stays so.
type table struct {
	w      io.Writer
	widths []int
	err    error // the first
}

func newTable(w io.Writer, widths ...int) *table { return &table{w: w, widths: widths} }

// line prints one line. What would steer a terminal is replaced.
func (t *table) line(cells ...string) {
	var b strings.Builder
	for i, cell := range cells {
		cell = printable(cell)
		if i == len(cells)-1 {
			b.WriteString(cell)
			break
		}
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+3))
	}
	if _, err := fmt.Fprintln(t.w, strings.TrimRight(b.String(), " ")); err != nil && t.err == nil {
		t.err = err
	}
}
