package e2e

import (
	"fmt"
	"strings"
	"time"
)

// kind is a kind of channel, and how it is used where that makes a difference.
type kind uint8

const (
	watchKind    kind = iota
	logsKind          // that follows
	execKind          // a process with an input that is no terminal: v5.channel.k8s.io
	terminalKind      // a process at a terminal: v4.channel.k8s.io
	attachKind        // with an input
	forwardKind       // one TCP connection
	kinds             // how many there are
)

func (k kind) String() string {
	return [...]string{"watch", "logs -f", "exec -i", "exec -it", "attach -i", "port-forward"}[k]
}

// cell is what befalls a channel, and within what time: from the event where it ends the channel, from the repair where the channel goes on.
type cell struct {
	outcome *outcome
	within  time.Duration
}

// failure is what can happen to channels.
type failure struct {
	name   string
	repair string // what the channels that go on need, and their time begins with; empty for nothing
	cells  [kinds]cell

	sessions int // that the program has begun in the end
}

// The events.
const (
	linkCut = iota
	gatewayKilled
	podDeleted
	containerRestarted
	nodeKilled
	serverKilled
	serverTerminated
	upstreamSilent
	credentialExpired
	credentialRenewed
	detachedHangUp
	detachedLeave
)

func all(of *outcome, within time.Duration) (cells [kinds]cell) {
	for k := range cells {
		cells[k] = cell{of, within}
	}
	return cells
}

// perKind are the cells of an event: of watches, of logs, of the three kinds of processes, and of TCP connections.
func perKind(watch, logs, process, forward cell) [kinds]cell {
	return [kinds]cell{watchKind: watch, logsKind: logs, execKind: process, terminalKind: process, attachKind: process, forwardKind: forward}
}

// failures is the table of failures. docs/failures.md shows it.
var failures = [...]failure{
	linkCut: {"the link is cut", "", all(goesOn, 10*time.Second), 1},
	gatewayKilled: {"the gateway is killed (SIGKILL)", "another answers at its address", perKind(
		cell{moves, 10 * time.Second}, cell{moves, 10 * time.Second}, cell{lostWithSession, 10 * time.Second}, cell{cutWithSession, 10 * time.Second},
	), 2},
	podDeleted: {"the pod is deleted", "", [kinds]cell{
		watchKind: {toldDeleted, 5 * time.Second}, logsKind: {gone, 15 * time.Second},
		execKind: {exits137, 5 * time.Second}, terminalKind: {exits137, 5 * time.Second}, attachKind: {ends, 5 * time.Second},
		forwardKind: {goneConnection, 5 * time.Second},
	}, 1},
	containerRestarted: {"the container is started anew", "", [kinds]cell{
		watchKind: {goesOn, 5 * time.Second}, logsKind: {restarts, 15 * time.Second},
		execKind: {exits137, 5 * time.Second}, terminalKind: {exits137, 5 * time.Second}, attachKind: {ends, 5 * time.Second},
		forwardKind: {finished, 5 * time.Second},
	}, 1},
	nodeKilled: {"the node is killed (SIGKILL)", "it is back", perKind(
		cell{goesOn, 5 * time.Second}, cell{reopensRestarted, 30 * time.Second}, cell{lost, 15 * time.Second}, cell{cutInUse, 5 * time.Second},
	), 1},
	serverKilled: {"the API server is killed (SIGKILL)", "it is back", perKind(
		cell{reopensAnyhow, 30 * time.Second}, cell{reopens, 30 * time.Second}, cell{lost, 5 * time.Second}, cell{cut, 5 * time.Second},
	), 1},
	serverTerminated: {"the API server is asked to end (SIGTERM)", "it is back", perKind(
		cell{reopensAnyhow, 30 * time.Second}, cell{reopens, 30 * time.Second}, cell{lost, 70 * time.Second}, cell{cut, 70 * time.Second},
	), 1},
	upstreamSilent: {"the API server accepts and says nothing", "it speaks again", perKind(
		cell{reopens, 30 * time.Second}, cell{reopens, 30 * time.Second}, cell{lost, 30 * time.Second}, cell{cut, 30 * time.Second},
	), 1},
	credentialExpired: {"the credential expires, and there is no other", "", perKind(
		cell{expires, 2 * time.Second}, cell{expires, 2 * time.Second}, cell{expiresLost, 2 * time.Second}, cell{expiresConnection, 2 * time.Second},
	), 1},
	credentialRenewed: {"the credential expires, and the client has a newer", "", perKind(
		cell{moves, 10 * time.Second}, cell{moves, 10 * time.Second}, cell{lostWithSession, 10 * time.Second}, cell{cutWithSession, 10 * time.Second},
	), 2},
	detachedHangUp: {"the session stays detached too long: hang up", "the link can be made again", perKind(
		cell{moves, 15 * time.Second}, cell{moves, 15 * time.Second}, cell{lostWithSession, 15 * time.Second}, cell{cutWithSession, 15 * time.Second},
	), 2},
	detachedLeave: {"the session stays detached too long: leave", "the link can be made again", perKind(
		cell{moves, 15 * time.Second}, cell{moves, 15 * time.Second}, cell{lostWithSession, 15 * time.Second}, cell{cutWithSession, 15 * time.Second},
	), 2},
}

// table is what docs/failures.md shows of the events and their cells.
func table() string {
	var b strings.Builder
	b.WriteString("| |")
	for k := range kinds {
		fmt.Fprintf(&b, " %v |", k)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", int(kinds)) + "\n")
	for _, e := range failures {
		name := e.name
		if e.repair != "" {
			name += "; then " + e.repair
		}
		fmt.Fprintf(&b, "| %s |", name)
		for _, c := range e.cells {
			fmt.Fprintf(&b, " %s, %v s |", c.outcome.name, c.within.Seconds())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// legend is what docs/failures.md says of the outcomes.
func legend() string {
	var b strings.Builder
	b.WriteString("| | frames | Go SDK | `sluice` |\n| --- | --- | --- | --- |\n")
	for _, o := range outcomes {
		fmt.Fprintf(&b, "| **%s** | %s | %s | %s |\n", o.name, o.frames, o.sdk, o.cli)
	}
	return b.String()
}
