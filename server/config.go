package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/bridge"
	"github.com/sluice-gateway/sluice/cluster"
	"github.com/sluice-gateway/sluice/mux"
	"github.com/sluice-gateway/sluice/server/web"
)

// Config is what a server is made with.
type Config struct {
	// GRPCAddr is where gRPC listens, such as ":8443".
	GRPCAddr string
	// AdminAddr is where metrics, health and profiles listen, without authentication: keep it on loopback.
	AdminAddr string
	// WebAddr is where the web port listens (gRPC-Web, Connect, REST); empty for none.
	WebAddr string
	// Web is who may use the web port from a browser.
	Web web.Config
	// TLS is the server's side of TLS. Required: tokens travel over it.
	TLS *tls.Config
	// Reflection lets anybody ask which services there are, as grpcurl does.
	Reflection bool
	// DrainTimeout is how long sessions may go on after the context of Serve has ended: 0 ends them at once.
	DrainTimeout time.Duration
	// Limits are the bounds of everything a caller can make large.
	Limits Limits
	// Bridge is how upstreams are kept.
	Bridge bridge.Options

	// Authenticator verifies every caller. Required.
	Authenticator auth.Authenticator
	// Clusters are the clusters behind the gateway. Required.
	Clusters *cluster.Set
	// Services are served beside Sluice's own, each with who may call it; none by default.
	Services []Service
	// Version is what the binary calls itself.
	Version string
	// Log takes what operators read; Audit one line for each channel's beginning and end. nil is slog's default.
	Log, Audit *slog.Logger
	// Tracer makes the spans of calls, channels and requests to API servers; nil makes none.
	Tracer trace.TracerProvider
}

// Limits are the bounds of everything a caller can make large. Zero fields take the defaults.
type Limits struct {
	// Sessions is limits.sessions, in this replica: 10,000.
	Sessions int
	// PrincipalSessions is limits.principal_sessions, of one principal in this replica: 100.
	PrincipalSessions int
	// SessionChannels is limits.session_channels, open in one session: 1,024.
	SessionChannels int
	// Channels is limits.channels, open in this replica: 20,000.
	Channels int
	// Streams is limits.streams, the concurrent calls of one client's connection: 100.
	Streams int
	// MessageBytes is limits.message_bytes, the largest message that is put together from pieces: 4 MiB.
	MessageBytes int
	// WindowBytes is limits.window_bytes, the largest window of a channel: 1 MiB.
	WindowBytes int
	// SessionBytes is limits.session_bytes, what one session's channels may hold to be sent or acknowledged: 8 MiB.
	SessionBytes int
	// HeldBytes is limits.held_bytes, the same for all sessions: a quarter of GOMEMLIMIT, or 1 GiB without one.
	HeldBytes int
	// HeaderBytes is limits.header_bytes, the largest header of a call: 16 KiB.
	HeaderBytes int
	// DetachTTL is limits.detach_ttl, how long a session outlives its link: 120 s.
	DetachTTL time.Duration
	// ClusterDials is limits.cluster_dials, upstreams of one cluster that are dialled at a time: 64.
	ClusterDials int
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Sessions, 10_000)
	set(&l.PrincipalSessions, 100)
	set(&l.SessionChannels, 1024)
	set(&l.Channels, 20_000)
	set(&l.Streams, 100)
	set(&l.MessageBytes, 4<<20)
	set(&l.WindowBytes, 1<<20)
	set(&l.SessionBytes, 8<<20)
	set(&l.HeldBytes, quarterOfMemory())
	set(&l.HeaderBytes, 16<<10)
	set(&l.ClusterDials, 64)
	if l.DetachTTL == 0 {
		l.DetachTTL = 120 * time.Second
	}
	return l
}

// quarterOfMemory is a quarter of GOMEMLIMIT, or 1 GiB when there is none.
func quarterOfMemory() int {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		return int(limit / 4)
	}
	return 1 << 30
}

// Validate reports all that is wrong at once, as New does. Zero fields are right.
func (l Limits) Validate() error { return l.withDefaults().validate() }

// validate reports all that is wrong.
func (l Limits) validate() error {
	var errs []error
	least := func(name string, v, least int) {
		if v < least {
			errs = append(errs, fmt.Errorf("%s is %d, must be at least %d", name, v, least))
		}
	}
	least("limits.sessions", l.Sessions, 1)
	least("limits.principal_sessions", l.PrincipalSessions, 1)
	least("limits.session_channels", l.SessionChannels, 1)
	if l.SessionChannels > mux.MaxChannels {
		errs = append(errs, fmt.Errorf("limits.session_channels is %d, must be at most %d: a resume names all channels in one batch",
			l.SessionChannels, mux.MaxChannels))
	}
	least("limits.channels", l.Channels, 1)
	least("limits.streams", l.Streams, 1)
	least("limits.message_bytes", l.MessageBytes, mux.MinWindow)
	least("limits.window_bytes", l.WindowBytes, mux.MinWindow)
	least("limits.session_bytes", l.SessionBytes, mux.MinWindow)
	least("limits.held_bytes", l.HeldBytes, l.SessionBytes)
	least("limits.header_bytes", l.HeaderBytes, 16<<10) // a token of limits.token_bytes and what surrounds it
	least("limits.cluster_dials", l.ClusterDials, 1)
	if l.DetachTTL < time.Second || l.DetachTTL > time.Hour {
		errs = append(errs, fmt.Errorf("limits.detach_ttl is %v, must be between 1s and 1h", l.DetachTTL))
	}
	return errors.Join(errs...)
}

// mux is the part of the limits that a session keeps.
func (l Limits) mux(b *mux.Budget) mux.Config {
	return mux.Config{
		Channels: l.SessionChannels, MessageBytes: l.MessageBytes, WindowBytes: l.WindowBytes, SessionBytes: l.SessionBytes,
		DetachTTL: l.DetachTTL, Budget: b,
	}
}

// validate reports all that is wrong.
func (c Config) validate() error {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	require(c.GRPCAddr != "", "no gRPC address")
	require(c.AdminAddr != "", "no admin address")
	require(c.TLS != nil, "no TLS configuration: tokens must not travel in the clear")
	require(c.Authenticator != nil, "no authenticator")
	require(c.Clusters != nil, "no clusters")
	require(c.DrainTimeout >= 0, "a negative drain timeout")
	for i, s := range c.Services {
		errs = append(errs, s.validate(i))
	}
	return errors.Join(append(errs, c.Limits.validate(), c.Web.Validate())...)
}
