package bridge

import (
	"context"
	"errors"
)

// errStalled ends an upstream because the channel takes nothing.
var errStalled = errors.New("the channel takes nothing")

// quantum is the credit that is worth a read: that for a piece as large as they come.
func (f *follower) quantum() int { return f.ch.MaxPiece() + pieceCost }

// await waits until the channel takes n bytes. It gives up with errStalled when for as long as Options.Stall the channel took nothing at all.
func (f *follower) await(ctx context.Context, n int) error {
	for {
		before := f.ch.Credit()
		if before >= n {
			return nil
		}
		err := f.awaitFor(ctx, n)
		if !errors.Is(err, errStalled) || f.ch.Credit() <= before {
			return err
		}
	}
}

func (f *follower) awaitFor(ctx context.Context, n int) error {
	limited, cancel := context.WithTimeout(ctx, f.opts.Stall)
	defer cancel()
	err := f.ch.AwaitCredit(limited, n)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return errStalled
	}
	return err
}
