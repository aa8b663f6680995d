package threats

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/test/rig"
)

// connect is a call that lasts; on the web port there is none without a body.
const connect = "/sluice.v1.GatewayService/Connect"

// T-C1: rapid reset (CVE-2023-44487). Calls that are begun and reset at once, by somebody with a token: never more of them run at a time than
// limits.streams allows, others are served, and nothing is left.
func TestT_C1_RapidReset(t *testing.T) {
	onBothPorts(t, rig.Options{}, func(t *testing.T, r *rig.Rig, p port) {
		const conns, calls = 4, 400
		token := r.Token("mallory")
		before := used(t)
		others := watchOver(t, p)
		var attackers sync.WaitGroup
		for range conns {
			c := speak(t, r, p)
			attackers.Go(func() {
				defer c.awaitEnd(context.Background())
				defer c.close()
				n, err := c.flood(calls, func(int) error {
					id, err := c.stream(false, c.block(request(p.addr, connect, token)...))
					if err != nil {
						return err
					}
					return c.frames.WriteRSTStream(id, http2.ErrCodeCancel)
				})
				t.Logf("%d calls were begun and reset: %v", n, err)
			})
		}
		attackers.Wait()
		others.done(p)
		before.returns()
		before.grew(16 << 20)
	})
}

// T-C1, the variant of CVE-2025-8671: the server is made to reset, by windows that overflow.
func TestT_C1_ResetsThatTheServerMakes(t *testing.T) {
	onBothPorts(t, rig.Options{}, func(t *testing.T, r *rig.Rig, p port) {
		const calls = 1500
		token := r.Token("mallory")
		before := used(t)
		others := watchOver(t, p)
		c := speak(t, r, p)
		n, err := c.flood(calls, func(int) error {
			id, err := c.stream(false, c.block(request(p.addr, connect, token)...))
			if err != nil {
				return err
			}
			return c.frames.WriteWindowUpdate(id, 1<<31-1)
		})
		t.Logf("%d calls were begun: %v; %d resets", n, err, c.resets.Load())
		c.close()
		c.awaitEnd(within(t))
		others.done(p)
		before.returns()
		before.grew(16 << 20)
	})
}

// T-C2: a header without an end (CVE-2023-45288). The server gives up on the connection, however long it would go on.
func TestT_C2_AHeaderWithoutAnEnd(t *testing.T) {
	onBothPorts(t, rig.Options{}, func(t *testing.T, r *rig.Rig, p port) {
		const most = 4 << 20 // what a server that does not look takes is without bound
		before := used(t)
		c := speak(t, r, p)
		block := c.block(request(p.addr, connect, "")...)
		if err := c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}); err != nil {
			t.Fatal(err)
		}
		part := c.block(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 8<<10), Sensitive: true})
		n, err := c.flood(most/len(part), func(int) error { return c.frames.WriteContinuation(1, false, part) })
		if !c.awaitEnd(within(t)) {
			t.Errorf("the server took %d bytes of one header and waits for more", n*len(part))
		}
		t.Logf("%d KiB were sent: %v", n*len(part)>>10, err)
		c.close()
		before.grew(4 << 20)
		if err := p.call(within(t)); err != nil {
			t.Error(err)
		}
		before.returns()
	})
}

// T-C3: a header that is small on the wire and large when decoded (HPACK), in as many streams as there may be, whose answers nobody takes.
func TestT_C3_AHeaderThatGrowsWhenDecoded(t *testing.T) {
	onBothPorts(t, rig.Options{}, func(t *testing.T, r *rig.Rig, p port) {
		const conns, streams, repeats = 3, 100, 4000 // 4,000 times 4 KiB, 300 times: 4.5 GiB
		token := r.Token("mallory")
		before := used(t)
		others := watchOver(t, p)
		var peers []*peer
		for range conns {
			c := speak(t, r, p, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			peers = append(peers, c)
			large := hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 4000)}
			fields := append(request(p.addr, listClusters, token), large)
			n, err := c.flood(streams, func(int) error {
				block := append(c.block(fields...), strings.Repeat("\xbe", repeats)...) // the newest entry of the table (RFC 7541 section 6.1)
				_, err := c.stream(true, block)
				return err
			})
			if err == nil && !await(within(t), func() bool { return c.answered.Load()+c.resets.Load() >= int64(n) || c.gone() }) {
				t.Errorf("%d of %d bombs were answered, %d reset", c.answered.Load(), n, c.resets.Load())
			}
		}
		before.grew(64 << 20)
		others.done(p)
		for _, c := range peers {
			if n := c.accepted.Load(); n != 0 {
				t.Errorf("%d bombs were taken for headers", n)
			}
			c.close()
			c.awaitEnd(within(t))
		}
		before.returns()
	})
}

