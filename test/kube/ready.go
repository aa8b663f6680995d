package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// readyInterval is how often a starting process is asked whether it serves.
	readyInterval = 50 * time.Millisecond
	// readyTimeout bounds the start of one process. Two to four seconds are usual;
	// the rest is for a machine that has other work.
	readyTimeout = 2 * time.Minute
	askTimeout   = 5 * time.Second
)

var errDied = errors.New("the process ended before it was ready")

// awaitReady asks url, with the bearer token unless that is empty, until it
// answers 200, the process dies, or ctx ends.
func awaitReady(ctx context.Context, p *process, client *http.Client, url, token string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(readyInterval)
	defer again.Stop()
	for {
		err := ask(ctx, client, url, token)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w", p.name, context.Cause(ctx), err)
		case <-p.done:
			return fmt.Errorf("%s: %w", p.name, errors.Join(errDied, p.err))
		case <-again.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url, token string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
