package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// authoritiesAge is when the file is looked at again, once it is asked for.
	authoritiesAge = time.Second

	// maxAuthoritiesBytes bounds the file.
	maxAuthoritiesBytes = 1 << 20
)

// authorities are the certificates in a file that may have signed others. What
// the file holds counts from a second after it was written.
type authorities struct {
	// Immutable after newAuthorities.
	file   string
	now    func() time.Time
	logger *slog.Logger

	// Guarded by mu.
	mu      sync.Mutex
	checked time.Time
	text    []byte // what pool was made of
	pool    *x509.CertPool
	failing bool // the last look was in vain, and was logged
}

func newAuthorities(file string, o options) (*authorities, error) {
	a := &authorities{file: file, now: o.now, logger: o.logger, checked: o.now()}
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// current returns the authorities of now. A file that cannot be read, as in the
// midst of its replacement, changes nothing.
func (a *authorities) current() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if age := now.Sub(a.checked); age >= 0 && age < authoritiesAge {
		return a.pool
	}
	a.checked = now
	err := a.load()
	if err != nil && !a.failing {
		a.logger.Error("authorities of client certificates not read again; those before stay in use", "error", err)
	}
	a.failing = err != nil
	return a.pool
}

// load makes the pool of the file, if that has changed. The caller holds mu, or
// is the only one.
func (a *authorities) load() error {
	text, err := readAtMost(a.file, maxAuthoritiesBytes)
	if err != nil {
		return fmt.Errorf("read authorities: %w", err)
	}
	if a.pool != nil && bytes.Equal(text, a.text) {
		return nil
	}
	pool, count, err := parseAuthorities(text)
	if err != nil {
		return fmt.Errorf("read authorities of %s: %w", a.file, err)
	}
	if a.pool != nil {
		a.logger.Info("read authorities of client certificates again", "file", a.file, "certificates", count)
	}
	a.text, a.pool = text, pool
	return nil
}

// parseAuthorities makes a pool of all certificates in the text, or of none.
func parseAuthorities(text []byte) (pool *x509.CertPool, count int, err error) {
	pool = x509.NewCertPool()
	begun := bytes.Count(text, []byte("-----BEGIN CERTIFICATE-----"))
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, 0, fmt.Errorf("certificate %d: %w", count+1, err)
		}
		pool.AddCert(certificate)
		count++
	}
	switch {
	case count == 0:
		return nil, 0, errors.New("no certificate in PEM")
	case count != begun:
		return nil, 0, fmt.Errorf("%d of %d certificates in PEM are cut off", begun-count, begun)
	}
	return pool, count, nil
}

// readAtMost reads a file of no more bytes than that.
func readAtMost(name string, most int64) (text []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return text, err
}
