package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

// newLog is a log of a form, from a level on.
func newLog(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return nil, errors.New("the log's format is neither json nor text")
}

// openAudit is the audit, JSON a line, and what closes it.
func openAudit(sys system, destination string) (*slog.Logger, func() error, error) {
	none := func() error { return nil }
	switch destination {
	case config.Stdout:
		return slog.New(slog.NewJSONHandler(sys.stdout, nil)), none, nil
	case config.Stderr:
		return slog.New(slog.NewJSONHandler(sys.stderr, nil)), none, nil
	}
	f, err := os.OpenFile(destination, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, none, fmt.Errorf("audit.destination: %w", err)
	}
	return slog.New(slog.NewJSONHandler(f, nil)), f.Close, nil
}
