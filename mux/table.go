package mux

// action is what a frame does in a state. Every pair has one (proto/SPEC.md, "The state table").
type action uint8

const (
	endLink action = iota // the peer is broken: the link ends, the session may be resumed
	breach                // the peer broke a rule: the channel is closed, nothing else
	act                   // the frame does what it says
	discard               // a race that honest peers can produce: counted, acknowledged, not delivered
	ignore                // a race that honest peers can produce, on a channel that is over
)

var actionNames = [...]string{"end the link", "close the channel", "act", "discard", "ignore"}

func (a action) String() string { return actionNames[a] }

// Two states of an id that has no channel here.
const (
	idle = iota
	gone
)

// fromClient is what a client's frames do at a server.
var fromClient = [states][kinds]action{
	open: {
		kindOpen: breach, kindData: act, kindResize: act, kindCloseSend: act, kindClose: act, kindAck: act, kindUnknown: breach,
	},
	halfClosed: {
		kindOpen: breach, kindData: breach, kindResize: act, kindCloseSend: breach, kindClose: act, kindAck: act, kindUnknown: breach,
	},
	stopping: {
		kindOpen: discard, kindData: discard, kindResize: discard, kindCloseSend: discard, kindClose: discard, kindAck: act,
		kindUnknown: discard,
	},
	closed: {
		kindOpen: ignore, kindData: ignore, kindResize: ignore, kindCloseSend: ignore, kindClose: ignore, kindAck: act, kindUnknown: ignore,
	},
}

// fromServer is what a server's frames do at a client.
var fromServer = [states][kinds]action{
	opening: {
		kindOpened: act, kindData: breach, kindChannelState: act, kindCloseSend: breach, kindClosed: act, kindAck: act, kindUnknown: breach,
	},
	open: {
		kindOpened: breach, kindData: act, kindChannelState: act, kindCloseSend: act, kindClosed: act, kindAck: act, kindUnknown: breach,
	},
	halfClosed: {
		kindOpened: breach, kindData: breach, kindChannelState: act, kindCloseSend: breach, kindClosed: act, kindAck: act,
		kindUnknown: breach,
	},
	stopping: {
		kindOpened: discard, kindData: discard, kindChannelState: discard, kindCloseSend: discard, kindClosed: act, kindAck: act,
		kindUnknown: discard,
	},
	closed: {
		kindOpened: ignore, kindData: ignore, kindChannelState: ignore, kindCloseSend: ignore, kindClosed: ignore, kindAck: ignore,
		kindUnknown: ignore,
	},
}

// absent is what a frame does whose channel does not exist: at either role, for an id never seen and for one that is gone.
var absent = [2][2][kinds]action{
	Client: {
		idle: {}, // the server made a channel up: end the link
		gone: {
			kindOpened: ignore, kindData: ignore, kindChannelState: ignore, kindCloseSend: ignore, kindClosed: ignore, kindAck: ignore,
			kindUnknown: ignore,
		},
	},
	Server: {
		idle: {
			kindOpen: act, kindData: breach, kindResize: breach, kindCloseSend: breach, kindClose: breach, kindAck: ignore,
			kindUnknown: breach,
		},
		gone: {
			kindOpen: breach, kindData: ignore, kindResize: ignore, kindCloseSend: ignore, kindClose: ignore, kindAck: ignore,
			kindUnknown: ignore,
		},
	},
}

// actionFor looks up what a frame of the peer does on a channel.
func actionFor(role Role, s state, k kind) action {
	if role == Server {
		return fromClient[s][k]
	}
	return fromServer[s][k]
}
