package kube

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// tailBytes is how much of each log a failure shows.
const tailBytes = 3000

var processNames = []string{"etcd", "kube-apiserver", "node"}

// logSizes returns how long each log is now.
func (c *Cluster) logSizes() map[string]int64 {
	sizes := map[string]int64{}
	for _, name := range processNames {
		if info, err := os.Stat(c.state.logName(name)); err == nil {
			sizes[name] = info.Size()
		}
	}
	return sizes
}

// showLogs prints, should the test fail, what the processes logged during it.
func (c *Cluster) showLogs(t testing.TB) {
	since := c.logSizes()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cluster meanwhile:%s", c.logsSince(since))
		}
	})
}

// logTails returns the ends of all logs, for an error.
func (c *Cluster) logTails() string {
	if c.state == nil {
		return ""
	}
	return c.logsSince(nil)
}

func (c *Cluster) logsSince(since map[string]int64) string {
	var all strings.Builder
	for _, name := range processNames {
		if text := tail(c.state.logName(name), since[name]); len(text) > 0 {
			fmt.Fprintf(&all, "\n--- %s ---\n%s", name, text)
		}
	}
	return all.String()
}

// tail returns what the file holds after offset, at most its last tailBytes.
func tail(file string, offset int64) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	offset = max(offset, info.Size()-tailBytes)
	text, _ := io.ReadAll(io.NewSectionReader(f, offset, tailBytes))
	return bytes.TrimSpace(text)
}
