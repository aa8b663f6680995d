package client

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Error is why something was refused, ended or lost. Every error of this package that came from the gateway, or was inferred about it, is one
// or wraps one; errors.As finds it. Decide by Code and Reason, never by text.
type Error = status.Error

// TokenSource gives the token for the next link. It is called for every attempt, from one goroutine at a time: it may cache, and should give
// a new token once the last has expired.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is always the same token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// Config is what a client is made with.
type Config struct {
	// Address is the gateway's, host:port.
	Address string
	// TLS says whom to trust; nil is the system's roots.
	TLS *tls.Config
	// Token gives the caller's token. Required.
	Token TokenSource
	// Name says what the client is, for the gateway's audit: printable ASCII, at most 128 characters.
	Name string
	// OnState is told what becomes of the session. It must not block, and must not call the client.
	OnState func(State)
	// Window is the credit of each channel in bytes, at least 64 KiB: 256 KiB. It bounds what the client buffers for it. That of a process or of a
	// TCP connection grows up to 1 MiB while its output is taken as fast as it comes, those of a session by 8 MiB together.
	Window int
	// MinBackoff and MaxBackoff bound the time between attempts to connect: 50 ms and 10 s. The time is drawn evenly from zero to a bound that
	// doubles, so that clients that lost one gateway together do not come back together.
	MinBackoff, MaxBackoff time.Duration
}

func (c Config) withDefaults() Config {
	if c.Window == 0 {
		c.Window = 256 << 10
	}
	if c.MinBackoff == 0 {
		c.MinBackoff = 50 * time.Millisecond
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 10 * time.Second
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Address == "" {
		errs = append(errs, errors.New("no address of a gateway"))
	}
	if c.Token == nil {
		errs = append(errs, errors.New("no source of tokens"))
	}
	if len(c.Name) > 128 || strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' || r > '~' }) {
		errs = append(errs, errors.New("the name is not printable ASCII of at most 128 characters")) // it is sent as a header
	}
	if c.Window < 64<<10 {
		errs = append(errs, errors.New("the window is below 64 KiB"))
	}
	if c.MinBackoff < 0 || c.MaxBackoff < c.MinBackoff {
		errs = append(errs, errors.New("the bounds of the backoff are not in order"))
	}
	return errors.Join(errs...)
}

// Phase is where a client's session stands.
type Phase uint8

// The phases.
const (
	// Connecting: there is no link; one is being made.
	Connecting Phase = iota
	// Connected: the link stands.
	Connected
	// Waiting: the last attempt failed, and the next comes after State.Next.
	Waiting
	// Draining: the gateway goes away; another session is about to take over.
	Draining
	// Closed: the client is at its end.
	Closed
)

func (p Phase) String() string {
	return [...]string{"connecting", "connected", "waiting", "draining", "closed"}[p]
}

// State is what has become of one of a client's sessions. There is one, and while a gateway goes away another beside it.
type State struct {
	Phase Phase
	// Session is its id, once it has one.
	Session string
	// Former says that another session has taken over, and that this one lives on only for the processes and the TCP connections in it.
	Former bool
	// Resumed says, when connected, that the session goes on where it was.
	Resumed bool
	// Attempt counts the attempts since the last link, from 1.
	Attempt int
	// Err is why the last link or attempt ended.
	Err error
	// Next is the time until the next attempt.
	Next time.Duration
}

// hello is what the client says of itself.
func (c Config) hello() *sluicev1.Hello { return &sluicev1.Hello{Client: c.Name} }
