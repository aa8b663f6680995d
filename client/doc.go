// Package client is the Go side of a Sluice gateway: one [Client] holds one session and carries any number of channels.
//
// A Client connects by itself and stays connected: a lost link is made anew and the session resumed, so that nothing is lost or doubled; a
// session that the gateway does not have any more is replaced. What becomes of a channel then depends on what it leads to:
//
//   - A [Watch] and a [Log] are opened again at their cursors. What cannot be continued is said: a Watch tells of a resync before the list that
//     replaces what was known, a Log of a gap.
//   - What [Client.Exec], [Client.Attach] and [Client.PortForward] lead to exists once. It is lost with its session, and that is an [Error];
//     nothing is started a second time. While a gateway goes away, its session is kept for them, beside the next one.
//
// To follow the pods of a cluster:
//
//	c, err := client.Dial(client.Config{Address: "gateway:8443", Token: client.StaticToken(token)})
//	...
//	w := c.Watch(client.WatchRequest{Cluster: "dev", Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"}})
//	for {
//		ev, err := w.Next(ctx)
//		...
//	}
package client
