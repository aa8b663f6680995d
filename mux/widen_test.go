package mux

import (
	"testing"
)

// upload sends what a client's channel has credit for, n bytes a piece, and returns how much the server has received. take says that the
// server's caller takes it all.
func upload(p *pair, f *flow, n int, take bool) (bytes int) {
	for f.c.Offer(piece(n)) == 1 {
		bytes += n
	}
	for p.clientSends(9) || p.serverReceives(9) {
		continue
	}
	for take {
		ev, ok, _ := f.s.next()
		if !ok {
			break
		}
		f.s.Used(&ev)
	}
	p.settled()
	return bytes
}

func TestAWindowThatIsUsedUpAtOnceIsWidened(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	for want := uint64(MinWindow); want < 1<<20; want *= 2 {
		if f.s.in.window != want {
			t.Fatalf("the window is %d, want %d", f.s.in.window, want)
		}
		if n := upload(p, f, SmallPiece, true); n < int(want)/2 {
			t.Fatalf("%d bytes passed a window of %d", n, want)
		}
	}
	upload(p, f, SmallPiece, true)
	if f.s.in.window != 1<<20 || f.c.MaxPiece() != LargePiece {
		t.Errorf("the window is %d with pieces of %d, want 1 MiB with large ones", f.s.in.window, f.c.MaxPiece())
	}
}

func TestAWindowThatIsNotUsedUpStays(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	for range 100 { // a person who types
		f.c.Offer(piece(1))
		for p.clientSends(9) || p.serverReceives(9) {
			continue
		}
		ev, _, _ := f.s.next()
		f.s.Used(&ev)
		p.settled()
	}
	if f.s.in.window != MinWindow {
		t.Errorf("the window is %d after keystrokes", f.s.in.window)
	}
	upload(p, f, SmallPiece, false) // who does not take what comes is sent no more of it
	upload(p, f, SmallPiece, false)
	if f.s.in.window != MinWindow {
		t.Errorf("the window is %d of a channel that takes nothing", f.s.in.window)
	}
}

func TestWidenedWindowsAreBoundedInASession(t *testing.T) {
	p := connected(t, Config{SessionBytes: 2 << 20}, 8)
	widen := func() (sum int) {
		for _, f := range p.flows {
			for range 8 {
				upload(p, f, SmallPiece, true)
			}
			sum += f.s.in.widened
		}
		return sum
	}
	if sum := widen(); sum > 2<<20 || sum < 1<<20 || p.server.promised.Held() != sum {
		t.Errorf("windows are widened by %d bytes, %d are promised; at most 2 MiB may be", sum, p.server.promised.Held())
	}
	for _, f := range p.flows[:4] {
		p.finish(f, nil, false)
	}
	p.settled()
	sum := 0
	for _, f := range p.flows[4:] {
		sum += f.s.in.widened
	}
	if got := p.server.promised.Held(); got != sum {
		t.Errorf("%d bytes are promised after half of the channels have ended, want %d", got, sum)
	}
}

func TestAResumeRestatesAWidenedWindow(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	upload(p, f, SmallPiece, true)
	window := f.s.in.window
	p.cut(true, true)
	p.dial()
	p.settled()
	if f.c.out.window != window || window == MinWindow {
		t.Errorf("the client knows a window of %d after a resume, the server's is %d", f.c.out.window, window)
	}
	if n := upload(p, f, SmallPiece, true); n < int(window)/2 {
		t.Errorf("%d bytes passed after the resume", n)
	}
}

// download sends what a server's channel has credit for, n bytes a piece, to a client that takes it all and gives the memory back.
func download(p *pair, f *flow, n int) (bytes int) {
	for f.s.Offer(piece(n)) == 1 {
		bytes += n
	}
	for p.serverSends(9) || p.clientReceives(9) {
		continue
	}
	for {
		ev, ok, _ := f.c.next()
		if !ok {
			break
		}
		f.c.Used(&ev)
		ev.Free()
	}
	p.settled()
	return bytes
}

func TestAClientsWindowIsWidenedOnlyWhenAsked(t *testing.T) {
	p := connected(t, Config{SessionBytes: 2 << 20}, 2)
	asked, other := p.flows[0], p.flows[1]
	asked.c.Widen()
	for range 12 {
		download(p, asked, SmallPiece)
		download(p, other, SmallPiece)
	}
	if asked.c.in.window != 1<<20 || other.c.in.window != MinWindow {
		t.Errorf("the windows are %d and %d, want 1 MiB and %d", asked.c.in.window, other.c.in.window, MinWindow)
	}
	if got := p.client.promised.Held(); got != 1<<20-MinWindow {
		t.Errorf("%d bytes are promised, want what the one window was widened by", got)
	}
	p.finish(asked, nil, false)
	p.settled()
	if got := p.client.promised.Held(); got != 0 {
		t.Errorf("%d bytes are promised after the channel's end", got)
	}
	asked.c.Widen()
	if asked.c.in.most != 0 {
		t.Error("a window is to be widened after the channel's end")
	}
}
