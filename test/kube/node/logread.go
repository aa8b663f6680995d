package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"
)

// stampOut is how times are printed before lines: of fixed width, in the time zone they were written in.
const stampOut = "2006-01-02T15:04:05.000000000Z07:00"

// logQuery is what is asked of a log (k8s.io/api/core/v1.PodLogOptions). The API server has checked it.
type logQuery struct {
	previous, follow, timestamps bool
	since                        time.Time
	tail                         int64  // lines of the file, -1 for all
	limit                        int64  // bytes of output, -1 for all
	stream                       string // "stdout", "stderr" or "" for both
}

var errBadLogQuery = errors.New("malformed log query")

func parseLogQuery(q url.Values) (logQuery, error) {
	query := logQuery{
		previous: q.Get("previous") == "true", follow: q.Get("follow") == "true", timestamps: q.Get("timestamps") == "true",
		tail: -1, limit: -1,
	}
	var errs []error
	number := func(name string, into *int64) bool {
		text := q.Get(name)
		if text == "" {
			return false
		}
		n, err := strconv.ParseInt(text, 10, 64)
		*into, errs = n, append(errs, err)
		return true
	}
	number("tailLines", &query.tail)
	number("limitBytes", &query.limit)
	var seconds int64
	if number("sinceSeconds", &seconds) {
		query.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		query.since, errs = since, append(errs, err)
	}
	switch stream := q.Get("stream"); stream {
	case "", "All":
	case "Stdout":
		query.stream = "stdout"
	case "Stderr":
		query.stream = "stderr"
	default:
		errs = append(errs, errBadLogQuery)
	}
	return query, errors.Join(errs...)
}

// logReader answers one query. It is owned by one goroutine.
type logReader struct {
	query logQuery
	out   io.Writer
	// left is how many bytes, and lines how many lines, may still be printed; -1 for any number.
	left, lines int64
	newLine     bool   // what is printed next begins a line
	begun       []byte // a line of the file that was not written to its end yet
}

// errEnough ends a read whose limit is reached.
var errEnough = errors.New("enough")

// read prints the log, and what is added to it until the run ends, if that is asked. It returns the cause of ctx when
// that ends first.
func (r *logReader) read(ctx context.Context, log *logFile) error {
	part, file, err := log.begin()
	if err != nil {
		return err
	}
	defer func() { file.Close() }()
	if err := r.begin(file); err != nil {
		return err
	}
	lines := bufio.NewReader(file)
	for {
		state := log.state(part)
		if err := r.printAll(lines); err != nil {
			return unlessEnough(err)
		}
		switch {
		case !r.query.follow:
			return nil
		case state.rotated:
			file.Close()
			if part, file, err = log.follow(part); err != nil {
				return err
			}
			lines.Reset(file)
		case state.ended:
			return nil
		default:
			select {
			case <-state.changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

func unlessEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// begin goes to the first line that is wanted.
func (r *logReader) begin(file *os.File) error {
	r.left, r.lines, r.newLine = r.query.limit, -1, true
	if r.query.tail < 0 {
		return nil
	}
	if !r.query.follow {
		r.lines = r.query.tail
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	at := len(text)
	for n := r.query.tail; n > 0 && at > 0; n-- {
		at = bytes.LastIndexByte(text[:at-1], '\n') + 1
	}
	_, err = file.Seek(int64(at), io.SeekStart)
	return err
}

// printAll prints to the end of the file.
func (r *logReader) printAll(lines *bufio.Reader) error {
	for r.lines != 0 {
		line, err := lines.ReadBytes('\n')
		line = append(r.begun, line...)
		r.begun = nil
		if errors.Is(err, io.EOF) {
			r.begun = line
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.print(line); err != nil {
			return err
		}
		if r.lines > 0 {
			r.lines--
		}
	}
	return errEnough
}

// print prints one line of the file, if it is wanted.
func (r *logReader) print(line []byte) error {
	fields := bytes.SplitN(line, []byte(" "), 4)
	if len(fields) != 4 {
		return errors.New("a line of a log is malformed")
	}
	at, err := time.Parse(time.RFC3339Nano, string(fields[0]))
	if err != nil {
		return err
	}
	content := fields[3]
	if string(fields[2]) == "P" {
		content = content[:len(content)-1]
	}
	begins := r.newLine
	r.newLine = len(content) == 0 || content[len(content)-1] == '\n'
	if at.Before(r.query.since) || r.query.stream != "" && r.query.stream != string(fields[1]) {
		return nil
	}
	if r.query.timestamps && begins {
		content = append(append([]byte(at.Format(stampOut)), ' '), content...)
	}
	if r.left >= 0 && int64(len(content)) > r.left {
		content = content[:r.left]
	}
	if _, err := r.out.Write(content); err != nil {
		return err
	}
	if r.left >= 0 {
		if r.left -= int64(len(content)); r.left == 0 {
			return errEnough
		}
	}
	return nil
}
