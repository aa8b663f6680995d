package auth

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// revocationFile appends revocations to a file, a line of JSON each, and each
// durable before append returns. Its owner guards it.
type revocationFile struct {
	file *os.File // nil once closed
	torn bool     // the last line may lack its end
}

// openRevocationFile reads the file's lines into r and opens it to be appended
// to. Lines that are over or covered by others go, unless some could not be
// read: those are for people to look at.
func openRevocationFile(name string, r *Revocations) (*revocationFile, error) {
	lines, bad, torn, err := readRevocations(name, r)
	if err != nil {
		return nil, err
	}
	if live := r.List(); bad == 0 && lines > 2*len(live)+sweepAbove {
		if err := rewriteRevocations(name, live); err != nil {
			return nil, err
		}
		torn = false
	}
	_, missing := os.Stat(name)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		if err := syncFolder(name); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &revocationFile{file: f, torn: torn}, nil
}

// readRevocations inserts what the file holds, and says how many lines it has,
// how many of them are bad, and whether the last one lacks its end.
func readRevocations(name string, r *Revocations) (lines, bad int, torn bool, err error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, 0, false, nil
	case err != nil:
		return 0, 0, false, err
	case !info.Mode().IsRegular():
		return 0, 0, false, fmt.Errorf("%s is not a regular file", name) // opening or reading it might never end
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	reader := bufio.NewReaderSize(f, maxRevocationLine)
	for {
		line, whole, err := readLine(reader)
		if errors.Is(err, io.EOF) {
			return lines, bad, torn, nil
		}
		if err != nil {
			return 0, 0, false, fmt.Errorf("read line %d of %s: %w", lines+1, name, err)
		}
		lines++
		torn = !whole
		if len(line) == 0 {
			continue // after a line that was cut off
		}
		if problem := r.read(line); problem != nil {
			bad++
			r.logger.Error("revocation not read: what it revoked may be accepted again", "file", name, "line", lines, "error", problem)
		}
	}
}

// readLine returns the next line without its end, and whether it had one. Of a
// line longer than any that is written it returns the beginning, which is no
// JSON. The line lasts until the next call.
func readLine(reader *bufio.Reader) (line []byte, whole bool, err error) {
	line, err = reader.ReadSlice('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], true, nil
	case errors.Is(err, io.EOF) && len(line) > 0:
		return line, false, nil
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, false, err
	}
	line = bytes.Clone(line[:1])
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = reader.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) {
		return line, false, nil
	}
	return line, true, err
}

// read inserts the revocation of a line. A field that is not known, of a later
// version, is passed over: what it would narrow is refused altogether.
func (r *Revocations) read(line []byte) error {
	var revocation Revocation
	if err := json.Unmarshal(line, &revocation); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if err := revocation.check(); err != nil {
		return err
	}
	r.insert(revocation)
	return nil
}

// rewriteRevocations replaces the file by one of those, as a whole or not at all.
func rewriteRevocations(name string, live []Revocation) error {
	text, err := encodeRevocations(live)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // of mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(name)
}

func encodeRevocations(list []Revocation) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	for _, revocation := range list {
		if err := encoder.Encode(revocation); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// syncFolder makes the name of a file durable.
func syncFolder(name string) error {
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// append writes lines. One that could not be written whole is ended before the next.
func (f *revocationFile) append(list []Revocation) error {
	if f.file == nil {
		return errRevocationsClosed
	}
	text, err := encodeRevocations(list)
	if err != nil {
		return err
	}
	if f.torn {
		text = append([]byte("\n"), text...)
	}
	f.torn = true
	if _, err := f.file.Write(text); err != nil {
		return err
	}
	f.torn = false
	return f.file.Sync()
}

func (f *revocationFile) close() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}
