//go:build unix

// Package live is an API server, its store and a node in earnest (test/kube), with a pod for a process of the benchmark that pours.
//
// What it pours is event.Bytes. The node starts it as the benchmark's own executable, and it tells over a connection to who has started the
// cluster how much it has poured.
package live

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/bench/event"
	"github.com/sluice-gateway/sluice/test/kube"
)

// Role is what the benchmark's executable is started as in the pod, with the address of the cluster's owner after it.
const Role = "pour"

// Pod is the name of the pod, in kube.Namespace.
const Pod = "shell"

// Cluster is a running cluster with a pod. Whoever has started it must close it.
type Cluster struct {
	*kube.Cluster // Immutable, as the rest.
	counts        *net.TCPListener

	pouring net.Conn // Owned by who stops and closes. nil before Stop.
}

// Start starts a cluster, whose programs are built where they are not in the user's cache. ctx bounds the start.
func Start(ctx context.Context) (_ *Cluster, err error) {
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.counts, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if c.Cluster, err = kube.Start(ctx, kube.Options{}); err != nil {
		return nil, err
	}
	if _, err = c.StartNode(ctx); err != nil {
		return nil, fmt.Errorf("start a node: %w", err)
	}
	err = c.RunPod(ctx, kube.Pod{Namespace: kube.Namespace, Name: Pod, Containers: []kube.Container{{Name: "main"}}})
	return c, err
}

// Command is what pours in the pod, given the benchmark's executable. One process at a time may run it.
func (c *Cluster) Command(executable string) []string {
	return []string{executable, Role, c.counts.Addr().String()}
}

// Stop has the process pour no more, and returns how many bytes it has, when the last of them is taken. The process stays until Close.
func (c *Cluster) Stop(ctx context.Context) (poured uint64, err error) {
	if until, ok := ctx.Deadline(); ok {
		if err := c.counts.SetDeadline(until); err != nil {
			return 0, fmt.Errorf("bound the wait: %w", err)
		}
	}
	if c.pouring, err = c.counts.Accept(); err != nil {
		return 0, fmt.Errorf("nothing has poured: %w", err)
	}
	if until, ok := ctx.Deadline(); ok {
		if err := c.pouring.SetDeadline(until); err != nil {
			return 0, fmt.Errorf("bound the wait: %w", err)
		}
	}
	var said [8]byte
	if _, err = c.pouring.Write([]byte{0}); err == nil {
		_, err = io.ReadFull(c.pouring, said[:])
	}
	if err != nil {
		return 0, fmt.Errorf("what pours does not say how much: %w", err)
	}
	return binary.BigEndian.Uint64(said[:]), nil
}

// Close ends the process and the cluster.
func (c *Cluster) Close() (err error) {
	if c.pouring != nil {
		err = c.pouring.Close()
	}
	if c.counts != nil {
		err = errors.Join(err, c.counts.Close())
	}
	if c.Cluster != nil {
		err = errors.Join(err, c.Cluster.Stop())
	}
	return err
}

// Pour is the process in the pod: it pours until the cluster's owner, at an address, says that it is enough, and returns when the owner leaves.
func Pour(owner string, out io.Writer) error {
	conn, err := net.Dial("tcp", owner)
	if err != nil {
		return fmt.Errorf("reach the cluster's owner: %w", err)
	}
	defer conn.Close()
	var enough atomic.Bool
	go func() {
		_, _ = conn.Read(make([]byte, 1)) // its failure is the owner's end, which is enough too
		enough.Store(true)
	}()
	at := uint64(0)
	for !enough.Load() {
		n, err := out.Write(event.Bytes(at, event.MaxBytes))
		at += uint64(n)
		if err != nil {
			return fmt.Errorf("pour: %w", err)
		}
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, at)); err != nil {
		return fmt.Errorf("say how much: %w", err)
	}
	_, _ = io.Copy(io.Discard, conn) // until the owner leaves
	return nil
}
