package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a certificate and its key in two files, read again when they change: a renewed one is used for new connections without a
// restart. It is safe for concurrent use.
type Certificate struct {
	// Immutable after LoadCertificate.
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards everything below
	cert    *tls.Certificate
	stamp   [2]stamp
	checked time.Time
}

// stamp tells a file's versions apart.
type stamp struct {
	modified time.Time
	size     int64
}

// checkEvery is how often the files are looked at, at most.
const checkEvery = time.Second

// LoadCertificate reads a certificate and its key (PEM).
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// TLS is a server's configuration with the certificate.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}

// current is the certificate to show now. A pair that cannot be read, as in the middle of its replacement, changes nothing.
func (c *Certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkEvery {
		c.checked = now
		c.refresh()
	}
	return c.cert
}

// refresh loads the pair again if a file has changed. mu is held.
func (c *Certificate) refresh() {
	stamps, err := c.stamps()
	if err == nil && stamps == c.stamp {
		return
	}
	if err == nil {
		err = c.load()
	}
	if err != nil {
		c.log.Error("the certificate cannot be loaded again; the one before stays in use", "error", err)
		return
	}
	c.log.Info("loaded the certificate again", "file", c.certFile)
}

// load reads the pair. The stamps are taken first: a change in between is seen the next time.
func (c *Certificate) load() error {
	stamps, err := c.stamps()
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s and key %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.stamp = &cert, stamps
	return nil
}

func (c *Certificate) stamps() (out [2]stamp, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return out, fmt.Errorf("look at %s: %w", name, err)
		}
		out[i] = stamp{info.ModTime(), info.Size()}
	}
	return out, nil
}
