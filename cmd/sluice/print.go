package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// printer prints the events of a watch.
type printer interface {
	print(ev client.Event) error
}

// printers make the printer of each -o.
var printers = map[string]func(io.Writer, *sluicev1.Resource) printer{
	"":     func(w io.Writer, r *sluicev1.Resource) printer { return newTablePrinter(w, r, false, time.Now) },
	"wide": func(w io.Writer, r *sluicev1.Resource) printer { return newTablePrinter(w, r, true, time.Now) },
	"json": func(w io.Writer, _ *sluicev1.Resource) printer { return jsonPrinter{w} },
	"name": func(w io.Writer, r *sluicev1.Resource) printer { return namePrinter{w, r} },
}

// jsonPrinter prints each event as the API server sent it, one a line.
type jsonPrinter struct{ w io.Writer }

func (p jsonPrinter) print(ev client.Event) error {
	_, err := p.w.Write(append(bytes.TrimRight(ev.Raw, "\n"), '\n'))
	return err
}

// namePrinter prints what happened and to whom.
type namePrinter struct {
	w        io.Writer
	resource *sluicev1.Resource
}

func (p namePrinter) print(ev client.Event) error {
	var o object
	if err := ev.Into(&o); err != nil {
		return err
	}
	name := o.Metadata.Name
	if o.Metadata.Namespace != "" {
		name = o.Metadata.Namespace + "/" + name
	}
	_, err := fmt.Fprintln(p.w, printable(ev.Type+" "+qualified(p.resource)+" "+name))
	return err
}

// object is what all objects have.
type object struct {
	Metadata struct {
		Name              string     `json:"name"`
		Namespace         string     `json:"namespace"`
		CreationTimestamp *time.Time `json:"creationTimestamp"`
		DeletionTimestamp *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
}

// tablePrinter prints a line for each event, as `kubectl get --watch` does, with what happened in front.
type tablePrinter struct {
	table      *table
	columns    columns
	namespaced bool
	wide       bool
	now        func() time.Time
	begun      bool
}

func newTablePrinter(w io.Writer, r *sluicev1.Resource, wide bool, now func() time.Time) *tablePrinter {
	p := &tablePrinter{columns: columnsOf(r), namespaced: r.GetNamespaced(), wide: wide, now: now}
	widths := []int{len("MODIFIED")}
	if p.namespaced {
		widths = append(widths, len("kube-system"))
	}
	widths = append(widths, 36)
	widths = append(append(widths, p.columns.widths...), len("7d11h"))
	p.table = newTable(w, append(widths, p.columns.wideWidths...)...)
	return p
}

func (p *tablePrinter) print(ev client.Event) error {
	var o object
	if err := ev.Into(&o); err != nil {
		return err
	}
	cells, wide, err := p.columns.cells(ev.Object, p.now())
	if err != nil {
		return err
	}
	if !p.begun {
		p.begun = true
		p.line("EVENT", "NAMESPACE", "NAME", p.columns.header, "AGE", p.columns.wide)
	}
	p.line(ev.Type, o.Metadata.Namespace, o.Metadata.Name, cells, age(o.Metadata.CreationTimestamp, p.now()), wide)
	return p.table.err
}

func (p *tablePrinter) line(event, namespace, name string, own []string, age string, wide []string) {
	cells := []string{event}
	if p.namespaced {
		cells = append(cells, namespace)
	}
	cells = append(append(append(cells, name), own...), age)
	if p.wide {
		cells = append(cells, wide...)
	}
	p.table.line(cells...)
}

// age is the time since a moment in at most two units, as kubectl prints it.
func age(since *time.Time, now time.Time) string {
	if since == nil {
		return "<unknown>"
	}
	d := max(now.Sub(*since), 0)
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return units(d, time.Second, "s", 0, "")
	case d < 10*time.Minute:
		return units(d, time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return units(d, time.Minute, "m", 0, "")
	case d < 8*time.Hour:
		return units(d, time.Hour, "h", time.Minute, "m")
	case d < 2*day:
		return units(d, time.Hour, "h", 0, "")
	case d < 8*day:
		return units(d, day, "d", time.Hour, "h")
	case d < 2*year:
		return units(d, day, "d", 0, "")
	case d < 8*year:
		return units(d, year, "y", day, "d")
	}
	return units(d, year, "y", 0, "")
}

// units is a duration in a unit, and what is left in a smaller one unless that is 0.
func units(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d%s", d/large, largeName)
	if small == 0 || d%large/small == 0 {
		return s
	}
	return s + fmt.Sprintf("%d%s", d%large/small, smallName)
}

// decode reads an object as far as its columns need it.
func decode[T any](text json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("decode the object: %w", err)
	}
	return v, nil
}
