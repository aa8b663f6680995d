package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newLog(t *testing.T) *logFile {
	t.Helper()
	log, err := createLogFile(filepath.Join(t.TempDir(), "main", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func query(t *testing.T, text string) logQuery {
	t.Helper()
	values, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	q, err := parseLogQuery(values)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func readLog(t *testing.T, log *logFile, q string) string {
	t.Helper()
	var out bytes.Buffer
	reader := logReader{query: query(t, q), out: &out}
	if err := reader.read(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// printTo writes text as one stream, in pieces of any length.
func printTo(log *logFile, stream, text string, dice *rand.Rand) {
	w := lineWriter{log: log, stream: stream}
	for text != "" {
		n := 1 + dice.IntN(min(len(text), 1<<uint(dice.IntN(16))))
		w.write([]byte(text[:n]))
		text = text[n:]
	}
	w.end()
}

// randomText has lines of all lengths around the longest, and a last one with or without an end.
func randomText(dice *rand.Rand) string {
	var text strings.Builder
	for range dice.IntN(8) {
		length := dice.IntN(100)
		if dice.IntN(2) == 0 {
			length = maxLogLine*(1+dice.IntN(2)) + dice.IntN(5) - 2
		}
		for range length {
			text.WriteByte('a' + byte(dice.IntN(26)))
		}
		text.WriteByte('\n')
	}
	if dice.IntN(2) == 0 {
		text.WriteString("without an end")
	}
	return text.String()
}

func TestLogsReadAsTheyWerePrinted(t *testing.T) {
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	for range 40 {
		log, text := newLog(t), randomText(dice)
		printTo(log, "stdout", text, dice)
		if err := log.end(); err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"", "follow=true", "stream=Stdout", "tailLines=100000"} {
			if got := readLog(t, log, q); got != text {
				t.Fatalf("seed %d: %s gives %d bytes, want %d", seed, q, len(got), len(text))
			}
		}
		if got := readLog(t, log, "stream=Stderr"); got != "" {
			t.Errorf("stderr: %q", got)
		}
	}
}

// A line that is read while it is written comes whole.
func TestFollowerWaitsForTheEndOfALine(t *testing.T) {
	log := newLog(t)
	log.append([]byte("2026-11-23T12:00:00.5Z stdout F be"))
	var out bytes.Buffer
	reader := logReader{query: query(t, "follow=true"), out: &out}
	ended := make(chan error)
	go func() { ended <- reader.read(t.Context(), log) }()
	log.append([]byte("gun\n2026-11-23T12:00:01Z stdout F next\n"))
	if err := log.end(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || out.String() != "begun\nnext\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestQueriesOfALog(t *testing.T) {
	log := newLog(t)
	log.append([]byte("2026-11-23T12:00:00.5Z stdout F one\n" +
		"2026-11-23T12:00:01Z stderr P two \n" +
		"2026-11-23T12:00:01.25Z stderr F parts\n" +
		"2026-11-23T12:00:02.000000001Z stdout F three\n"))
	if err := log.end(); err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string]string{
		"":                               "one\ntwo parts\nthree\n",
		"stream=Stderr":                  "two parts\n",
		"tailLines=1":                    "three\n",
		"tailLines=2":                    "parts\nthree\n", // lines of the file
		"tailLines=0":                    "",
		"limitBytes=6":                   "one\ntw",
		"sinceTime=2026-11-23T12:00:01Z": "two parts\nthree\n",
		"sinceTime=2026-11-23T12:00:02Z": "three\n",
		"timestamps=true":                "2026-11-23T12:00:00.500000000Z one\n2026-11-23T12:00:01.000000000Z two parts\n2026-11-23T12:00:02.000000001Z three\n",
		"timestamps=true&limitBytes=32":  "2026-11-23T12:00:00.500000000Z o",
		"sinceSeconds=1":                 "",
		"sinceTime=2026-11-23T12:00:00Z&tailLines=1&stream=Stdout": "three\n",
	} {
		if got := readLog(t, log, q); got != want {
			t.Errorf("%s: %q, want %q", q, got, want)
		}
	}
	for _, q := range []string{"tailLines=x", "sinceTime=yesterday", "stream=stdin"} {
		values, _ := url.ParseQuery(q)
		if _, err := parseLogQuery(values); err == nil {
			t.Errorf("%s was taken", q)
		}
	}
}

// firstWrite closes begun at the first write.
type firstWrite struct {
	bytes.Buffer
	begun chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.Len() == 0 {
		close(w.begun)
	}
	return w.Buffer.Write(p)
}

func TestFollowerGoesThroughEveryRotation(t *testing.T) {
	log, out := newLog(t), &firstWrite{begun: make(chan struct{})}
	reader := logReader{query: query(t, "follow=true"), out: out}
	log.append([]byte("2026-11-23T12:00:00Z stdout F a\n"))
	ended := make(chan error)
	go func() { ended <- reader.read(t.Context(), log) }()
	<-out.begun
	for _, text := range []string{"b", "c", "d"} {
		if err := log.rotate(); err != nil {
			t.Fatal(err)
		}
		log.append([]byte("2026-11-23T12:00:00Z stdout F " + text + "\n"))
	}
	if got := readLog(t, log, ""); got != "d\n" {
		t.Errorf("after rotations the log is %q", got)
	}
	if err := log.end(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || out.String() != "a\nb\nc\nd\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if err := log.rotate(); err == nil {
		t.Error("a log that has ended was rotated")
	}
}

func TestFollowerEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(time.Millisecond, func() { cancel(enough) })
	reader := logReader{query: query(t, "follow=true"), out: new(bytes.Buffer)}
	if err := reader.read(ctx, newLog(t)); !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
}