// gone reports that the server has ended the connection.
func (c *peer) gone() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// T-C4: frames that cost the sender nothing and the server an answer, from a peer that takes no answer, and from one that does (CVE-2019-9512,
// 9514, 9515, 9518).
func TestT_C4_FloodsOfFramesWithoutData(t *testing.T) {
	type flood struct {
		answered bool // each of them, by the server
		write    func(f *http2.Framer, i int) error
	}
	floods := map[string]flood{
		"PING":       {true, func(f *http2.Framer, i int) error { return f.WritePing(false, [8]byte{byte(i)}) }},
		"SETTINGS":   {true, func(f *http2.Framer, _ int) error { return f.WriteSettings() }},
		"RST_STREAM": {false, func(f *http2.Framer, _ int) error { return f.WriteRSTStream(1, http2.ErrCodeCancel) }},
		"PRIORITY": {false, func(f *http2.Framer, i int) error {
			return f.WritePriority(uint32(2*i+1), http2.PriorityParam{Weight: 1})
		}},
		"empty DATA":    {false, func(f *http2.Framer, _ int) error { return f.WriteData(1, false, nil) }},
		"WINDOW_UPDATE": {false, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(1, 1) }},
		"unknown": {false, func(f *http2.Framer, i int) error {
			return f.WriteRawFrame(http2.FrameType(0x0a+i%6), 0, 0, []byte("x"))
		}},
	}
	onBothPorts(t, rig.Options{}, func(t *testing.T, r *rig.Rig, p port) {
		const frames, some, many = 1000, 10, 400 // many are more than the buffers of two sockets hold answers to
		token := r.Token("mallory")
		run := func(t *testing.T, f flood, batches int, begin func(*testing.T, *rig.Rig, port, ...http2.Setting) *peer) {
			var batch bytes.Buffer
			framer := http2.NewFramer(&batch, nil)
			framer.AllowIllegalWrites = true
			for i := range frames {
				if err := f.write(framer, i); err != nil {
					t.Fatal(err)
				}
			}
			before := used(t)
			others := watchOver(t, p)
			c := begin(t, r, p)
			if _, err := c.stream(false, c.block(request(p.addr, connect, token)...)); err != nil {
				t.Fatal(err)
			}
			n, err := c.flood(batches, func(int) error { _, err := c.conn.Write(batch.Bytes()); return err })
			if err == nil && c.reads {
				err = c.caughtUp()
			}
			t.Logf("%d frames were taken: %v", n*frames, err)
			before.grew(16 << 20) // answers that were kept would take three times as much
			others.done(p)
			c.close()
			before.returns()
		}
		for name, f := range floods {
			t.Run(name, func(t *testing.T) { run(t, f, some, speak) })
			if f.answered {
				t.Run(name+", whose answers nobody takes", func(t *testing.T) { run(t, f, many, mute) })
			}
		}
	})
}

// caughtUp waits until the server has seen everything that was written, or has ended the connection, which the error says.
func (c *peer) caughtUp() error {
	if err := c.frames.WritePing(false, lastPing); err != nil {
		return err
	}
	if !await(within(c.t), func() bool { return c.ponged.Load() || c.gone() }) {
		c.t.Error("the server neither answers nor hangs up")
	}
	if c.gone() {
		return net.ErrClosed
	}
	return nil
}

// lastPing is what tells an answer from those to a flood.
var lastPing = [8]byte{'f', 'i', 'n', 'i', 's', 'h', 'e', 'd'}
