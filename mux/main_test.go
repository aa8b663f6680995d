package mux

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain gives the properties 2,000 schedules of up to 50 steps, unless flags say otherwise, and fails when a goroutine outlives the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	checks := "2000"
	if underRace { // one goroutine: what the race detector could find is elsewhere
		checks = "100"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.steps": "50"} {
		given := false
		flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
		if !given && flag.Set(name, value) != nil {
			os.Exit(2)
		}
	}
	goleak.VerifyTestMain(m)
}
