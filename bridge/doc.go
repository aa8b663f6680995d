// Package bridge joins a channel to its upstream: it opens what a target names at an API server and pumps both ways until one side ends.
//
// A bridge knows no session and no transport of frames. It consumes a [Channel], which takes what the upstream sent, within credit, and an
// [Upstream], which is one cluster with one principal's credential. [Run] is the whole life of one channel.
//
// A watch outlives its upstreams. API servers end watches every half hour to an hour; the bridge opens the next at the version of the last
// event that the channel has taken, and the client sees nothing of it. What it does see is said by ChannelState, in order with the events:
// RECONNECTING and CONNECTED when the upstream could not be had at once, RESYNC_BEGIN and RESYNC_END around a fresh list when the changes
// since the last event are no longer to be had. Either begins a message anew: pieces of a message whose end did not come before a
// ChannelState belong to nothing and are dropped by the receiver.
package bridge
