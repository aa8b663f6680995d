package shell

import (
	"bytes"
	"crypto/rand"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a container's files.
const (
	fileSize   = 8 << 20  // of one, in bytes
	filesSize  = 32 << 20 // of all, in bytes
	filesCount = 10_000   // files and directories
)

// Files is the file system of a container: directories and files in memory,
// and /dev/null, /dev/zero and /dev/urandom. Paths are absolute and clean. Safe
// for concurrent use.
type Files struct {
	mu    sync.Mutex
	nodes map[string]*node // by path; Guarded by mu.
	bytes int              // of all files; Guarded by mu.
}

// node is a file or a directory. Guarded by Files.mu.
type node struct {
	dir     bool
	data    []byte
	changed time.Time
}

// NewFiles makes a file system with the directories that every one has, and
// these files by their paths.
func NewFiles(files map[string]string) *Files {
	f := &Files{nodes: map[string]*node{}}
	for _, dir := range []string{"/", "/dev", "/etc", "/root", "/tmp"} {
		f.nodes[dir] = &node{dir: true, changed: time.Now()}
	}
	for _, device := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		f.nodes[device] = &node{changed: time.Now()}
	}
	for name, text := range files {
		for dir := path.Dir(name); f.nodes[dir] == nil; dir = path.Dir(dir) {
			f.nodes[dir] = &node{dir: true, changed: time.Now()}
		}
		f.nodes[name] = &node{data: []byte(text), changed: time.Now()}
		f.bytes += len(text)
	}
	return f
}

// fileError is a failure as a shell prints it. It wraps an error of [io/fs]
// where there is a fitting one.
type fileError struct {
	name, text string
	err        error
}

func (e *fileError) Error() string { return e.name + ": " + e.text }
func (e *fileError) Unwrap() error { return e.err }

func noSuchFile(name string) error {
	return &fileError{name, "No such file or directory", fs.ErrNotExist}
}

func refused(name, text string) error { return &fileError{name, text, fs.ErrInvalid} }

// open reads the file as it is now.
func (f *Files) open(name string) (io.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	switch {
	case n == nil:
		return nil, noSuchFile(name)
	case n.dir:
		return nil, refused(name, "Is a directory")
	case name == "/dev/zero":
		return zeros{}, nil
	case name == "/dev/urandom":
		return rand.Reader, nil
	}
	return bytes.NewReader(slices.Clip(n.data)), nil
}

// zeros is /dev/zero.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// create writes to the file, from its beginning or its end.
func (f *Files) create(name string, end bool) (io.Writer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasPrefix(name, "/dev/") {
		if f.nodes[name] == nil {
			return nil, refused(name, "Permission denied")
		}
		return io.Discard, nil
	}
	parent, n := f.nodes[path.Dir(name)], f.nodes[name]
	switch {
	case n != nil && n.dir:
		return nil, refused(name, "Is a directory")
	case parent == nil || !parent.dir:
		return nil, noSuchFile(name)
	case n == nil && len(f.nodes) >= filesCount:
		return nil, refused(name, "No space left on device")
	case n == nil:
		n = &node{}
		f.nodes[name] = n
	case !end:
		f.bytes -= len(n.data)
		n.data = nil
	}
	n.changed = time.Now()
	return fileWriter{f, n, name}, nil
}

// fileWriter appends to a file.
type fileWriter struct {
	files *Files
	node  *node
	name  string
}

func (w fileWriter) Write(b []byte) (int, error) {
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	if w.files.nodes[w.name] != w.node {
		return len(b), nil // It was removed; what is written is lost with it.
	}
	if len(w.node.data)+len(b) > fileSize || w.files.bytes+len(b) > filesSize {
		return 0, refused(w.name, "No space left on device")
	}
	w.node.data = append(w.node.data, b...)
	w.node.changed = time.Now()
	w.files.bytes += len(b)
	return len(b), nil
}

func (f *Files) makeDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	parent := f.nodes[path.Dir(name)]
	switch {
	case f.nodes[name] != nil:
		return &fileError{name, "File exists", fs.ErrExist}
	case parent == nil || !parent.dir:
		return noSuchFile(name)
	case len(f.nodes) >= filesCount:
		return refused(name, "No space left on device")
	}
	f.nodes[name] = &node{dir: true, changed: time.Now()}
	return nil
}

// remove removes a file, or a directory with all that is in it.
func (f *Files) remove(name string, recursively bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	switch {
	case n == nil:
		return noSuchFile(name)
	case name == "/" || strings.HasPrefix(name+"/", "/dev/"):
		return refused(name, "Permission denied")
	case n.dir && !recursively:
		return refused(name, "Is a directory")
	}
	maps.DeleteFunc(f.nodes, func(at string, n *node) bool {
		inside := at == name || strings.HasPrefix(at, name+"/")
		if inside {
			f.bytes -= len(n.data)
		}
		return inside
	})
	return nil
}

// stat is what is there.
func (f *Files) stat(name string) (fileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	if n == nil {
		return fileInfo{}, noSuchFile(name)
	}
	return fileInfo{path.Base(name), n.dir, len(n.data), n.changed}, nil
}

// list is what is in a directory, by name.
func (f *Files) list(dir string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[dir]
	switch {
	case n == nil:
		return nil, noSuchFile(dir)
	case !n.dir:
		return nil, refused(dir, "Not a directory")
	}
	var out []fs.DirEntry
	for name, n := range f.nodes {
		if name != "/" && path.Dir(name) == dir {
			out = append(out, fs.FileInfoToDirEntry(fileInfo{path.Base(name), n.dir, len(n.data), n.changed}))
		}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// fileInfo is a [fs.FileInfo].
type fileInfo struct {
	name    string
	dir     bool
	size    int
	changed time.Time
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return int64(i.size) }
func (i fileInfo) ModTime() time.Time { return i.changed }
func (i fileInfo) IsDir() bool        { return i.dir }
func (i fileInfo) Sys() any           { return nil }

func (i fileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}
