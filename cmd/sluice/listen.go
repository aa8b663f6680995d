package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// listenFlags are the flags that say where a gateway is reached.
type listenFlags struct {
	grpc, web, admin, readyFile string
}

func (l *listenFlags) add(cmd *cobra.Command, grpc, web, admin string) {
	f := cmd.Flags()
	f.StringVar(&l.grpc, "grpc-addr", grpc, "where gRPC listens, as `HOST:PORT`; port 0 takes a free one")
	f.StringVar(&l.web, "web-addr", web, "where the web port listens, as `HOST:PORT`: gRPC-Web, Connect and REST; an empty one switches it off")
	f.StringVar(&l.admin, "admin-addr", admin, "where metrics, health and profiles listen, as `HOST:PORT`, without authentication")
	f.StringVar(&l.readyFile, "ready-file", "", "write a JSON object with the addresses to this `FILE` (mode 0600) once the gateway serves")
	files(cmd, "ready-file")
}

// errBusyOnWindows is WSAEADDRINUSE; package syscall has another number for EADDRINUSE there than the system has.
const errBusyOnWindows = syscall.Errno(10048)

// orFree is an address of loopback, or one with a free port where that one is busy.
func orFree(ctx context.Context, addr string) (free string, busy bool, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		return addr, false, l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, errBusyOnWindows) {
		return "", false, fmt.Errorf("listen: %w", err)
	}
	host, _, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(host, "0"), true, nil
}

// loopback refuses an address that others than this machine can reach.
func loopback(flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--%s %q is no HOST:PORT, such as 127.0.0.1:8443", flag, addr)
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("--%s %q is not on loopback, and dev is for this machine alone; `sluice serve` is for others", flag, addr)
}

// quoted is s as a POSIX shell reads it back.
func quoted(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
