package main

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/test/e2e/seeded"
)

// pour KEY OUT ERR IN EXIT RATE writes so many bytes of KEY to stdout and of KEY+1 to stderr, both at once, and reads stdin, which must be IN
// bytes of KEY+2 unless IN is 0; then it exits with EXIT. RATE is that of stdout, in bytes a second; 0 has no bound.
func pour(a arguments) error {
	key, in := a.key(), a.number(3)
	errs := make([]error, 3)
	var all sync.WaitGroup
	all.Go(func() { errs[0] = write(os.Stdout, key, a.number(1), a.number(5)) })
	all.Go(func() { errs[1] = write(os.Stderr, key+1, a.number(2), 0) })
	if in > 0 {
		all.Go(func() {
			c := seeded.NewChecker(key + 2)
			_, err := io.Copy(c, os.Stdin)
			if err = errors.Join(err, c.Whole(in)); err != nil {
				errs[2] = fmt.Errorf("%w: %w", errWrong, err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return exitError(a.number(4))
}

// write writes n bytes of a stream, in pieces of all lengths.
func write(f *os.File, key uint64, n, rate int64) error {
	r := seeded.NewReader(key, n)
	begin, done := time.Now(), int64(0)
	buffer := make([]byte, 64<<10)
	for size := int64(1); ; size = size%int64(len(buffer)) + 7919 {
		k, err := r.Read(buffer[:min(size, int64(len(buffer)))])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if _, err := f.Write(buffer[:k]); err != nil {
			return err
		}
		if done += int64(k); rate > 0 {
			wait(time.Until(begin.Add(time.Duration(float64(done) / float64(rate) * float64(time.Second)))))
		}
	}
}

// wait is what a process in a container does between two things.
func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// swallow EVERY reads stdin to its end, and prints its length and its SHA-256. Unless EVERY is 0 it stops for a moment after so many bytes.
func swallow(a arguments) error {
	hash, every := sha256.New(), a.number(0)
	total := int64(0)
	for {
		n, err := io.CopyN(hash, os.Stdin, cmp.Or(every, 1<<30))
		if total += n; errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		wait(200 * time.Millisecond)
	}
	_, err := fmt.Printf("%d %x\n", total, hash.Sum(nil))
	return err
}

// list KEY N prints N lines of KEY, and the last.
func list(a arguments) error {
	out := bufio.NewWriter(os.Stdout)
	var line []byte
	for n := range uint64(a.number(1)) {
		line = seeded.AppendLine(line[:0], a.key(), n)
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	if _, err := out.WriteString(seeded.LastLine(uint64(a.number(1)))); err != nil {
		return err
	}
	return out.Flush()
}

// echo KEY writes stdin, transformed, to stdout.
func echo(a arguments) error { return transform(os.Stdout, os.Stdin, a.key()) }

func transform(to io.Writer, from io.Reader, key uint64) error {
	buffer := make([]byte, 32<<10)
	for offset := int64(0); ; {
		n, err := from.Read(buffer)
		seeded.Transform(buffer[:n], key, offset)
		offset += int64(n)
		if _, err := to.Write(buffer[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// await reads a line of arguments of pour, and pours.
func await(arguments) error {
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	return pour(strings.Fields(line))
}

// talk KEY MICROSECONDS prints lines of KEY with that time between two, until its stdin ends or has a line; then the last.
func talk(a arguments) error {
	over := make(chan struct{})
	go func() { // ends with stdin, or with the process
		defer close(over)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}()
	tick := time.NewTicker(time.Duration(a.number(1)) * time.Microsecond)
	defer tick.Stop()
	var line []byte
	for n := uint64(0); ; n++ {
		select {
		case <-tick.C:
		case <-over:
			_, err := os.Stdout.WriteString(seeded.LastLine(n))
			return err
		}
		line = seeded.AppendLine(line[:0], a.key(), n)
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
	}
}
