package conformance

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if answer := os.Getenv(answerVariable); answer != "" {
		if err := introduce(answer); err != nil {
			fmt.Fprintln(os.Stderr, "introduce the server to the suite:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
