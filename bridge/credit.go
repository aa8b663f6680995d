package bridge

import (
	"context"
	"errors"
)

// errStalled ends an upstream because the channel takes nothing.
var errStalled = errors.New("the channel takes nothing")

// quantum is the credit that is worth a read: that for a piece as large as they come.
func (w *watch) quantum() int { return w.ch.MaxPiece() + pieceCost }

// await waits until the channel takes n bytes. It gives up with errStalled when for as long as Options.Stall the channel took nothing at all.
func (w *watch) await(ctx context.Context, n int) error {
	for {
		before := w.ch.Credit()
		if before >= n {
			return nil
		}
		err := w.awaitFor(ctx, n)
		if !errors.Is(err, errStalled) || w.ch.Credit() <= before {
			return err
		}
	}
}

func (w *watch) awaitFor(ctx context.Context, n int) error {
	limited, cancel := context.WithTimeout(ctx, w.opts.Stall)
	defer cancel()
	err := w.ch.AwaitCredit(limited, n)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return errStalled
	}
	return err
}
