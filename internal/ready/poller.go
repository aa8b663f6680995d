package ready

// poller is what the system offers for waiting for many descriptors. It tells of edges: of each arrival once. add, remove and wake are
// safe for concurrent use with all but close; run and poll are the loop's goroutine's.
type poller interface {
	// add watches a descriptor for bytes and for its end. Its events carry the slot, which is not negative.
	add(fd int, slot int32) error
	// remove forgets a descriptor, which is open: poll does not tell of it again.
	remove(fd int) error
	// run calls turns until that returns true. After a false it waits until there is something for poll, or a wake: what has come since
	// the last poll that said all, or was woken for since, is not waited for.
	run(turns func() bool) error
	// poll returns, without waiting, what has come; all says that nothing was left behind. The events are valid until the next poll.
	poll() (events []event, all bool, err error)
	// wake makes run call turns.
	wake() error
	close() error
}

// event says that something has come to a descriptor.
type event struct {
	slot   int32
	hangup bool // the peer has ended its direction, or the socket has failed
}
