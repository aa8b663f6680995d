package bridge

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/internal/ready"
)

// Options are a bridge's times and bounds. The zero value means the defaults.
type Options struct {
	// Jitter returns a number in [0, 1) and may be called concurrently. By default a random one.
	Jitter func() float64
	// FirstBackoff bounds the wait before the first attempt, and doubles with each: 100 ms. LastBackoff is the largest bound: 30 s. The
	// wait itself is random below its bound ("full jitter"), so that what was lost together does not return together.
	FirstBackoff, LastBackoff time.Duration
	// Steady is how long an upstream must have stood to be opened again at once when it ends: 5 s.
	Steady time.Duration
	// Abrupt is the time within which an end without any event is suspicious: 1 s. Two in a row mean that the version is gone, which
	// some API servers do not say otherwise (kubernetes/kubernetes#104171).
	Abrupt time.Duration
	// Doubt is how long an API server must refuse (401, 403) a watch that it let in before until it is believed: 30 s.
	Doubt time.Duration
	// Silence is how long a new upstream may say nothing before the bridge asks whether its version lies in the future: 3 min. A live
	// API server sends a bookmark about once a minute.
	Silence time.Duration
	// Stall is how long a channel may take nothing before its upstream is closed: 10 s.
	Stall time.Duration
	// PingEvery is the silence after which the upstream is pinged: 15 s. PingTimeout is how long it may take to answer: 10 s.
	PingEvery, PingTimeout time.Duration
	// Stir is how long a client may say nothing to a process before its upstream is sent an empty message: 1 h.
	Stir time.Duration
	// BodyTimeout is how long the body of a list may bring nothing: 30 s.
	BodyTimeout time.Duration
	// PageSize is how many objects a list asks for at once: 500.
	PageSize int
	// ObjectBytes is the largest object of a list: 4 MiB. A watch has no such bound, since it holds no object.
	ObjectBytes int
	// Loops wait for the upstreams of watches, which then cost no goroutine while they are silent. Without them, and for an upstream that is
	// not a socket, each watch waits on a goroutine of its own.
	Loops *ready.Loops
	// Pods are the watches of single pods that port-forwards share. Without them each has its own.
	Pods *Pods
}

// WithDefaults is o with its zero fields set.
func WithDefaults(o Options) *Options {
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	set(&o.FirstBackoff, 100*time.Millisecond)
	set(&o.LastBackoff, 30*time.Second)
	set(&o.Steady, 5*time.Second)
	set(&o.Abrupt, time.Second)
	set(&o.Doubt, 30*time.Second)
	set(&o.Silence, 3*time.Minute)
	set(&o.Stall, 10*time.Second)
	set(&o.PingEvery, 15*time.Second)
	set(&o.PingTimeout, 10*time.Second)
	set(&o.Stir, time.Hour)
	set(&o.BodyTimeout, 30*time.Second)
	set(&o.PageSize, 500)
	set(&o.ObjectBytes, 4<<20)
	return &o
}

func set[T comparable](option *T, otherwise T) {
	var zero T
	if *option == zero {
		*option = otherwise
	}
}

// backoff is the wait before an attempt, counted from 1. The upstream's own wish comes on top of the jitter's bound, not instead of it.
func (o *Options) backoff(attempt uint32, retryAfter time.Duration) time.Duration {
	bound := o.LastBackoff
	if shift := attempt - 1; shift < 32 {
		if b := o.FirstBackoff << shift; b > 0 && b < bound {
			bound = b
		}
	}
	return retryAfter + time.Duration(o.Jitter()*float64(bound))
}
