package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-gateway/sluice/server"
)

// ready is what a ready file holds: where a gateway that has begun to serve is reached. The field names are fixed.
type ready struct {
	GRPCAddr  string `json:"grpcAddr"`
	WebAddr   string `json:"webAddr"` // empty without a web port
	AdminAddr string `json:"adminAddr"`
	CAFile    string `json:"caFile"`
	Token     string `json:"token,omitempty"`
	Cluster   string `json:"cluster,omitempty"`
}

// addresses are where a server listens.
func addresses(s *server.Server, caFile string) ready {
	r := ready{GRPCAddr: s.GRPCAddr().String(), AdminAddr: s.AdminAddr().String(), CAFile: caFile}
	if web := s.WebAddr(); web != nil {
		r.WebAddr = web.String()
	}
	return r
}

// write puts the object at path, readable by its owner alone. Whoever waits for the file never sees a part of it. The returned function
// removes it again, since what it names is gone when the gateway is.
func (r ready) write(path string) (remove func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the ready file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600 from its first moment
	if err != nil {
		return nil, fmt.Errorf("write the ready file: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the ready file: %w", err), os.Remove(f.Name()))
	}
	return func() error { return removeFile(path) }, nil
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}
