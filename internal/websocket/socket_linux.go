package websocket

import (
	"time"

	"golang.org/x/sys/unix"
)

var _ prober = (*rawSocket)(nil)

// probe implements prober. An idle connection is asked by keepalive. One whose peer has no room is asked for room, and one with bytes on their way sends
// them again, both at intervals that double up to two minutes; newer kernels (6.15) let a socket bound them.
func (s *rawSocket) probe(idle, timeout time.Duration) {
	seconds := func(d time.Duration) int { return max(int(d/time.Second), 1) }
	_ = s.raw.Control(func(fd uintptr) { // of a closed one nothing is asked
		for _, o := range []struct{ level, name, value int }{
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(idle)},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(timeout / attempts)},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, seconds(timeout) * 1000},
		} {
			_ = unix.SetsockoptInt(int(fd), o.level, o.name, o.value) // what the system does not know it does in its own time
		}
	})
}

// gone implements prober. A host that is there acknowledges whatever comes, and a question for room that it does not have. The kernel counts since its
// last acknowledgement the times that bytes were sent again, and the questions of both kinds.
func (s *rawSocket) gone(after time.Duration) (gone bool) {
	_ = s.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return // it is no TCP connection
		}
		silent := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
		gone = max(info.Retransmits, info.Probes) >= attempts && silent >= after
	})
	return gone
}
