//go:build race

package mux

// underRace says that the race detector is on.
const underRace = true
