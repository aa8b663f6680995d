//go:build unix

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/bench/live"
	"github.com/sluice-gateway/sluice/bench/load"
	"github.com/sluice-gateway/sluice/bench/upstream"
	"github.com/sluice-gateway/sluice/test/kube"
)

// kind is what is measured of a suite.
type kind string

const (
	saturation kind = "saturation" // throughput, and what an event costs
	latency    kind = "latency"    // at a fixed rate
	idle       kind = "idle"       // memory, and the time to open
	unread     kind = "unread"     // memory before a client that reads nothing
	keyboard   kind = "keyboard"   // how long a key takes to come back
	bulk       kind = "bulk"       // bytes a second of one process's output
)

// suite is one thing to measure, in every way.
type suite struct {
	name, title string
	kind        kind
	watches     int
	size, rate  int // of an event in bytes, and a second
	tls         bool
	neighbour   load.Role // of one more watch
	shell       string    // what a process does, in place of watches
	real        bool      // the upstream is an API server with a node
	offer       []string  // the subprotocols of a process without a gateway; those that the gateway offers, if nil
	// without names the suite that is the same without the neighbour.
	without string
	// rare is measured in every third round only.
	rare bool
	// extra is measured only when it is named.
	extra bool
	// short is a suite made quick.
	short bool
}

// Of the neighbours: a heavy one brings 40 MB/s; a stalled one fills its window in a quarter of a second.
const (
	heavySize, heavyRate     = 8 << 10, 5000
	stalledSize, stalledRate = 2 << 10, 1000
)

// suites are all, in the order they run.
var suites = []suite{
	{name: "sat500", title: "100 watches flat out, 500 B", kind: saturation, watches: 100, size: 500, rate: upstream.FlatOut},
	{name: "sat2k", title: "100 watches flat out, 2 KiB", kind: saturation, watches: 100, size: 2 << 10, rate: upstream.FlatOut},
	{name: "sat8k", title: "100 watches flat out, 8 KiB", kind: saturation, watches: 100, size: 8 << 10, rate: upstream.FlatOut},
	{name: "sat500-tls", title: "100 watches flat out, 500 B, TLS upstream", kind: saturation, watches: 100, size: 500, rate: upstream.FlatOut, tls: true, extra: true},
	{name: "sat2k-tls", title: "100 watches flat out, 2 KiB, TLS upstream", kind: saturation, watches: 100, size: 2 << 10, rate: upstream.FlatOut, tls: true},
	{name: "sat8k-tls", title: "100 watches flat out, 8 KiB, TLS upstream", kind: saturation, watches: 100, size: 8 << 10, rate: upstream.FlatOut, tls: true, extra: true},
	{name: "moderate", title: "100 watches, 50 events/s each, 2 KiB", kind: latency, watches: 100, size: 2 << 10, rate: 50},
	{name: "quiet", title: "20 watches, 50 events/s each, 2 KiB", kind: latency, watches: 20, size: 2 << 10, rate: 50},
	{
		name: "stalled", title: "the same 20 beside one that is not read", kind: latency, watches: 20, size: 2 << 10, rate: 50,
		neighbour: load.Stalled, without: "quiet",
	},
	{
		name: "heavy", title: "the same 20 beside one of 5,000 events/s, 8 KiB", kind: latency, watches: 20, size: 2 << 10, rate: 50,
		neighbour: load.Heavy, without: "quiet",
	},
	{name: "idle1k", title: "1,000 idle watches", kind: idle, watches: 1000, size: 2 << 10, rare: true},
	{name: "idle1k-tls", title: "1,000 idle watches, TLS upstream", kind: idle, watches: 1000, size: 2 << 10, tls: true, rare: true},
	{name: "idle10k", title: "10,000 idle watches", kind: idle, watches: 10_000, size: 2 << 10, rare: true},
	{name: "idle10k-tls", title: "10,000 idle watches, TLS upstream", kind: idle, watches: 10_000, size: 2 << 10, tls: true, rare: true},
	{
		name: "unread", title: "2,000 watches flat out, 2 KiB, of clients that read nothing", kind: unread, watches: 2000, size: 2 << 10,
		rate: upstream.FlatOut, rare: true,
	},
	{name: "echo", title: "a shell that echoes one key after the other", kind: keyboard, shell: upstream.Echo},
	{name: "pour", title: "a shell whose output is as fast as it is taken", kind: bulk, shell: upstream.Pour},
	{name: "pour-tls", title: "a shell whose output is as fast as it is taken, TLS upstream", kind: bulk, shell: upstream.Pour, tls: true},
	{
		name: "pour-real", title: "the same of a real API server and node, direct by v4.channel.k8s.io, as the gateway asks", kind: bulk,
		shell: upstream.Pour, tls: true, real: true, extra: true,
	},
	{
		name: "pour-real-v5", title: "the same, direct by v5.channel.k8s.io, as kubectl asks", kind: bulk,
		shell: upstream.Pour, tls: true, real: true, offer: []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}, extra: true,
	},
}

