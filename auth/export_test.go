package auth

import "os"

// HeldRevocations is how many revocations are in memory, those that are over included.
func HeldRevocations(r *Revocations) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count
}

// ReplaceFile makes r write to f from now on, and returns what it wrote to before.
func ReplaceFile(r *Revocations, f *os.File) *os.File {
	r.writing.Lock()
	defer r.writing.Unlock()
	before := r.file.file
	r.file.file = f
	return before
}
