package mux

import (
	"context"
	"testing"
)

// waysToWait are those in which a producer waits for credit.
var waysToWait = map[string]func(c *Channel, ctx context.Context, n int) error{
	"await":  (*Channel).AwaitCredit,
	"notify": notified,
}

// notified waits by being told.
func notified(c *Channel, ctx context.Context, n int) error {
	told := make(chan struct{}, 1)
	wake := func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	for {
		wait, err := c.NotifyCredit(n, wake)
		if !wait {
			return err
		}
		select {
		case <-told:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestWhoHasCreditIsNotTold proves that a call of NotifyCredit that is answered at once leaves nothing behind, not even of the call before.
func TestWhoHasCreditIsNotTold(t *testing.T) {
	p := connected(t, Config{}, 1)
	c := p.flows[0].s
	fill(c, 1000)
	if wait, err := c.NotifyCredit(MinWindow, func() { t.Error("told of a wait that was over") }); !wait || err != nil {
		t.Fatalf("NotifyCredit: %v, %v", wait, err)
	}
	if wait, err := c.NotifyCredit(-MinWindow, func() { t.Error("told of credit that was there") }); wait || err != nil {
		t.Errorf("NotifyCredit: %v, %v", wait, err)
	}
	c.Finish(nil, nil, true)
	if wait, err := c.NotifyCredit(1, func() { t.Error("told of an end that was there") }); wait || err == nil {
		t.Errorf("NotifyCredit after the end: %v, %v", wait, err)
	}
}