// selected are the suites of a list of names, in their own order; all that are not extra for an empty list.
func selected(list string) ([]suite, error) {
	if list == "" {
		return slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return s.extra }), nil
	}
	names := strings.Split(list, ",")
	for _, n := range names {
		if !slices.ContainsFunc(suites, func(s suite) bool { return s.name == n }) {
			return nil, fmt.Errorf("no suite is called %q; there are: %s", n, strings.Join(suiteNames(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(suites), func(s suite) bool { return !slices.Contains(names, s.name) }), nil
}

func suiteNames() (out []string) {
	for _, s := range suites {
		out = append(out, s.name)
	}
	return out
}

// extraNames are the suites that are measured only when they are named.
func extraNames() (out []string) {
	for _, s := range suites {
		if s.extra {
			out = append(out, s.name)
		}
	}
	return out
}

// quick is a suite of a tenth of the watches, and a neighbour a tenth as heavy, which shows that it runs, and little else.
func (s suite) quick() suite {
	s.short = true
	if s.watches > 0 {
		s.watches = max(s.watches/10, 2)
	}
	return s
}

// ways are those in which the suite is measured.
func (s suite) ways() []load.Way {
	if s.kind == unread { // without a gateway there is nobody to hold anything
		return []load.Way{load.Naive, load.Sluice}
	}
	if s.shell != "" { // the naive gateway has watches only
		return []load.Way{load.Direct, load.Sluice}
	}
	return []load.Way{load.Direct, load.Naive, load.Sluice}
}

// process is the suite's process in an upstream, if it has one.
func (s suite) process(up upstreamReady) *load.Shell {
	if s.shell == "" {
		return nil
	}
	sh := &load.Shell{Kind: s.shell, Namespace: upstream.Shell, Pod: upstream.Shell, Command: []string{s.shell}, Offer: s.offer}
	if s.real {
		sh.Namespace, sh.Pod, sh.Command = kube.Namespace, live.Pod, up.Command
	}
	if sh.Offer == nil {
		sh.Offer = []string{"v4.channel.k8s.io"}
	}
	return sh
}

// plan is the suite's watches.
func (s suite) plan() []load.Watch {
	var out []load.Watch
	for i := range s.watches {
		out = append(out, load.Watch{Namespace: fmt.Sprintf("watch-%05d", i), Size: s.size, Rate: s.rate})
	}
	switch s.neighbour {
	case load.Heavy:
		w := load.Watch{Namespace: "neighbour", Size: heavySize, Rate: heavyRate, Role: load.Heavy}
		if s.short {
			w.Rate /= 10
		}
		out = append(out, w)
	case load.Stalled:
		out = append(out, load.Watch{Namespace: "neighbour", Size: stalledSize, Rate: stalledRate, Role: load.Stalled})
	case load.Ordinary:
	}
	return out
}

// filesBeside is how many files a process has open beside one for each watch.
const filesBeside = 256

// fit lowers the number of watches to what the limit on open files allows, and says so.
func (s suite) fit(limit int) (fitting suite, note string) {
	if s.watches+filesBeside <= limit {
		return s, ""
	}
	note = fmt.Sprintf("%s: %d WATCHES INSTEAD OF %d, because a process may have only %d files open (ulimit -Hn)",
		s.name, limit-filesBeside, s.watches, limit)
	s.watches = limit - filesBeside
	return s, note
}
